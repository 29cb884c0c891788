"""One writer at a time for a run on object storage, and the way a stop reaches it.

The lock is the highest of control/lock-1, control/lock-2, ...: each is made with a conditional put by whoever takes it, and
rewritten only by its holder. The highest one stays when it is released, so that a number is never taken twice.
A holder renews its lock. Whoever wants it watches: renewed, it is held; unchanged for `LEASE_S`, its holder is gone.
No clocks of different machines are compared.
"""

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from wfc_dist.errors import RunLockedError, StorageError, WfcError
from wfc_dist.storage.mirror import CONTROL
from wfc_dist.storage.objects import Objects

logger = logging.getLogger(__name__)
LEASE_S, RENEW_S, LOOK_S = 60.0, 15.0, 2.0
STOP = f"{CONTROL}/stop"
_PREFIX = f"{CONTROL}/lock-"


def process_identity(pid: int) -> str | None:
    """Returns what tells a process from all others, on all machines; None when it is gone or that can't be known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        state, *fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        if state in "ZX":
            return None
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')} {pid} {fields[18]}"  # its start time
    except OSError:
        return None


def _machine(identity: str) -> str:
    return " ".join(identity.split()[:3])


class ObjectLock:
    """The lock of one run; `held` takes and keeps it."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._facts: dict[str, Any] = {}
        self.number = 0

    def _numbers(self) -> list[int]:
        return sorted(int(name.removeprefix(_PREFIX)) for name in self._objects.list(CONTROL) if name.startswith(_PREFIX))

    def _data(self) -> bytes:
        return json.dumps(self._facts, sort_keys=True).encode()

    def take(self, say: Callable[[str], None]) -> None:
        """Takes the lock; waits for as long as it is not known whether its holder lives.

        Raises:
            RunLockedError: It is held; names the holder.
        """
        while True:
            numbers = self._numbers()
            if numbers:
                self._wait_until_free(f"{_PREFIX}{numbers[-1]}", say)
            self.number = (numbers[-1] if numbers else 0) + 1
            self._facts = {
                "owner": uuid.uuid4().hex, "process": process_identity(os.getpid()) or "", "host": socket.gethostname(),
                "pid": os.getpid(), "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "renewed": 0, "released": False,
            }  # fmt: skip
            if not self._objects.create(f"{_PREFIX}{self.number}", self._data()):
                continue  # another was quicker
            if self._numbers()[-1] == self.number:
                break
            self._objects.remove(f"{_PREFIX}{self.number}")  # it had been taken, released and cleared away meanwhile
        if self._objects.create(f"{_PREFIX}{self.number}", self._data() + b" "):
            logger.warning(
                "%s has no conditional put: two `wfc run` that start at the same moment would not notice each other",
                self._objects.url,
            )
        self._objects.remove(*(f"{_PREFIX}{number}" for number in self._numbers() if number < self.number))

    def _wait_until_free(self, name: str, say: Callable[[str], None]) -> None:
        seen, since_s, told = self._objects.read(name), time.monotonic(), False
        while seen is not None:
            facts = json.loads(seen)
            holder = f"`wfc run`, process {facts['pid']} on {facts['host']} since {facts['since']}"
            if facts["released"] or time.monotonic() - since_s >= LEASE_S or _died_here(facts):
                if not facts["released"]:
                    say(f"took {self._objects.url} over from {holder}, which is gone")
                return
            if not told:
                say(f"{self._objects.url} is in use by {holder}; waiting up to {LEASE_S:g} s to see whether it lives")
                told = True
            time.sleep(LOOK_S)
            now = self._objects.read(name)
            if now != seen and now is not None and not json.loads(now)["released"]:
                raise RunLockedError(f"{self._objects.url} is in use by {holder}; wait for it, or stop it with `wfc stop`")
            seen = now

    def require(self) -> None:
        """Raises RunLockedError when another process has taken the run over."""
        if (highest := self._numbers()[-1:]) != [self.number]:
            raise RunLockedError(
                f"{self._objects.url} was taken over by another `wfc run` (lock {highest}, this process held {self.number}), "
                "because this one could not renew its lock; nothing more is written from here"
            )

    def renew(self) -> None:
        """Shows that the holder lives."""
        self._facts["renewed"] += 1
        self._objects.write(f"{_PREFIX}{self.number}", self._data())

    def release(self) -> None:
        """Lets the next one take it at once."""
        self._facts["released"] = True
        self._objects.write(f"{_PREFIX}{self.number}", self._data())


def _died_here(facts: dict[str, Any]) -> bool:
    """Returns whether a holder ran on this machine and is gone: only then there is no need to watch."""
    here = process_identity(os.getpid())
    same_machine = here is not None and _machine(here) == _machine(facts["process"])
    return same_machine and process_identity(facts["pid"]) != facts["process"]


@contextlib.contextmanager
def held(objects: Objects, on_stop: Callable[[str], None], say: Callable[[str], None]) -> Iterator[ObjectLock]:
    """Holds a run's lock while the context lasts, and passes a stop object's text, or the lock's loss, to `on_stop`.

    Raises:
        RunLockedError: Another process is working on the run.
    """
    lock, ended = ObjectLock(objects), threading.Event()
    lock.take(say)
    objects.remove(STOP)

    def keep() -> None:
        renewed_s = time.monotonic()
        while not ended.wait(LOOK_S):
            try:
                found = objects.list(CONTROL)
                if STOP in found:
                    on_stop((objects.read(STOP) or b"stop object").decode().strip())
                if any(int(name.removeprefix(_PREFIX)) > lock.number for name in found if name.startswith(_PREFIX)):
                    on_stop("another `wfc run` took the run over, because this one could not renew its lock")
                    return
                if time.monotonic() - renewed_s >= RENEW_S:
                    lock.renew()
                    renewed_s = time.monotonic()
            except WfcError as error:
                logger.warning("%s", error)

    thread = threading.Thread(target=keep, name="object-lock", daemon=True)
    thread.start()
    try:
        yield lock
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(StorageError):  # it ends by itself
            lock.release()
