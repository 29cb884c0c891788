"""Trainers, centralizer and decoders as Slurm jobs (see `rounds` and `evaluation.scoring`). The coordinator trains nothing."""

import hashlib
import json
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wfc_dist import log
from wfc_dist.backends.jobs import centralize_job, training_job
from wfc_dist.backends.slurm import client, submission
from wfc_dist.backends.slurm.client import JobState
from wfc_dist.backends.slurm.loop import Active, Done, JobLoop, Wanted
from wfc_dist.backends.slurm.watching import CurveTail
from wfc_dist.backends.slurm.works import CentralizeWork, Ranks, ScoreWork, TrainWork
from wfc_dist.config.schema import Config
from wfc_dist.errors import ConfigError
from wfc_dist.evaluation.hypotheses import Hypothesis
from wfc_dist.evaluation.scoring import HypothesesBySet, ScoreTask
from wfc_dist.progress import Display
from wfc_dist.rounds import Adapter, Base, StagedBase
from wfc_dist.runs.store import RunStore

logger = logging.getLogger(__name__)


def check(config: Config) -> None:
    """Checks all that Slurm can say before anything starts. Raises ConfigError naming what there is instead."""
    cluster = config.cluster
    if cluster.gpus_per_worker != int(cluster.gpus_per_worker):
        raise ConfigError("cluster.backend slurm gives whole GPUs: cluster.gpus_per_worker must be a whole number")
    client.require_slurm("cluster.backend=ray (any Ray cluster, or this machine), or in_process")
    client.check_partition(cluster.slurm.partition, cluster.slurm.time_min, client.partitions())
    with tempfile.TemporaryDirectory(prefix="wfc-") as folder:
        submission.test_only(cluster, Path(folder), "trains", submission.trainer_shape(cluster))
        submission.test_only(cluster, Path(folder), "scores", submission.decoder_shape(cluster))
        submission.test_only(cluster, Path(folder), "centralizes", submission.centralizer_shape(cluster))


def _key(**identity: Any) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


class SlurmBackend:
    """One small Slurm job per adapter, one per centralization, one per model to score.

    Args:
        store: The opened run.
        display: Gets one line per change of a job, and the trainings' progress.
        hours: Hours of speech of each data set's training split: the longest is submitted first.
    """

    def __init__(self, store: RunStore, display: Display, hours: Mapping[str, float]) -> None:
        self._store, self._display, self._hours = store, display, hours
        self._cluster, self._num_gpus = store.config.cluster, int(store.config.cluster.gpus_per_worker)

    def broadcast(self, base: Base) -> None:
        """See `rounds.Trainers`: nothing is warm between jobs, each reads the base from its folder and verifies it."""
        logger.info("base %d is read by each job from %s", base.index, base.path)

    def factorize(self, base: Base, datasets: Sequence[str]) -> dict[str, Adapter]:
        """See `rounds.Trainers`."""
        if not datasets:
            return {}
        adapters: dict[str, Adapter] = {}
        max_steps, round_index = self._store.config.train.max_steps, base.index + 1
        curves = {name: CurveTail(self._store.paths.curve(round_index, name), max_steps) for name in datasets}

        def commit(wanted: Wanted, done: Done) -> None:
            facts = dict(done.value["training"])
            facts |= {"host": done.host, "slurm_job": done.job_id, "requeues": done.num_requeues}
            staged = Path(done.value["folders"][0])
            adapters[wanted.title] = self._store.commit_adapter(base, wanted.title, staged, facts)

        def show(item: Active, state: JobState | None) -> None:
            running = state is not None and state.state == "RUNNING"
            progress = curves[item.wanted.title].progress() if running else None
            self._display.update(item.wanted.title, progress, item.host if running else item.told)

        queue = sorted(datasets, key=lambda name: -self._hours.get(name, 0.0))  # stable: configured order among equals
        with (
            log.span("factorize", phase="waiting for trainers", round=round_index),
            self._display.training(round_index, datasets),
        ):
            loop = JobLoop(self._store, round_index, self._display.say, commit, show)
            loop.run([self._training(base, name) for name in queue])
        return adapters

    def _training(self, base: Base, dataset: str) -> Wanted:
        def make() -> TrainWork:
            return TrainWork(training_job(self._store, base, dataset), self._ranks(base, f"train-{dataset}"))

        return Wanted(
            label=f"train-{dataset}",
            title=dataset,
            key=_key(base=base.sha256, dataset=dataset),
            make=make,
            shape=submission.trainer_shape(self._cluster),
            checkpoints=True,
            facts={"dataset": dataset},
        )

    def _ranks(self, base: Base, name: str) -> Ranks:
        hashes = self._store.manifest(base.index)["tensors"]
        return Ranks(hashes, self._cluster.threads_per_worker, self._num_gpus, self._log_dir(), name)

    def _log_dir(self) -> str:
        return str(self._store.paths.logs(self._store.current_round(), self._store.attempt).resolve())

    def centralize(self, base: Base, adapters: Sequence[Adapter]) -> StagedBase:
        """See `rounds.Centralizer`: one job of `cluster.centralizer_ranks` processes."""
        staged: list[StagedBase] = []

        def keep(_: Wanted, done: Done) -> None:
            staged.append(StagedBase(**done.value["staged"]))

        wanted = Wanted(
            label="centralize",
            title="centralize",
            key=_key(base=base.sha256, adapters=[adapter.sha256 for adapter in adapters]),
            make=lambda: CentralizeWork(centralize_job(self._store, base, list(adapters)), self._log_dir()),
            shape=submission.centralizer_shape(self._cluster),
            checkpoints=False,
            facts={"work": "centralize"},
        )
        with log.span("centralize", phase="merging", round=base.index + 1):
            JobLoop(self._store, base.index + 1, self._display.say, keep).run([wanted])
        return staged[0]

    def num_decoders(self) -> int:
        """See `scoring.Decoders`: one job per model, since each start costs the loading of the libraries and the base."""
        return 1

    def decode(self, tasks: Sequence[ScoreTask], on_done: Callable[[ScoreTask, HypothesesBySet], None]) -> None:
        """See `scoring.Decoders`."""
        by_label = {f"score-{task.model_name()}": task for task in tasks}
        assert len(by_label) == len(tasks), "one task per model"

        def hand_over(wanted: Wanted, done: Done) -> None:
            found = done.value["hypotheses"]
            on_done(by_label[wanted.label], {name: [Hypothesis.from_row(row) for row in rows] for name, rows in found.items()})

        first = tasks[0]
        round_index = first.base.index + 1 if first.adapter else max(first.base.index, 1)
        loop = JobLoop(self._store, round_index, self._display.say, hand_over)
        loop.run([self._scoring(label, task) for label, task in by_label.items()])

    def _scoring(self, label: str, task: ScoreTask) -> Wanted:
        sets = {name: data.model_dump(mode="json") for name, data in task.sets.items()}
        adapter = task.adapter.sha256 if task.adapter else None
        return Wanted(
            label=label,
            title=f"scoring {task.model_name()}",
            key=_key(
                base=task.base.sha256, adapter=adapter, sets=sets, evaluate=task.evaluate.model_dump(mode="json"), part=task.part
            ),
            make=lambda: ScoreWork(task, self._ranks(task.base, label), self._store.config.train),
            shape=submission.decoder_shape(self._cluster),
            checkpoints=False,
            facts={"work": label},
        )
