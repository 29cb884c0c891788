"""The metrics log: one JSON line a step and a dev evaluation, each exactly once, whatever was interrupted."""

import json
from pathlib import Path
from typing import Any

from wfc_dist.storage import durable


def cut(path: Path, step: int, *, evaluated: bool) -> None:
    """Removes what stands in the file after `step`, so that a resumed training writes no step twice. Rewrites the file.

    Args:
        path: The log; a missing one is left missing.
        step: The last step to keep.
        evaluated: Whether the evaluation of that step is kept too.
    """
    kept = []
    for line in durable.read_lines(path, repair=True):
        row = json.loads(line)
        is_evaluation = "dev_loss" in row or "dev_error" in row
        if row["step"] < step or (row["step"] == step and (evaluated or not is_evaluation)):
            kept.append(line)
    if path.exists():
        durable.write_text(path, "".join(f"{line}\n" for line in kept))


def append(path: Path, **row: Any) -> None:
    """Appends one row; not flushed to the disk, since a lost row is written again by the resumed training."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
