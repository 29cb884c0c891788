"""Rounds on a real embedded Ray node: gangs of two, lost workers, what listens where, the same bytes as in one process."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import tiny
from processes import kill_tree, start_wfc, wait_for, wfc

from wfc_dist.runs.handle import Run
from wfc_dist.runs.layout import RunPaths


def ledger(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in RunPaths(run_dir).ledger.read_text().splitlines()]


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    config = tiny.make_config(tmp_path_factory.mktemp("one"), train={"max_steps": 12, "checkpoint_every": 2})
    wfc("run", config, "--plain")
    return config, Run(config.parent / "runs" / "tiny").base().sha256


@pytest.mark.slow
def test_a_lost_trainer_goes_on_from_its_checkpoint_and_the_bytes_are_the_same(
    in_process: tuple[Path, str], tmp_path: Path
) -> None:
    config, expected = in_process
    run_dir, held = tmp_path / "runs" / "tiny", tmp_path / "held"
    command = ("run", config, f"run.dir={tmp_path / 'runs'}", "cluster.backend=ray", "--plain")
    # whichever trainer is the first at its third checkpoint is lost there, after its fourth step's
    process = start_wfc(*command, log=tmp_path / "log", WFC_HOLD_AT=f"checkpoint:3={held}")
    try:
        assert wait_for(held, process), (tmp_path / "log").read_text()
        tree = psutil.Process(process.pid)
        members = [tree, *tree.children(recursive=True)]
        listening = {
            connection.laddr.ip
            for member in members
            for connection in member.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        (trainer,) = [member for member in members if member.pid == int(held.read_text())]
        assert "WorkerActor" in " ".join(trainer.cmdline())
        trainer.kill()
        assert process.wait(600) == 0, (tmp_path / "log").read_text()
    finally:
        kill_tree(process)

    assert listening and all(ip.removeprefix("::ffff:").startswith("127.") or ip == "::1" for ip in listening), listening
    assert Run(run_dir).base().sha256 == expected
    (failure,) = [line for line in ledger(run_dir) if line["event"] == "failure"]
    assert failure["decision"] == "restart"
    resumed = sorted((line["dataset"], line["resumed_from"]) for line in ledger(run_dir) if line["event"] == "adapter")
    assert resumed == [(name, 4 if name == failure["dataset"] else 0) for name in "abcde"]


@pytest.mark.slow
def test_a_lost_rank_of_the_average_costs_the_ranks_a_restart(in_process: tuple[Path, str], tmp_path: Path) -> None:
    config, expected = in_process
    run_dir, held = tmp_path / "runs" / "tiny", tmp_path / "held"
    more = (f"run.dir={tmp_path / 'runs'}", "cluster.backend=ray", "cluster.centralizer_ranks=2")
    process = start_wfc("run", config, *more, "--plain", log=tmp_path / "log", WFC_HOLD_AT=f"average={held}")
    try:
        assert wait_for(held, process), (tmp_path / "log").read_text()
        psutil.Process(int(held.read_text())).kill()  # the other one is waiting for its factors
        assert process.wait(600) == 0, (tmp_path / "log").read_text()
    finally:
        kill_tree(process)

    assert Run(run_dir).base().sha256 == expected
    (failure,) = [line for line in ledger(run_dir) if line["event"] == "failure"]
    assert (failure["work"], failure["decision"], failure["round"]) == ("centralize", "restart", 1)


@pytest.mark.slow
def test_a_gang_of_two_over_zero_and_several_centralizer_ranks(tmp_path: Path) -> None:
    config = tiny.make_config(
        tmp_path, rounds=[["a", "b"], ["c"]], train={"strategy": "zero2"}, evaluate={"adapters": False},
        cluster={"backend": "ray", "workers_per_trainer": 2, "cpus_per_worker": 0.5, "centralizer_ranks": 3},
    )  # fmt: skip
    wfc("run", config, "--plain")
    base = Run(tmp_path / "runs" / "tiny").base()
    assert base.index == 2
    events = [
        json.loads(line)
        for path in (tmp_path / "runs" / "tiny").rglob("events-*.jsonl")
        for line in path.read_text().splitlines()
    ]
    received = [event for event in events if event["event"] == "receive.end"]
    assert len(received) >= 2, "the second round's base came over the object store"
    assert len({path.name for path in (tmp_path / "runs" / "tiny").rglob("events-centralizer-*.jsonl")}) == 3


@pytest.mark.slow
def test_a_trainer_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    config = tiny.make_config(tmp_path, rounds=[["a"]], cluster={"backend": "ray", "cpus_per_worker": 4096})
    done = wfc("run", config, "--plain", check=False)
    assert done.returncode == 2 and "no trainer fits: one needs 1 x (4096 CPU, 0 GPU)" in done.stderr


def to_every_process(pid: int) -> None:
    tree = psutil.Process(pid)
    for member in [*tree.children(recursive=True), tree]:
        member.terminate()


@pytest.mark.slow
@pytest.mark.parametrize(
    "send",
    [
        pytest.param(lambda pid: os.killpg(pid, signal.SIGINT), id="ctrl-c"),  # a terminal sends it to the whole foreground group
        pytest.param(to_every_process, id="sigterm"),  # systemd, and scancel of a step
    ],
)
def test_a_signal_checkpoints_every_trainer(tmp_path: Path, send: Callable[[int], None]) -> None:
    cluster = {"backend": "ray", "cpus_per_worker": 0.5, "max_trainers": 2}
    train = {"max_steps": 100_000, "checkpoint_every": 100_000}
    config = tiny.make_config(tmp_path, rounds=[["a", "b", "c"]], cluster=cluster, train=train)
    round_dir = tmp_path / "runs" / "tiny" / "round-0001"
    process = start_wfc("run", config, "--plain", log=tmp_path / "log")
    try:
        for dataset in "ab":
            assert wait_for(round_dir / "training-curves" / f"{dataset}.jsonl", process)
        members = psutil.Process(process.pid).children(recursive=True)
        send(process.pid)
        assert process.wait(300) == 75, (tmp_path / "log").read_text()
        assert not psutil.wait_procs(members, timeout=60)[1], "a process was left behind"
    finally:
        kill_tree(process)
    status = json.loads((tmp_path / "runs" / "tiny" / "status.json").read_text())
    assert status["state"] == "interrupted" and status["trainers"].pop("c") == {"kind": "waiting"}
    for dataset in "ab":
        (checkpoint,) = (round_dir / "training" / dataset).glob("step-*")
        assert (checkpoint / "manifest.json").is_file() and checkpoint.name != "step-0"
        ending = status["trainers"].pop(dataset)
        assert (ending["kind"], f"step-{ending['step']}") == ("checkpointed", checkpoint.name)
    assert not status["trainers"] and not (round_dir / "training" / "c").exists(), "a queued data set is not started any more"


@pytest.mark.slow
def test_a_ray_that_dies_or_hangs_ends_the_run_with_75_and_the_same_command_goes_on(
    in_process: tuple[Path, str], tmp_path: Path
) -> None:
    config, expected = in_process
    run_dir = tmp_path / "runs" / "tiny"
    command = ("run", config, f"run.dir={tmp_path / 'runs'}", "cluster.backend=ray", "--plain")

    def part_of_ray(process: psutil.Process, name: str) -> psutil.Process:
        (part,) = [child for child in process.children() if child.name() == name]
        return part

    def stop_raylet_and_run(process: psutil.Process) -> None:
        part_of_ray(process, "raylet").suspend()
        process.terminate()

    hits = {
        "gcs_server, a part of Ray on this machine, was ended by SIGKILL": lambda run: part_of_ray(run, "gcs_server").kill(),
        "raylet, a part of Ray on this machine, was ended by SIGKILL": lambda run: part_of_ray(run, "raylet").kill(),
        "SIGTERM: ": stop_raylet_and_run,
    }
    for number, (message, hit) in enumerate(hits.items()):
        held, log = tmp_path / f"held-{number}", tmp_path / f"log-{number}"
        process = start_wfc(*command, log=log, WFC_HOLD_AT=f"merge={held}")
        try:
            assert wait_for(held, process), log.read_text()
            hit(psutil.Process(process.pid))
            assert process.wait(120) == 75, log.read_text()
        finally:
            kill_tree(process)
        status = json.loads((run_dir / "status.json").read_text())
        assert (status["state"], status["exit_code"]) == ("interrupted", 75)
        assert status["message"].startswith(message) and f"wfc: {status['message']}" in log.read_text()
    wfc(*command)
    assert Run(run_dir).base().sha256 == expected
    assert len([line for line in ledger(run_dir) if line["event"] == "stopped"]) == len(hits)
