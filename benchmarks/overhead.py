"""The trainers of `wfc run` beside the same trainers started by hand with `accelerate launch`, two of them and one.

    python benchmarks/overhead.py [--steps 6] [--repetitions 3]

Same data, seeds, steps and threads (one), so the adapters of the first round must have the same bytes, which is checked. Two
trainers have both cores, one trainer has one of them. The runs have two rounds of the same data sets: the first has the start
of the processes in it, the second is timed, beside trainers by hand on the very windows of that round. A training is from its
first optimizer step to the end of its last; seconds are the mean of the trainers. Checkpoints: never, and after every step; the
stall is what the training waits for, the rest is written beside it. Figures are medians of the repetitions.
Needs `make models/whisper-base/config.json` and two cores.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from measuring import Measured, write_result
from wfc_runs import DEMO, Ended, events_spans, read_spans, run_together, short_config, wfc_run

from wfc_dist.reports.timeline import Span
from wfc_dist.runs.layout import RunPaths, checkpoint, events_file
from wfc_dist.weights import peft_folder

DATASETS = ["es", "fr"]
NEVER = 10**6  # steps between checkpoints


@dataclass(frozen=True)
class Trained:
    """Adapters trained at the same time.

    Attributes:
        training_s: Data set -> seconds from the first step to the end of the last.
        whole_s: From the start of the processes, or of a warm round's trainings, to the end of the last adapter.
        peak_bytes: The most memory of one process.
        stalls_s: What a training waited for each checkpoint.
        writes_s: What each took to be written.
        sha256: Data set -> hash of the adapter.
    """

    training_s: dict[str, float]
    whole_s: float
    peak_bytes: int
    stalls_s: list[float]
    writes_s: list[float]
    sha256: dict[str, str]

    @classmethod
    def of(cls, spans: Sequence[Span], whole_s: float, ended: Ended, folders: dict[str, Path]) -> "Trained":
        """Reads it from the spans of the trainers and the folders of the adapters."""
        training_s = {}
        for train in (span for span in spans if span.name == "train"):
            steps = [span for span in spans if span.name == "first_step" and span.process == train.process]
            begun = [span.start_s for span in steps if train.start_s <= span.start_s <= train.end_s]
            training_s[train.about] = train.end_s - begun[0]
        lasted = {
            name: [span.end_s - span.start_s for span in spans if span.name == name]
            for name in ("checkpoint", "write_checkpoint")
        }
        hashes = {dataset: peft_folder.folder_sha256(folder) for dataset, folder in folders.items()}
        return cls(training_s, whole_s, ended.peak_bytes, lasted["checkpoint"], lasted["write_checkpoint"], hashes)

    def row(self, name: str, steps: int, alone: Mapping[str, float] | None = None) -> Measured:
        """Returns a row of the result; `alone` is the training time of one of its data sets, alone on one core."""
        training_s = statistics.mean(self.training_s.values())
        stall = round(100 * sum(self.stalls_s) / sum(self.training_s.values()), 3) if self.stalls_s else "-"
        facts = {
            "whole_s": round(self.whole_s, 1),
            "step_s": round(training_s / steps, 3),
            "percent_of_linear": _percent(alone, self.training_s) if alone else "-",
            "checkpoint_stall_percent": stall,
        }
        return Measured(name, [training_s], self.peak_bytes, facts)


def _percent(alone: Mapping[str, float], together: Mapping[str, float]) -> float:
    return round(100 * statistics.mean(seconds / together[dataset] for dataset, seconds in alone.items()), 1)


def by_hand(config: Path, datasets: Sequence[str], round_index: int, folder: Path, cpus: Sequence[int] | None = None) -> Trained:
    """Trains an adapter per data set of a round's windows at the same time, each with `accelerate launch`."""
    print(f"  accelerate launch: {', '.join(datasets)}", file=sys.stderr)
    threads = yaml.safe_load(config.read_text(encoding="utf-8"))["cluster"]["threads_per_worker"]
    options = ["--cpu", "--num_processes=1", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
    program = Path(sys.executable).with_name("accelerate")
    launch: list[str | Path] = [program, "launch", *options, f"--num_cpu_threads_per_process={threads}"]
    script = Path(__file__).with_name("by_hand.py")
    for dataset in datasets:
        (folder / dataset).mkdir(parents=True)
    ended = run_together([[*launch, script, config, dataset, str(round_index), folder / dataset] for dataset in datasets], cpus)
    spans = events_spans({dataset: events_file(folder / dataset, dataset) for dataset in datasets}, ended)
    return Trained.of(spans, ended.seconds, ended, {dataset: folder / dataset / "adapter" for dataset in datasets})


def run_rounds(config: Path, datasets: Sequence[str], folder: Path, cpus: Sequence[int] | None = None) -> list[Trained]:
    """Trains an adapter per data set in each round of a real run; returns the rounds."""
    print(f"  wfc run: {', '.join(datasets)}", file=sys.stderr)
    ended, run_dir = wfc_run(config, folder, cpus)
    spans = read_spans(run_dir, ended)
    found = []
    for index, whole in enumerate((span for span in spans if span.name == "factorize"), start=1):
        inside = [span for span in spans if whole.start_s <= span.start_s <= whole.end_s]
        whole_s = whole.end_s - (whole.start_s if index > 1 else 0.0)
        folders = {dataset: RunPaths(run_dir).adapter(index, dataset) for dataset in datasets}
        found.append(Trained.of(inside, whole_s, ended, folders))
    return found


def measure(source: Path, folder: Path, datasets: Sequence[str], **blocks: Any) -> tuple[list[Measured], dict[str, Any]]:
    """Trains one and several adapters in both ways; returns a row per way, and the facts that are no row.

    Args:
        source: Configuration with the model and the data sets.
        folder: An empty one, for everything.
        datasets: One adapter each, at the same time; the first one is also trained alone, on one core.
        blocks: See `short_config`.
    """
    train, steps = blocks["train"], blocks["train"]["max_steps"]

    def config(name: str, names: Sequence[str], every: int) -> Path:
        given = {**blocks, "train": {**train, "checkpoint_every": every}}
        return short_config(source, folder / f"{name}.yaml", [names, names], **given)

    one_core, alone = sorted(os.sched_getaffinity(0))[:1], list(datasets[:1])
    several, single = config("several", datasets, NEVER), config("single", alone, NEVER)
    saved = by_hand(config("saved", datasets, 1), datasets, 1, folder / "saved")
    hand = by_hand(several, datasets, 2, folder / "hand")
    first, warm = run_rounds(several, datasets, folder / "run")
    hand_alone = by_hand(single, alone, 2, folder / "hand-alone", one_core)
    _, warm_alone = run_rounds(single, alone, folder / "run-alone", one_core)
    assert first.sha256 == saved.sha256, f"by hand and by wfc run, the adapters differ: {saved.sha256}, {first.sha256}"
    name = f"{len(datasets)} trainers, {len(datasets)} cores"
    rows = [
        warm.row(f"wfc run, {name}", steps, warm_alone.training_s),
        hand.row(f"accelerate launch, {name}", steps, hand_alone.training_s),
        warm_alone.row("wfc run, 1 trainer, 1 core", steps),
        hand_alone.row("accelerate launch, 1 trainer, 1 core", steps),
        first.row(f"first round: wfc run, {name}", steps),
        saved.row("first round: accelerate, 1 checkpoint a step", steps),
    ]
    size = sum(path.stat().st_size for path in checkpoint(folder / "saved" / datasets[0] / "checkpoints", steps - 1).iterdir())
    stall_s, write_s = statistics.median(saved.stalls_s), statistics.median(saved.writes_s)
    facts = {
        "sha256": saved.sha256,
        "same_bytes": True,
        "checkpoint_mb": round(size / 1e6, 1),
        "checkpoint_stall_s": round(stall_s, 4),
        "checkpoint_write_s": round(write_s, 4),
        "stall_percent_of_200_steps": round(100 * stall_s / (200 * statistics.mean(hand.training_s.values()) / steps), 5),
    }
    return rows, facts


def together(repetitions: Sequence[Sequence[Measured]]) -> list[Measured]:
    """Returns one row for each way: the seconds of all repetitions, the most memory, medians of the figures beside them."""
    found = []
    for rows in zip(*repetitions, strict=True):
        facts = {key: _median([row.facts[key] for row in rows]) for key in rows[0].facts}
        seconds = [value for row in rows for value in row.seconds]
        found.append(Measured(rows[0].name, seconds, max(row.peak_bytes for row in rows), facts))
    return found


def _median(values: Sequence[Any]) -> Any:
    return values[0] if isinstance(values[0], str) else round(statistics.median(values), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6, help="optimizer steps of each adapter; 3 or more")
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    train = {"max_steps": options.steps, "warmup_steps": 1, "gradient_accumulation": 1}
    cluster = {"cpus_per_worker": 1, "threads_per_worker": 1}
    measured = []
    for _ in range(options.repetitions):
        with tempfile.TemporaryDirectory(prefix="wfc-benchmark-") as folder:
            measured.append(measure(DEMO, Path(folder), DATASETS, train=train, cluster=cluster))
    rows, facts = together([rows for rows, _ in measured]), measured[-1][1]
    for dataset, sha256 in facts["sha256"].items():
        print(f"{dataset}: the same bytes by hand and by wfc run, sha256 {sha256}")
    print(
        f"a checkpoint of {facts['checkpoint_mb']} MB: the training waits {1e3 * facts['checkpoint_stall_s']:.1f} ms, "
        f"{1e3 * facts['checkpoint_write_s']:.1f} ms are beside it; every 200 steps that is "
        f"{facts['stall_percent_of_200_steps']} % of the steps' time"
    )
    command = " ".join(["python", "benchmarks/overhead.py", *sys.argv[1:]])
    question = "overhead: the same adapters, trained by wfc run and by trainers started by hand"
    write_result("overhead", question, rows, command=command, model="whisper-base", steps=options.steps, **facts)


if __name__ == "__main__":
    main()
