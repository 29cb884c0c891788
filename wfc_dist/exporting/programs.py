"""Programs of other packages that an export starts: run to their end, or given up where they hang."""

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from wfc_dist import activity
from wfc_dist.errors import HungError

POLL_S = 1.0
STILL_S = 600.0
"""Seconds in which none of a program's processes computes, after which it hangs. A conversion that is slow computes."""


def run(command: Sequence[str], name: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end and returns its exit code and what it wrote.

    Args:
        command: The program and its arguments.
        name: The program in messages.
        env: Its environment; this process's by default.

    Raises:
        HungError: It has computed nothing for STILL_S. It is ended.
        OSError: It cannot be started.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, activity.excused():
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env)
        try:
            _await(process, name)
        except BaseException:
            _kill(process.pid)
            with contextlib.suppress(subprocess.TimeoutExpired):  # one that hangs in the system ends when that lets it
                process.wait(POLL_S)
            raise
        said = []
        for file in (out, err):
            file.seek(0)
            said.append(file.read().decode(errors="replace"))
    return subprocess.CompletedProcess(command, process.returncode, *said)


def _await(process: "subprocess.Popen[bytes]", name: str) -> None:
    before_s, still_s, looked_s = 0.0, 0.0, time.monotonic()
    while still_s < STILL_S:
        try:
            process.wait(POLL_S)
            return
        except subprocess.TimeoutExpired:
            pass
        used_s, passed_s, looked_s = _computed_s(process.pid), time.monotonic() - looked_s, time.monotonic()
        # A longer time between two looks was none of the program: a scheduler had stopped both.
        still_s = still_s + min(passed_s, 2 * POLL_S) if used_s == before_s else 0.0
        before_s = used_s
    files = ", ".join(_open_files(process.pid))
    raise HungError(
        f"{name} has computed nothing for {STILL_S:.0f} s and is ended{f'; it has open: {files}' if files else ''}; look at the "
        "files that it reads and their mounts, then run the same command"
    )


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def _computed_s(pid: int) -> float:
    """Returns the seconds that a program and those it has started have computed."""
    used_s = 0.0
    for process in _family(pid):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            used_s += times.user + times.system
    return used_s


def _open_files(pid: int) -> list[str]:
    """Returns files that a program has open, by their links in /proc: to ask for the files themselves may hang, too."""
    found: list[str] = []
    for process in _family(pid):
        with contextlib.suppress(OSError):
            found += [os.readlink(link) for link in Path(f"/proc/{process.pid}/fd").iterdir()]
    ours = (" (deleted)", "/dev/null")
    return [name for name in dict.fromkeys(found) if name.startswith("/") and not name.endswith(ours)][:5]


def _kill(pid: int) -> None:
    for process in _family(pid):
        with contextlib.suppress(psutil.Error):
            process.kill()
