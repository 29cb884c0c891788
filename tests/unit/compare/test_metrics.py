"""Figures of a system against numbers worked out by hand."""

import json

import numpy as np
import pytest

from wfc_dist.compare.cells import Cell, RunCells
from wfc_dist.compare.metrics import figures, over_seeds, spread, untouched
from wfc_dist.compare.results import HIGHER_IS_BETTER, _finite, _values, _verdict


def cell(rate: float, *draws: float) -> Cell:
    return np.array([rate, *(draws or (rate, rate))])


# x is learned in round 1, y in round 2; p is protected
RATES = {(0, "x"): 0.5, (0, "y"): 0.4, (0, "p"): 0.1, (1, "x"): 0.2, (1, "y"): 0.35, (2, "x"): 0.3, (2, "y"): 0.1, (2, "p"): 0.12}
RUN = RunCells({key: cell(rate) for key, rate in RATES.items()}, {"x": 1, "y": 2}, 2)


def rounded(found: dict[str, Cell]) -> dict[str, float]:
    return {name: round(float(value[0]), 6) for name, value in found.items()}


def test_figures_of_two_rounds() -> None:
    assert rounded(figures([RUN], ["x", "y"], ["p"])) == {
        "own": 0.15,
        "new": 0.2,
        "new_relative": round(((0.3 / 0.5 - 1) + (0.1 / 0.4 - 1)) / 2, 6),
        "bwt": -0.05,
        "fwt": 0.05,  # y: 0.4 before anything was learned, 0.35 after x
        "protected": 0.12,
        "protected_relative": 0.2,
        "forgetting": round(((0.3 - 0.2) + 0.0 + (0.12 - 0.1)) / 3, 6),
    }


def test_data_sets_alone_are_averaged_over_their_runs() -> None:
    alone = [
        RunCells({(0, "x"): cell(0.5), (0, "y"): cell(0.4), (1, "x"): cell(x), (1, "y"): cell(y)}, {name: 1}, 1)
        for name, x, y in (("x", 0.2, 0.6), ("y", 0.7, 0.1))
    ]
    found = rounded(figures(alone, ["x", "y"], []))
    assert (found["own"], found["new"], found["bwt"]) == (0.15, 0.4, -0.25)
    assert "fwt" not in found and "protected" not in found


def test_the_root_has_changed_nothing() -> None:
    found = rounded(untouched(RUN, ["x", "y"], ["p"]))
    assert (found["new"], found["protected"], found["new_relative"], found["bwt"]) == (0.45, 0.1, 0.0, 0.0)


def test_seeds_are_averaged_and_their_spread_is_told() -> None:
    seeds = [{"new": cell(0.1, 0.1, 0.2)}, {"new": cell(0.3, 0.2, 0.4), "fwt": cell(1.0)}]
    assert over_seeds(seeds)["new"] == pytest.approx([0.2, 0.15, 0.3])
    assert list(over_seeds(seeds)) == ["new"]
    assert spread(seeds, "new") == pytest.approx(np.std([0.1, 0.3], ddof=1))
    assert spread(seeds[:1], "new") is None


def test_a_difference_is_paired_over_draws_and_over_the_seeds_that_both_have() -> None:
    ours = {1: {"new": cell(0.2, 0.1, 0.3)}, 2: {"new": cell(0.4, 0.3, 0.5)}}
    theirs = {1: {"new": cell(0.25, 0.13, 0.37)}}
    value = _values(ours, theirs, 0.95)["new"]
    assert value.value == pytest.approx(0.3)
    assert (value.difference, value.difference_low, value.difference_high) == pytest.approx((-0.05, -0.069, -0.031))
    assert value.verdict == "better"


def test_draws_that_are_no_number_are_left_out() -> None:
    draws = np.array([0.1, 0.2, np.inf, 0.3, np.inf, np.nan])  # of the root, a draw without an error
    value = _values({1: {"new_relative": np.zeros(6)}}, {1: {"new_relative": -draws}}, 0.95)["new_relative"]
    assert (value.difference, value.verdict) == (pytest.approx(0.1), "worse")
    assert value.difference_low is not None and 0 < value.difference_low < value.difference_high < 0.3 + 1e-9
    assert (_values({1: {"new_relative": draws}}, None, 0.95)["new_relative"].high) == pytest.approx(0.2975)


def test_one_clip_decides_nothing() -> None:
    value = _values({1: {"new": cell(0.2)}}, {1: {"new": cell(0.3)}}, 0.95)["new"]  # all its draws are the same
    assert value.difference == pytest.approx(-0.1) and value.verdict == "same"


def test_what_is_no_number_is_null_in_json() -> None:
    text = json.dumps(_finite({"value": float("inf"), "low": 0.1, "high": float("nan"), "verdict": "same"}), allow_nan=False)
    assert json.loads(text) == {"value": None, "low": 0.1, "high": None, "verdict": "same"}


def test_without_draws_nothing_is_better_or_worse() -> None:
    value = _values({1: {"new": np.array([0.2])}}, {1: {"new": np.array([0.3])}}, 0.95)["new"]
    assert value.difference == pytest.approx(-0.1)
    assert (value.difference_low, value.difference_high, value.verdict) == (None, None, "same")


@pytest.mark.parametrize("rate", [np.inf, np.nan])
def test_what_is_no_number_is_neither_better_nor_worse(rate: float) -> None:
    ours, theirs = {1: {"new_relative": cell(rate)}}, {1: {"new_relative": cell(np.inf)}}
    value = _values(ours, theirs, 0.95)["new_relative"]
    assert (value.difference, value.difference_low, value.verdict) == (None, None, "same")


@pytest.mark.parametrize(
    ("low", "high", "error", "gain"),
    [(-2.0, -1.0, "better", "worse"), (1.0, 2.0, "worse", "better"), (-1.0, 1.0, "same", "same"), (None, None, "same", "same")],
)
def test_verdicts(low: float | None, high: float | None, error: str, gain: str) -> None:
    assert _verdict("new", low, high) == error
    assert {_verdict(name, low, high) for name in HIGHER_IS_BETTER} == {gain}
