"""From one round to the next with warm trainers, beside starting the same trainers anew: real `wfc run`s of whisper-base.

    python benchmarks/rounds.py [--repetitions 2] [--steps 2]

Three rounds of two adapters on the demo's speech, two trainers of one thread, Ray on this machine. Everything is read from
the events that each process writes: a turnaround is from the end of a round's last adapter to the first optimizer step of the
next round. The cold start is the first round's: from asking Ray for the trainers to their first optimizer step (imports, the
base from the disk, every hash), in the same run; that of the whole command begins at its process. Nothing is scored.
Needs `make models/whisper-base/config.json`.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measuring import Measured, write_result
from wfc_runs import DEMO, read_spans, short_config, wfc_run

from wfc_dist.reports.timeline import Span, turnaround_moments

ROUNDS = [["es", "fr"], ["it", "ru"], ["fr", "es"]]
MERGE = ("average", "write_delta", "merge")
NAMES = ["warm turnaround without the merge", "warm turnaround", "average and merge", "cold start of the trainers",
         "cold start of the command"]  # fmt: skip


def parts(spans: Sequence[Span], from_s: float, to_s: float) -> dict[str, float]:
    """Returns what a turnaround consists of, in seconds; the values add up to it.

    Args:
        spans: Of all processes.
        from_s, to_s: The end of the last adapter, the first step of the next round.
    """
    inside = [span for span in spans if from_s <= span.start_s and span.end_s <= to_s]

    def seconds(name: str) -> float:
        return sum(span.end_s - span.start_s for span in inside if span.process == "coordinator" and span.name == name)

    committed_s = max((span.end_s for span in inside if span.name == "commit_adapter"), default=from_s)
    averages = [span.end_s - span.start_s for span in inside if span.name == "average"]
    merging_s = seconds("centralize") or sum(span.end_s - span.start_s for span in inside if span.name in ("average", "merge"))
    found = {
        "adapter": committed_s - from_s,
        "average": max(averages, default=0.0),
        "merge": merging_s - max(averages, default=0.0),
        "commit": seconds("commit_base"),
        "broadcast": seconds("broadcast"),
    }
    return {**found, "to_first_step": to_s - from_s - sum(found.values())}


def cold_start_s(spans: Sequence[Span]) -> tuple[float, float]:
    """Returns the seconds to the first optimizer step from asking for the trainers, and from the start of the command."""
    first_step_s = min(span.start_s for span in spans if span.name == "first_step")
    asked_s = min(span.start_s for span in spans if span.name == "factorize")  # just after
    return first_step_s - asked_s, first_step_s


def measure(config: Path, repetitions: int) -> tuple[list[Measured], list[dict[str, float]]]:
    """Runs the configuration in new run directories; returns a row per way and the parts of each turnaround."""
    seconds: dict[str, list[float]] = {name: [] for name in NAMES}
    found, peak = [], 0
    for number in range(repetitions):
        print(f"  wfc run, {number + 1} of {repetitions}", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="wfc-benchmark-") as folder:
            ended, run_dir = wfc_run(config, Path(folder))
            spans = read_spans(run_dir, ended)
        peak = max(peak, ended.peak_bytes)
        for from_s, to_s in turnaround_moments(spans):
            split = parts(spans, from_s, to_s)
            merge_s = split["average"] + split["merge"]
            found.append(split)
            for name, value in zip(NAMES, (to_s - from_s - merge_s, to_s - from_s, merge_s), strict=False):
                seconds[name].append(value)
        for name, value in zip(NAMES[3:], cold_start_s(spans), strict=True):
            seconds[name].append(value)
    return [Measured(name, seconds[name], peak) for name in NAMES], found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2, help="optimizer steps of each adapter")
    options = parser.parse_args()
    facts: dict[str, Any] = {"model": "whisper-base", "rounds": ROUNDS, "steps": options.steps}
    with tempfile.TemporaryDirectory(prefix="wfc-benchmark-") as folder:
        train = {"max_steps": options.steps, "warmup_steps": 1, "gradient_accumulation": 1}
        cluster = {"cpus_per_worker": 1, "threads_per_worker": 1}
        config = short_config(DEMO, Path(folder) / "config.yaml", ROUNDS, train=train, cluster=cluster)
        measured, found = measure(config, options.repetitions)
    medians = {name: round(statistics.median(split[name] for split in found), 3) for name in found[0]}
    print("a turnaround: " + ", ".join(f"{name.replace('_', ' ')} {value:.2f} s" for name, value in medians.items()))
    command = " ".join(["python", "benchmarks/rounds.py", *sys.argv[1:]])
    question = "rounds: from the last adapter of a round to the first step of the next"
    write_result("rounds", question, measured, command=command, turnaround_s=medians, **facts)


if __name__ == "__main__":
    main()
