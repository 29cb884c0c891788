"""Reads a metrics log while it grows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from wfc_dist.runs.shapes import CURVE
from wfc_dist.storage import durable

_OVERLAP = 64


class Tail:
    """The rows that a metrics log has got since the last look.

    A resumed training cuts its log. Then, and whenever the bytes before the place of the last look differ, all rows come again.

    Args:
        read: Returns the bytes of the log from an offset on.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read, self._offset, self._before = read, 0, b""

    def rows(self) -> list[dict[str, Any]]:
        """Returns the new whole rows, in order; damaged lines are left out."""
        data = self._read(self._offset - len(self._before))
        if not data.startswith(self._before):
            self._offset, self._before = 0, b""
            data = self._read(0)
        lines = data[len(self._before) : data.rfind(b"\n") + 1]
        self._offset += len(lines)
        self._before = (self._before + lines)[-_OVERLAP:]
        rows = (durable.as_object(line.decode(errors="replace")) for line in lines.split(b"\n"))
        return [row for row in rows if row is not None and CURVE.fits(row)]


def local(path: Path) -> Tail:
    """Returns the tail of a log on this machine; a missing log is empty."""

    def read(offset: int) -> bytes:
        try:
            with open(path, "rb") as file:
                file.seek(offset)
                return file.read()
        except FileNotFoundError:
            return b""

    return Tail(read)
