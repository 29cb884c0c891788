"""Named points at which a test can hold a process, to kill it there. Off unless `WFC_HOLD_AT=<point>[:<count>]=<file>`.

The first process there makes <file>, with its pid, and waits; all others pass. The killer needs no luck, however fast it is.
Points are the names of `log.span`s and those passed to `reached`.
"""

import contextlib
import os
import time
from pathlib import Path

_reached: dict[str, int] = {}


def reached(point: str) -> None:
    """Holds the process for good when it was told to, is here for the <count>-th time (1 by default), and no other was before."""
    order = os.environ.get("WFC_HOLD_AT")
    if not order:
        return
    wanted, _, file = order.partition("=")
    name, _, count = wanted.partition(":")
    if name != point:
        return
    _reached[point] = _reached.get(point, 0) + 1
    if _reached[point] != int(count or 1):
        return
    staged = Path(f"{file}.{os.getpid()}")
    staged.write_text(str(os.getpid()))
    with contextlib.suppress(FileExistsError):
        os.link(staged, file)  # never seen half written
        while True:
            time.sleep(60)
