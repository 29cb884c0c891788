"""The metrics log: one JSON line for each step and each dev evaluation. A resumed training writes no line twice."""

import json
from pathlib import Path
from typing import Any

from wfc_dist.storage import durable


def cut(path: Path, step: int, *, evaluated: bool) -> None:
    """Rewrites the file without the lines after `step`, which a resumed training writes again.

    Args:
        path: The log; a missing one is left missing.
        step: The last step to keep.
        evaluated: Whether to keep the evaluation of that step.
    """
    kept = []
    for line in durable.read_lines(path, repair=True):
        row = durable.as_object(line)
        if row is None or not isinstance(row.get("step"), int):  # damaged: the page lacks a point
            continue
        is_evaluation = "dev_loss" in row or "dev_error" in row
        if row["step"] < step or (row["step"] == step and (evaluated or not is_evaluation)):
            kept.append(line)
    if path.exists():
        durable.write_text(path, "".join(f"{line}\n" for line in kept))


def append(path: Path, **row: Any) -> None:
    """Appends one row. It is not synced to the disk: a resumed training writes a lost row again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
