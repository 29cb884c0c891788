"""A host whose plug is pulled while adapters are averaged, and while a base is broadcast: same bytes."""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import hosts
import pytest
import tiny
from processes import wfc
from ray_nodes import RayNodes

from wfc_dist.runs.handle import Run
from wfc_dist.runs.layout import RunPaths

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
WORKERS = ("node2", "node3")


@pytest.fixture(scope="module")
def one_process() -> Iterator[tuple[Path, str]]:
    """A configuration in a folder that all hosts see, and what a run in one process ends with."""
    hosts.require()
    with tempfile.TemporaryDirectory(prefix="wfc-lost-") as name:
        folder = Path(name)
        config = tiny.make_config(folder, rounds=[["a", "b"], ["c", "d"]])
        wfc("run", config, f"run.dir={folder / 'one-process'}", "--plain")
        yield config, Run(folder / "one-process" / "tiny").base().sha256


@pytest.mark.parametrize("point", ["average", "receive:2"])
def test_a_host_lost_in_averaging_or_broadcasting_costs_one_host(
    one_process: tuple[Path, str], point: str, tmp_path: Path
) -> None:
    config, expected = one_process
    run_dir = config.parent / point.partition(":")[0] / "tiny"
    with tempfile.TemporaryDirectory(prefix="wfc-ray-") as name, RayNodes(folder=Path(name)) as cluster:
        cluster.start("node1", head_cpus=0)
        held = {node: config.parent / f"{point}-{node}" for node in WORKERS}
        for node, file in held.items():
            cluster.node_env["WFC_HOLD_AT"] = f"{point}={file}"
            cluster.add(node)
        del cluster.node_env["WFC_HOLD_AT"]
        log = tmp_path / "log"
        command = [sys.executable, "-m", "wfc_dist", "run", config, f"run.dir={run_dir.parent}", "cluster.backend=ray",
                   "cluster.max_trainers=2", f"cluster.address={cluster.address}", "--plain"]  # fmt: skip
        driver = cluster.hosts["node1"].start(list(map(str, command)), env=cluster.node_env, log=log)
        end = time.monotonic() + 200
        while not any(file.exists() for file in held.values()):
            assert driver.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        time.sleep(1)  # of two hosts that hold, both have come
        lost = next(node for node, file in held.items() if file.exists())
        cluster.kill(lost)
        end = time.monotonic() + 300
        while driver.poll() is None:
            assert time.monotonic() < end, log.read_text()
            for file in held.values():  # processes that come to the point later would hold again
                file.unlink(missing_ok=True)
            time.sleep(0.2)
        assert driver.returncode == 0, log.read_text()

    lines = [json.loads(line) for line in RunPaths(run_dir).ledger.read_text().splitlines()]
    assert Run(run_dir).base().sha256 == expected, log.read_text()
    assert lost in log.read_text(), "the host is named"
    assert sum(line["event"] == "adapter" for line in lines) == 4, "no adapter is trained again"
    assert sum(line["event"] == "attempt" for line in lines) == 1
