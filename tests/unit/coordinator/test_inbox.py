"""The watched folder: order, growth of the configuration, what is rejected and why."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml

from wfc_dist.coordinator.checks import check
from wfc_dist.coordinator.inbox import Inbox, grown_config
from wfc_dist.errors import ConfigError, Interrupted
from wfc_dist.runs.handle import Run
from wfc_dist.runs.layout import RunPaths
from wfc_dist.runs.opening import opened_for_writing

SPLITS = {"train": "train.jsonl", "test": "test.jsonl"}


def make(tmp_path: Path, **blocks: Any) -> Path:
    """Writes a configuration with the data set `first`, one called `second` and `third` beside it, and an inbox."""
    for seed, name in enumerate(("first", "second", "third")):
        tiny.make_dataset(tmp_path / name, seed=seed, train=2, dev=1, test=1)
    tree = {
        "run": {"name": "s", "dir": str(tmp_path / "runs")},
        "base": {"model": str(tmp_path / "model")},
        "datasets": {"first": {"source": str(tmp_path / "first"), "splits": SPLITS}},
        "rounds": {"centralize_every": 2},
        "cluster": {"backend": "in_process"},
        **blocks,
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    (tmp_path / "inbox").mkdir(exist_ok=True)
    return path


def drop(tmp_path: Path, name: str, arrived_s: float, **block: Any) -> Path:
    path = tmp_path / "inbox" / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"source": str(tmp_path / name), "splits": SPLITS} | block))
    os.utime(path, (arrived_s, arrived_s))
    return path


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Inbox]:
    config, every = grown_config(make(tmp_path), [])
    checked = check(config)
    with opened_for_writing(config, checked.fingerprints) as store:
        yield Inbox(tmp_path / "inbox", every, store, checked, {"first": 1.0}, lambda _: None, None)


def test_files_are_taken_oldest_first_and_recorded(tmp_path: Path, opened: Inbox) -> None:
    drop(tmp_path, "third", 100.5)
    drop(tmp_path, "second", 200.0)
    assert list(opened.since(0)) == ["first", "third", "second"]
    tree = json.loads(opened.store.paths.config.read_text())
    assert tree["arrivals"] == {"first": 1.0, "third": 100.5, "second": 200.0}
    assert {"third/train", "third/test", "second/train"} <= tree["data"].keys()
    assert Run(opened.store.paths.run_dir).config.round_list() == [["first", "third"], ["second"]]
    assert opened.checked.hours["third"] > 0 < opened.checked.test_hours["second"]


def test_the_same_data_set_twice_is_taken_once(tmp_path: Path, opened: Inbox) -> None:
    drop(tmp_path, "second", 100.0)
    assert list(opened.since(1)) == ["second"]
    drop(tmp_path, "second", 300.0)  # delivered again
    assert list(opened.since(2)) == []
    assert not list((tmp_path / "inbox").glob("*.rejected"))


@pytest.mark.parametrize(
    ("name", "block", "reason"),
    [
        ("second", {"sorce": "x"}, "sorce: unknown key; did you mean 'source'"),
        ("second", {"source": "nowhere"}, "nowhere"),
        ("second", {"splits": {"test": "test.jsonl"}}, "needs a train split"),
        ("first", {"language": "de"}, "the run has another data set 'first'"),
        ("not a name", {}, "not a name"),
    ],
)
def test_what_cannot_be_used_is_turned_away_and_the_stream_goes_on(
    tmp_path: Path, opened: Inbox, name: str, block: dict[str, Any], reason: str
) -> None:
    path = drop(tmp_path, name, 100.0, **block)
    drop(tmp_path, "third", 200.0)
    before = RunPaths(opened.store.paths.run_dir).config.read_text()
    assert opened._take_next() and not path.exists()
    assert list(opened.store.config.datasets) == ["first", "third"]
    assert reason in path.with_name(f"{path.name}.rejected.txt").read_text()
    assert yaml.safe_load(path.with_name(f"{path.name}.rejected").read_text())["splits"]
    told = [json.loads(line) for line in opened.store.paths.ledger.read_text().splitlines()]
    assert [(line["event"], line.get("file")) for line in told] == [("rejected", path.name), ("arrival", None)]
    assert json.loads(before)["config"]["datasets"].keys() == {"first"}


def test_a_file_that_is_no_yaml_is_turned_away_and_may_come_again(tmp_path: Path, opened: Inbox) -> None:
    path = drop(tmp_path, "second", 100.0)
    good = path.read_text()
    path.write_text("{")
    os.utime(path, (100.0, 100.0))
    assert list(opened.since(1)) == []
    path.write_text(good)
    os.utime(path, (100.0, 100.0))  # as `mv` leaves it
    assert list(opened.since(1)) == ["second"]


def test_other_files_are_left_alone(tmp_path: Path, opened: Inbox) -> None:
    (tmp_path / "inbox" / ".second.yaml").write_text("{")
    (tmp_path / "inbox" / "second.yaml.tmp").write_text("{")
    assert list(opened.since(1)) == []
    assert len(list((tmp_path / "inbox").iterdir())) == 2


def test_a_stop_is_heard_while_waiting(tmp_path: Path, opened: Inbox) -> None:
    opened.poll_s = 3600.0
    arrivals = opened.since(0)
    assert next(arrivals) == "first"
    write_status = opened.store.status.write

    def stop_once_it_waits(state: str, message: str = "") -> None:
        write_status(state, message)
        opened.store.stop("test")

    opened.store.status.write = stop_once_it_waits  # type: ignore[method-assign]
    with pytest.raises(Interrupted, match="test: stopped between two data sets"):
        next(arrivals)
    assert "waits for data sets" in json.loads(opened.store.paths.status.read_text())["message"]


def test_a_stream_goes_on_with_the_data_sets_that_came(tmp_path: Path, opened: Inbox) -> None:
    drop(tmp_path, "second", 100.0)
    assert list(opened.since(1)) == ["second"]
    config, every = grown_config(tmp_path / "config.yaml", [])
    assert (config, every) == (opened.store.config, 2)
    other, _ = grown_config(tmp_path / "config.yaml", ["run.name=other"])
    assert list(other.datasets) == ["first"]


def test_anything_else_that_changed_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path)
    config, _ = grown_config(path, [])
    with opened_for_writing(config, {}):
        (config.run_dir() / "round-0001" / "training" / "first" / "step-2").mkdir(parents=True)
    changed, _ = grown_config(path, ["train.lr=0.5"])
    with pytest.raises(ConfigError, match=r"another configuration; changed: train.lr"), opened_for_writing(changed, {}):
        pass
    block = {"source": str(tmp_path / "third"), "splits": SPLITS}
    longer, _ = grown_config(make(tmp_path, datasets={"third": block, "first": block}), [])
    with pytest.raises(ConfigError, match=r"changed: datasets.first.source, datasets.third"), opened_for_writing(longer, {}):
        pass


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["rounds=[[first]]"], "centralize_every: K"),
        (["cluster.backend=slurm"], "slurm: a stream keeps its trainers warm"),
        (["run.dir=s3://bucket/runs"], "a folder, not object storage"),
        (["centralize.quorum=1", "centralize.late=next_round"], "quorum: a stream waits for each data set"),
        (["centralize.gate.max_growth=2"], "gate: a stream serves every interim base at once, without a gate"),
        (["centralize.gate.action=leave_one_out"], "without a gate"),
    ],
)
def test_what_a_stream_cannot_be_is_refused(tmp_path: Path, overrides: list[str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        grown_config(make(tmp_path), overrides)


def test_a_round_that_was_ended_early_is_not_gone_on_with(tmp_path: Path) -> None:
    path = make(tmp_path)
    config, _ = grown_config(path, [])
    base = RunPaths(config.run_dir()).base(1)
    base.mkdir(parents=True)
    (base / "manifest.json").write_text("{}")
    with pytest.raises(ConfigError, match="round 1 was ended with 1 of 2 data sets"):
        grown_config(path, [])
