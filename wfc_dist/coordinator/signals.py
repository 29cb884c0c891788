"""Signals of schedulers and terminals: the first asks a run to checkpoint and stop, a later one ends the process."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from wfc_dist.errors import EXIT_INTERRUPTED, Interrupted
from wfc_dist.progress import Display
from wfc_dist.runs.store import RunStore

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
SAME_SIGNAL_S = 1.0


@contextlib.contextmanager
def handled(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Has SIGNALS handled by `handler` while the context lasts; does nothing outside the main thread, where Python cannot."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@dataclass
class SignalsSoFar:
    """Tells a second copy of the first signal from a later signal: Slurm sends SIGTERM to a script and to what it started.

    Attributes:
        first_s: When the first signal came, `time.monotonic`; None before.
    """

    first_s: float | None = None

    def is_first(self, is_stopping: Callable[[], bool]) -> bool:
        """Counts a signal and returns whether it is the first.

        Ends the process at a signal that comes SAME_SIGNAL_S or more after the first, or when `is_stopping` says that a stop
        was already asked for by other means.
        """
        now_s = time.monotonic()
        if self.first_s is not None and now_s - self.first_s < SAME_SIGNAL_S:
            return False
        if self.first_s is not None or is_stopping():
            os._exit(EXIT_INTERRUPTED)
        self.first_s = now_s  # before anything is written: another signal may come meanwhile
        return True


class StopOnSignal:
    """Turns the first signal into the run's stop file, which every trainer polls; a later signal ends the process at once.

    Before a run is opened there is nothing to checkpoint: a signal then raises Interrupted wherever the program is.

    Attributes:
        store: The opened run; None before.
    """

    def __init__(self, display: Display) -> None:
        self._display = display
        self.store: RunStore | None = None
        self._so_far = SignalsSoFar()

    def _stop(self, number: int, frame: object) -> None:
        name = signal.Signals(number).name
        if self.store is None:
            raise Interrupted(f"{name} before anything was started; the same command starts it")
        store = self.store
        if not self._so_far.is_first(lambda: store.stop_reason() is not None):
            return
        store.stop(name)
        self._display.say(f"{name}: trainers checkpoint and stop; another signal ends the program at once")

    @contextlib.contextmanager
    def caught(self) -> Iterator["StopOnSignal"]:
        """Handles the signals while the context lasts."""
        with handled(self._stop):
            yield self
