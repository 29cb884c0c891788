"""Trainers, centralizer and decoders as Slurm jobs (see `rounds` and `evaluation.scoring`). The coordinator trains nothing."""

import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from wfc_dist import log
from wfc_dist.backends.jobs import centralize_job, training_job
from wfc_dist.backends.node_failures import NodeFailures
from wfc_dist.backends.slurm import client, submission
from wfc_dist.backends.slurm.client import JobState
from wfc_dist.backends.slurm.jobs import JobResult, JobSpec, SubmittedJob
from wfc_dist.backends.slurm.loop import JobLoop
from wfc_dist.backends.slurm.payloads import CentralizePayload, PrecisionPayload, ScorePayload, TrainPayload, WorkerSettings
from wfc_dist.backends.slurm.watching import CurveTail
from wfc_dist.config.schema import Config
from wfc_dist.errors import ConfigError, WfcError
from wfc_dist.evaluation.hypotheses import Hypothesis
from wfc_dist.evaluation.scoring import HypothesesBySet, ScoreTask, num_sets, work_of
from wfc_dist.progress import Display
from wfc_dist.rounds import Adapter, Base, StagedBase
from wfc_dist.runs.store import RunStore
from wfc_dist.storage.durable import sha256_json

logger = logging.getLogger(__name__)


def check(config: Config) -> None:
    """Asks Slurm whether it would take the jobs of a run. Raises ConfigError, which names what the site offers instead."""
    cluster = config.cluster
    if cluster.gpus_per_worker != int(cluster.gpus_per_worker):
        raise ConfigError("cluster.backend slurm assigns whole GPUs: cluster.gpus_per_worker must be a whole number")
    client.require_slurm("cluster.backend=ray (any Ray cluster, or this machine), or in_process")
    client.check_partition(submission.asked_of_site(cluster.slurm, "partition"), cluster.slurm.time_min, client.partitions())
    with tempfile.TemporaryDirectory(prefix="wfc-") as folder:
        submission.test_only(cluster, Path(folder), "trains", submission.trainer_resources(cluster))
        submission.test_only(cluster, Path(folder), "scores", submission.decoder_resources(cluster))
        submission.test_only(cluster, Path(folder), "centralizes", submission.centralizer_resources(cluster))


class SlurmBackend:
    """One small Slurm job per adapter, one per centralization, one per model to score.

    Args:
        store: The opened run.
        display: Shows each change of a job, and the progress of the trainings.
        hours: Data set -> hours of speech in its training split. The largest data set is submitted first.
    """

    def __init__(self, store: RunStore, display: Display, hours: Mapping[str, float]) -> None:
        self._store, self._display, self._hours = store, display, hours
        self._cluster, self._num_gpus = store.config.cluster, int(store.config.cluster.gpus_per_worker)
        self._failures = NodeFailures(store, display)
        self._num_merges: Counter[str] = Counter()  # by key, in this attempt

    def nodes_with_bf16(self) -> dict[str, bool]:
        """Returns host -> whether it calculates in bfloat16, for the node that Slurm gives to a job with a trainer's resources.

        The coordinator's own processor may be of another kind. Submits one small job, and waits for it.
        """
        found: dict[str, bool] = {}
        spec = JobSpec(
            label="precision",
            title="precision auto",
            key=sha256_json({"precision": "auto"}),
            make_payload=lambda: PrecisionPayload(self._cluster.threads_per_worker, self._num_gpus),
            resources=submission.decoder_resources(self._cluster),
            facts={"work": "precision"},
        )
        with log.span("precision", phase="waiting for trainers"):
            JobLoop(
                self._store, self._store.current_round(), self._display.say,
                lambda _, result: found.update({result.host: result.value["has_bf16"]}), self._failures,
            ).run([spec])  # fmt: skip
        return found

    def broadcast(self, base: Base) -> None:
        """See `rounds.Trainers`. No process outlives its job, so each job reads the base from its folder and verifies it."""
        logger.info("base %d is read by each job from %s", base.index, base.path)

    def factorize(self, base: Base, datasets: Sequence[str]) -> dict[str, Adapter]:
        """See `rounds.Trainers`."""
        if not datasets:
            return {}
        adapters: dict[str, Adapter] = {}
        max_steps, round_index = self._store.config.train.max_steps, base.index + 1
        curves = {name: CurveTail(self._store.paths.curve(round_index, name), max_steps) for name in datasets}

        def commit(spec: JobSpec, result: JobResult) -> None:
            facts = dict(result.value["training"])
            facts |= {"host": result.host, "slurm_job": result.job_id, "requeues": result.num_requeues}
            staged = Path(result.value["folders"][0])
            adapters[spec.title] = self._store.commit_adapter(base, spec.title, staged, facts)

        def show(job: SubmittedJob, state: JobState | None) -> None:
            running = state is not None and state.state == "RUNNING"
            progress = curves[job.spec.title].progress() if running else None
            self._display.update(job.spec.title, progress, job.host if running else job.told)

        def quarantine(job: SubmittedJob, error: WfcError, trace: str) -> None:
            self._store.quarantine.add(round_index, job.spec.title, error, trace, job.host)
            self._display.say(f"{job.spec.title}: failed on {job.host or 'no node'} and is quarantined; the others go on")

        queue = sorted(datasets, key=lambda name: -self._hours.get(name, 0.0))  # stable: equals keep the configured order
        with (
            log.span("factorize", phase="waiting for trainers", round=round_index),
            self._display.training(round_index, datasets),
        ):
            loop = JobLoop(
                self._store, round_index, self._display.say, commit, self._failures, on_poll=show, on_failed=quarantine
            )  # fmt: skip
            loop.run([self._training(base, name) for name in queue])
        return adapters

    def _training(self, base: Base, dataset: str) -> JobSpec:
        label = f"train-{dataset}"
        return JobSpec(
            label=label,
            title=dataset,
            key=sha256_json({"base": base.sha256, "dataset": dataset}),
            make_payload=lambda: TrainPayload(training_job(self._store, base, dataset), self._worker_settings(base, label)),
            resources=submission.trainer_resources(self._cluster),
            checkpoints=True,
            facts={"dataset": dataset},
        )

    def _worker_settings(self, base: Base, name: str) -> WorkerSettings:
        hashes = self._store.tensor_hashes(base)
        return WorkerSettings(hashes, self._cluster.threads_per_worker, self._num_gpus, str(self._store.log_dir()), name)

    def centralize(self, base: Base, adapters: Sequence[Adapter]) -> StagedBase:
        """See `rounds.Centralizer`. Submits one job of `cluster.centralizer_ranks` processes."""
        results: list[JobResult] = []
        errors: list[WfcError] = []
        inputs = {"base": base.sha256, "adapters": [adapter.sha256 for adapter in adapters], "factor": self._store.scale_factor}
        key = sha256_json(inputs)
        self._num_merges[key] += 1  # a merge that is repeated must not take the result of the first time
        spec = JobSpec(
            label="centralize",
            title="centralize",
            key=sha256_json({**inputs, "repetition": self._num_merges[key]}),
            make_payload=lambda: CentralizePayload(centralize_job(self._store, base, list(adapters)), str(self._store.log_dir())),
            resources=submission.centralizer_resources(self._cluster),
            facts={"work": "centralize"},
        )
        with log.span("centralize", phase="merging", round=base.index + 1):
            JobLoop(
                self._store, base.index + 1, self._display.say, lambda _, result: results.append(result), self._failures,
                on_failed=lambda _, error, __: errors.append(error),
            ).run([spec])  # fmt: skip
        if errors:
            raise errors[0]
        return StagedBase(**results[0].value["staged"])

    def num_decoders(self) -> int:
        """See `scoring.Decoders`. There is one job per model, because each job must load the libraries and the base."""
        return 1

    def decode(self, tasks: Sequence[ScoreTask], on_done: Callable[[ScoreTask, HypothesesBySet], None]) -> None:
        """See `scoring.Decoders`."""
        by_label = {f"score-{task.model_name()}": task for task in tasks}
        assert len(by_label) == len(tasks), "one task per model"

        num_done = 0

        def hand_over(spec: JobSpec, result: JobResult) -> None:
            nonlocal num_done
            rows_by_set = result.value["hypotheses"]
            hypotheses = {name: [Hypothesis.from_row(row) for row in rows] for name, rows in rows_by_set.items()}
            on_done(by_label[spec.label], hypotheses)
            num_done += len(hypotheses)
            told(num_done)

        first = tasks[0]
        round_index = first.base.index + 1 if first.adapter else max(first.base.index, 1)
        with self._display.working(work_of(tasks), num_sets(tasks), "sets") as told:
            loop = JobLoop(self._store, round_index, self._display.say, hand_over, self._failures)
            loop.run([self._scoring(label, task) for label, task in by_label.items()])

    def _scoring(self, label: str, task: ScoreTask) -> JobSpec:
        sets = {name: data.model_dump(mode="json") for name, data in task.sets.items()}
        adapter = task.adapter.sha256 if task.adapter else None
        evaluate = task.evaluate.model_dump(mode="json")
        identity = {"base": task.base.sha256, "adapter": adapter, "sets": sets, "evaluate": evaluate, "part": task.part}
        return JobSpec(
            label=label,
            title=f"scoring {task.model_name()}",
            key=sha256_json(identity),
            make_payload=lambda: ScorePayload(task, self._worker_settings(task.base, label), self._store.config.train),
            resources=submission.decoder_resources(self._cluster),
            facts={"work": label},
        )
