"""The Slurm backend without Slurm: what it asks for, and what runs inside a job."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wfc_dist.backends.slurm import client, job_process, submission
from wfc_dist.backends.slurm.client import Partition
from wfc_dist.backends.slurm.job_process import JobProcess, RankContext, read_failure, read_result, rendezvous_port
from wfc_dist.backends.slurm.submission import JobRecord, Resources
from wfc_dist.backends.slurm.watching import CurveTail
from wfc_dist.config.schema import ClusterConfig
from wfc_dist.errors import ConfigError, GangFailedError, IntegrityError, Interrupted

SITE = [Partition("debug", 60, True, "up"), Partition("long", None, False, "up"), Partition("old", None, False, "drain")]
GOLDEN = Path(__file__).parent / "golden" / "slurm-job.sh"


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("1-02:30:00", 1590), ("04:00:00", 240), ("30:00", 30), ("15", 15), ("2-12", 3600), ("infinite", None), ("UNLIMITED", None)],
)
def test_times_as_slurm_writes_them(text: str, minutes: float | None) -> None:
    assert client.parse_minutes(text) == minutes


@pytest.mark.parametrize(
    ("partition", "time_min", "message"),
    [
        ("gpu", 10, "there is no partition 'gpu'; partitions here: debug (default), long, old"),
        ("old", 10, "partition old is drain"),
        (None, 61, "a time limit of 61 min is above partition debug's 60 min"),
        ("debug,gpu", 10, "there is no partition 'gpu'"),
        ("debug,old", 61, "a time limit of 61 min is above partition debug's 60 min"),
    ],
)
def test_a_partition_that_cannot_be_is_named_with_those_that_can(partition: str | None, time_min: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(").replace(")", r"\)")):
        client.check_partition(partition, time_min, SITE)


def test_a_partition_that_can_be() -> None:
    client.check_partition(None, 60, SITE)
    client.check_partition("long", 10_000, SITE)
    client.check_partition("debug,long", 10_000, SITE)
    client.check_partition("old, debug", 60, SITE)
    client.check_partition(None, 60, SITE[1:])  # no default: sbatch knows what else chooses


def test_the_rendered_job_is_the_golden_one() -> None:
    from submitit.slurm.slurm import _make_sbatch_string

    slurm = {"partition": "gpu", "account": "speech", "time_min": 90, "mem_gb": 7.5, "setup": ["module load cuda"],
             "parameters": {"constraint": "a100", "nodes": 2, "ntasks-per-node": 1, "--exclusive": True}}  # fmt: skip
    cluster = ClusterConfig.model_validate(
        {"workers_per_trainer": 2, "cpus_per_worker": 3.5, "gpus_per_worker": 1, "slurm": slurm}
    )
    job = JobRecord(Path("/shared/my run/slurm/round-0001/train-a-1"), "wfc-x-round-0001-train-a-1f", "key")
    chosen = submission.parameters(cluster, job, submission.trainer_resources(cluster))
    assert _make_sbatch_string("python -m submitit", job.folder / "submitit", **chosen) == GOLDEN.read_text()


def test_the_trainers_layout_is_theirs_alone() -> None:
    cluster = ClusterConfig.model_validate(
        {"workers_per_trainer": 4, "slurm": {"parameters": {"nodes": 2, "ntasks_per_node": 2}}}
    )
    job = JobRecord(Path("/x"), "name", "key")
    for resources in (submission.decoder_resources(cluster), submission.centralizer_resources(cluster)):
        chosen = submission.parameters(cluster, job, resources)
        assert (chosen["nodes"], chosen["ntasks_per_node"]) == (1, 1)
    with pytest.raises(ConfigError, match="nodes x ntasks-per-node = 4, but "):
        submission.parameters(cluster, job, Resources(3, 1, 0, spread=True))


def test_a_job_that_centralizes_takes_no_more_cores_than_it_can_use() -> None:
    for cores, ranks, expected in ((1.5, None, "1 x (2 CPU)"), (4, 2, "2 x (4 CPU)"), (64, 2, "2 x (4 CPU)")):
        cluster = ClusterConfig.model_validate({"cpus_per_worker": cores, "centralizer_ranks": ranks, "gpus_per_worker": 1})
        assert str(submission.centralizer_resources(cluster)) == expected
    assert str(submission.trainer_resources(cluster)) == "1 x (64 CPU, 1 GPU)"


def test_submissions_are_numbered_and_found_again(tmp_path: Path) -> None:
    first = submission.prepare(tmp_path, "train-a", "key", "run")
    second = submission.prepare(tmp_path, "train-a", "key", "run")
    submission.prepare(tmp_path, "train-a-b", "key", "run")  # a data set whose name begins alike
    assert [first.folder.name, second.folder.name] == ["train-a-1", "train-a-2"] and first.name != second.name
    assert submission.find(tmp_path, "train-a") == second
    assert submission.find(tmp_path, "train-b") is None


def test_the_coordinator_loads_no_torch_with_what_a_job_unpickles_first() -> None:
    code = (
        "import sys, wfc_dist.backends.slurm.payloads, wfc_dist.training.job; "
        "print(*[name for name in ('torch', 'ray', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# --- what runs in a job


@pytest.fixture
def in_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process as the only one of job 17."""
    for name, value in {"SLURM_JOB_ID": "17", "SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_LOCALID": "0"}.items():
        monkeypatch.setenv(name, value)
    for name in ("SLURM_RESTART_COUNT", "SLURM_ARRAY_JOB_ID", "SLURM_JOB_NUM_NODES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(signal, "signal", lambda *_: before)  # the test's process keeps its handlers


def make_process(folder: Path, payload: Any, **changes: Any) -> JobProcess:
    facts = {"stop_file": str(folder / "stop"), "max_requeues": 3, "checkpoints": True} | changes
    return JobProcess(str(folder), payload=payload, **facts)


def until_stopped(context: RankContext) -> dict[str, Any]:
    """A training: goes on until it is asked for a checkpoint."""
    context.stop_requested.wait(30)
    raise Interrupted("checkpoint written")


@pytest.mark.usefixtures("in_job")
def test_a_finished_job_leaves_its_result_and_does_not_work_twice(tmp_path: Path) -> None:
    calls = []
    process = make_process(tmp_path, lambda context: calls.append(context.endpoint) or {"folders": []})
    process()
    process()
    found = read_result(tmp_path)
    assert found is not None and found["state"] == "done" and found["value"] == {"folders": []}
    assert calls == [("127.0.0.1", rendezvous_port(17))]


@pytest.mark.usefixtures("in_job")
@pytest.mark.parametrize(
    ("error", "refused"), [(ConfigError("no"), True), (IntegrityError("bytes"), False), (OSError("disk"), False)]
)
def test_a_failure_says_whether_it_would_come_again(tmp_path: Path, error: Exception, refused: bool) -> None:
    def fail(context: RankContext) -> dict[str, Any]:
        raise error

    with pytest.raises(type(error)):
        make_process(tmp_path, fail)()
    found = read_failure(tmp_path)
    assert found is not None and found["refused"] is refused and found["message"] == str(error)
    assert read_result(tmp_path) is None


@pytest.mark.usefixtures("in_job")
def test_a_warning_waits_for_the_checkpoint_and_requeues(tmp_path: Path) -> None:
    process = warned(tmp_path)
    again = process.checkpoint()
    assert again is not None and again.function == process and again.function._thread is None
    assert isinstance(process._error, Interrupted)
    notes = [json.loads(line) for line in (tmp_path / job_process.STARTS).read_text().splitlines()]
    assert notes[-1]["requeue"] == 1 and "with a checkpoint" in notes[-1]["reason"]


@pytest.mark.usefixtures("in_job")
def test_a_warned_job_of_a_run_that_stops_is_not_requeued(tmp_path: Path) -> None:
    process = warned(tmp_path)
    (tmp_path / "stop").touch()
    with pytest.raises(SystemExit) as ended:
        process.checkpoint()
    found = read_result(tmp_path)
    assert ended.value.code == 0 and found is not None and found["state"] == "stopped"


@pytest.mark.usefixtures("in_job")
def test_a_job_that_gets_its_nodes_after_the_stop_leaves_at_once(tmp_path: Path) -> None:
    (tmp_path / "stop").touch()
    calls: list[RankContext] = []
    with pytest.raises(SystemExit) as ended:
        make_process(tmp_path, calls.append)()
    found = read_result(tmp_path)
    assert ended.value.code == os.EX_TEMPFAIL and found is not None and found["state"] == "stopped"
    assert not calls and not (tmp_path / job_process.STARTS).exists()


@pytest.mark.usefixtures("in_job")
def test_requeues_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = warned(tmp_path)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    with pytest.raises(SystemExit) as ended:
        process.checkpoint()
    assert ended.value.code == 1
    monkeypatch.setenv("SLURM_RESTART_COUNT", "4")  # requeued by Slurm itself, all the same
    with pytest.raises(GangFailedError, match=r"max_requeues = 3"):
        make_process(tmp_path, until_stopped)()
    found = read_failure(tmp_path)
    assert found is not None and found["refused"]


def warned(folder: Path) -> JobProcess:
    """A process whose payload runs, as it stands when submitit's signal handler calls `checkpoint`."""
    process = make_process(folder, until_stopped)
    process.start(RankContext(1, 0, 0, "here", ("127.0.0.1", 1)))
    return process


def test_a_request_to_stop_that_comes_early_is_passed_on() -> None:
    context, asked = RankContext(1, 0, 0, "here", ("127.0.0.1", 1)), []
    context.request_stop()
    context.call_on_stop(lambda: asked.append("stop"))
    assert asked == ["stop"]


def test_progress_comes_from_the_end_of_the_curve(tmp_path: Path) -> None:
    tail = CurveTail(tmp_path / "a.jsonl", max_steps=2000)
    assert tail.progress() is None
    rows = [{"step": step, "loss": 5 - step / 1000, "lr": 1e-3, "speech_seconds": 30.0} for step in range(1, 1001)]
    rows += [{"step": 1000, "dev_loss": 1.0}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 1001, "lo')
    progress = tail.progress()
    assert progress is not None and (progress.step, progress.max_steps, progress.loss) == (1000, 2000, 4.0)


def test_the_environment_of_the_coordinators_own_job_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", "/etc/site.conf")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    with submission._outside_any_job():
        assert os.environ["SLURM_CONF"] == "/etc/site.conf" and "SLURM_NTASKS" not in os.environ
    assert os.environ["SLURM_NTASKS"] == "1"
