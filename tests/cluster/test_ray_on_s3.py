"""A Ray cluster of three hosts that have nothing in common but object storage: each mirror lies in a host's own /dev/shm."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import hosts
import pytest
import tiny
from processes import wfc
from ray_nodes import RayNodes
from s3_server import BUCKET, s3_server
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from wfc_dist.runs.handle import Run
from wfc_dist.storage.objects import Objects

CACHE = "/dev/shm/wfc-cache"


def ledger(remote: Objects, event: str) -> list[dict]:
    lines = [json.loads(line) for line in (remote.read("ledger.jsonl") or b"").splitlines()]
    return [line for line in lines if line["event"] == event]


def checkpoints(remote: Objects) -> dict[str, int]:
    """Returns data set -> last step of round 1 with a published checkpoint."""
    found: dict[str, int] = {}
    for name in remote.list("round-0001/training"):
        if name.endswith("manifest.json"):
            dataset, step = name.split("/")[2:4]
            found[dataset] = max(found.get(dataset, 0), int(step.removeprefix("step-")))
    return found


def tracked(remote: Objects, folder: Path, name: str) -> dict[str, list[tuple[int, float]]]:
    """Returns the published curves of TensorBoard of a training of round 1, or of `bases`."""
    for published in remote.list("tracking/tensorboard"):
        (folder / published).parent.mkdir(parents=True, exist_ok=True)
        (folder / published).write_bytes(remote.read(published) or b"")
    place = folder / "tracking" / "tensorboard" / (name if name == "bases" else f"round-0001/{name}")
    events = EventAccumulator(str(place), size_guidance={"scalars": 0})
    events.Reload()
    return {key: [(event.step, event.value) for event in events.Scalars(key)] for key in events.Tags()["scalars"]}


def until(what: Callable[[], object], process: "subprocess.Popen[str]", log: Path) -> None:
    end = time.monotonic() + 150
    while not what():
        assert process.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_three_hosts_share_nothing_but_object_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts.require()
    config = tiny.make_config(tmp_path, rounds=[["a", "b", "c"], ["d"]], train={"max_steps": 60, "checkpoint_every": 5})
    wfc("run", config, "--plain")
    expected = Run(tmp_path / "runs" / "tiny").base().sha256
    url = f"s3://{BUCKET}/runs/tiny"
    remote = Objects(url)
    with RayNodes(folder=tmp_path / "hosts") as cluster, s3_server(tmp_path, cluster.hosts.gateway) as s3:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        cluster.node_env.update(s3.environment)  # as an instance's role gives every node its rights
        cluster.start("node1", "node2", "node3")
        overrides = [f"run.dir=s3://{BUCKET}/runs", f"cluster.cache_dir={CACHE}", "cluster.backend=ray"]
        overrides += [f"cluster.address={cluster.address}", "cluster.wait_for_nodes=3", "run.track=[tensorboard]"]
        command = [sys.executable, "-m", "wfc_dist", "run", config, *overrides, "--plain"]
        log = tmp_path / "log-1"
        first = cluster.hosts["node1"].start(command, env=cluster.node_env, log=log)
        until(lambda: len(checkpoints(remote)) == 3, first, log)
        wfc("stop", url, HOME=str(tmp_path / "home"))
        assert first.wait(120) == 75, log.read_text()
        done = {line["dataset"] for line in ledger(remote, "adapter")}  # a quick host may be through before the last has begun
        at_stop = {name: step for name, step in checkpoints(remote).items() if name not in done}

        cluster.hosts["node2"].run(["rm", "-r", CACHE]).check_returncode()
        log = tmp_path / "log-2"  # the coordinator is on another host now, which has seen only its trainer's part
        second = cluster.hosts["node3"].start(command, env=cluster.node_env, log=log)
        assert second.wait(400) == 0, log.read_text()
        listed = [host.run(["find", CACHE, "-name", "adapter_model.safetensors"]).stdout.split() for host in cluster.hosts]
        wfc("rebuild", url, "--base", "2", "--out", tmp_path / "rebuilt", HOME=str(tmp_path / "home"))

        bases = [line["sha256"] for line in ledger(remote, "base")]
        adapters = {line["dataset"]: line for line in ledger(remote, "adapter")}
        status = json.loads(remote.read("status.json") or b"")
        curves = {name: tracked(remote, tmp_path / "tracking", name) for name in ("a", "b", "c")}
        scored = tracked(remote, tmp_path / "tracking", "bases")
        logs = {name.split("/")[-1] for name in remote.list() if "/logs/attempt-2/" in name}

    assert bases[-1] == expected and len(bases) == 3
    hosts_used = {adapters[name]["host"] for name in "abc"}  # a quick one may take a second data set before the last has started
    assert len(hosts_used) >= 2 and hosts_used <= {"node1", "node2", "node3"}
    assert len(ledger_lines := list(adapters)) == 4, ledger_lines
    assert at_stop and {name: adapters[name]["resumed_from"] for name in at_stop} == at_stop, "they went on from there"
    assert all([step for step, _ in found["train/loss"]] == list(range(1, 61)) for found in curves.values()), curves
    assert all([step for step, _ in points] == [0, 1, 2] for points in scored.values()) and len(scored) == 4
    assert status["state"] == "done" and status["host"] == "node3"
    assert len(listed[2]) == 4 and len(listed[1]) < 4, "only the coordinator's host has everything"
    assert {"coordinator.log", "gang-0-rank-0.log", "gang-1-rank-0.log", "gang-2-rank-0.log"} <= logs
    assert (tmp_path / "rebuilt" / "model.safetensors").is_file()
