"""A sweep's file becomes a comparison: a system for every point of the grid, or of a part of it; every mistake is named."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from wfc_dist.compare import sweep
from wfc_dist.compare.sweep import Sweep
from wfc_dist.config import loading
from wfc_dist.config.schema import Name
from wfc_dist.errors import ConfigError

GRID: dict[str, Any] = {"every": [1, 2], "train.lr": [0.001, "1e-4"], "order": [["x", "y", "z"], ["z", "y", "x"]]}


def make(folder: Path, over: dict[str, Any], *overrides: str, **keys: Any) -> Sweep:
    data = {name: {"source": name, "splits": {"train": "t", "dev": "d", "test": "e"}} for name in "xyz"}
    tree = {"run": {"name": "s"}, "base": {"model": "m"}, "datasets": data, "sweep": {"over": over, **keys}}
    (folder / "s.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    return sweep.load(folder / "s.yaml", overrides)


def grid(over: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(over, values, strict=True)) for values in itertools.product(*over.values())]


def test_every_point_of_the_grid_is_a_system(tmp_path: Path) -> None:
    made = make(tmp_path, GRID, seeds=[1, 4], concurrent=2)
    assert len(made.points) == 8 and len(made.comparison.runs) == 16 and made.concurrent == 2
    assert made.comparison.systems == ["untouched", *made.points]
    (run,) = made.comparison.runs_of("every-2_lr-0.0001_order-z.y.x", 4)
    assert run.config.round_list() == [["z", "y"], ["x"]]
    assert (run.config.train.lr, run.config.run.seed) == (1e-4, 4)
    assert made.comparison.about[run.system] == "every 2, train.lr 0.0001, order z y x"
    assert made.comparison.reference == "every-1_lr-0.001_order-x.y.z"  # first values


def test_what_points_have_in_common_is_said_once(tmp_path: Path) -> None:
    common = {"every": 3, "set": {"centralize.scale": 2.0, "train.lr": 9.0}}
    made = make(tmp_path, {"train.lr": [0.001, 0.01]}, system=common)
    configs = [run.config for run in made.comparison.runs]
    assert [(config.centralize.scale, config.train.lr, len(config.round_list())) for config in configs] == [
        (2.0, 0.001, 1), (2.0, 0.01, 1),
    ]  # fmt: skip


def test_any_preset_can_be_swept(tmp_path: Path) -> None:
    made = make(tmp_path, {"train.replay": [0.1, 0.5]}, system={"preset": "replay"})
    assert [run.config.train.replay for run in made.comparison.runs] == [0.1, 0.5]


def test_samples_are_drawn_alike_and_nested_and_hold_the_reference(tmp_path: Path) -> None:
    over, reference = {"every": [1, 2, 3], "lora.r": list(range(1, 21))}, {"every": 3, "lora.r": 20}
    few, more, again = (make(tmp_path, over, samples=number, reference=reference) for number in (5, 12, 5))
    other = make(tmp_path, over, samples=12, reference=reference, sample_seed=2)
    assert len(few.points) == 5 and len(more.points) == 12
    assert list(few.points) == list(again.points)
    assert few.points.keys() < more.points.keys() != other.points.keys()
    assert few.comparison.reference == more.comparison.reference == "every-3_r-20"
    assert "every-3_r-20" in few.points and "every-3_r-20" in other.points
    assert len(make(tmp_path, over, "sweep.samples=1000").points) == 60


def test_names_are_valid_unique_and_depend_on_their_own_values_alone(tmp_path: Path) -> None:
    long = [f"module_{number}" for number in range(30)]
    over = {"every": [1], "lora.target_modules": [["q", "v"], long, [*long, "k"], "all linear!"],
            "centralize.options.density": [0.1, 1e-9], "centralize.scale": [1, 0.5]}  # fmt: skip
    small = {key: values[:1] for key, values in over.items()}
    names = [sweep.name_of(point) for point in grid(over)]
    assert len(set(names)) == 16
    assert sweep.name_of(grid(small)[0]) == names[0] == "every-1_target_modules-q.v_density-0.1_scale-1"
    for name in names:
        assert loading.parse(tree_named(name)).run.name == name and len(name) <= 80


def tree_named(name: Name) -> dict[str, Any]:
    return {"run": {"name": name}, "base": {"model": "m"}, "rounds": [["x"]],
            "datasets": {"x": {"source": "x", "splits": {"train": "t"}}}}  # fmt: skip


def test_keys_that_end_alike_are_named_in_full(tmp_path: Path) -> None:
    assert sweep.name_of({"train.ewc.strength": 1, "train.distillation.strength": 2, "train.lr": 3}) == (
        "train.ewc.strength-1_train.distillation.strength-2_lr-3"
    )


def test_a_configuration_written_for_a_trial_is_the_same_when_read(tmp_path: Path) -> None:
    for run in make(tmp_path, {"every": [2], "train.lr": [1e-5, 3e-4]}).comparison.runs:
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(run.config.model_dump(mode="json"), sort_keys=False))
        assert loading.load_config(path) == run.config


@pytest.mark.parametrize(
    ("over", "keys", "message"),
    [
        ({}, {}, "sweep.over"),
        ({"every": 3}, {}, "sweep.over.every: expected a list such as"),
        ({"every": []}, {}, "sweep.over.every"),
        ({"every": [0]}, {}, "sweep.over.every"),
        ({"every": [1], "train.lrr": [1]}, {}, "lrr: unknown key; did you mean 'lr'"),
        ({"every": [1], "lr": [1]}, {}, "'lr' cannot be swept; a sweep varies every, order, lora.KEY"),
        ({"every": [1], "base.model": ["m", "n"]}, {}, "'base.model' cannot be swept"),
        ({"every": [1], "train": [{}]}, {}, "'train' cannot be swept"),
        ({"every": [1, 2, 1]}, {}, "sweep.over.every: a value is listed twice"),
        ({"every": [1], "order": [["x"]]}, {}, "must name every data set once: x, y, z"),
        ({"train.lr": [1]}, {}, "centralize needs it"),
        ({"every": [1]}, {"reference": {"evry": 1}}, "sweep.reference: 'evry' is not swept; did you mean 'every'"),
        ({"every": [1, 2]}, {"reference": {"every": 3}}, "sweep.reference.every: 3 is not one of its values: 1; 2"),
        ({"every": [1]}, {"samples": 0}, "sweep.samples"),
        ({"every": [1]}, {"sampels": 2}, "sweep.sampels"),
    ],
)
def test_mistakes_in_a_sweep_are_named(tmp_path: Path, over: Any, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(tmp_path, over, **keys)


def test_a_pool_may_be_shared_with_others(tmp_path: Path) -> None:
    made = make(tmp_path, {"every": [1, 2]}, "run.pool=elsewhere")
    assert {run.config.run.pool for run in made.comparison.runs} == {"elsewhere"}
