"""Named points at which a test can hold a process, to kill it there. Off unless `WFC_HOLD_AT=<point>[:<count>]=<file>`.

A held process writes its pid to <file> and waits: the killer needs no luck, whatever the machine's speed.
Points are the names of `log.span`s and those passed to `reached`.
"""

import os
import time
from pathlib import Path

_reached: dict[str, int] = {}


def reached(point: str) -> None:
    """Holds the process for good when it is here for the <count>-th time (1 by default) and was told to."""
    order = os.environ.get("WFC_HOLD_AT")
    if not order:
        return
    wanted, _, file = order.partition("=")
    name, _, count = wanted.partition(":")
    if name != point:
        return
    _reached[point] = _reached.get(point, 0) + 1
    if _reached[point] == int(count or 1):
        Path(file).write_text(str(os.getpid()))
        while True:
            time.sleep(60)
