"""A limit for the start of Ray that holds where no thread of Python can run.

`ray.init` waits in C++ for the raylet and keeps Python's lock meanwhile: a raylet that is stopped, or waits itself, would stop
this program for ever, its watches included. The system's own timers say so and end the process, by functions of the C library.
"""

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

from wfc_dist import activity
from wfc_dist.errors import EXIT_INTERRUPTED

_CLOCK_MONOTONIC, _SIGEV_THREAD = 1, 2
_NAME = "program_invocation_short_name"
"""A variable of the C library: what its messages begin with."""


class _Event(ctypes.Structure):
    """struct sigevent of Linux, 64 bytes: what happens when a timer is up."""

    _fields_ = (
        ("value", ctypes.c_void_p), ("signal", ctypes.c_int), ("notify", ctypes.c_int), ("function", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p), ("padding", ctypes.c_char * 32),
    )  # fmt: skip


class _Times(ctypes.Structure):
    """struct itimerspec: the pause between repetitions, and the time until the first, as seconds and nanoseconds."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("every_s", "every_ns", "after_s", "after_ns"))


@contextlib.contextmanager
def ends_after(seconds: int, message: str) -> Iterator[None]:
    """Ends a command with EXIT_INTERRUPTED if the context lasts longer; does nothing in a program that uses the library.

    Args:
        seconds: The limit.
        message: What standard error says then.
    """
    if not activity.may_end_process:
        yield
        return
    libc = _library()
    words = ctypes.create_string_buffer(message.replace("%", "%%").encode())  # `warnx` takes a format
    with _named(libc, b"wfc"), _timer(libc, seconds, libc.warnx, ctypes.addressof(words)):  # noqa: SIM117 - what is first comes first
        with _timer(libc, seconds + 1, libc._exit, EXIT_INTERRUPTED):
            yield


@contextlib.contextmanager
def _timer(libc: ctypes.CDLL, seconds: int, function: Any, value: int) -> Iterator[None]:
    """Calls a function of the C library with one value, on a thread of its own, unless the context ends before."""
    event, timer = _Event(value=value, notify=_SIGEV_THREAD, function=ctypes.cast(function, ctypes.c_void_p)), ctypes.c_void_p()
    if libc.timer_create(_CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)):
        yield  # a system without such timers
        return
    libc.timer_settime(timer, 0, ctypes.byref(_Times(after_s=seconds)), None)
    try:
        yield
    finally:
        libc.timer_delete(timer)


@contextlib.contextmanager
def _named(libc: ctypes.CDLL, name: bytes) -> Iterator[None]:
    try:
        variable = ctypes.c_void_p.in_dll(libc, _NAME)
    except ValueError:  # not glibc
        yield
        return
    words = ctypes.create_string_buffer(name)
    before, variable.value = variable.value, ctypes.addressof(words)
    try:
        yield
    finally:
        variable.value = before


def _library() -> ctypes.CDLL:
    """Returns the C library with timers: before glibc 2.34 they have a library of their own, which finds the rest, too."""
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "timer_create") else ctypes.CDLL("librt.so.1")
