"""Looks from outside whether a process still works on a run."""

import socket
import time

from wfc_dist.runs.handle import Run
from wfc_dist.runs.opening import is_locked, stopped_process
from wfc_dist.storage.lock import LEASE_S, Onlooker
from wfc_dist.storage.mirror import Mirror


class Watch:
    """One look after the other at the process that works on a run. Each look needs the run opened anew."""

    def __init__(self) -> None:
        self._onlooker: Onlooker | None = None
        self._free: tuple[object, float] | None = None

    def sees_nobody(self, run: Run) -> bool:
        """Returns whether the process is gone, which says nothing yet at the first look.

        The lock must be free at two looks in a row: a run that ends says so first, and then releases the lock. Some file systems
        show a lock on the process's own machine alone. On other machines the run's files must rest for LEASE_S, too.
        """
        if self._is_held(run):
            self._free = None
            return False
        status, now_s = run.status(), time.monotonic()
        stands = (status.facts, run.progress())
        before, since_s = self._free or (None, now_s)
        if stands != before:
            self._free = (stands, now_s)
            return False
        is_here = status.facts.get("host", socket.gethostname()) == socket.gethostname()
        return is_here or isinstance(run.mirror, Mirror) or now_s - since_s >= LEASE_S

    def _is_held(self, run: Run) -> bool:
        if is_locked(run.paths):
            return True
        if not isinstance(run.mirror, Mirror):
            return False
        self._onlooker = self._onlooker or Onlooker(run.mirror.objects)
        return self._onlooker.sees_holder()


def doubt_about(run: Run) -> str:
    """Returns why a run that says it is running is not, as one look from this machine tells; "" where nothing speaks for that.

    A process that is stopped (SIGSTOP, Ctrl-Z) says nothing itself, and neither does one that was killed.
    """
    facts = run.status().facts
    pid, is_here = facts.get("pid"), facts.get("host") == socket.gethostname()
    if pid is None or not is_here or facts["state"] != "running" or isinstance(run.mirror, Mirror):
        return ""
    if not is_locked(run.paths):
        return f"process {pid} is gone without a word; the same command goes on"
    return stopped_process(pid)
