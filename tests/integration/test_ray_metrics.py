"""What Prometheus reads at a node of Ray while a run trains there: real trainers, and one that is lost."""

import contextlib
import re
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import tiny
from processes import kill_tree, start_wfc, wait_for

from wfc_dist.runs.handle import Run

LINE = re.compile(r'ray_(wfc_\w+)\{.*?(?:dataset="(\w+)")?,otel_scope_name.*run="(\w+)"\} (\S+)')
Metrics = dict[tuple[str, str], float]


def exporters(pid: int) -> list[tuple[str, int]]:
    """Returns the addresses at which the agent of a program's Ray node listens: one answers with the metrics."""
    found = []
    for member in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            if "DashboardAgent" in " ".join(member.cmdline()):
                found += [
                    tuple(conn.laddr)
                    for conn in member.net_connections("inet")
                    if conn.status == psutil.CONN_LISTEN and conn.laddr.ip == "127.0.0.1"
                ]
    return found


def exported(pid: int) -> Metrics:
    """Returns (metric, data set or "") -> value."""
    found: Metrics = {}
    for ip, port in exporters(pid):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{ip}:{port}/metrics", timeout=5) as answer:
            for name, dataset, run, value in LINE.findall(answer.read().decode(errors="replace")):
                assert run == "tiny"
                found[name, dataset] = float(value)
    return found


def wait_until(pid: int, is_there: Callable[[Metrics], bool], timeout_s: float = 120) -> Metrics:
    end, metrics = time.monotonic() + timeout_s, {}
    while time.monotonic() < end:
        if is_there(metrics := exported(pid)):
            return metrics
        time.sleep(1)
    raise AssertionError(f"after {timeout_s:g} s there are {metrics}")


@pytest.mark.slow
def test_trainers_and_coordinator_export_what_they_do(tmp_path: Path) -> None:
    config = tiny.make_config(tmp_path, (("a",), ("b",)), train={"max_steps": 3000, "checkpoint_every": 2})
    held, began_s = tmp_path / "held", time.time()
    process = start_wfc("run", config, "cluster.backend=ray", "--plain", log=tmp_path / "log", WFC_HOLD_AT=f"checkpoint:3={held}")
    try:
        assert wait_for(held, process), (tmp_path / "log").read_text()  # the trainer took steps 1 to 6
        metrics = wait_until(process.pid, lambda found: found.get(("wfc_step", "a")) == 6)
        assert metrics["wfc_round", ""] == 1
        assert metrics["wfc_loss", "a"] == Run(tmp_path / "runs" / "tiny").curve(1, "a")[5]["loss"]
        assert metrics["wfc_audio_seconds_per_second", "a"] > 0
        assert 0 <= metrics["wfc_data_wait_share", "a"] <= 1
        assert began_s < metrics["wfc_last_checkpoint_time_seconds", "a"] < time.time()
        assert ("wfc_trainer_failures_total", "a") not in metrics

        psutil.Process(int(held.read_text())).kill()

        metrics = wait_until(process.pid, lambda found: ("wfc_trainer_failures_total", "a") in found)
        assert metrics["wfc_trainer_failures_total", "a"] == 1
    finally:
        kill_tree(process)
