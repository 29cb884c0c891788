"""One small Slurm job per adapter, on three real hosts: preempted, its coordinator killed, stopped; the same bytes."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny
from hosts import write_breakable_torch
from processes import kill_tree, start_wfc, wfc
from slurm_cluster import SlurmCluster
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from wfc_dist.config.loading import load_config
from wfc_dist.doctor.findings import Finding
from wfc_dist.doctor.sites import check_slurm
from wfc_dist.runs.handle import Run
from wfc_dist.runs.layout import RunPaths
from wfc_dist.runs.precision import has_bf16

ALONE = "cluster.cpus_per_worker=8"  # a whole node: three jobs stand on three hosts


def ledger(run_dir: Path, event: str) -> list[dict]:
    lines = [json.loads(line) for line in RunPaths(run_dir).ledger.read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def starts(run_dir: Path, label: str) -> list[dict]:
    path = run_dir / "slurm" / "round-0001" / label / "starts.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def await_true(
    what: str, happened: Callable[[], bool], process: subprocess.Popen[str], log: Path, timeout_s: float = 120
) -> None:
    end = time.monotonic() + timeout_s
    while not happened():
        assert process.poll() is None, f"ended with {process.returncode} before {what}\n{log.read_text()}"
        assert time.monotonic() < end, f"not within {timeout_s} s: {what}\n{log.read_text()}"
        time.sleep(0.1)


def launch(config: Path, *overrides: str, log: Path, cwd: Path) -> subprocess.Popen[str]:
    script = Path(__file__).parents[2] / "launch" / "submit_slurm.py"
    with open(log, "a", encoding="utf-8") as file:
        return subprocess.Popen(
            [sys.executable, script, "--per-adapter", config, *overrides],
            stdout=file, stderr=subprocess.STDOUT, text=True, cwd=cwd, start_new_session=True,
        )  # fmt: skip


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder every host sees and may enter."""
    with tempfile.TemporaryDirectory(prefix="wfc-jobs-") as folder:
        yield Path(folder)


@pytest.mark.slow
def test_preempted_jobs_and_a_killed_coordinator_end_with_the_same_bytes(
    slurm: SlurmCluster, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.use(monkeypatch)
    config = tiny.make_config(
        shared, rounds=[["a", "b", "c"]], train={"max_steps": 80, "checkpoint_every": 1000}, evaluate={"adapters": False}
    )
    wfc("run", config, "--plain", f"run.dir={shared / 'one'}")
    expected = Run(shared / "one" / "tiny").base().sha256
    run_dir, log = shared / "runs" / "tiny", shared / "log"
    command = (config, "cluster.backend=slurm", ALONE, "cluster.centralizer_ranks=2", "run.track=[tensorboard]")

    process = start_wfc("run", "--plain", *command, log=log)
    try:
        curves = [RunPaths(run_dir).curve(1, name) for name in "abc"]
        await_true("all three train", lambda: all(path.exists() for path in curves), process, log)
        (first,) = starts(run_dir, "train-b-1")
        options = ["--partition=high", f"--nodelist={first['host']}", "--exclusive"]
        slurm.run("sbatch", *options, "--output=/dev/null", "--wrap=sleep 2")
        await_true("b is requeued", lambda: len(starts(run_dir, "train-b-1")) >= 2, process, log)
    finally:
        kill_tree(process)
    # the next coordinator is a job itself, which waits for a core, is warned, and comes back
    launcher = launch(*command, log=log, cwd=shared)
    try:
        await_true("it coordinates", lambda: len(ledger(run_dir, "attempt")) == 2, launcher, log)
        coordinator = ledger(run_dir, "attempt")[1]["slurm_job_id"]
        slurm.signal(coordinator, "USR1")
        assert launcher.wait(240) == 0, log.read_text()
    finally:
        kill_tree(launcher)

    assert Run(run_dir).base().sha256 == expected, log.read_text()
    said = log.read_text()
    assert (
        f"run done: base 1 is {run_dir}/base-0001, sha256 {expected}" in said
        and f"job {coordinator}: COMPLETED, exit code 0" in said
    )
    assert [line["slurm_restart_count"] for line in ledger(run_dir, "attempt")[2:]] == ["1"]
    adapters = {line["dataset"]: line for line in ledger(run_dir, "adapter")}
    assert len(ledger(run_dir, "adapter")) == 3 and adapters.keys() == set("abc")
    assert len({starts(run_dir, f"train-{name}-1")[0]["host"] for name in "abc"}) == 3
    assert not list((run_dir / "slurm" / "round-0001").glob("train-*-2")), "a job was submitted twice"
    assert adapters["b"]["resumed_from"] > 0 and adapters["b"]["requeues"] >= 1
    assert adapters["a"]["resumed_from"] == adapters["c"]["resumed_from"] == 0
    assert "preempted" in ledger(run_dir, "requeue")[0]["reason"] and ledger(run_dir, "requeue")[0]["dataset"] == "b"
    assert ledger(run_dir, "failure") == []
    assert {line["before"] for line in ledger(run_dir, "attempt")} == {"none", "lost"}
    for line in adapters.values():
        assert slurm.history(line["slurm_job"])[-1]["State"] == "COMPLETED"
    assert len(list(run_dir.rglob("events-centralizer-*.jsonl"))) == 2
    for name in "abc":  # whoever coordinated
        events = EventAccumulator(str(run_dir / "tracking" / "tensorboard" / "round-0001" / name), size_guidance={"scalars": 0})
        events.Reload()
        assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 81)), name


@pytest.mark.slow
def test_stop_checkpoints_running_jobs_and_empties_the_queue(
    slurm: SlurmCluster, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.use(monkeypatch)
    cluster = {"backend": "slurm", "workers_per_trainer": 2, "slurm": {"parameters": {"nodes": 2, "ntasks-per-node": 1}}}
    config = tiny.make_config(
        shared, rounds=[["a", "b"]], train={"max_steps": 100_000, "checkpoint_every": 100_000}, cluster=cluster,
        evaluate={"max_clips": 1},
    )  # fmt: skip
    run_dir, log = shared / "runs" / "tiny", shared / "log"

    process = start_wfc("run", config, "--plain", ALONE, log=log)
    try:
        await_true("one trains", lambda: any((run_dir / "round-0001" / "training-curves").glob("*.jsonl")), process, log)
        await_true("the other waits", lambda: "pending Resources" in log.read_text(), process, log)
        wfc("stop", run_dir)
        assert process.wait(120) == 75, log.read_text()
    finally:
        kill_tree(process)

    assert slurm.run("squeue", "-h", "-t", "PENDING,RUNNING") == ""
    (checkpoint,) = (run_dir / "round-0001" / "training").glob("*/step-*")
    assert checkpoint.name != "step-0" and (checkpoint / "manifest.json").is_file()
    trained = checkpoint.parent.name
    (waited,) = {"a", "b"} - {trained}
    assert starts(run_dir, f"train-{trained}-1") and not starts(run_dir, f"train-{waited}-1")
    assert len(list(run_dir.rglob(f"events-train-{trained}-rank-*.jsonl"))) == 2, "one process on each of two hosts"
    assert ledger(run_dir, "failure") == []


@pytest.mark.slow
def test_a_job_whose_process_is_stopped_is_cancelled_and_a_new_one_goes_on(
    slurm: SlurmCluster, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.use(monkeypatch)
    train = {"max_steps": 12, "checkpoint_every": 2}
    config = tiny.make_config(shared, rounds=[["a"]], train=train, evaluate={"adapters": False})
    wfc("run", config, "--plain", f"run.dir={shared / 'one'}")
    run_dir, log, held = shared / "runs" / "tiny", shared / "log", shared / "held"
    command = (config, "cluster.backend=slurm", ALONE, "cluster.hang_timeout_s=20", "cluster.start_timeout_s=60")

    process = start_wfc("run", "--plain", *command, log=log, WFC_HOLD_AT=f"checkpoint:3={held}")
    try:
        await_true("it trains", held.exists, process, log)
        (host,) = [line["host"] for line in starts(run_dir, "train-a-1")]
        slurm.hosts[host].run(["kill", "-STOP", held.read_text()]).check_returncode()  # the pid that the host knows it by
        assert process.wait(300) == 0, log.read_text()
    finally:
        kill_tree(process)

    assert Run(run_dir).base().sha256 == Run(shared / "one" / "tiny").base().sha256
    (failure,) = ledger(run_dir, "failure")
    assert (failure["kind"], failure["dataset"], failure["host"], failure["decision"]) == ("hung", "a", host, "restart")
    assert f"a: rank 0 on {host} has not answered for" in log.read_text()
    (adapter,) = ledger(run_dir, "adapter")
    assert adapter["resumed_from"] == 4


@pytest.mark.slow
def test_a_data_set_that_fails_is_folded_in_late_and_a_merge_that_is_too_large_is_scaled_down(
    slurm: SlurmCluster, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.use(monkeypatch)
    evaluate = {"max_clips": 1, "interim": "none"}
    config = tiny.make_config(shared, rounds=[["a", "b", "c"], ["d"]], train={"max_steps": 2}, evaluate=evaluate)
    without = "rounds=[[a, b]]"
    wfc("run", config, "--plain", without, "run.name=wide", "centralize.gate={max_update_ratio: 10}")
    limit = 0.7 * Run(shared / "runs" / "wide").base().facts["gate"]["trials"][0]["update_ratio"]
    gate = f"centralize.gate={{max_update_ratio: {limit}, action: scale}}"
    wfc("run", config, "--plain", without, "run.name=one", gate)
    run_dir, log, held = shared / "runs" / "tiny", shared / "log", shared / "held"

    command = ("run", "--plain", config, "cluster.backend=slurm", "centralize.quorum=2", "centralize.late=next_round", gate)
    shutil.copytree(shared / "c", shared / "kept")

    process = start_wfc(*command, log=log, WFC_HOLD_AT=f"open_root={held}")
    try:
        await_true("the audit has passed c", held.exists, process, log)
        for clip in (shared / "c" / "audio").glob("train-*"):
            clip.write_bytes(b"")
        held.unlink()
        await_true("round 1 is committed", (run_dir / "base-0001" / "manifest.json").exists, process, log, 300)
    finally:
        kill_tree(process)
    shutil.rmtree(shared / "c")
    shutil.move(shared / "kept", shared / "c")
    done = wfc(*command)

    opened = Run(run_dir)
    assert opened.base(1).sha256 == Run(shared / "runs" / "one").base().sha256
    assert list(opened.base(1).missing) == ["c"] and "c/train: cannot read audio" in opened.base(1).missing["c"]
    assert opened.base(1).facts["gate"]["passed"] == "scale x 0.5"
    assert "round 2: c of round 1 is late, and trained against base 0" in done.stderr
    assert opened.base(2).facts["grafted"] == {"c": opened.base(0).sha256}
    late, _ = (line for line in ledger(run_dir, "adapter") if line["dataset"] == "c")
    assert late["round"] == 1 and late["late"] and slurm.history(late["slurm_job"])[-1]["State"] == "COMPLETED"
    (aside,) = ledger(run_dir, "quarantined")
    assert aside["dataset"] == "c" and "the file has no bytes" in aside["traceback"]
    (refused,) = (line for line in ledger(run_dir, "gate") if line["round"] == 1)
    assert "max_update_ratio" in json.dumps(refused)


@pytest.mark.slow
def test_a_node_on_which_every_job_fails_is_excluded(slurm: SlurmCluster, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm.use(monkeypatch)
    config = tiny.make_config(shared, rounds=[["a"]], train={"max_steps": 2}, evaluate={"adapters": False, "max_clips": 1})
    wfc("run", config, "--plain", f"run.dir={shared / 'one'}")
    write_breakable_torch(shared / "shim")
    path = f"{shared / 'shim'}:{os.environ.get('PYTHONPATH', '')}".rstrip(":")
    slurm.hosts["node1"].break_torch()  # the first one that Slurm takes
    try:
        done = wfc("run", config, "--plain", "cluster.backend=slurm", "cluster.max_failures=0", PYTHONPATH=path)
    finally:
        slurm.hosts["node1"].repair_torch()

    run_dir = shared / "runs" / "tiny"
    assert Run(run_dir).base().sha256 == Run(shared / "one" / "tiny").base().sha256
    reason = "ImportError: libcudart.so.12: cannot open shared object file: No such file or directory"
    (left_out,) = ledger(run_dir, "node_left_out")
    assert (left_out["node"], left_out["reason"]) == (
        "node1",
        reason,
    ) and f"node1 is left out for 1800 s: {reason}" in done.stderr
    assert [(line["host"], line["kind"]) for line in ledger(run_dir, "failure")] == [("node1", "failed at its start")] * 2
    (adapter,) = ledger(run_dir, "adapter")
    assert adapter["host"] != "node1" and slurm.info(adapter["slurm_job"])["ExcNodeList"] == "node1"


@pytest.mark.slow
def test_a_job_says_what_precision_auto_is(slurm: SlurmCluster, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slurm.use(monkeypatch)
    train, evaluate = {"max_steps": 2, "precision": "auto"}, {"adapters": False, "max_clips": 1}
    config = tiny.make_config(shared, rounds=[["a"]], train=train, evaluate=evaluate, cluster={"backend": "slurm"})
    wfc("run", config, "--plain")

    run_dir = shared / "runs" / "tiny"
    (line,) = ledger(run_dir, "precision")
    assert line["precision"] == Run(run_dir).config.train.precision == ("bf16" if has_bf16(use_gpu=False) else "fp32")
    assert len(starts(run_dir, "precision-1")) == 1


@pytest.mark.slow
def test_what_cannot_work_is_said(slurm: SlurmCluster, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny.make_config(shared, rounds=[["a"]], cluster={"backend": "slurm"})
    bare = shared / "bin"
    bare.mkdir()
    for name in ("env", "sh"):
        (bare / name).symlink_to(str(shutil.which(name)))

    nowhere = wfc("run", config, check=False, PATH=str(bare))
    slurm.use(monkeypatch)
    partition = wfc("run", config, "cluster.slurm.partition=gpu", check=False)
    too_large = wfc("run", config, "cluster.cpus_per_worker=4096", check=False)
    assert not (shared / "runs").exists(), "nothing was started"
    with tempfile.TemporaryDirectory(prefix="wfc-", dir="/dev/shm") as folder:  # which every host has for itself
        hidden = wfc("run", config, f"run.dir={folder}", check=False)

    assert (nowhere.returncode, partition.returncode, too_large.returncode, hidden.returncode) == (2, 2, 2, 2)
    assert "there is no Slurm here" in nowhere.stderr and "cluster.backend=ray" in nowhere.stderr
    assert "no partition 'gpu'; partitions here: debug (default), high" in partition.stderr
    assert "Slurm would not take a job that trains, 1 x (4096 CPU): sbatch: " in too_large.stderr
    assert "not visible on node" in hidden.stderr and folder in hidden.stderr


@pytest.mark.slow
def test_the_doctor_knows_the_site_and_the_nodes_that_take_no_jobs(
    slurm: SlurmCluster, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.use(monkeypatch)
    path = tiny.make_config(shared, rounds=[["a"]], cluster={"backend": "slurm"})

    def told(*overrides: str) -> dict[tuple[str, str], Finding]:
        return {(line.topic, line.state): line for line in check_slurm(load_config(path, overrides), path, overrides)}

    healthy, elsewhere = told(), told("cluster.slurm.partition=gpu")
    slurm.kill_node("node2")
    slurm.set_node("node3", "drain")
    slurm.run("scontrol", "update", "PartitionName=debug", "MaxTime=90")
    try:
        some, too_long = told("cluster.slurm.time_min=90"), told("cluster.slurm.time_min=91")
        slurm.set_node("node1", "drain")
        none = told("cluster.slurm.partition=debug")
    finally:
        slurm.run("scontrol", "update", "PartitionName=debug", "MaxTime=UNLIMITED")
        for name in ("node1", "node3"):
            slurm.set_node(name, "resume")

    assert "partitions: debug (up, default), high (up)" in healthy["slurm", "ok"].what
    assert healthy["partition debug", "ok"].what == "no time limit; nodes that take jobs: 3 idle; gpu:2"
    assert healthy["slurm jobs", "ok"].what == "Slurm would take them" and not any("problem" in key for key in healthy)
    assert "there is no partition 'gpu'; partitions here: debug (default), high" in elsewhere["slurm jobs", "problem"].what
    assert some["partition debug", "ok"].what == "at most 90 min a job; nodes that take jobs: 1 idle; gpu:2"
    said = some["partition debug", "warning"].what
    assert "node2 is down" in said and "node3 is drained (test)" in said and ("slurm jobs", "ok") in some
    assert "a time limit of 91 min is above partition debug's 90 min" in too_long["slurm jobs", "problem"].what
    assert "nodes that take jobs: none" in none["partition debug", "problem"].what and ("slurm jobs", "problem") in none
