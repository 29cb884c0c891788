"""The payloads of jobs: train an adapter, centralize, score a model, ask a node. torch is loaded when a payload is called."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from wfc_dist.backends.slurm.job_process import RankContext

if TYPE_CHECKING:
    from wfc_dist.backends.worker import Worker
    from wfc_dist.centralize.rank import CentralizeJob
    from wfc_dist.config.training import TrainConfig
    from wfc_dist.evaluation.scoring import ScoreTask
    from wfc_dist.training.job import TrainingJob


def _prepare(threads: int, local_rank: int, num_gpus: int) -> None:
    """Sets the environment variables that libraries read at import: the number of threads, and the GPUs of this rank."""
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if num_gpus and len(visible) > num_gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(visible[local_rank * num_gpus :][:num_gpus])


@dataclass(frozen=True)
class WorkerSettings:
    """The settings with which each rank of a job that trains or scores starts its worker.

    Attributes:
        hashes: Tensor name -> sha256 of the committed base.
        threads: Number of threads per rank.
        num_gpus: Number of GPUs per rank; 0 for CPUs.
        log_dir: Folder of logs and events.
        name: The beginning of the names of the logs.
    """

    hashes: Mapping[str, str]
    threads: int
    num_gpus: int
    log_dir: str
    name: str

    def worker(self, context: RankContext) -> "Worker":
        """Returns the worker of this rank, after it has joined those of the other ranks."""
        _prepare(self.threads, context.local_rank, self.num_gpus)
        from wfc_dist.backends.worker import Worker, WorkerSetup

        ranks, name = (context.world_size, context.world_rank, context.local_rank), f"{self.name}-rank-{context.world_rank}"
        worker = Worker(WorkerSetup(*ranks, self.threads, self.num_gpus > 0, self.log_dir, name))
        context.call_on_stop(worker.request_stop)
        worker.join(context.endpoint)
        return worker


@dataclass(frozen=True)
class TrainPayload:
    """Trains one adapter. Every rank of the job takes part."""

    job: "TrainingJob"
    settings: WorkerSettings

    def __call__(self, context: RankContext) -> dict[str, Any]:
        """See `Payload`."""
        worker = self.settings.worker(context)
        worker.load_base(self.job.base, dict(self.settings.hashes), self.job.train)
        worker.on_progress = lambda progress: context.begin()
        return {"training": asdict(worker.train(self.job)), "folders": [self.job.output_dir]}


@dataclass(frozen=True)
class ScorePayload:
    """Decodes the test sets of one model."""

    task: "ScoreTask"
    settings: WorkerSettings
    train: "TrainConfig"

    def __call__(self, context: RankContext) -> dict[str, Any]:
        """See `Payload`."""
        worker = self.settings.worker(context)
        worker.load_base(self.task.base, dict(self.settings.hashes), self.train)
        worker.on_decoded = lambda share: context.begin()
        decoded = worker.score(self.task)
        return {"hypotheses": {name: [asdict(row) for row in rows] for name, rows in decoded.items()}, "folders": []}


@dataclass(frozen=True)
class PrecisionPayload:
    """Says whether the node of a job calculates in bfloat16."""

    threads: int
    num_gpus: int

    def __call__(self, context: RankContext) -> dict[str, Any]:
        """See `Payload`."""
        _prepare(self.threads, context.local_rank, self.num_gpus)
        from wfc_dist.runs.precision import has_bf16

        context.begin()
        return {"has_bf16": has_bf16(use_gpu=self.num_gpus > 0), "folders": []}


@dataclass(frozen=True)
class CentralizePayload:
    """Averages the adapters of a round and merges the average. Every rank of the job takes part."""

    job: "CentralizeJob"
    log_dir: str

    def __call__(self, context: RankContext) -> dict[str, Any]:
        """See `Payload`."""
        _prepare(1, context.local_rank, 0)
        from wfc_dist.centralize import collectives
        from wfc_dist.centralize.rank import centralize_rank, prepare_rank

        prepare_rank(self.log_dir, context.world_rank)
        group = collectives.join(context.world_rank, context.world_size, *context.endpoint)
        context.begin()
        try:
            staged = centralize_rank(self.job, group)
        finally:
            collectives.leave(group)
        return {"staged": asdict(staged), "folders": [self.job.delta_dir, self.job.base_dir]} if staged else {}
