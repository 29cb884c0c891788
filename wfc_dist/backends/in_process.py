"""Trainers and centralizer in this process, one job after the other: the same jobs and the same bytes as on Ray."""

import logging
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from wfc_dist import activity
from wfc_dist.backends import net
from wfc_dist.backends.jobs import centralize_job, training_job
from wfc_dist.backends.worker import Worker, WorkerSetup
from wfc_dist.centralize import collectives
from wfc_dist.centralize.rank import centralize_rank
from wfc_dist.errors import ConfigError, IntegrityError, Interrupted, WfcError
from wfc_dist.evaluation.scoring import HypothesesBySet, ScoreTask, num_sets, work_of
from wfc_dist.progress import Display
from wfc_dist.rounds import Adapter, Base, StagedBase
from wfc_dist.runs.store import RunStore
from wfc_dist.training.job import TrainingJob, TrainingResult

logger = logging.getLogger(__name__)


class InProcessBackend:
    """Trainers and centralizer (see `rounds`) on one worker that is this process.

    Args:
        store: The opened run.
        display: Shows the progress of the trainings.

    Raises:
        ConfigError: The configuration asks for more than one worker a trainer.
    """

    def __init__(self, store: RunStore, display: Display) -> None:
        cluster = store.config.cluster
        if cluster.workers_per_trainer > 1:
            raise ConfigError("cluster.backend in_process has one worker; use ray for cluster.workers_per_trainer > 1")
        self._store, self._display = store, display
        # The worker and the coordinator are one process: they share the names of log and events files.
        threads, use_gpu = cluster.threads_per_worker, cluster.gpus_per_worker > 0
        setup = WorkerSetup(1, 0, 0, threads, use_gpu, str(store.log_dir()), "coordinator", store.mirror)
        self._worker = Worker(setup)
        self._worker.join(("127.0.0.1", net.free_port("127.0.0.1")))

    def shutdown(self) -> None:
        """Leaves the process group."""
        self._worker.leave()

    def broadcast(self, base: Base) -> None:
        """See `rounds.Trainers`."""
        self._worker.load_base(base, self._store.tensor_hashes(base), self._store.config.train)

    def factorize(self, base: Base, datasets: Sequence[str]) -> dict[str, Adapter]:
        """See `rounds.Trainers`."""
        adapters = {}
        with self._display.training(base.index + 1, datasets):
            for dataset in datasets:
                self.broadcast(base)
                job = training_job(self._store, base, dataset)
                self._worker.on_progress = lambda progress, name=dataset: self._display.update(name, progress, "here")
                try:
                    result = self.train(base, job)
                except Interrupted:
                    raise
                except WfcError as error:
                    if isinstance(error, IntegrityError):
                        raise
                    self._store.quarantine.add(base.index + 1, dataset, error, traceback.format_exc(), "here")
                    self._display.say(f"{dataset}: failed and is quarantined; the others go on")
                    self._worker.warm = None  # the base is read again
                    continue
                facts = asdict(result) | {"host": "here"}
                adapters[dataset] = self._store.commit_adapter(base, dataset, Path(job.output_dir), facts)
        return adapters

    def train(self, base: Base, job: TrainingJob) -> TrainingResult:
        """Trains one adapter against `base` into the folder of the job, and commits nothing (see `Worker.train`)."""
        self.broadcast(base)
        return self._worker.train(job)

    def num_decoders(self) -> int:
        """See `scoring.Decoders`."""
        return 1

    def decode(self, tasks: Sequence[ScoreTask], on_done: Callable[[ScoreTask, HypothesesBySet], None]) -> None:
        """See `scoring.Decoders`: one task after the other."""
        num_done = 0
        with self._display.working(work_of(tasks), num_sets(tasks), "sets") as told:
            for task in tasks:
                self._store.raise_if_stopped("while scoring")
                self.broadcast(task.base)
                before, size = num_done, len(task.sets)
                self._worker.on_decoded = lambda share, before=before, size=size: told(before + share * size)
                on_done(task, self._worker.score(task))
                num_done += size
                told(num_done)

    def centralize_interim(self, base: Base, adapters: Sequence[Adapter]) -> StagedBase:
        """See `stream.StreamCentralizer`."""
        return self.centralize(base, adapters, interim=True)

    def centralize(self, base: Base, adapters: Sequence[Adapter], *, interim: bool = False) -> StagedBase:
        """See `rounds.Centralizer`; `interim` makes an interim base (see `stream`)."""
        activity.begin("the average")
        staged = centralize_rank(centralize_job(self._store, base, list(adapters), interim=interim), collectives.Group())
        assert staged is not None
        return staged
