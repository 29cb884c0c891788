"""`wfc stream` as a user runs it, on real trainings of a tiny model: served after each arrival, killed, and gone on with."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from processes import kill_tree, start_wfc, wait_for, wfc

from wfc_dist.config import loading
from wfc_dist.coordinator.run import run
from wfc_dist.coordinator.stream import stream
from wfc_dist.evaluation.any_model import load_model
from wfc_dist.progress import Display
from wfc_dist.reports.run import write_report
from wfc_dist.runs.handle import Run
from wfc_dist.runs.interim import newest_servable, staleness
from wfc_dist.runs.layout import RunPaths
from wfc_dist.storage import durable
from wfc_dist.weights.base_chain import hash_tensors
from wfc_dist.weights.hashing import content_sha256

NAMES = ["a", "b", "c", "d", "e"]  # with K = 2: two bases, and one adapter that waits


def make(root: Path, first: int = 1) -> Path:
    """Writes a configuration with the first data sets, and an inbox with the others in order."""
    path = tiny.make_config(root, rounds=[NAMES])
    tree = yaml.safe_load(path.read_text())
    (root / "inbox").mkdir()
    for number, name in enumerate(NAMES[first:]):
        file = root / "inbox" / f"{name}.yaml"
        file.write_text(yaml.safe_dump(tree["datasets"].pop(name)))
        os.utime(file, (1000.0 + number, 1000.0 + number))
    tree["rounds"] = {"centralize_every": 2}
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path


def plain() -> Display:
    return Display(plain=True)


def ledger(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in RunPaths(run_dir).ledger.read_text().splitlines()]


def shas(run_dir: Path) -> list[str]:
    return [json.loads((RunPaths(run_dir).base(index) / "manifest.json").read_text())["sha256"] for index in range(3)]


def adapter_shas(run_dir: Path) -> dict[str, str]:
    return {line["dataset"]: line["sha256"] for line in ledger(run_dir) if line["event"] == "adapter"}


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `wfc run` makes of all the data sets at once; returns its run directory."""
    root = tmp_path_factory.mktemp("batch")
    path = make(root, first=len(NAMES))
    return Path(run(loading.load_config(path), plain()).path).parent


@pytest.fixture(scope="module")
def streamed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("streamed")
    return stream(make(root), [], root / "inbox", plain(), None)


def test_the_bases_are_byte_for_byte_those_of_a_run(batch: Path, streamed: Path) -> None:
    assert adapter_shas(streamed) == adapter_shas(batch)
    assert shas(streamed)[:2] == shas(batch)[:2]
    for index in (1, 2):
        for name in ("model-update.safetensors", "model.safetensors.index.json"):
            assert (streamed / f"base-{index:04d}" / name).read_bytes() == (batch / f"base-{index:04d}" / name).read_bytes()
        delta = f"round-{index:04d}/delta/delta.safetensors"
        assert (streamed / delta).read_bytes() == (batch / delta).read_bytes()


def test_the_interim_base_is_the_round_as_it_would_end_now(batch: Path, streamed: Path) -> None:
    interim = newest_servable(streamed)
    assert (interim.index, interim.num_pending) == (2, 1)
    assert os.readlink(RunPaths(streamed).serving) == "round-0003/interim-1"
    durable.verify_folder(RunPaths(streamed).serving)
    assert interim.sha256 == content_sha256(hash_tensors(RunPaths(streamed).serving))
    last = json.loads((batch / "base-0003" / "manifest.json").read_text())  # there round 3 ended with one data set
    assert interim.sha256 == last["sha256"]
    assert load_model(str(streamed))[2] == Path(interim.path)
    assert not list(streamed.glob("round-000[12]/interim-*")), "of a committed round they are dropped"
    assert not list(streamed.rglob("*.tmp-*"))


def test_the_ledger_tells_how_old_each_data_set_was(streamed: Path) -> None:
    served = [line for line in ledger(streamed) if line["event"] == "served"]
    assert [(line["base"], line["num_pending"], list(line["age_s"])) for line in served] == [
        (0, 0, []), (0, 1, ["a"]), (1, 0, ["a", "b"]), (1, 1, ["c"]), (2, 0, ["c", "d"]), (2, 1, ["e"]),
    ]  # fmt: skip
    ages = staleness(Run(streamed))
    assert list(ages) == NAMES
    assert all(first is not None and first > 0 for first, _ in ages.values())
    first, committed = ages["c"]
    assert committed > first > 1e9, "arrived in 1970"
    assert ages["b"][0] == ages["b"][1] and ages["e"][1] is None


def test_interim_bases_are_scored_on_what_is_learned(streamed: Path) -> None:
    scores = {path.parent.name: json.loads(path.read_text()) for path in streamed.glob("round-*/evaluation/*/scores.json")}
    assert list(scores["interim-0002-1"]["sets"]) == ["a", "b", "c"]
    assert list(scores["base-0001"]["sets"]) == ["a", "b", "c", "d"], "every set is scored on the base before it, too"
    assert {"a", "b", "c", "d", "e"} <= scores.keys()
    text = wfc("status", streamed).stdout
    assert "arrivals; WER in percent" in text and "interim" not in write_report(streamed).name


def test_nothing_new_is_nothing_done(streamed: Path) -> None:
    before = ledger(streamed)
    root = streamed.parents[1]
    done = wfc("stream", root / "config.yaml", "--inbox", root / "inbox", "--until-empty", "--plain")
    assert done.stdout.strip() == str(streamed / "round-0003" / "interim-1")
    assert [line["event"] for line in ledger(streamed)[len(before) :]] == ["attempt"]


@pytest.mark.parametrize(
    "moment",
    [
        "checkpoint:2",  # in the training of the second arrival
        pytest.param("commit_interim", marks=pytest.mark.slow),
        "serve:2",  # the first interim base is there and not yet served
        pytest.param("serve:3", marks=pytest.mark.slow),  # base 1 is there and not yet served
        pytest.param("append_ledger:4", marks=pytest.mark.slow),
    ],
)
def test_killed_anywhere_the_same_command_goes_on(batch: Path, tmp_path: Path, moment: str) -> None:
    path, held = make(tmp_path), tmp_path / "held"
    command = ("stream", path, "--inbox", tmp_path / "inbox", "--until-empty", "--plain")
    process = start_wfc(*command, log=tmp_path / "log", WFC_HOLD_AT=f"{moment}={held}")
    assert wait_for(held, process), (tmp_path / "log").read_text()
    kill_tree(process)
    run_dir = stream(path, [], tmp_path / "inbox", plain(), None)
    assert shas(run_dir) == shas(batch)[:3]
    assert os.readlink(RunPaths(run_dir).serving) == "round-0003/interim-1"
    events = [(line["event"], line.get("round"), line.get("dataset"), line.get("num_pending")) for line in ledger(run_dir)]
    for kind, count in (("adapter", 5), ("base", 3), ("served", 6)):
        found = [event for event in events if event[0] == kind]
        assert len(found) == len(set(found)) == count, found
    assert not list(run_dir.rglob("*.tmp-*"))


def test_a_waiting_stream_stops_when_it_is_asked_to_and_goes_on(tmp_path: Path) -> None:
    path = make(tmp_path, first=1)
    late = tmp_path / "inbox" / "c.yaml"
    for name in "cde":
        (tmp_path / "inbox" / f"{name}.yaml").rename(tmp_path / f"{name}.yaml")
    run_dir = tmp_path / "runs" / "tiny"
    command = ("stream", path, "--inbox", tmp_path / "inbox", "--plain")
    process = start_wfc(*command, "--poll", 0.2, log=tmp_path / "log")
    try:
        assert wait_for(run_dir / "base-0001" / "manifest.json", process), (tmp_path / "log").read_text()
        (tmp_path / "c.yaml").rename(late)
        assert wait_for(run_dir / "round-0002" / "interim-1" / "manifest.json", process), (tmp_path / "log").read_text()
        wfc("stop", run_dir)
        assert process.wait(timeout=120) == 75
    finally:
        kill_tree(process)
    assert json.loads((run_dir / "status.json").read_text())["state"] == "interrupted"
    (tmp_path / "d.yaml").rename(tmp_path / "inbox" / "d.yaml")
    assert wfc(*command, "--until-empty").stdout.strip().endswith("base-0002")


@pytest.mark.slow
def test_on_ray_the_bytes_are_the_same(batch: Path, tmp_path: Path) -> None:
    path = make(tmp_path)
    done = wfc("stream", path, "cluster.backend=ray", "--inbox", tmp_path / "inbox", "--until-empty", "--plain")
    run_dir = tmp_path / "runs" / "tiny"
    assert done.stdout.strip() == str(run_dir / "round-0003" / "interim-1")
    assert shas(run_dir) == shas(batch)[:3]
    started = [line for line in (run_dir / "ledger.jsonl").read_text().splitlines() if '"event": "broadcast"' in line]
    assert len(started) == 2, "the trainer stayed warm"
