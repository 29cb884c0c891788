"""What runs inside a job."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from wfc_dist import activity
from wfc_dist.backends.hangs import Limits
from wfc_dist.backends.slurm import job_process
from wfc_dist.backends.slurm.job_process import JobProcess, RankContext, read_failure, read_result, rendezvous_port
from wfc_dist.errors import ConfigError, GangFailedError, HungError, IntegrityError, Interrupted


@pytest.mark.process
def test_the_coordinator_loads_no_torch_with_what_a_job_unpickles_first() -> None:
    code = (
        "import sys, wfc_dist.backends.slurm.payloads, wfc_dist.training.job; "
        "print(*[name for name in ('torch', 'ray', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.fixture
def in_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process as the only one of job 17."""
    for name, value in {"SLURM_JOB_ID": "17", "SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_LOCALID": "0"}.items():
        monkeypatch.setenv(name, value)
    for name in ("SLURM_RESTART_COUNT", "SLURM_ARRAY_JOB_ID", "SLURM_JOB_NUM_NODES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setattr(activity, "may_end_process", False)  # put back at the end
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(signal, "signal", lambda *_: before)  # the test's process keeps its handlers


def make_process(folder: Path, payload: Any, **changes: Any) -> JobProcess:
    facts = {"stop_file": str(folder / "stop"), "max_requeues": 3, "checkpoints": True} | changes
    return JobProcess(str(folder), payload=payload, **facts)


@pytest.mark.usefixtures("in_job")
def test_a_job_says_again_and_again_that_it_runs(tmp_path: Path) -> None:
    beats = []

    def payload(context: RankContext) -> dict[str, Any]:
        end = time.monotonic() + 30
        while len(set(beats)) < 3 and time.monotonic() < end:
            with contextlib.suppress(OSError, ValueError):
                beats.append(json.loads(job_process.heartbeat_file(tmp_path, 0).read_text())["beat"])
        return {"folders": []}

    make_process(tmp_path, payload, limits=Limits(1.0, 60.0))()
    assert len(set(beats)) == 3 and beats == sorted(beats)


HANGS = """
import sys, threading
from pathlib import Path
from wfc_dist import activity
from wfc_dist.backends.hangs import Limits
from wfc_dist.backends.slurm.job_process import JobProcess

def stuck(context):
    activity.begin("es")
    activity.moved(step=7)
    threading.Event().wait()

JobProcess(sys.argv[1], sys.argv[1] + "/stop", stuck, 3, True, Limits(2.0))()
"""


@pytest.mark.process
def test_a_job_whose_work_stands_still_records_it_and_ends(tmp_path: Path) -> None:
    job = {"SLURM_JOB_ID": "17", "SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_LOCALID": "0", "SUBMITIT_EXECUTOR": "slurm"}
    done = subprocess.run([sys.executable, "-c", HANGS, tmp_path], env={**os.environ, **job}, timeout=60, check=False)
    found = read_failure(tmp_path)
    assert done.returncode == 75 and found is not None and found["error"] == "HungError" and not found["refused"]
    assert "es: rank 0 on" in found["message"] and "after step 7" in found["message"]


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
def test_a_job_notes_that_its_work_has_begun_and_forgets_it_at_its_next_start(tmp_path: Path) -> None:
    def payload(context: RankContext) -> dict[str, Any]:
        began.append((tmp_path / job_process.BEGAN).exists())
        context.begin()
        context.begin()
        raise OSError("disk")

    began: list[bool] = []
    for _ in range(2):
        with pytest.raises(OSError, match="disk"):
            make_process(tmp_path, payload)()
        assert json.loads((tmp_path / job_process.BEGAN).read_text())["host"]
    assert began == [False, False]


@pytest.mark.usefixtures("in_job")
@pytest.mark.parametrize(
    ("error", "refused"),
    [(ConfigError("no"), True), (IntegrityError("bytes"), False), (HungError("es"), False), (OSError("disk"), False)],
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


@pytest.mark.parametrize("text", ["", "{", "[]", '{"state": "done", "checksum": "0"}'])
def test_a_damaged_result_or_failure_is_none(tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str) -> None:
    (tmp_path / job_process.RESULT).write_text(text)
    (tmp_path / "failed-0.json").write_text(text)
    assert read_result(tmp_path) is None and read_failure(tmp_path) is None
    assert "the job counts as one without a result" in caplog.text
