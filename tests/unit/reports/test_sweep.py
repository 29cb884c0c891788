"""The Pareto front of a sweep, its order of rows, and what its plots join."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from wfc_dist.compare import sweep
from wfc_dist.compare.results import SystemRow, Value
from wfc_dist.compare.sweep import Sweep
from wfc_dist.reports.sweep import front_layers, joined, swept, values_of


def test_front_layers_are_peeled_one_after_the_other() -> None:
    places = {"a": (0, 3), "b": (1, 1), "c": (3, 0), "d": (1, 2), "e": (4, 4), "tie": (1, 1)}
    assert front_layers(places) == {"a": 1, "b": 1, "c": 1, "tie": 1, "d": 2, "e": 3}


def test_the_front_is_what_no_other_point_dominates() -> None:
    values = [(x * 7 % 11, x * 5 % 13) for x in range(40)]
    layers = front_layers({str(number): place for number, place in enumerate(values)})
    for number, (x, y) in enumerate(values):
        beaten = any(a <= x and b <= y and (a < x or b < y) for a, b in values)
        assert (layers[str(number)] > 1) == beaten
    assert front_layers({}) == {} and front_layers({"one": (1.0,), "two": (2.0,)}) == {"one": 1, "two": 2}


def test_lines_join_points_that_differ_in_one_key() -> None:
    grid = [{"every": every, "lr": lr} for every, lr in itertools.product([3, 1, 2], [0.1, 0.2])]
    points = {f"{point['every']}/{point['lr']}": point for point in grid if point != {"every": 2, "lr": 0.2}}
    assert joined(points, "every", values_of(points, "every")) == [["1/0.1", "2/0.1", "3/0.1"], ["1/0.2", "3/0.2"]]
    assert joined(points, "lr", values_of(points, "lr")) == [["3/0.1", "3/0.2"], ["1/0.1", "1/0.2"]]
    assert values_of({"a": {"k": ["z"]}, "b": {"k": ["a"]}}, "k") == [["z"], ["a"]]


def row(system: str, kept: float, learned: float) -> SystemRow:
    made = {name: Value(value, value, value, None, None, None, None, None, None, 20, "same")
            for name, value in (("protected_relative", kept), ("new_relative", learned))}  # fmt: skip
    return SystemRow(system, "", [1], 1, 1.0, made)


@pytest.fixture
def grid(tmp_path: Path) -> Sweep:
    data: dict[str, Any] = {name: {"source": name, "splits": {"train": "t", "test": "e"}} for name in "xy"}
    tree = {"run": {"name": "s"}, "base": {"model": "m"}, "datasets": data,
            "sweep": {"over": {"every": [1, 2], "lora.r": [4, 8]}}}  # fmt: skip
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(tree))
    return sweep.load(tmp_path / "s.yaml")


def test_rows_stand_in_the_order_of_their_fronts(grid: Sweep) -> None:
    rows = [row("untouched", 0, 0), row("every-1_r-4", 0.1, -0.1), row("every-1_r-8", 0.2, -0.3), row("every-2_r-4", 0.0, -0.2),
            row("every-2_r-8", 0.3, float("nan"))]  # fmt: skip
    found = swept(grid, rows)
    assert [one.system for one in found.rows] == ["untouched", "every-1_r-8", "every-2_r-4", "every-1_r-4", "every-2_r-8"]
    assert found.front == ["every-1_r-8", "every-2_r-4"]
    assert "every-2_r-4 (every 2, lora.r 4)" in found.sentence
    (section,) = found.sections
    svg = section.parts[0].svg
    assert all(text in svg for text in (">every<", ">lora.r<", ">4<", ">8<"))


def test_a_sweep_of_one_done_point_has_no_plot(grid: Sweep) -> None:
    assert swept(grid, [row("untouched", 0, 0), row("every-1_r-4", 0.1, -0.1)]).sections == []
    assert swept(grid, []).front == []
