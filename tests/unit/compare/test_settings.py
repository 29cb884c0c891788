"""A comparison's file becomes runs: every system laid out as it should be, every mistake named before anything starts."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from wfc_dist.compare import settings
from wfc_dist.compare.settings import Comparison
from wfc_dist.compare.systems import PRESETS
from wfc_dist.errors import ConfigError

SYSTEMS: dict[str, Any] = {"sequential": {}, "mean-2": {"every": 2}}


def make(
    folder: Path, systems: dict[str, Any], *overrides: str, seeds: Any = (1,), reference: str = "mean-2", **blocks: Any
) -> Comparison:
    data = {name: {"source": name, "splits": {"train": "t", "dev": "d", "test": "e"}} for name in "xyz"}
    tree = {
        "run": {"name": "c", "dir": "runs"}, "base": {"model": "m"}, "datasets": data,
        "train": {"max_steps": 10, "warmup_steps": 2},
        "compare": {"seeds": seeds, "reference": reference, "systems": systems}, **blocks,
    }  # fmt: skip
    (folder / "c.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    return settings.load(folder / "c.yaml", overrides)


def rounds_of(comparison: Comparison, system: str) -> list[list[list[str]]]:
    return [run.config.round_list() for run in comparison.runs_of(system, 1)]


def test_every_preset_lays_out_the_data_sets(tmp_path: Path) -> None:
    comparison = make(tmp_path, {"individual": {}, "joint": {}, "untouched": {}, **SYSTEMS})
    assert rounds_of(comparison, "sequential") == [[["x"], ["y"], ["z"]]]
    assert rounds_of(comparison, "mean-2") == [[["x", "y"], ["z"]]]
    assert rounds_of(comparison, "individual") == [[["x"]], [["y"]], [["z"]]]
    assert rounds_of(comparison, "joint") == [[["joint"]]]
    assert rounds_of(comparison, "untouched") == []
    assert comparison.systems[0] == "untouched"


def test_runs_differ_in_what_their_system_says_alone(tmp_path: Path) -> None:
    systems = {**SYSTEMS, "mine": {"every": 2, "set": {"train.lr": 0.5, "centralize.scale": 2.0}}}
    comparison = make(tmp_path, systems, "lora.r=8")
    ours, theirs = (comparison.runs_of(name, 1)[0].config for name in ("mine", "mean-2"))
    assert (ours.train.lr, ours.centralize.scale, ours.lora.r, theirs.lora.r) == (0.5, 2.0, 8, 8)
    assert theirs.train.lr != 0.5
    assert ours.run.pool == theirs.run.pool and ours.run_dir() != theirs.run_dir()
    assert not ours.evaluate.adapters and ours.evaluate.interim == "learned"


def test_full_fine_tuning_needs_no_settings_of_its_own(tmp_path: Path) -> None:
    (run,) = make(tmp_path, {"full": {}, **SYSTEMS}, "lora.r=8").runs_of("full", 1)
    assert run.config.round_list() == [["x"], ["y"], ["z"]]
    assert (run.config.lora.variant, run.config.lora.dropout, run.config.train.lr) == ("full", 0.0, 1e-4)
    assert "proj_out" not in run.config.lora.target_modules and "fc2" in run.config.lora.target_modules


def test_joint_sees_as_much_speech_as_all_together_and_is_scored_on_each(tmp_path: Path) -> None:
    (run,) = make(tmp_path, {"joint": {}, **SYSTEMS}).runs_of("joint", 1)
    assert (run.config.train.max_steps, run.config.train.warmup_steps) == (30, 6)
    assert list(run.config.datasets["joint"].parts) == ["x", "y", "z"]
    assert list(run.config.test_sets()) == ["x", "y", "z"]


def test_every_seed_has_its_runs(tmp_path: Path) -> None:
    comparison = make(tmp_path, SYSTEMS, seeds=[3, 5])
    assert comparison.seeds == [3, 5]
    assert {run.config.run.seed for run in comparison.runs} == {3, 5}
    assert len({run.config.run.name for run in comparison.runs}) == len(comparison.runs) == 4


def test_an_order_of_its_own(tmp_path: Path) -> None:
    assert rounds_of(make(tmp_path, {"mean-2": {"every": 2, "order": ["z", "x", "y"]}}), "mean-2") == [[["z", "x"], ["y"]]]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_explained(preset: str) -> None:
    assert len(PRESETS[preset].about) > 10


@pytest.mark.parametrize(
    ("systems", "message"),
    [
        ({"mean-2": {"every": 2, "preset": "centralise"}}, "did you mean 'centralize'"),
        ({"mean-2": {}}, "mean-2.every: centralize needs it"),
        ({"mean-2": {"every": 2}, "sequential": {"every": 3}}, "sequential.every"),
        ({"mean-2": {"every": 2, "order": ["x"]}}, "must name every data set once: x, y, z"),
        ({"mean-2": {"every": 2, "set": {"train.lrr": 1}}}, "compare.systems.mean-2: train.lrr: unknown key; did you mean 'lr'"),
        ({"mean-2": {"evry": 2}}, "compare.systems.mean-2.evry"),
        ({"mean-3": {"every": 3}}, "compare.reference: 'mean-2' is not a system; did you mean 'mean-3'"),
        ({}, "compare.systems"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, systems: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(tmp_path, systems)


def test_something_must_be_trained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing is trained"):
        make(tmp_path, {"untouched": {}}, reference="untouched")


def test_rounds_have_no_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rounds: a comparison has no rounds"):
        make(tmp_path, SYSTEMS, rounds=[["x"]])


def test_what_one_system_sets_below_a_block_of_its_preset_stays_its_own(tmp_path: Path) -> None:
    systems = {"ewc-strong": {"preset": "ewc", "set": {"train.ewc.weight": 1e5}}, "ewc": {}, **SYSTEMS}
    comparison = make(tmp_path, systems, seeds=[1, 2])
    weights = {run.system: run.config.train.ewc.weight for run in comparison.runs if run.config.train.ewc}
    assert weights["ewc-strong"] == 1e5 and weights["ewc"] < 1e5
    assert PRESETS["ewc"].settings["train.ewc"] == {}


@pytest.mark.parametrize("key", ["evaluate.num_beams", "evaluate.confidence"])
def test_a_system_that_is_scored_otherwise_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=rf"compare\.systems\.mine: {key}: systems are compared by the same measure"):
        make(tmp_path, {**SYSTEMS, "mine": {"every": 2, "set": {key: 0.5 if "confidence" in key else 5}}})
    make(tmp_path, {**SYSTEMS, "mine": {"every": 2, "set": {"evaluate.batch_size": 5}}})


def test_joint_has_a_dev_split_where_a_data_set_has_one(tmp_path: Path) -> None:
    splits = [{"train": "t", "test": "e"}, {"train": "t", "dev": "d", "test": "e"}]
    for given, expected in ((splits[:1], {"train"}), (splits, {"train", "dev"})):
        data = {name: {"source": name, "splits": split} for name, split in zip("xy", given * 2, strict=False)}
        (run,) = make(tmp_path, {"joint": {}, **SYSTEMS}, datasets=data).runs_of("joint", 1)
        assert set(run.config.datasets["joint"].splits) == expected


def test_a_comparison_on_object_storage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.dir: s3://bucket/runs: .*file system"):
        make(tmp_path, SYSTEMS, "run.dir=s3://bucket/runs")


def test_new_sets_without_a_test_split_are_refused(tmp_path: Path) -> None:
    data = {name: {"source": name, "splits": {"train": "t", "dev": "d"}} for name in "xyz"}
    kept = {"protected": {"p": {"source": "p", "splits": {"test": "e"}}}}
    with pytest.raises(ConfigError, match=r"no data set has a test split; .*splits\.test"):
        make(tmp_path, SYSTEMS, datasets=data, evaluate=kept)


def data_with(**metrics: str) -> dict[str, Any]:
    splits = {"train": "t", "dev": "d", "test": "e"}
    return {name: {"source": name, "splits": splits, **({"metric": metrics[name]} if name in metrics else {})} for name in "xyz"}


def test_a_system_that_counts_a_set_otherwise_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"compare\.systems\.mine: datasets\.y\.metric: systems are compared by the same"):
        make(tmp_path, {**SYSTEMS, "mine": {"every": 2, "set": {"datasets.y.metric": "mer"}}})
    make(tmp_path, {"joint": {}, **SYSTEMS}, datasets=data_with(y="mer"))


@pytest.mark.parametrize(
    ("metrics", "expected"), [({}, None), ({"x": "mer"}, None), (dict.fromkeys("xyz", "mer"), "mer")], ids=str
)
def test_joint_is_counted_with_the_metric_of_all_its_sets(tmp_path: Path, metrics: dict[str, str], expected: str | None) -> None:
    (run,) = make(tmp_path, {"joint": {}, **SYSTEMS}, datasets=data_with(**metrics)).runs_of("joint", 1)
    assert run.config.datasets["joint"].metric == expected
    assert list(run.config.test_sets()) == ["x", "y", "z"]
