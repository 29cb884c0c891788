"""How long a trainer waits for its data, with 0 and more threads that decode ahead (train.loader_workers), on real clips.

    python benchmarks/loading.py [--dataset es] [--steps 3] [--repetitions 3] [--window-ms 40] [--only cpu]

Two tables. `cpu` trains LoRA adapters of whisper-base on the CPU. `accelerator` has a stand-in for one: a trainer that leaves the
cores alone for --window-ms a window (it sleeps); there PyTorch's DataLoader with processes stands beside. The ways take turns;
figures are medians over the repetitions. Needs `make models/whisper-base/config.json`. The data are the demo's.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measuring import write_rows

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.config.schema import EvaluateConfig
from wfc_dist.config.training import LoraConfig, TrainConfig
from wfc_dist.data.batching import TrainingWindows
from wfc_dist.data.sources import open_split
from wfc_dist.rounds import Base
from wfc_dist.training.feeding import feed
from wfc_dist.training.job import TrainingJob
from wfc_dist.training.trainer import train_adapter
from wfc_dist.training.world import World, join_world
from wfc_dist.weights import base_chain
from wfc_dist.weights.hashing import content_sha256
from wfc_dist.weights.warm_base import WarmBase

REPO = Path(__file__).resolve().parent.parent
MODEL = REPO / "models" / "whisper-base"
BATCH, STEPS = 8, 8  # windows and steps of the stand-in
Steps = Iterator[Any]


def median(values: list[float], digits: int) -> float:
    return round(statistics.median(values), digits)


def train_settings(dataset: str, **more: Any) -> tuple[DatasetConfig, TrainConfig]:
    data = DatasetConfig(source=str(REPO / "examples/demo/data" / dataset), language=dataset, splits={"train": "train.jsonl"})
    return data, TrainConfig(gradient_accumulation=1, packing=True, warmup_steps=1, checkpoint_every=1000, **more)


def on_the_cpu(dataset: str, steps: int, repetitions: int, world: World) -> Iterator[list[dict[str, Any]]]:
    """Trains with every pair of compute threads and loader threads in turn; yields a row for each after every repetition."""
    warm = WarmBase(Base(0, str(MODEL), content_sha256(base_chain.hash_tensors(MODEL))))
    ways = [(threads, loaders) for threads in (1, 2) for loaders in (0, 1)]
    found: dict[tuple[int, int], list[tuple[float, float]]] = {way: [] for way in ways}
    for number in range(repetitions):
        for threads, loaders in ways:
            print(f"  {threads} threads, {loaders} loaders, {number + 1} of {repetitions}", file=sys.stderr)
            data, train = train_settings(dataset, batch_size=1, max_steps=steps, loader_workers=loaders)
            with tempfile.TemporaryDirectory(prefix="wfc-benchmark-") as name:
                (Path(name) / "adapter").mkdir()
                job = TrainingJob(1, dataset, data, LoraConfig(), train, EvaluateConfig(), 1, 1, warm.base, f"{name}/states",
                                  f"{name}/adapter", "", "", threads=threads)  # fmt: skip
                result = train_adapter(job, warm, world)
            whole_s = result.seconds + result.data_wait_s
            found[threads, loaders].append((result.data_wait_s / whole_s, result.speech_seconds / whole_s))
        yield [
            {"compute threads": threads, "loader threads": loaders,
             "waiting for data": f"{100 * median([share for share, _ in runs], 4):.1f} %",
             "speech per second": median([rate for _, rate in runs], 2)}
            for (threads, loaders), runs in found.items()
        ]  # fmt: skip


class _Steps(torch.utils.data.Dataset[Any]):
    def __init__(self, windows: TrainingWindows) -> None:
        self._windows = windows

    def __len__(self) -> int:
        return STEPS

    def __getitem__(self, step: int) -> Any:
        return self._windows.micro_batches(step, 0, 1)


def with_processes(windows: TrainingWindows, number: int, start: str) -> Steps:
    return iter(torch.utils.data.DataLoader(_Steps(windows), None, num_workers=number, multiprocessing_context=start))


def beside_an_accelerator(dataset: str, repetitions: int, window_s: float, world: World) -> list[dict[str, Any]]:
    """Feeds a trainer that sleeps; returns a row for each way of loading."""
    data, train = train_settings(dataset, batch_size=BATCH, max_steps=STEPS)
    warm = WarmBase(Base(0, str(MODEL), ""))
    windows = TrainingWindows(open_split(dataset, data, "train"), train, warm.processor, seed=1)
    ways: dict[str, Callable[[], Steps]] = {
        f"{number} threads": partial(feed, windows, 0, STEPS, world, number) for number in (0, 1, 2, 4)
    }
    for start in ("fork", "spawn"):
        ways |= {f"{number} processes, {start}": partial(with_processes, windows, number, start) for number in (1, 2)}
    found: dict[str, list[tuple[float, float, float]]] = {way: [] for way in ways}
    for number in range(repetitions):
        for way, make in ways.items():
            print(f"  {way}, {number + 1} of {repetitions}", file=sys.stderr)
            found[way].append(_consume(make, window_s))
    return [
        {"loading by": way, "first step after": f"{median([run[0] for run in runs], 2)} s",
         "all steps": f"{median([run[1] for run in runs], 2)} s",
         "waiting for data": f"{100 * median([run[2] for run in runs], 3):.0f} %"}
        for way, runs in found.items()
    ]  # fmt: skip


def _consume(make: Callable[[], Steps], window_s: float) -> tuple[float, float, float]:
    """Returns the seconds to the first batch, those of all steps, and the share of waiting after the first step."""
    start, waits = time.perf_counter(), list[float]()
    batches = make()
    for _ in range(STEPS):
        asked = time.perf_counter()
        next(batches)
        waits.append(time.perf_counter() - asked)
        time.sleep(BATCH * window_s)
    whole = time.perf_counter() - start
    del batches  # ends the loader
    first = whole - sum(waits[1:]) - STEPS * BATCH * window_s
    return first, whole, sum(waits[1:]) / (whole - first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="es", help="a folder of examples/demo/data, such as es or fr")
    parser.add_argument("--steps", type=int, default=3, help="of a training on the CPU")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--window-ms", type=float, default=40, help="what the stand-in computes on a window")
    parser.add_argument("--only", choices=("cpu", "accelerator"), help="one of the tables; both by default")
    options = parser.parse_args()
    world = join_world(1, 0, 0, "127.0.0.1", 0, threads=1)
    facts = {"command": " ".join(["python", "benchmarks/loading.py", *sys.argv[1:]]), "dataset": options.dataset}
    if options.only != "cpu":
        rows = beside_an_accelerator(options.dataset, options.repetitions, options.window_ms / 1000, world)
        what = f"{STEPS} steps of {BATCH} windows beside a stand-in for an accelerator, {options.window_ms:g} ms a window"
        write_rows("loading-accelerator", f"loading: {what}", rows, **facts)
    if options.only != "accelerator":
        for rows in on_the_cpu(options.dataset, options.steps, options.repetitions, world):
            write_rows("loading-cpu", "loading: LoRA adapters of whisper-base on the CPU, one window a step", rows, **facts)


if __name__ == "__main__":
    main()
