"""Signals of schedulers and terminals: the first asks a run to checkpoint and stop, a later one ends the process."""

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from wfc_dist.caller import SIGNALS, handled
from wfc_dist.coordinator.ending import end_at_once
from wfc_dist.errors import Interrupted
from wfc_dist.progress import Display
from wfc_dist.runs.store import RunStore

SAME_SIGNAL_S = 1.0
DEAF_S = 60.0
"""Seconds that the main thread has for coming back from a call of a library after a signal, and for ending after its trainers."""


@dataclass
class SignalsSoFar:
    """Tells a second copy of the first signal from a later signal: Slurm sends SIGTERM to a script and to what it started.

    Attributes:
        first_s: When the first signal came, `time.monotonic`; None before.
    """

    first_s: float | None = None

    def kind(self, is_stopping: Callable[[], bool]) -> Literal["first", "same", "later"]:
        """Counts a signal and returns which it is.

        A signal is a later one SAME_SIGNAL_S or more after the first, or when `is_stopping` says that a stop was already asked
        for by other means.
        """
        now_s = time.monotonic()
        if self.first_s is not None and now_s - self.first_s < SAME_SIGNAL_S:
            return "same"
        if self.first_s is not None or is_stopping():
            return "later"
        self.first_s = now_s  # before anything is written: another signal may come meanwhile
        return "first"


class StopOnSignal:
    """Turns the first signal into the run's stop file, which every trainer polls; a later signal ends the process at once.

    A thread of its own does so, since the main thread may be in a call of a library that returns late or never. If the main
    thread does not come back, or does not come to the run's end, the thread ends the process. Before a run is opened there is
    nothing to checkpoint: a signal then raises Interrupted wherever the program is.
    """

    def __init__(self, display: Display) -> None:
        self._display = display
        self._store: RunStore | None = None
        self._so_far = SignalsSoFar()
        self._came_early = False
        self._lock = threading.Lock()
        self._main_came = threading.Event()

    @contextlib.contextmanager
    def caught(self) -> Iterator["StopOnSignal"]:
        """Handles the signals while the context lasts."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        receiving, sending = os.pipe()
        os.set_blocking(sending, False)
        listener = threading.Thread(target=self._listen, args=(receiving,), name="signals", daemon=True)
        listener.start()
        before = signal.set_wakeup_fd(sending, warn_on_full_buffer=False)
        try:
            with handled(self._in_main_thread):
                yield self
        finally:
            signal.set_wakeup_fd(before)
            os.close(sending)  # ends the thread
            listener.join()
            os.close(receiving)

    @contextlib.contextmanager
    def stopping(self, store: RunStore) -> Iterator[None]:
        """Has signals stop an opened run while the context lasts. Raises Interrupted if one came before."""
        with self._lock:
            self._store = store
        try:
            if self._came_early:
                raise Interrupted("a signal came before anything was started; the same command starts it")
            yield
        finally:
            with self._lock:
                self._store = None

    def _in_main_thread(self, number: int, frame: object) -> None:
        if self._store is None:
            raise Interrupted(f"{signal.Signals(number).name} before anything was started; the same command starts it")
        self._main_came.set()

    def _listen(self, receiving: int) -> None:
        while True:
            ready, _, _ = select.select([receiving], [], [], SAME_SIGNAL_S)
            numbers = os.read(receiving, 64) if ready else b""
            if ready and not numbers:
                return
            for number in numbers:
                if number in SIGNALS:
                    self._take(number)
            self._end_late()

    def _take(self, number: int) -> None:
        with self._lock:
            store = self._store
            if store is None:
                self._came_early = True
                return
        name, kind = signal.Signals(number).name, self._so_far.kind(lambda: store.stop_reason() is not None)
        if kind == "first":
            store.stop(name)
            text = f"{name}: trainers checkpoint and stop; another signal ends the program at once"
            threading.Thread(target=self._say, args=(text,), daemon=True).start()  # a terminal may hang
        elif kind == "later":
            end_at_once(
                store, f"{name} after {store.stop_reason()}: ended without waiting for checkpoints; the same command goes on"
            )

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._display.say(text)

    def _end_late(self) -> None:
        """Ends the process if the main thread has had its time since the first signal."""
        store = self._store
        if store is None or self._so_far.first_s is None:
            return
        cluster = store.config.cluster
        if not self._main_came.is_set():
            limit_s = DEAF_S
        elif cluster.backend == "ray":
            limit_s = cluster.start_timeout_s + DEAF_S  # trainers that hang are given up after start_timeout_s
        else:
            return
        if time.monotonic() - self._so_far.first_s > limit_s:
            end_at_once(store, f"{store.stop_reason()}: the program did not end within {limit_s:g} s; the same command goes on")
