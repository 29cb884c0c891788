"""`sbatch slurm/round.sh` on three Slurm nodes: shared nodes, all that can happen to a job, and the bytes of a laptop."""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from processes import start_wfc
from slurm_cluster import SlurmCluster, poll

from wfc_dist.runs.handle import Run
from wfc_dist.runs.layout import RunPaths

ROUND = Path(__file__).parents[2] / "slurm" / "round.sh"
NODES = ["node1", "node2", "node3"]
# Each host has a /tmp/ray of its own; the rest of /tmp is this machine's.
KNOBS = {"WFC_PYTHON": sys.executable, "WFC_RAY_TMP": "/tmp/ray", "WFC_OBJECT_STORE_MB": "150"}


def ledger(run_dir: Path, event: str) -> list[dict[str, Any]]:
    path = RunPaths(run_dir).ledger
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    return [row for row in rows if row["event"] == event]


def progress(run_dir: Path, first_round: int = 1) -> int:
    """Returns the steps made so far by all adapters of the rounds from `first_round` on."""
    steps = 0
    for round_index in (1, 2)[first_round - 1 :]:
        for path in RunPaths(run_dir).curve(round_index, "").parent.glob("*.jsonl"):
            lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
            steps += json.loads(lines[-1])["step"] if lines else 0
    return steps


def submit(slurm: SlurmCluster, config: Path, *overrides: object, options: tuple[str, ...] = (), **knobs: str) -> str:
    place = config.parent
    (place / "logs").mkdir(exist_ok=True)
    usual = ("--cpus-per-task=2", "--signal=B:USR1@50")
    return slurm.submit(ROUND, config, *overrides, options=(*usual, *options), env={**KNOBS, **knobs}, cwd=place)


def launched(slurm: SlurmCluster, config: Path, *overrides: str, log: Path) -> "subprocess.Popen[bytes]":
    """Submits with launch/submit_slurm.py, which watches the job to its end; its words go to `log`."""
    script = Path(__file__).parents[2] / "launch" / "submit_slurm.py"
    options = ("--cpus-per-task=2", "--gpus-per-node=1")
    env = {**os.environ, **slurm.env, **KNOBS}
    with open(log, "wb") as file:
        command = [sys.executable, script, *options, config, *overrides]
        return subprocess.Popen(command, cwd=config.parent, env=env, stdout=file, stderr=file)


def output(config: Path, job: str) -> str:
    return (config.parent / "logs" / f"wfc-{job}.out").read_text()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    train = {"max_steps": 120, "checkpoint_every": 10}
    return tiny.make_config(tmp_path_factory.mktemp("config"), train=train, evaluate={"adapters": False})


def on_a_laptop(config: Path, folder: Path, *overrides: str) -> Callable[[], str]:
    """Starts the run in one process, which Slurm's jobs do not wait for; returns what waits for its last base's sha256."""
    log = folder / "laptop.log"
    process = start_wfc("run", config, f"run.dir={folder / 'laptop'}", *overrides, "--plain", log=log)

    def sha256() -> str:
        assert process.wait(300) == 0, log.read_text()
        return Run(folder / "laptop" / "tiny").base().sha256

    return sha256


@pytest.mark.slow
def test_two_jobs_on_the_same_nodes_each_train_three_adapters_on_three_hosts(
    slurm: SlurmCluster, config: Path, tmp_path: Path
) -> None:
    short = ("rounds=[[a,b,c]]", "train.max_steps=50")
    expected = on_a_laptop(config, tmp_path, *short)
    (config.parent / "logs").mkdir(exist_ok=True)
    launcher = launched(slurm, config, f"run.dir={tmp_path / 'one'}", *short, log=tmp_path / "launch.log")
    # The task that starts last has the id of the whole array for its own.
    (tmp_path / "list").write_text(f"# a line for each run\nno.yaml\n{config} run.dir={tmp_path / 'two'} {' '.join(short)}\n")
    usual = ("--array=1-2", "--cpus-per-task=2", "--gpus-per-node=1")
    second = slurm.submit(ROUND.with_name("array.sh"), tmp_path / "list", options=usual, env=KNOBS, cwd=config.parent)
    poll("it was submitted", lambda: "slurm: job " in (tmp_path / "launch.log").read_text(), 60)
    first = (tmp_path / "launch.log").read_text().partition("slurm: job ")[2].partition(":")[0]
    jobs = {"one": first, "two": f"{second}_2"}
    logs = {first: f"wfc-{first}.out", jobs["two"]: f"wfc-{second}_2.out"}
    texts = {job: lambda name=name: (config.parent / "logs" / name).read_text() for job, name in logs.items()}
    for job in jobs.values():
        slurm.wait(job, "COMPLETED", timeout_s=400)

    assert launcher.wait(60) == 0
    assert f"sha256 {expected()}" in (tmp_path / "launch.log").read_text(), "what launch/submit_slurm.py prints at the end"
    starts, ends = zip(*((slurm.info(job)["StartTime"], slurm.info(job)["EndTime"]) for job in jobs.values()), strict=True)
    assert max(starts) < min(ends), "they did not run at the same time"
    ports = {line.split("Ray at ")[1].split(";")[0] for job in jobs.values() for line in [texts[job]().splitlines()[0]]}
    assert len(ports) == 2
    for name, job in jobs.items():
        run_dir = tmp_path / name / "tiny"
        adapters = {row["dataset"]: row["host"] for row in ledger(run_dir, "adapter") if row["round"] == 1}
        assert sorted(adapters) == ["a", "b", "c"] and sorted(adapters.values()) == NODES
        (base,) = [row for row in ledger(run_dir, "base") if row["round"] == 1]
        assert sorted(base["hosts"]) == NODES, "ranks of the average"
        sent = [row for row in ledger(run_dir, "broadcast") if row["round"] == 1]
        assert [(sorted(row["hosts"]), row["sha256"]) for row in sent] == [(NODES, base["sha256"])]
        assert Run(run_dir).base().sha256 == expected()
        (attempt,) = ledger(run_dir, "attempt")
        assert attempt["slurm_job_id"] == job.partition("_")[0]
        assert slurm.info(job)["ExitCode"] == "0:0"
        assert f"node3 ({slurm.hosts['node3'].ip}, eth0): 2 CPU, 1 GPU" in texts[job]()
        kept = run_dir / "logs" / "ray" / f"{job.partition('_')[0]}-0"
        assert all((kept / node / "raylet.out").exists() for node in NODES)
    assert "no.yaml" in (config.parent / "logs" / f"wfc-{second}_1.out").read_text()
    for host in slurm.hosts:
        assert "raylet" not in host.run(["ps", "axww"]).stdout, "Ray was left running"
        assert host.run(["ls", "/tmp/ray"]).stdout == "", "Ray's folder was left behind"


@pytest.mark.slow
@pytest.mark.timeout(1800)  # five starts of a cluster, beside the other tests
def test_one_job_survives_everything_and_ends_with_the_same_bytes(slurm: SlurmCluster, config: Path, tmp_path: Path) -> None:
    expected = on_a_laptop(config, tmp_path)
    run_dir = tmp_path / "tiny"
    job = submit(slurm, config, f"run.dir={tmp_path}", options=("--time=1",))

    def attempts() -> list[dict[str, Any]]:
        return ledger(run_dir, "attempt")

    def trained(restart: int, round_index: int) -> None:
        """Waits until this start of the job has trained a little, in that round."""
        poll(f"restart {restart}", lambda: str(restart) in [row.get("slurm_restart_count") for row in attempts()], 300)
        before = progress(run_dir)
        poll(f"restart {restart} trains", lambda: progress(run_dir) > before + 5 and progress(run_dir, round_index) > 5, 400)

    # 1. the time limit comes near: Slurm looks every 30 s, so the warning comes between 10 and 40 s after the start
    poll("it is requeued", lambda: slurm.info(job)["Restarts"] == "1", 90)
    slurm.run("scontrol", "update", f"jobid={job}", "TimeLimit=60")
    # 2. a warning at will
    trained(restart=1, round_index=1)
    slurm.signal(job, "USR1")
    # 3. preemption: the warning comes at once, 10 s later the axe
    trained(restart=2, round_index=1)
    (tmp_path / "other.sh").write_text("#!/bin/bash\n")
    other = slurm.submit(tmp_path / "other.sh", options=["--nodes=3", "--exclusive", "--partition=high", "--output=/dev/null"])
    slurm.wait(other, "COMPLETED", timeout_s=60)
    # 4. a node loses its power in round 2, when three adapters are finished: the run goes on without it
    trained(restart=3, round_index=2)
    slurm.kill_node("node3")
    trained(restart=3, round_index=2)
    assert slurm.info(job)["JobState"] == "RUNNING" and slurm.info(job)["Restarts"] == "3", "the job ended with the node"
    slurm.boot_node("node3")
    # then the first node, and with it the coordinator: Slurm requeues the job
    slurm.kill_node("node1")
    slurm.boot_node("node1")
    # 5. the controller is restarted; the job does not notice
    trained(restart=4, round_index=2)
    slurm.restart_controller()
    slurm.wait(job, "COMPLETED", timeout_s=240)

    assert Run(run_dir).base().sha256 == expected()
    adapters = Counter((row["round"], row["dataset"]) for row in ledger(run_dir, "adapter"))
    assert adapters == {(1, "a"): 1, (1, "b"): 1, (1, "c"): 1, (2, "d"): 1, (2, "e"): 1}, "an adapter was trained twice"
    before = {row.get("slurm_restart_count"): row["before"] for row in attempts()}
    assert before["2"] == before["3"] == "interrupted" and before["4"] == "lost"
    assert before.keys() == {None, "1", "2", "3", "4"} or before.keys() == {"1", "2", "3", "4"}  # warned before it began
    assert {row["reason"] for row in ledger(run_dir, "stopped")} == {"SIGUSR1"}
    assert max(row["resumed_from"] for row in ledger(run_dir, "adapter") if row["round"] == 1) > 0
    text = output(config, job)
    assert text.count("SIGUSR1: checkpointing") == 3 and text.count("requeueing the job") == 3

    # a requeued job that is finished has nothing to do
    slurm.run("scontrol", "requeue", job)
    poll("it ran again", lambda: output(config, job).endswith(f"{run_dir} is done already\n"), 60)
    slurm.wait(job, "COMPLETED")
    assert attempts()[-1]["slurm_restart_count"] == "4"


def test_mistakes_are_told_with_names(slurm: SlurmCluster, config: Path) -> None:
    own = f"run.dir=/dev/shm/{os.getpid()}"  # a folder that is there on each host, and another one on each
    jobs = {
        submit(slurm, config, own): ("2:0", "node2", "node3", "does not see the run directory", "run.dir on a shared"),
        submit(slurm, config, f"run.dir={config.parent / 'more'}", "cluster.wait_for_nodes=[node1,node4]",
               "cluster.start_timeout_s=10", WFC_MAX_REQUEUES="0"):
        ("75:0", "missing: node4", "there are node1", "cluster.wait_for_nodes"),
    }  # fmt: skip
    for job, (code, *said) in jobs.items():
        slurm.wait(job, "FAILED", timeout_s=120)
        assert slurm.info(job)["ExitCode"] == code, output(config, job)
        errors = [line for line in output(config, job).splitlines() if line.startswith("wfc: ")]
        assert len(errors) == 1 and all(words in errors[0] for words in said), output(config, job)
