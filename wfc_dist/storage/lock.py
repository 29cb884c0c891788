"""A lock that allows one writer at a time for a run on object storage. Its holder also receives requests to stop.

The lock is the highest of control/lock-1, control/lock-2, ... A process takes the lock by creating the next number with a
conditional put. Only the holder rewrites its object. The highest object stays after it is released, so that no number is taken
twice. The holder renews its lock. A process that wants the lock watches it: a renewal shows that the holder lives, and no renewal
for `LEASE_S` shows that the holder is gone. Clocks of different machines are never compared.
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
from wfc_dist.storage import durable
from wfc_dist.storage.mirror import CONTROL
from wfc_dist.storage.objects import Objects

logger = logging.getLogger(__name__)
LEASE_S, RENEW_S, LOOK_S = 60.0, 15.0, 2.0
STOP = f"{CONTROL}/stop"
_PREFIX = f"{CONTROL}/lock-"
_UNKNOWN: dict[str, Any] = {"process": "", "host": "?", "pid": 0, "since": "?", "released": False}
"""The facts of a holder whose lock cannot be read."""


def process_identity(pid: int) -> str | None:
    """Returns a text that identifies a process among all machines; None if the process is gone or cannot be identified."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        state, *fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        if state in "ZX":
            return None
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')} {pid} {fields[18]}"  # [18]: start time
    except OSError:
        return None


def _machine(identity: str) -> str:
    return " ".join(identity.split()[:3])


class ObjectLock:
    """The lock of one run. Use `held`, which takes and renews it."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._facts: dict[str, Any] = {}
        self.number = 0

    def _numbers(self) -> list[int]:
        return sorted(int(name.removeprefix(_PREFIX)) for name in self._objects.list(CONTROL) if name.startswith(_PREFIX))

    def highest(self) -> str | None:
        """Returns the name of the lock's object; None if no process has ever taken the lock."""
        return f"{_PREFIX}{numbers[-1]}" if (numbers := self._numbers()) else None

    def _data(self) -> bytes:
        return json.dumps(self._facts, sort_keys=True).encode()

    def take(self, say: Callable[[str], None]) -> None:
        """Takes the lock. Waits until it is known whether the present holder lives.

        Raises:
            RunLockedError: A living process holds the lock; the message names the process.
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
                continue  # another process was faster
            if self._numbers()[-1] == self.number:
                break
            self._objects.remove(f"{_PREFIX}{self.number}")  # this number had been taken, released and removed in the meantime
        if self._objects.create(f"{_PREFIX}{self.number}", self._data() + b" "):
            logger.warning(
                "%s does not support conditional puts: two `wfc run` that start at the same moment do not notice each other",
                self._objects.url,
            )
        self._objects.remove(*(f"{_PREFIX}{number}" for number in self._numbers() if number < self.number))

    def _wait_until_free(self, name: str, say: Callable[[str], None]) -> None:
        seen, since_s, told = self._objects.read(name), time.monotonic(), False
        while seen is not None:
            facts = _facts_of(seen) or _UNKNOWN
            holder = f"`wfc run`, process {facts['pid']} on {facts['host']} since {facts['since']}"
            if _is_gone(facts, since_s):
                if not facts["released"]:
                    say(f"took {self._objects.url} over from {holder}, which is gone")
                return
            if not told:
                say(f"{self._objects.url} is in use by {holder}; waiting up to {LEASE_S:g} s to see whether it lives")
                told = True
            time.sleep(LOOK_S)
            now = self._objects.read(name)
            after = _facts_of(now) if now is not None else None
            if now is not None and after is None:
                continue  # a file system shows it while it is written, or it is damaged: then LEASE_S decides
            if now != seen and after is not None and not after["released"] and facts is not _UNKNOWN:
                raise RunLockedError(f"{self._objects.url} is in use by {holder}; wait for it, or stop it with `wfc stop`")
            seen = now

    def require(self) -> None:
        """Raises RunLockedError if another process has taken the run over."""
        if (highest := self._numbers()[-1:]) != [self.number]:
            raise RunLockedError(
                f"{self._objects.url} was taken over by another `wfc run` (lock {highest}, this process held {self.number}), "
                "because this process could not renew its lock; this process writes nothing more"
            )

    def renew(self) -> None:
        """Shows that the holder lives."""
        self._facts["renewed"] += 1
        self._objects.write(f"{_PREFIX}{self.number}", self._data())

    def release(self) -> None:
        """Releases the lock, so that the next process takes it without waiting."""
        self._facts["released"] = True
        self._objects.write(f"{_PREFIX}{self.number}", self._data())


class Onlooker:
    """Looks from outside whether the lock of a run on object storage is held. Writes nothing."""

    def __init__(self, objects: Objects) -> None:
        self._lock, self._objects = ObjectLock(objects), objects
        self._seen: bytes | None = None
        self._since_s = 0.0

    def sees_holder(self) -> bool:
        """Returns whether a process holds the lock; also until LEASE_S without a renewal have passed."""
        seen = self._objects.read(name) if (name := self._lock.highest()) else None
        if seen != self._seen:
            self._seen, self._since_s = seen, time.monotonic()
        return seen is not None and not _is_gone(_facts_of(seen) or _UNKNOWN, self._since_s)


def _facts_of(data: bytes) -> dict[str, Any] | None:
    """Returns what a lock says of its holder; None if it is cut off or damaged."""
    facts = durable.as_object(data)
    is_whole = facts is not None and all(isinstance(facts.get(key), type(value)) for key, value in _UNKNOWN.items())
    return facts if is_whole else None


def _is_gone(facts: dict[str, Any], since_s: float) -> bool:
    """Returns whether a lock that has not been renewed `since_s` (monotonic) has no holder."""
    return facts["released"] or time.monotonic() - since_s >= LEASE_S or _died_here(facts)


def _died_here(facts: dict[str, Any]) -> bool:
    """Returns whether a holder ran on this machine and is gone. In this case there is no need to wait."""
    here = process_identity(os.getpid())
    same_machine = here is not None and _machine(here) == _machine(facts["process"])
    return same_machine and process_identity(facts["pid"]) != facts["process"]


@contextlib.contextmanager
def held(objects: Objects, on_stop: Callable[[str], None], say: Callable[[str], None]) -> Iterator[ObjectLock]:
    """Holds a run's lock while the context lasts. Calls `on_stop` with the reason if a stop is requested or the lock is lost.

    Raises:
        RunLockedError: Another process works on the run.
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
                    on_stop("another `wfc run` took the run over, because this process could not renew its lock")
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
        with contextlib.suppress(StorageError):  # the lock expires by itself
            lock.release()
