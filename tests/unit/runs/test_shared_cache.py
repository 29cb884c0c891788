"""Runs share adapters and texts only where they would have made the same."""

import json
from pathlib import Path
from typing import Any

import pytest

from wfc_dist.config import loading
from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.config.schema import Config
from wfc_dist.errors import ConfigError
from wfc_dist.rounds import Base
from wfc_dist.runs.opening import opened_for_writing
from wfc_dist.runs.shared_cache import Pool, adapter_identity
from wfc_dist.storage import durable

ROOT = Base(0, "root", "0")
DATA = {f"{name}/train": name for name in "xyz"}


SOURCES: dict[str, Any] = {name: {"source": name, "splits": {"train": "t"}} for name in "xyz"}


def make(folder: Path, name: str = "one", rounds: Any = (("x", "y"), ("z",)), **blocks: Any) -> Config:
    tree = {
        "run": {"name": name, "dir": str(folder / "runs"), "pool": str(folder / "pool")},
        "base": {"model": "m"},
        "datasets": SOURCES,
        "rounds": [list(names) for names in rounds],
    }
    return loading.parse(tree | blocks)


def train(config: Config, dataset: str, base: Base = ROOT) -> None:
    with opened_for_writing(config, DATA) as store:
        staged = store.stage_adapter(base, dataset)
        (staged / "adapter_model.safetensors").write_bytes(f"weights of {dataset}".encode())
        store.commit_adapter(base, dataset, staged, {"sha256": f"of {dataset}", "hours": 0.5, "steps": 3})


def finished(config: Config, base: Base = ROOT) -> dict[str, str]:
    with opened_for_writing(config, DATA) as store:
        return {name: Path(adapter.path, "adapter_model.safetensors").read_text() for name, adapter in
                store.finished_adapters(base).items()}  # fmt: skip


def test_an_adapter_of_another_run_is_taken_and_the_ledger_says_so(tmp_path: Path) -> None:
    train(make(tmp_path), "x")
    other = make(tmp_path, "other", rounds=[["x"], ["y"], ["z"]])
    assert finished(other) == {"x": "weights of x"}
    lines = map(json.loads, (other.run_dir() / "ledger.jsonl").read_text().splitlines())
    (line,) = [line for line in lines if line["event"] == "adapter"]
    assert line["from_pool"] and line["sha256"] == "of x" and line["steps"] == 3
    assert finished(other) == {"x": "weights of x"}  # from its own folder now


def identity(folder: Path, base: Base = ROOT, dataset: str = "x", **blocks: Any) -> str:
    return durable.sha256_json(adapter_identity(make(folder, **blocks), DATA, base, dataset, []))


@pytest.mark.parametrize(
    "blocks",
    [
        {"lora": {"r": 8}}, {"train": {"lr": 0.5}}, {"cluster": {"threads_per_worker": 2}},
        {"cluster": {"workers_per_trainer": 2}}, {"base": Base(0, "root", "1")},
        {"base": Base(1, "root", "0")}, {"dataset": "y"},
        {"datasets": SOURCES | {"x": {"source": "noisy", "splits": {"train": "t"}}}},
        {"datasets": SOURCES | {"x": {"format": "mix", "parts": {"x": SOURCES["x"]}, "splits": {"train": "t"}}}},
    ],
    ids=str,
)  # fmt: skip
def test_whatever_changes_an_adapter_changes_its_identity(tmp_path: Path, blocks: dict[str, Any]) -> None:
    assert identity(tmp_path, **blocks) != identity(tmp_path)


@pytest.mark.parametrize(
    "blocks",
    [
        {"rounds": [["x"], ["y"], ["z"]]}, {"train": {"checkpoint_every": 7}}, {"train": {"loader_workers": 2}},
        {"train": {"replay": 0.5}},
        {"centralize": {"method": "factor_mean"}}, {"cluster": {"backend": "in_process"}}, {"evaluate": {"batch_size": 2}},
        {"evaluate": {"metric": "cer", "packing": True}},
    ],
    ids=str,
)  # fmt: skip
def test_what_changes_no_adapter_changes_no_identity(tmp_path: Path, blocks: dict[str, Any]) -> None:
    assert identity(tmp_path, **blocks) == identity(tmp_path)


def test_where_the_base_is_measured_the_data_of_the_round_before_counts(tmp_path: Path) -> None:
    at_base = {"train": {"curvature": "kronecker", "curvature_at": "base"}}
    noisy = SOURCES | {"x": {"source": "noisy", "splits": {"train": "t"}}}
    rounds = {"rounds": [["x"], ["y"], ["z"]]}

    def of(**blocks: Any) -> str:
        return identity(tmp_path, Base(1, "base", "1"), "y", **rounds, **blocks)

    assert of(**at_base) != of(train={"curvature": "kronecker"})
    assert of(**at_base) != of(**at_base, datasets=noisy) and of() == of(datasets=noisy)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {"metric": "cer"}), ({}, {"normalizer": "none"}), ({}, {"num_beams": 2}), ({}, {"packing": True}),
        ({}, {"max_clips": 3}), ({}, {"language": "detect"}), ({}, {"precision": "bf16"}),
        ({"packing": True}, {"packing": True, "compression_ratio_threshold": 3}),
    ],
    ids=str,
)  # fmt: skip
def test_where_dev_error_picks_the_weights_its_measure_counts(tmp_path: Path, first: Any, second: Any) -> None:
    picked = {
        "train": {"eval_every": 2, "early_stopping": {"metric": "error", "patience": 1}},
        "datasets": {name: {"source": name, "splits": {"train": "t", "dev": "d"}} for name in "xyz"},
    }
    assert identity(tmp_path, evaluate=first, **picked) != identity(tmp_path, evaluate=second, **picked)
    assert identity(tmp_path, evaluate=first, **picked) == identity(tmp_path, evaluate={**first, "batch_size": 2}, **picked)


def test_replay_depends_on_the_source_of_what_is_replayed(tmp_path: Path) -> None:
    base, noisy = Base(1, "root", "1"), SOURCES | {"x": {"source": "noisy", "splits": {"train": "t"}}}
    configs = [make(tmp_path, train={"replay": 0.5}, datasets=datasets) for datasets in (SOURCES, noisy)]
    assert len({durable.sha256_json(adapter_identity(config, DATA, base, "z", [])) for config in configs}) == 2


def test_replay_depends_on_what_is_replayed(tmp_path: Path) -> None:
    base = Base(1, "root", "1")
    configs = [
        make(tmp_path, rounds=rounds, train={"replay": share})
        for rounds, share in (([["x"], ["z"]], 0.5), ([["y"], ["z"]], 0.5), ([["x"], ["z"]], 0.25))
    ]
    assert len({durable.sha256_json(adapter_identity(config, DATA, base, "z", [])) for config in configs}) == 3


def test_a_damaged_adapter_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(make(tmp_path), "x")
    (path,) = (tmp_path / "pool").glob("adapters/*/adapter_model.safetensors")
    path.unlink()  # the run's own stays
    path.write_bytes(b"weights of y")
    assert finished(make(tmp_path, "other")) == {}
    assert "sha256" in caplog.text


def test_the_first_of_two_equal_adapters_is_kept(tmp_path: Path) -> None:
    for name in ("one", "two"):
        train(make(tmp_path, name), "x")
    (folder,) = (tmp_path / "pool" / "adapters").iterdir()
    durable.verify_folder(folder)


def test_texts_are_shared_by_their_header_and_source(tmp_path: Path) -> None:
    pool, path = Pool(tmp_path / "pool"), tmp_path / "run" / "es.jsonl"
    durable.write_text(tmp_path / "made.jsonl", "said\n")
    clean, noisy = (DatasetConfig(source=source) for source in ("clean", "noisy"))  # files of the same sizes
    assert not pool.take_text({"model": "1"}, clean, path)
    pool.put_text({"model": "1"}, clean, tmp_path / "made.jsonl")
    assert not pool.take_text({"model": "2"}, clean, path)
    assert not pool.take_text({"model": "1"}, noisy, path)
    assert pool.take_text({"model": "1"}, clean, path)
    assert path.read_text() == "said\n"


def test_a_pool_on_object_storage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.pool: needs"):
        make(tmp_path, run={"name": "r", "pool": "s3://bucket/pool"})


@pytest.mark.parametrize("by_error", [False, True])
def test_a_metric_of_a_data_set_changes_its_own_adapter_where_dev_error_picks_the_weights(tmp_path: Path, by_error: bool) -> None:
    splits = {"train": "t", "dev": "d"}
    plain = {name: {"source": name, "splits": splits} for name in "xyz"}
    own = plain | {"x": {**plain["x"], "metric": "mer"}}
    stopping = {"eval_every": 2, "early_stopping": {"metric": "error" if by_error else "loss", "patience": 1}}
    before, after = ({name: identity(tmp_path, dataset=name, datasets=data, train=stopping) for name in "xy"}
                     for data in (plain, own))  # fmt: skip
    everywhere = identity(tmp_path, datasets=plain, train=stopping, evaluate={"metric": "mer"})
    assert after["y"] == before["y"] and (after["x"] != before["x"]) == by_error
    assert after["x"] == everywhere, "whoever names the metric, the adapter is the same"
