"""Signals of schedulers and terminals: the first asks a run to checkpoint and stop, a later one ends the process."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from wfc_dist.errors import EXIT_INTERRUPTED, Interrupted
from wfc_dist.progress import Display
from wfc_dist.runs.store import RunStore

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
SAME_SIGNAL_S = 1.0


@dataclass
class SignalsSoFar:
    """Tells a signal that is the first one once more from a later one: Slurm sends SIGTERM to a script and to what it started.

    Attributes:
        first_s: When the first came, `time.monotonic`; None before.
    """

    first_s: float | None = None

    def come(self, is_stopping: Callable[[], bool]) -> bool:
        """Takes one in; says whether it is the first. Ends the process at one that comes SAME_SIGNAL_S after the first, or at
        any while a stop was asked for otherwise."""
        now_s = time.monotonic()
        if self.first_s is not None and now_s - self.first_s < SAME_SIGNAL_S:
            return False
        if self.first_s is not None or is_stopping():
            os._exit(EXIT_INTERRUPTED)
        self.first_s = now_s  # before anything is written: a signal may come in between
        return True


class StopOnSignal:
    """Turns the first signal into the run's stop file, which every trainer polls; a later one ends the process at once.

    Before a run is opened there is nothing to checkpoint: a signal then raises Interrupted where the process is.
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
        if not self._so_far.come(lambda: store.stop_reason() is not None):
            return
        store.stop(name)
        self._display.say(f"{name}: trainers checkpoint and stop; once more ends at once")

    @contextlib.contextmanager
    def caught(self) -> Iterator["StopOnSignal"]:
        """Handles the signals while the context lasts."""
        before = {number: signal.signal(number, self._stop) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
