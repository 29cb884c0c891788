"""Standard streams that are closed, or whose reader goes away: no command fails for want of an onlooker."""

import contextlib
import os
import sys
from typing import Any


def fill_closed() -> None:
    """Opens the null device in place of each standard stream that is closed.

    Else the next file that is opened, such as a ledger, would take its number, and get what libraries write there.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        with contextlib.suppress(OSError):
            os.fstat(number)
            continue
        os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one
        setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def outlive_readers() -> None:
    """Has this process work on when the reader of its output goes away: a `tee` is killed, a terminal is closed."""
    sys.stdout, sys.stderr = _Outliving(sys.stdout), _Outliving(sys.stderr)


class _Outliving:
    """A text stream that writes to the null device once it cannot be written."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError:
            self._give_up()
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)
