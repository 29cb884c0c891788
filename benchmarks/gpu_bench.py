"""What the parts of benchmarks/gpu.py work with: how much is done, the folder of the inputs, and a trainer in this process."""

import contextlib
import importlib.util
import os
import shutil
import statistics
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from wfc_dist.config import loading
from wfc_dist.config.schema import Config
from wfc_dist.rounds import Base
from wfc_dist.training.job import Progress, TrainingJob, TrainingResult

SETS = {"one": "en", "two": "es"}
SEED = 1


@dataclass(frozen=True)
class Size:
    """How much is done.

    Attributes:
        shape: Of the model, see `random_whisper.make_whisper`.
        num_clips: Training clips of each of the two data sets.
        seconds: Shortest and longest clip.
        steps: Steps of the training that is timed.
        few_steps: Steps of the other trainings; even.
        batch_size: Windows of 30 s in a step.
        loader_workers: Processes that read audio.
        num_scored: Clips that are decoded to compare speeds.
        matmul: Rows and columns of the matrices whose product measures the device's peak.
    """

    shape: dict[str, Any]
    num_clips: int
    seconds: tuple[float, float]
    steps: int
    few_steps: int
    batch_size: int
    loader_workers: int
    num_scored: int
    matmul: int


TURBO = {"d_model": 1280, "ffn": 5120, "layers": (32, 4), "heads": 20, "num_mel_bins": 128, "vocab_size": 51866}
FULL = Size(TURBO, 500, (2.0, 12.0), 40, 8, 16, 12, 32, 8192)
TINY = Size({"num_mel_bins": 128, "taciturn": True}, 12, (1.0, 3.0), 6, 4, 2, 0, 4, 256)


@dataclass(frozen=True)
class Bench:
    """The folder of the inputs and results, the device, and how much is done."""

    folder: Path
    device: str
    size: Size

    @property
    def model(self) -> Path:
        """The checkpoint, bfloat16."""
        return self.folder / "model"

    def config(self, name: str, **train: Any) -> Config:
        """Returns the configuration of a run of one round over both data sets; without jiwer nothing is scored."""
        names = ("train", "test") if importlib.util.find_spec("jiwer") else ("train",)
        splits = {split: f"{split}.jsonl" for split in names}
        size, settings = (
            self.size,
            {"lr": 1e-3, "warmup_steps": 1, "packing": True, "precision": "bf16", "checkpoint_every": 1000},
        )
        settings |= {"max_steps": size.few_steps, "batch_size": size.batch_size, "gradient_accumulation": 1}
        settings |= {"loader_workers": size.loader_workers}
        tree = {
            "run": {"name": name, "dir": str(self.folder / "runs")},
            "base": {"model": str(self.model)},
            "datasets": {key: {"source": str(self.folder / key), "splits": splits} for key in SETS},
            "rounds": [list(SETS)],
            "train": settings | train,
            "cluster": {
                "backend": "in_process",
                "gpus_per_worker": int(self.device == "cuda"),
                "threads_per_worker": min(4, os.cpu_count() or 1),
            },
            "evaluate": {"batch_size": size.batch_size},
        }
        return loading.parse(tree)

    def peak_memory_gb(self) -> float | None:
        """Returns the most memory the GPU has held since `reset_peak`; None on CPUs."""
        return round(torch.cuda.max_memory_allocated() / 1e9, 2) if self.device == "cuda" else None

    def reset_peak(self) -> None:
        """Begins to measure the peak anew."""
        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def wait(self) -> None:
        """Waits until the device has done its work."""
        if self.device == "cuda":
            torch.cuda.synchronize()


class Trainer:
    """A worker of the package, in this process, that holds base 0 of a bench and trains on its first data set.

    Args:
        bench: Inputs and device.
        precision: Decides the data type in memory.
    """

    def __init__(self, bench: Bench, precision: str = "bf16") -> None:
        from wfc_dist.backends import net
        from wfc_dist.backends.worker import Worker, WorkerSetup
        from wfc_dist.weights import base_chain
        from wfc_dist.weights.hashing import content_sha256

        self.bench, config = bench, bench.config("trainer", precision=precision)
        self.threads = config.cluster.threads_per_worker
        setup = WorkerSetup(1, 0, 0, self.threads, bench.device == "cuda", str(bench.folder / "logs"), "trainer")
        self.worker = Worker(setup)
        self.worker.join(("127.0.0.1", net.free_port("127.0.0.1")))
        hashes = base_chain.hash_tensors(bench.model)
        self.base = Base(0, str(bench.model), content_sha256(hashes))
        self.worker.load_base(self.base, hashes, config.train)

    def job(self, name: str, **train: Any) -> TrainingJob:
        """Returns a job whose files lie below folder/NAME; what is there already is removed."""
        config = self.bench.config("trainer", **train)
        folder = self.bench.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "adapter").mkdir(parents=True)
        return TrainingJob(
            1, "one", config.datasets["one"], config.lora, config.train, config.evaluate, SEED, SEED, self.base,
            str(folder / "states"), str(folder / "adapter"), str(folder / "curve.jsonl"), str(folder / "stop"),
            threads=self.threads,
        )  # fmt: skip

    def train(self, job: TrainingJob, stop_at: int = 0) -> tuple[TrainingResult | None, list[tuple[float, Progress]]]:
        """Trains and returns (result, (time, progress) after every step); no result where `stop_at` steps stopped it."""
        from wfc_dist.errors import Interrupted

        seen: list[tuple[float, Progress]] = []

        def note(progress: Progress) -> None:
            if progress.phase == "train":
                seen.append((time.monotonic(), progress))
            if progress.step == stop_at - 1:
                Path(job.stop_file).touch()  # read in the next step

        self.worker.on_progress = note
        result = None
        with contextlib.suppress(Interrupted):
            result = self.worker.train(job)
        Path(job.stop_file).unlink(missing_ok=True)
        return result, seen

    @cached_property
    def flops_per_window(self) -> float:
        """Floating-point operations of forward and backward of one window, counted by torch."""
        from torch.utils.flop_counter import FlopCounterMode

        loss, batch = self._loss_and_batch(1)
        with FlopCounterMode(display=False) as counter:
            loss(**batch).sum().backward()
        return float(counter.get_total_flops())

    def seconds_per_batch(self) -> float:
        """Returns the seconds of forward and backward of one batch that lies on the device: training without reading audio."""
        loss, batch = self._loss_and_batch(self.bench.size.batch_size)
        times = []
        for _ in range(6):
            start = time.monotonic()
            loss(**batch).sum().backward()
            self.bench.wait()
            times.append(time.monotonic() - start)
        return statistics.median(times[1:])

    def _loss_and_batch(self, batch_size: int) -> tuple[Any, dict[str, torch.Tensor]]:
        from wfc_dist.data.batching import TrainingWindows
        from wfc_dist.data.sources import open_split
        from wfc_dist.training.loss import TokenLoss
        from wfc_dist.training.model import build

        job, warm = self.job("flops", batch_size=batch_size), self.worker.warm
        assert warm is not None
        windows = TrainingWindows(open_split(job.dataset, job.data, "train"), job.train, warm.processor, SEED)
        batch = {key: value.to(self.bench.device) for key, value in windows.batch(0, 0, 0, 1).items()}
        return TokenLoss(build(warm, job.lora, SEED), job.train.precision), batch
