"""Named points at which a test can hold a process, in order to kill it there, or to damage a file before it goes on.

The environment variable `WFC_HOLD_AT=<point>[:<count>]=<file>` turns one point on; by default all are off. The first process that
reaches the point writes its pid to <file> and waits for as long as the file is there. All other processes pass. So the test does
not depend on timing.
The points are the names of all `log.span`s and all names passed to `reached`.
"""

import contextlib
import os
import time
from pathlib import Path

_reached: dict[str, int] = {}


def reached(point: str) -> None:
    """Holds the process if `WFC_HOLD_AT` names this point, this is pass <count> (default 1), and no process is held yet."""
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
        os.link(staged, file)  # the file appears with its whole content
        while os.path.exists(file):
            time.sleep(0.05)
