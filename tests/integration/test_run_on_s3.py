"""Runs on a real S3 API: killed and resumed, also on new machines; a fault in every kind of request; stopped; looked at."""

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny
from processes import kill_tree, start_wfc, wait_for, wfc
from s3_server import BUCKET, S3, s3_server

from wfc_dist.runs.handle import Run
from wfc_dist.runs.root import bring_base
from wfc_dist.storage import durable
from wfc_dist.storage.mirror import Mirror
from wfc_dist.storage.objects import Objects

# Parts of 5 MB, which a checkpoint of rank 1500 exceeds: large objects take other requests than small ones.
FSSPEC = {"FSSPEC_S3": json.dumps({"default_block_size": 5 << 20})}


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in (server.environment | FSSPEC).items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    root = tmp_path_factory.mktemp("uninterrupted")
    config = tiny.make_config(
        root, rounds=[["a", "b"], ["c", "d"]], lora={"r": 1500}, train={"max_steps": 6}, evaluate={"adapters": False}
    )
    wfc("run", config, "--plain")
    return config, Run(root / "runs" / "tiny").base().sha256


def ledger(remote: Objects) -> list[dict]:
    return [json.loads(line) for line in (remote.read("ledger.jsonl") or b"").splitlines()]


def command(config: Path, prefix: str, cache: Path, *more: object) -> tuple[object, ...]:
    return ("run", config, f"run.dir=s3://{BUCKET}/{prefix}", f"cluster.cache_dir={cache}", "--plain", *more)


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def has(remote: Objects, name: str) -> Callable[[], bool]:
    return lambda: remote.read(name) is not None


def mirror_on_a_new_machine(remote: Objects, folder: Path) -> Mirror:
    """Returns a mirror with every committed folder, each verified."""
    mirror = Mirror(folder, remote, "check")
    for name in remote.list():
        path = folder / name
        if path.name == "manifest.json" and not path.parent.name.startswith("base-"):
            assert mirror.fetch(path.parent)
            durable.verify_folder(path.parent)
    for index in range(3):
        bring_base(mirror, index)
        durable.verify_folder(folder / f"base-{index:04d}")
    return mirror


# (backend, moment, whether the machine is lost with its mirror): a number counts within one process of an attempt.
MOMENTS = [
    ("in_process", "open_root", True),
    ("in_process", "checkpoint:2", True),
    ("in_process", "publish_manifest:3", False),
    ("in_process", "commit_adapter", True),
    ("in_process", "average", False),
    ("in_process", "write_manifest", False),
    ("ray", "commit_base", True),
    ("in_process", "fetch_base", False),
]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_killed_on_changing_machines_ends_with_the_bytes_of_a_local_run(
    s3: S3, uninterrupted: tuple[Path, str], tmp_path: Path
) -> None:
    config, expected = uninterrupted
    remote, cache = Objects(f"s3://{BUCKET}/killed/tiny"), tmp_path / "cache"
    ranks = "cluster.centralizer_ranks=2"
    reached = []
    for number, (backend, moment, machine_lost) in enumerate(MOMENTS):
        held = tmp_path / f"held-{number}"
        more = (ranks, f"cluster.backend={backend}")
        process = start_wfc(*command(config, "killed", cache, *more), log=tmp_path / "log", WFC_HOLD_AT=f"{moment}={held}")
        try:
            if wait_for(held, process):
                reached.append((backend, moment, machine_lost))
            if moment == "checkpoint:2":  # the first one is published beside the training
                until(has(remote, "round-0001/training/a/step-2/manifest.json"), "the first checkpoint is published")
        finally:
            kill_tree(process)
        if machine_lost:
            shutil.rmtree(cache)
    wfc(*command(config, "killed", cache, ranks, "cluster.backend=ray"))

    assert reached == MOMENTS, (tmp_path / "log").read_text()[-3000:]
    mirror = mirror_on_a_new_machine(remote, tmp_path / "new")
    assert mirror.fetch_file(mirror.folder / "config.json")
    assert Run(mirror.folder).base().sha256 == expected
    lines = ledger(remote)
    adapters = {line["dataset"]: line for line in lines if line["event"] == "adapter"}
    assert Counter(line["dataset"] for line in lines if line["event"] == "adapter") == dict.fromkeys("abcd", 1)
    assert adapters["a"]["resumed_from"] == 2, "the checkpoint of a lost machine was not gone on from"
    assert [line["round"] for line in lines if line["event"] == "base"] == [0, 1, 2]
    left = [name for name in remote.list() if ".tmp-" in name or "/training/" in name]
    assert left == []


FAULTS = {
    "put": ["500", "503", "reset", "lost"], "conditional_put": ["503", "lost"], "create_multipart": ["500", "reset"],
    "part": ["503", "reset", "500"], "complete_multipart": ["500", "lost"], "abort_multipart": ["500"],
    "get": ["500", "cut", "reset", "corrupt"], "ranged_get": ["cut", "500", "corrupt"], "head": ["500", "503", "reset"],
    "list": ["503", "cut", "reset"], "delete": ["500", "lost"],
}  # fmt: skip


@pytest.mark.slow
def test_a_fault_in_every_kind_of_request_changes_no_byte(s3: S3, uninterrupted: tuple[Path, str], tmp_path: Path) -> None:
    config, expected = uninterrupted
    remote, held = Objects(f"s3://{BUCKET}/faults/tiny"), tmp_path / "held"
    s3.fail(**{kind: faults for kind, faults in FAULTS.items() if kind != "get"})
    process = start_wfc(
        *command(config, "faults", tmp_path / "one"), log=tmp_path / "log", WFC_HOLD_AT=f"checkpoint:2={held}"
    )  # fmt: skip
    try:
        assert wait_for(held, process), (tmp_path / "log").read_text()
        until(has(remote, "round-0001/training/a/step-2/manifest.json"), "a checkpoint in parts is published")
    finally:
        kill_tree(process)
    first = s3.fired()
    s3.fail(get=FAULTS["get"], **{kind.replace(" ", "_"): faults for kind, faults in s3.left().items() if kind != "get"})

    wfc(*command(config, "faults", tmp_path / "two"))

    fired = {(kind, fault) for kind, fault, _ in [*first, *s3.fired()]}
    assert fired == {(kind.replace("_", " "), fault) for kind, faults in FAULTS.items() for fault in faults}
    assert s3.seen().keys() <= {kind.replace("_", " ") for kind in FAULTS}, "a kind of request without a fault"
    (mirror,) = (tmp_path / "two").glob("tiny-*")
    assert Run(mirror).base().sha256 == expected
    mirror_on_a_new_machine(remote, tmp_path / "new")
    resumed = [line["resumed_from"] for line in ledger(remote) if line["event"] == "adapter" and line["dataset"] == "a"]
    assert resumed == [2]


@pytest.mark.slow
def test_one_writer_that_a_stop_object_reaches(s3: S3, tmp_path: Path) -> None:
    config = tiny.make_config(tmp_path, rounds=[["a"]], train={"max_steps": 5000, "checkpoint_every": 3})
    url, remote = f"s3://{BUCKET}/stopped/tiny", Objects(f"s3://{BUCKET}/stopped/tiny")
    process = start_wfc(*command(config, "stopped", tmp_path / "one"), log=tmp_path / "log")
    try:
        until(has(remote, "round-0001/training/a/step-3/manifest.json"), (tmp_path / "log").read_text())
        second = wfc(*command(config, "stopped", tmp_path / "two"), check=False)
        looked = wfc("status", url, HOME=str(tmp_path / "home"))
        wfc("stop", url)
        assert process.wait(60) == 75, (tmp_path / "log").read_text()
    finally:
        kill_tree(process)

    assert (
        second.returncode == 75
        and f"{url} is in use by `wfc run`, process {process.pid} on {os.uname().nodename}" in second.stderr
    )
    assert "running" in looked.stdout and "checkpoint at" in looked.stdout
    assert json.loads(remote.read("status.json") or b"")["state"] == "interrupted"
    (mirror,) = (tmp_path / "one").glob("tiny-*")
    here = [int(path.parent.name.partition("-")[2]) for path in mirror.glob("round-0001/training/a/*/manifest.json")]
    names = [name for name in remote.list("round-0001/training") if name.endswith("manifest.json")]
    there = [int(name.split("/")[3].partition("-")[2]) for name in names]
    assert max(there) == max(here), "the last checkpoint before the exit was not waited for"
    assert len(there) <= 2, "older checkpoints are pruned; which one of them is left out depends on the time"
    gone = wfc("status", f"s3://{BUCKET}/nothing/here", check=False)
    assert gone.returncode == 2 and "is not a run" in gone.stderr
