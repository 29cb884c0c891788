"""Starting `wfc` as a user does, and ending whole process trees, by pid."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil


def wfc(*arguments: object, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end, at most ten minutes."""
    done = subprocess.run(
        [sys.executable, "-m", "wfc_dist", *map(str, arguments)],
        capture_output=True, text=True, timeout=600, env={**os.environ, **environment}, check=False,
    )  # fmt: skip
    assert not check or done.returncode == 0, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def start_wfc(*arguments: object, log: Path, **environment: str) -> subprocess.Popen[str]:
    """Starts the command in a session of its own; its output goes to `log`."""
    with open(log, "a", encoding="utf-8") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "wfc_dist", *map(str, arguments)],
            stdout=file, stderr=subprocess.STDOUT, text=True, env={**os.environ, **environment}, start_new_session=True,
        )  # fmt: skip


def kill_tree(process: subprocess.Popen[str]) -> int:
    """Ends a process and all its descendants with SIGKILL, and waits until they are gone; returns how many there were."""
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(process.pid)
        members = [root, *root.children(recursive=True)]
        for member in members:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait()
        psutil.wait_procs(members, timeout=60)
        return len(members)
    return 0


def wait_for(path: Path, process: subprocess.Popen[str], timeout_s: float = 300) -> bool:
    """Waits until `path` exists (True) or the process has ended (False). Fails when neither happens in time."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if path.exists():
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.05)
    raise AssertionError(f"{path} did not appear within {timeout_s} s")
