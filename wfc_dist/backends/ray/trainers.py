"""The coordinator's side of training and scoring: gangs over the cluster, a queue of data sets, restarts one gang at a time.

It moves references, never tensors.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from wfc_dist import log
from wfc_dist.backends.failure_policy import Decision, Failure, FailurePolicy
from wfc_dist.backends.jobs import training_job
from wfc_dist.backends.ray.cluster import alive_nodes
from wfc_dist.backends.ray.gangs import Gang
from wfc_dist.backends.ray.placement import Need, plan_gangs
from wfc_dist.display import Display
from wfc_dist.errors import GangFailedError, IntegrityError, Interrupted, WfcError
from wfc_dist.evaluation.scoring import HypothesesBySet, ScoreTask
from wfc_dist.rounds import Adapter, Base
from wfc_dist.run_store import RunStore

logger = logging.getLogger(__name__)
POLL_S = 0.5


@dataclass
class _Running:
    """One adapter in training."""

    dataset: str
    gang: Gang
    refs: list[Any]
    staged: str
    started: float = field(default_factory=time.monotonic)


def classify(error: BaseException) -> tuple[Failure, BaseException]:
    """Returns what kind of failure an exception of a worker is, and the error inside Ray's wrapping."""
    cause = error.cause if isinstance(error, RayTaskError) and isinstance(error.cause, BaseException) else error
    if isinstance(cause, Interrupted):
        return Failure.STOPPED, cause
    if isinstance(cause, WfcError) and not isinstance(cause, IntegrityError):
        return Failure.REFUSED, cause
    return Failure.LOST, cause  # also a rank that failed because another one is gone


class RayTrainers:
    """K trainer gangs on Ray (see `rounds.Trainers`), which also decode test sets between trainings.

    Args:
        store: The opened run.
        display: Gets every trainer's progress.
        hours: Hours of speech of each data set's training split: the queue is longest first.
        changed: Returns a reference to a base's changed tensors (`Broadcast`), or None where they must be read from disk.
    """

    def __init__(self, store: RunStore, display: Display, hours: Mapping[str, float], changed: Callable[[Base], Any]) -> None:
        self._store, self._display, self._hours, self._changed = store, display, hours, changed
        self._config = store.config
        self._policy = FailurePolicy(store.config.cluster.max_failures)
        self._gangs: list[Gang] = []
        self._places: list[list[str]] = []
        self._broadcast: tuple[Base, Any] | None = None
        self._lost_decoders = 0

    def broadcast(self, base: Base) -> None:
        """See `rounds.Trainers`; gangs that are not started yet read `base` from its folder when they are."""
        if not self._gangs:
            return
        with log.span("broadcast", base_index=base.index):
            self._broadcast = (base, self._changed(base))
            sent = [(gang, self._hold(gang, base)) for gang in self._gangs]
            for gang, refs in sent:
                try:
                    ray.get(refs)
                except RayError as error:
                    logger.warning(
                        "trainer %d: %s; it reads the base from its folder", gang.index, _first_line(classify(error)[1])
                    )
                    self._hold(self.restart(gang), base, from_folder=True)
        logger.info("base %d is on all %d trainers, every hash verified", base.index, len(self._gangs))

    def factorize(self, base: Base, datasets: Sequence[str]) -> dict[str, Adapter]:
        """See `rounds.Trainers`."""
        if not datasets:
            return {}
        self._ensure_gangs()
        queue = sorted(datasets, key=lambda name: -self._hours.get(name, 0.0))  # stable: configured order among equals
        with log.span("factorize", round=base.index + 1), self._display.training(base.index + 1, datasets):
            return _Factorization(self, base, queue).run()

    def num_decoders(self) -> int:
        """See `scoring.Decoders`; starts the gangs, since only the cluster says how many there will be."""
        self._ensure_gangs()
        return sum(len(gang.workers) for gang in self._gangs)

    def decode(self, tasks: Sequence[ScoreTask], on_done: Callable[[ScoreTask, HypothesesBySet], None]) -> None:
        """Scores `tasks`, spread over all workers of all gangs; `on_done` gets each result as it comes."""
        self._ensure_gangs()
        waiting = list(tasks)
        running: dict[Any, tuple[ScoreTask, Gang, Any]] = {}
        idle = [(gang, worker) for gang in self._gangs for worker in gang.workers]
        while waiting or running:
            if self._store.paths.stop_file.exists():
                raise Interrupted("stopped while scoring; the same command goes on")
            while waiting and idle:
                gang, worker = idle.pop(0)
                task = waiting.pop(0)
                self._hold(gang, task.base)
                running[worker.score.remote(task)] = (task, gang, worker)
            done, _ = ray.wait(list(running), timeout=POLL_S)
            for ref in (ref for ref in done if ref in running):
                task, gang, worker = running[ref]
                try:
                    on_done(task, ray.get(ref))
                    idle.append((gang, worker))
                    del running[ref]
                except RayError as error:
                    lost = [key for key, (_, other, _) in running.items() if other is gang]
                    waiting = [running.pop(key)[0] for key in lost] + waiting
                    idle = [item for item in idle if item[0] is not gang]
                    idle += [(new, worker) for new in [self._recover_decoder(gang, error)] for worker in new.workers]

    def shutdown(self) -> None:
        """Ends every gang."""
        for gang in self._gangs:
            gang.kill()
        self._gangs = []

    def _recover_decoder(self, gang: Gang, error: BaseException) -> Gang:
        failure, cause = classify(gang.blame(error))
        self._lost_decoders += 1
        if self._policy.decide(failure, self._lost_decoders) is not Decision.RESTART:
            raise (
                cause if isinstance(cause, WfcError) else GangFailedError(f"scoring on {gang.host} failed: {_first_line(cause)}")
            )
        logger.warning("a decoder on %s was lost (%s); restarting it", gang.host, _first_line(cause))
        return self.restart(gang)

    def _hold(self, gang: Gang, base: Base, *, from_folder: bool = False) -> list[Any]:
        offered = self._broadcast[1] if self._broadcast and self._broadcast[0] == base and not from_folder else None
        return gang.hold(base, self._store.manifest(base.index)["tensors"], self._config.train, offered)

    def _ensure_gangs(self) -> None:
        if self._gangs:
            return
        cluster = self._config.cluster
        wanted = min(max(len(names) for names in self._config.round_list()), cluster.max_trainers or 10**6)
        need = Need(cluster.cpus_per_worker, cluster.gpus_per_worker)
        self._places = plan_gangs(alive_nodes(), need, cluster.workers_per_trainer, wanted)
        with log.span("start_gangs", num_gangs=len(self._places)):
            self._gangs = [self._start(index) for index in range(len(self._places))]
            for gang in self._gangs:
                self._await(gang)

    def _start(self, index: int) -> Gang:
        logs = self._store.paths.logs(self._store.current_round(), self._store.attempt)
        return Gang.start(index, self._places[index], self._config.cluster, str(logs.resolve()))

    def _await(self, gang: Gang) -> None:
        timeout_s = self._config.cluster.start_timeout_s
        try:
            gang.wait_ready(timeout_s)
        except GetTimeoutError as error:
            nodes = ", ".join(self._places[gang.index])
            raise GangFailedError(
                f"trainer {gang.index} did not start within cluster.start_timeout_s = {timeout_s:g} s on node {nodes}; "
                "see `ray status` for what is taken"
            ) from error
        except RayError as error:
            raise GangFailedError(f"trainer {gang.index} died while starting: {_first_line(error)}; see its log") from error

    def restart(self, gang: Gang) -> Gang:
        """Replaces one gang by a new one; the others are not touched."""
        gang.kill()
        new = self._start(gang.index)
        self._await(new)
        self._gangs[self._gangs.index(gang)] = new
        return new


class _Factorization:
    """The event loop of one round's trainings."""

    def __init__(self, trainers: RayTrainers, base: Base, queue: list[str]) -> None:
        self._trainers, self._base, self._queue = trainers, base, queue
        self._idle = list(trainers._gangs)
        self._running: dict[str, _Running] = {}
        self._failures: dict[str, int] = {}
        self._stopped: set[str] = set()
        self._finished: dict[str, Adapter] = {}
        self._fatal: BaseException | None = None

    def run(self) -> dict[str, Adapter]:
        """Returns the committed adapters. Raises Interrupted, or the error of a trainer that cannot go on."""
        store = self._trainers._store
        while self._queue or self._running:
            stopping = store.paths.stop_file.exists()
            while self._queue and self._idle and not stopping:
                self._start(self._queue.pop(0), self._idle.pop(0))
            if not self._running:
                break
            refs = [ref for item in self._running.values() for ref in item.refs]
            ray.wait(refs, num_returns=1, timeout=POLL_S)
            for item in list(self._running.values()):
                self._settle(item)
            self._show()
        if self._fatal:
            raise self._fatal
        if self._queue or self._stopped:
            raise Interrupted("stopped; every trainer has checkpointed, the same command goes on")
        return self._finished

    def _start(self, dataset: str, gang: Gang) -> None:
        trainers = self._trainers
        trainers._hold(gang, self._base)
        job = training_job(trainers._store, self._base, dataset)
        self._running[dataset] = _Running(dataset, gang, gang.train(job), job.output_dir)
        logger.info("%s: training on %s (trainer %d)", dataset, gang.host, gang.index)

    def _settle(self, item: _Running) -> None:
        done, waiting = ray.wait(item.refs, num_returns=len(item.refs), timeout=0)
        try:
            results = ray.get(done)
        except RayError as error:
            self._fail(item, error)
            return
        if waiting:
            return
        del self._running[item.dataset]
        self._idle.append(item.gang)
        self._finished[item.dataset] = commit_result(self._trainers._store, self._base, item, results)

    def _fail(self, item: _Running, error: BaseException) -> None:
        trainers, name = self._trainers, item.dataset
        failure, cause = classify(item.gang.blame(error))
        del self._running[name]
        if failure is Failure.STOPPED or trainers._store.paths.stop_file.exists():  # a gang lost while stopping is not replaced
            self._stopped.add(name)
            return
        self._failures[name] = self._failures.get(name, 0) + 1
        decision = trainers._policy.decide(failure, self._failures[name])
        trainers._store.record(
            "failure",
            round=self._base.index + 1,
            dataset=name,
            host=item.gang.host,
            reason=_first_line(cause),
            decision=decision.value,
        )
        if decision is Decision.RESTART:
            logger.warning(
                "%s: trainer on %s was lost (%s); going on from its last checkpoint", name, item.gang.host, _first_line(cause)
            )
            self._queue.insert(0, name)
            try:
                self._idle.append(trainers.restart(item.gang))
                return
            except GangFailedError as failed:
                cause = failed
        self._fatal = cause if isinstance(cause, WfcError) else GangFailedError(
            f"round {self._base.index + 1}, {name}: the trainer on {item.gang.host} failed: {_first_line(cause)}; "
            "see its log under logs/, then run the same command"
        )  # fmt: skip
        trainers._store.paths.stop_file.touch()  # the others checkpoint

    def _show(self) -> None:
        display = self._trainers._display
        for item in self._running.values():
            try:
                progress = ray.get(item.gang.workers[0].progress.remote(), timeout=POLL_S)
            except (GetTimeoutError, RayError):
                continue  # a busy or lost worker is `_settle`'s to find
            display.update(item.dataset, progress, item.gang.host)


def commit_result(store: RunStore, base: Base, item: _Running, results: Sequence[Any]) -> Adapter:
    """Commits what a gang trained. Every rank reports the same adapter, or it is none."""
    facts = asdict(results[0]) | {"host": item.gang.host}
    return store.commit_adapter(base, item.dataset, Path(item.staged), facts)


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:300]
