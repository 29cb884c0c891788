"""The three kinds of work a job does: train an adapter, centralize, score a model. torch is loaded when they are called."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wfc_dist.backends.slurm.tasks import Place

if TYPE_CHECKING:
    from wfc_dist.backends.worker import Worker
    from wfc_dist.centralize.rank import CentralizeJob
    from wfc_dist.config.schema import TrainConfig
    from wfc_dist.evaluation.scoring import ScoreTask
    from wfc_dist.training.job import TrainingJob


def _prepare(threads: int, local_rank: int, num_gpus: int) -> None:
    """Sets what libraries read when they are imported: threads, and this rank's own GPU among those of the job."""
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if num_gpus and len(visible) > num_gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(visible[local_rank * num_gpus :][:num_gpus])


@dataclass(frozen=True)
class Ranks:
    """What every rank of a job that trains or scores needs.

    Attributes:
        hashes: sha256 of every tensor of the base, as committed.
        threads: Per rank.
        num_gpus: Per rank; 0 for CPUs.
        log_dir: Folder of logs and events.
        name: Of the logs there.
    """

    hashes: Mapping[str, str]
    threads: int
    num_gpus: int
    log_dir: str
    name: str

    def worker(self, place: Place) -> "Worker":
        """Returns this rank's worker, joined with the others."""
        _prepare(self.threads, place.local_rank, self.num_gpus)
        from wfc_dist.backends.worker import Worker, WorkerSetup

        name = f"{self.name}-rank-{place.world_rank}"
        worker = Worker(
            WorkerSetup(place.world_size, place.world_rank, place.local_rank, self.threads, self.num_gpus > 0, self.log_dir, name)
        )
        place.stops(worker.request_stop)
        worker.join(place.endpoint)
        return worker


@dataclass(frozen=True)
class TrainWork:
    """Trains one adapter; every rank of the job takes part."""

    job: "TrainingJob"
    ranks: Ranks

    def __call__(self, place: Place) -> dict[str, Any]:
        """See `Work`."""
        worker = self.ranks.worker(place)
        worker.hold(self.job.base, dict(self.ranks.hashes), self.job.train)
        return {"training": asdict(worker.train(self.job)), "folders": [self.job.output_dir]}


@dataclass(frozen=True)
class ScoreWork:
    """Decodes the test sets of one model."""

    task: "ScoreTask"
    ranks: Ranks
    train: "TrainConfig"

    def __call__(self, place: Place) -> dict[str, Any]:
        """See `Work`."""
        worker = self.ranks.worker(place)
        worker.hold(self.task.base, dict(self.ranks.hashes), self.train)
        decoded = worker.score(self.task)
        return {"hypotheses": {name: [asdict(item) for item in items] for name, items in decoded.items()}, "folders": []}


@dataclass(frozen=True)
class CentralizeWork:
    """Averages the adapters of a round and merges them; every rank of the job takes part."""

    job: "CentralizeJob"
    log_dir: str

    def __call__(self, place: Place) -> dict[str, Any]:
        """See `Work`."""
        _prepare(1, place.local_rank, 0)
        from wfc_dist import log
        from wfc_dist.centralize import apply, collectives
        from wfc_dist.centralize.rank import centralize_rank

        log.quiet_libraries()
        apply.return_freed_memory()
        folder = Path(self.log_dir)
        log.configure(folder / f"centralizer-{place.world_rank}.log", console=False)
        log.open_events(folder / f"events-centralizer-{place.world_rank}.jsonl")
        group = collectives.join(place.world_rank, place.world_size, *place.endpoint)
        try:
            staged = centralize_rank(self.job, group)
        finally:
            collectives.leave(group)
        return {"staged": asdict(staged), "folders": [self.job.delta_dir, self.job.base_dir]} if staged else {}
