"""Whether a process still works on a run, seen from outside."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import scored_runs

from wfc_dist.errors import RunLockedError
from wfc_dist.reports.as_json import status_json
from wfc_dist.runs import watch
from wfc_dist.runs.handle import Run
from wfc_dist.runs.layout import RunPaths
from wfc_dist.runs.opening import is_locked, locked
from wfc_dist.runs.watch import Watch, doubt_about
from wfc_dist.storage import durable
from wfc_dist.storage.lock import held
from wfc_dist.storage.mirror import Mirror
from wfc_dist.storage.objects import Objects

HOLD = """
import sys, time
from pathlib import Path
from wfc_dist.runs.layout import RunPaths
from wfc_dist.runs.opening import locked
with locked(RunPaths(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return scored_runs.make_run(tmp_path / "r", scored_runs.make_config(tmp_path))


def runs_on(run_dir: Path, host: str, attempt: int = 1) -> None:
    durable.write_json(run_dir / "status.json", {"state": "running", "message": "", "attempt": attempt, "host": host, "pid": 1})


def test_a_held_run_is_never_left_and_a_free_one_at_the_second_look(run_dir: Path) -> None:
    runs_on(run_dir, socket.gethostname())
    seen = Watch()
    with locked(RunPaths(run_dir)):
        assert [seen.sees_nobody(Run(run_dir)) for _ in range(3)] == [False] * 3
    assert [seen.sees_nobody(Run(run_dir)) for _ in range(2)] == [False, True]


def test_a_new_attempt_between_two_looks_begins_the_wait_again(run_dir: Path) -> None:
    seen = Watch()
    for attempt in (1, 2, 3):
        runs_on(run_dir, socket.gethostname(), attempt)
        assert not seen.sees_nobody(Run(run_dir))
    assert seen.sees_nobody(Run(run_dir))


def test_the_files_of_a_process_elsewhere_must_rest(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs_on(run_dir, "another-host")
    seen, now_s = Watch(), [0.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now_s[0])
    found = []
    for now_s[0], step in ((0, 1), (40, 2), (80, 2), (99, 2), (101, 2)):
        progress = {"what": "training", "done": step, "total": 9, "unit": "steps", "left_s": None, "time_s": 0.0, "trainings": []}
        (run_dir / "progress.json").write_text(json.dumps(progress))
        found.append(seen.sees_nobody(Run(run_dir)))
    assert found == [False, False, False, False, True]


@pytest.mark.process
def test_a_process_that_is_stopped_or_gone_is_told_by_status_and_to_who_wants_the_run(run_dir: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(run_dir)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        facts = {"state": "running", "message": "", "attempt": 1, "host": socket.gethostname(), "pid": holder.pid}
        durable.write_json(run_dir / "status.json", facts)
        assert doubt_about(Run(run_dir)) == ""
        holder.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, holder.pid, os.WSTOPPED)
        said = f"process {holder.pid} is stopped: `kill -CONT {holder.pid}` lets it go on"
        assert said in doubt_about(Run(run_dir))
        assert status_json(Run(run_dir)).message == doubt_about(Run(run_dir))
        with pytest.raises(RunLockedError, match=re.escape(said)), locked(RunPaths(run_dir)):
            pass
        holder.kill()
    assert "is gone without a word" in doubt_about(Run(run_dir))
    durable.write_json(run_dir / "status.json", facts | {"host": "another-host"})
    assert doubt_about(Run(run_dir)) == ""
    durable.write_json(run_dir / "status.json", facts | {"state": "done"})
    assert doubt_about(Run(run_dir)) == ""


@pytest.mark.process
def test_the_lock_of_a_killed_process_is_free(run_dir: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(run_dir)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        assert is_locked(RunPaths(run_dir))
        with pytest.raises(RunLockedError, match=f"process {holder.pid}"), locked(RunPaths(run_dir)):
            pass
        holder.kill()
    assert not is_locked(RunPaths(run_dir))


def test_a_look_takes_nothing_and_needs_no_lock_file(run_dir: Path) -> None:
    assert not is_locked(RunPaths(run_dir)) and not RunPaths(run_dir).lock.exists()
    with locked(RunPaths(run_dir)) as file:
        assert is_locked(RunPaths(run_dir))
        file.seek(0)
        assert f"process {os.getpid()}" in file.read()


def test_on_object_storage_the_lock_there_counts(run_dir: Path) -> None:
    objects = Objects(f"file://{run_dir.parent}/remote")
    run, seen = Run(run_dir, Mirror(run_dir, objects, "id")), Watch()
    runs_on(run_dir, "another-host")
    with held(objects, lambda _: None, lambda _: None):
        assert [seen.sees_nobody(run) for _ in range(3)] == [False] * 3
    assert [seen.sees_nobody(run) for _ in range(2)] == [False, True]
