"""One trainer process, whoever started it: it loads a base, trains adapters on the base, and decodes test sets.

The process stays warm for the whole run: imports, process group and base outlive adapters and rounds.
"""

import gc
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as parse_tensors

from wfc_dist import activity, log
from wfc_dist.activity import Activity
from wfc_dist.backends import memory
from wfc_dist.config.training import TrainConfig
from wfc_dist.data.sources import open_split
from wfc_dist.errors import IntegrityError
from wfc_dist.evaluation.decoding import decode_sets
from wfc_dist.evaluation.hypotheses import Hypothesis
from wfc_dist.evaluation.scoring import ScoreTask
from wfc_dist.rounds import Base
from wfc_dist.runs import layout
from wfc_dist.runs.root import bring_base, forget_training
from wfc_dist.storage import durable
from wfc_dist.storage.mirror import NO_MIRROR, AnyMirror
from wfc_dist.training.job import Progress, TrainingJob, TrainingResult
from wfc_dist.training.trainer import train_adapter
from wfc_dist.training.world import World, join_world, leave_world
from wfc_dist.weights.hashing import tensor_sha256
from wfc_dist.weights.warm_base import WarmBase

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker needs to start.

    Attributes:
        world_size, world_rank, local_rank: The worker's rank in its gang.
        threads: Intra-operator threads; part of the result's bytes.
        use_gpu: Whether the worker owns a GPU.
        log_dir: Folder of log and events.
        name: Names the files there, such as gang-0-rank-1.
        mirror: How the run's files get to this node and from it.
        work_dir: The coordinator's working directory, from which relative paths of the configuration count.
        run_name: Name of the run, for metrics.
    """

    world_size: int
    world_rank: int
    local_rank: int
    threads: int
    use_gpu: bool
    log_dir: str
    name: str
    mirror: AnyMirror = NO_MIRROR
    work_dir: str = ""
    run_name: str = ""


def adopt_work_dir(folder: str) -> None:
    """Makes `folder` the working directory if it is there: Ray's workers begin in the directory of `ray start`."""
    if folder and Path(folder).is_dir():
        os.chdir(folder)


@dataclass(frozen=True)
class Broadcast:
    """The changed tensors of a base, sent to the trainers: safetensors bytes (uint8), and name -> committed sha256."""

    base: Base
    payload: np.ndarray
    hashes: dict[str, str]


@dataclass(frozen=True)
class Report:
    """What a worker says while it works.

    Attributes:
        activity: What its process works at, and since when nothing has moved.
        progress: How far the training is; None before its first step, and in other work.
        decoded: The share of the task of `score` that is decoded.
    """

    activity: Activity
    progress: Progress | None = None
    decoded: float = 0.0


class Worker:
    """One process of a trainer gang."""

    def __init__(self, setup: WorkerSetup) -> None:
        log.quiet_libraries()
        adopt_work_dir(setup.work_dir)
        setup.mirror.adopt()
        layout.open_logs(Path(setup.log_dir), setup.name)
        torch.set_num_threads(setup.threads)
        self.setup = setup
        self.device = torch.device("cuda", 0) if setup.use_gpu else torch.device("cpu")
        self.world: World | None = None
        self.warm: WarmBase | None = None
        self.on_progress: Callable[[Progress], None] | None = None
        self.on_decoded: Callable[[float], None] | None = None
        self._progress: Progress | None = None
        self._decoded = 0.0
        activity.begin()
        self._stop = threading.Event()

    def join(self, endpoint: tuple[str, int]) -> None:
        """Joins the gang's process group, once. Every worker of the gang must call it."""
        setup = self.setup
        self.world = join_world(
            setup.world_size, setup.world_rank, setup.local_rank, *endpoint, device=self.device, threads=setup.threads
        )

    def leave(self) -> None:
        """Leaves the gang's process group."""
        if self.world is not None:
            leave_world(self.world)

    def load_base(self, base: Base, hashes: dict[str, str], train: TrainConfig, broadcast: Broadcast | None = None) -> str:
        """Loads and verifies `base`, and returns its sha256.

        Args:
            base: The base wanted; nothing happens when it is in memory already.
            hashes: sha256 of every tensor as committed, checked on a cold load.
            train: Decides the data type in memory.
            broadcast: The changed tensors, used when the previous base is in memory; else `base` is read from its folder.
        """
        start = time.monotonic()
        if self.warm is not None and self.warm.base == base:
            return base.sha256
        activity.begin()
        if self.warm is not None and broadcast is not None and self.warm.base.index == base.index - 1:
            with log.span("receive", phase="loading", base_index=base.index):
                self.warm.update_(base, parse_tensors(broadcast.payload.tobytes()), broadcast.hashes)
        else:
            with log.span("load_base", phase="loading", base_index=base.index):
                self.warm = self._load(base, hashes, train)
            gc.collect()
            gc.freeze()  # else every later collection walks over what the imports made, 0.3 s at each adapter's end
        forget_training(self.setup.mirror, base.index)
        logger.info("loaded base %d (%s) in %.1f s", base.index, base.sha256[:12], time.monotonic() - start)
        return base.sha256

    def _load(self, base: Base, hashes: dict[str, str], train: TrainConfig) -> WarmBase:
        self.warm = None  # never two bases in memory
        bring_base(self.setup.mirror, base.index)
        half = {"bf16": torch.bfloat16, "fp16": torch.float16}
        dtype = half.get(train.precision, torch.float32) if self.setup.use_gpu else torch.float32

        def verify(name: str, tensor: torch.Tensor) -> None:
            if tensor_sha256(tensor) != hashes.get(name):
                remedy = f"remove {base.path} and run again" if base.index else "restore the root model"
                raise IntegrityError(f"base {base.index}: {name} in {base.path} is not the tensor that was committed; {remedy}")

        return WarmBase(base, dtype=dtype, device=self.device, on_read=verify)

    def train(self, job: TrainingJob) -> TrainingResult:
        """Trains one adapter (see `training.trainer.train_adapter`)."""
        torch.set_num_threads(self.setup.threads)  # actors run methods on threads of their own
        assert self.world is not None and self.warm is not None, "join and load_base come first"
        log.set_context(round=job.round_index, dataset=job.dataset, world_rank=self.setup.world_rank)
        self._progress = None
        activity.begin(job.dataset)
        try:
            return train_adapter(job, self.warm, self.world, self._report, self._stop.is_set)
        finally:
            self._progress = None
            self._publish_logs()
            memory.trim()

    def _publish_logs(self) -> None:
        for file in (layout.log_file, layout.events_file):
            self.setup.mirror.publish_file(file(Path(self.setup.log_dir), self.setup.name))

    def _report(self, progress: Progress) -> None:
        self._progress = progress
        if self.on_progress:
            self.on_progress(progress)

    def request_stop(self) -> None:
        """Makes the current training, and any later one, checkpoint and raise Interrupted. May be called from any thread."""
        self._stop.set()

    def report(self) -> Report:
        """Returns what this process works at, and how far it is. May be called from any thread."""
        return Report(activity.now(), self._progress, self._decoded)

    def _report_decoded(self, share: float) -> None:
        self._decoded = share
        if self.on_decoded:
            self.on_decoded(share)

    def score(self, task: ScoreTask) -> dict[str, list[Hypothesis]]:
        """Decodes test sets with the base in memory, or with an adapter on top of the base."""
        torch.set_num_threads(self.setup.threads)
        assert self.warm is not None and self.warm.base == task.base, "load_base comes first"
        self._decoded = 0.0
        activity.begin(task.model_name())
        model: Any = self.warm.model()
        if task.adapter is not None:
            from peft import PeftModel

            self.setup.mirror.fetch(Path(task.adapter.path))
            durable.verify_folder(Path(task.adapter.path))
            model = PeftModel.from_pretrained(model, task.adapter.path).eval()
        with log.span("evaluate", phase="scoring", model=task.model_name(), sets=list(task.sets)):
            splits = [open_split(name, data, task.part) for name, data in task.sets.items()]
            decoded = decode_sets(
                model, self.warm.processor, splits, task.evaluate, device=self.device, told=self._report_decoded
            )
        self._publish_logs()
        del model
        memory.trim()
        return dict(zip(task.sets, decoded, strict=True))
