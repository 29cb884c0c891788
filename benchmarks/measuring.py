"""Measuring in fresh processes: medians of seconds, and the most memory a process ever held."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Measured:
    """One way of doing the work: name, seconds of each repetition, peak memory (VmHWM) of its process in bytes, and what
    else its last repetition said."""

    name: str
    seconds: list[float]
    peak_bytes: int
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def median_s(self) -> float:
        """Returns the median of the seconds."""
        return statistics.median(self.seconds)


def peak_bytes() -> int:
    """Returns the most memory this process has held so far."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def in_fresh_processes(script: Path, ways: Sequence[str], repetitions: int, *arguments: str) -> list[Measured]:
    """Runs `script --only WAY ARGUMENTS` `repetitions` times for each way, in turn, and collects what each prints as JSON."""
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for number in range(repetitions):
        for way in ways:
            print(f"  {way}, {number + 1} of {repetitions}", file=sys.stderr)
            command = [sys.executable, str(script), "--only", way, *arguments]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[way].append(json.loads(done.stdout.splitlines()[-1]))
    return [
        Measured(way, [row["seconds"] for row in rows], max(row["peak_bytes"] for row in rows),
                 {key: value for key, value in rows[-1].items() if key not in ("seconds", "peak_bytes")})
        for way, rows in found.items()
    ]  # fmt: skip


def write_result(name: str, question: str, measured: Sequence[Measured], **facts: Any) -> Path:
    """Writes results/NAME.json and prints the table: the first way is ours, the others are compared with it. Returns the path."""
    ours = measured[0]
    rows = [
        {"way": item.name, "median_s": round(item.median_s, 3), "seconds": [round(value, 3) for value in item.seconds],
         "peak_mb": round(item.peak_bytes / 1e6), "times_ours": round(item.median_s / ours.median_s, 2), **item.facts}
        for item in measured
    ]  # fmt: skip
    path = write_rows(name, question, rows, **facts)
    print(f"\n{question}")
    for row in rows:
        print(f"  {row['way']:<44} {row['median_s']:>8.2f} s {row['peak_mb']:>7} MB  {row['times_ours']:>6.2f} x ours")
    return path


def write_rows(name: str, question: str, rows: Sequence[Mapping[str, Any]], **facts: Any) -> Path:
    """Writes results/NAME.json with rows of any columns, the same in each; the first is a name. Returns the path."""
    RESULTS.mkdir(exist_ok=True)
    machine = {"cpus": len(os.sched_getaffinity(0)), "python": platform.python_version(), "torch": version("torch")}
    tree = {"question": question, "date": time.strftime("%Y-%m-%d"), "machine": machine, **facts, "rows": rows}
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(tree, indent=1) + "\n")
    return path
