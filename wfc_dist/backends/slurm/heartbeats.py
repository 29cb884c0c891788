"""Finds the ranks of a job that say nothing any more: processes that are stopped, or whose node is cut off."""

import json
import time
from pathlib import Path
from typing import Any

from wfc_dist.activity import Activity
from wfc_dist.backends.hangs import Hang, Limits, RankState
from wfc_dist.backends.slurm.job_process import BEATS_IN_LIMIT

_FIELDS = Activity.__dataclass_fields__


class Heartbeats:
    """The heartbeats of one job (see `JobProcess`), on the coordinator's clock: those of the nodes may differ.

    Args:
        folder: The folder of the job.
        limits: How long a rank may be silent.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder, self._limits = folder, limits
        self._seen: dict[int, tuple[str, float]] = {}
        self._looked_s = time.monotonic()

    def look(self, *, is_running: bool) -> tuple[Hang, str] | None:
        """Returns the rank that has been silent for too long, and its host; None while there is none.

        Args:
            is_running: Whether Slurm says that the job runs; one that it suspends says nothing, and that is no hang.
        """
        now_s, limit_s = time.monotonic(), self._limits.silence_s()
        if not is_running or now_s - self._looked_s > limit_s / 2:  # in the second case nobody has looked
            self._seen = {}
        elif now_s - self._looked_s < limit_s / (2 * BEATS_IN_LIMIT):  # there is nothing new
            return None
        self._looked_s = now_s
        late: list[tuple[Hang, str]] = []
        for path in sorted(self._folder.glob("alive-*.json")):
            rank, text = int(path.stem.partition("-")[2]), _text(path)
            before = self._seen.get(rank)
            if before is None or (text and text != before[0]):
                self._seen[rank] = (text, now_s)
            elif now_s - before[1] >= limit_s:
                facts = _facts(before[0])
                said = Activity(**{name: value for name, value in facts.items() if name in _FIELDS})
                late.append((Hang(RankState(rank, now_s - before[1], 0.0, said), limit_s), str(facts.get("host", ""))))
        return max(late, key=lambda found: found[0].state.silent_s, default=None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def _facts(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:  # half a line
        return {}
    return found if isinstance(found, dict) else {}
