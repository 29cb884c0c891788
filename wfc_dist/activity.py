"""What this process works at, and for how long nothing of it has moved: by this a hang is told from slow work.

The work itself says that it moves: a step, a batch, a file that is read or written. Importing this file loads no library.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Activity:
    """What a process said when it was asked.

    Attributes:
        about: What the work is about, such as the name of a data set; "" where it is about nothing in particular.
        doing: The piece of work, such as "train" or "load_base"; "" before any.
        step: The last step of the training that is done; 0 before, and in other work.
        idle_s: Seconds since anything has moved.
        slowest_s: The longest time between two moves since the work began.
        is_steady: Whether the work has come to its first step or batch. Before, libraries are loaded and kernels are compiled.
        reading: The file that a thread has been reading for longest; "" where none is read.
        reading_s: For how many seconds.
        pid: The process.
    """

    about: str = ""
    doing: str = ""
    step: int = 0
    idle_s: float = 0.0
    slowest_s: float = 0.0
    is_steady: bool = False
    reading: str = ""
    reading_s: float = 0.0
    pid: int = 0


class _Here:
    """The state of this process. Threads set single fields, so that nobody waits for a lock that a stuck thread holds."""

    def __init__(self) -> None:
        self.about, self.doing, self.step, self.is_steady = "", "", 0, False
        self.moved_s, self.slowest_s, self.num_excused = time.monotonic(), 0.0, 0
        self.reading: list[tuple[str, float]] = []


_here = _Here()
may_end_process = False
"""Whether a hang may end this process: whether it is a command or a job, and not a program that uses the library."""
is_stuck = False
"""Whether a library has left a thread that does not end. What tidies up at the end of a process would meet it."""


def begin(about: str = "", step: int = 0) -> None:
    """Notes that new work begins, after `step` steps of an earlier attempt; the time since the last work does not count."""
    _here.about, _here.step, _here.is_steady = about, step, False
    _here.moved_s, _here.slowest_s = time.monotonic(), 0.0


def moved(*, step: int | None = None, steady: bool = False) -> None:
    """Notes that the work has moved. May be called from any thread, as often as one likes.

    Args:
        step: The step of a training that is done.
        steady: Whether this was a step or a batch, and the work is beyond its start.
    """
    now_s = time.monotonic()
    if _here.is_steady:
        _here.slowest_s = max(_here.slowest_s, now_s - _here.moved_s)
    _here.moved_s = now_s
    if step is not None:
        _here.step = step
    _here.is_steady = _here.is_steady or steady or step is not None


@contextlib.contextmanager
def doing(name: str) -> Iterator[None]:
    """Names the work of the process while the context lasts; its beginning and its end are moves."""
    before, _here.doing = _here.doing, name
    moved()
    try:
        yield
    finally:
        _here.doing = before
        moved()


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Names the file that this thread reads while the context lasts; its end is a move."""
    entry = (name, time.monotonic())
    _here.reading.append(entry)
    try:
        yield
    finally:
        _here.reading.remove(entry)
        moved()


@contextlib.contextmanager
def excused() -> Iterator[None]:
    """Says that what happens while the context lasts has a limit of its own and shows no moves, such as a download."""
    _here.num_excused += 1
    try:
        yield
    finally:
        moved()
        _here.num_excused -= 1


def now() -> Activity:
    """Returns what this process works at. May be called from any thread."""
    now_s, here = time.monotonic(), _here
    name, since_s = min(list(here.reading), key=lambda entry: entry[1], default=("", now_s))
    idle_s = 0.0 if here.num_excused else now_s - here.moved_s
    return Activity(here.about, here.doing, here.step, idle_s, here.slowest_s, here.is_steady, name, now_s - since_s, os.getpid())
