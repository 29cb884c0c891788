"""Processes that stop answering in mid-work are noticed, named and replaced, and the bytes are those of a run without a hang."""

import json
import re
import signal
import socket
from pathlib import Path

import psutil
import pytest
import tiny
from processes import kill_tree, start_wfc, wait_for, wfc

from wfc_dist.runs.handle import Run
from wfc_dist.runs.layout import RunPaths

LIMIT_S = 5.0
ON_RAY = ("cluster.backend=ray", f"cluster.hang_timeout_s={LIMIT_S:g}", "cluster.start_timeout_s=60", "--plain")


def ledger(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in RunPaths(run_dir).ledger.read_text().splitlines()]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    train = {"max_steps": 12, "checkpoint_every": 2}
    config = tiny.make_config(tmp_path_factory.mktemp("one"), rounds=[["a"]], train=train, cluster={"workers_per_trainer": 1})
    wfc("run", config, "--plain")
    return config, Run(config.parent / "runs" / "tiny").base().sha256


@pytest.mark.slow
def test_a_trainer_that_is_stopped_in_mid_training_is_named_and_replaced(plain: tuple[Path, str], tmp_path: Path) -> None:
    config, expected = plain
    run_dir, held = tmp_path / "runs" / "tiny", tmp_path / "held"
    # The trainer is stopped by SIGSTOP at its third checkpoint, while it is held there.
    process = start_wfc(
        "run", config, f"run.dir={tmp_path / 'runs'}", *ON_RAY, log=tmp_path / "log", WFC_HOLD_AT=f"checkpoint:3={held}"
    )
    try:
        assert wait_for(held, process), (tmp_path / "log").read_text()
        trainer = psutil.Process(int(held.read_text()))
        trainer.send_signal(signal.SIGSTOP)
        assert process.wait(300) == 0, (tmp_path / "log").read_text()
        assert not trainer.is_running(), "a stopped process is ended"
    finally:
        kill_tree(process)

    assert Run(run_dir).base().sha256 == expected
    (failure,) = [line for line in ledger(run_dir) if line["event"] == "failure"]
    assert (failure["kind"], failure["decision"], failure["dataset"]) == ("hung", "restart", "a")
    host, step = socket.gethostname(), failure["step"]
    assert (failure["host"], failure["rank"]) == (host, 0) and step <= 6
    assert re.search(rf"a: rank 0 on {host} has not answered for \d+ s, last seen in \w+", (tmp_path / "log").read_text())
    (adapter,) = [line for line in ledger(run_dir) if line["event"] == "adapter"]
    assert adapter["resumed_from"] == 4
