"""One round's trainings on a fleet: a queue of data sets, a gang for each, and what follows when a gang is lost.

The coordinator moves references, never tensors.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import ray
from ray.exceptions import RayError

from wfc_dist import activity
from wfc_dist.backends.failure_policy import Budget, Decision, Failure
from wfc_dist.backends.hangs import Hang, Limits
from wfc_dist.backends.jobs import training_job
from wfc_dist.backends.ray.failures import classify, one_line
from wfc_dist.backends.ray.fleet import POLL_S, Fleet, Loss
from wfc_dist.backends.ray.gangs import Gang
from wfc_dist.backends.ray.liveness import Liveness
from wfc_dist.backends.ray.metrics import RoundMetrics
from wfc_dist.backends.stop_report import WAITING, Ending, stopped
from wfc_dist.backends.worker import Report
from wfc_dist.errors import GangFailedError, Interrupted, WfcError
from wfc_dist.progress import Display
from wfc_dist.rounds import Adapter, Base
from wfc_dist.runs.store import RunStore
from wfc_dist.storage import durable
from wfc_dist.weights import peft_folder

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Training:
    """A row of the state table: one data set on its way to an adapter.

    Attributes:
        dataset: Its name.
        gang: Who trains; None while the data set waits for a gang, and after its last training.
        refs: What each rank of the gang will return.
        staged: Folder that gets the adapter.
        budget: Its failures so far, and how many are made good.
        adapter: The committed adapter.
        ending: How it has ended when it was asked to stop.
    """

    dataset: str
    budget: Budget
    gang: Gang | None = None
    refs: list[Any] = field(default_factory=list)
    staged: str = ""
    adapter: Adapter | None = None
    ending: Ending = WAITING


class Factorization:
    """The event loop of one round's trainings.

    Args:
        store, fleet, display: The run, its gangs, and who is told of progress.
        load_base: Brings a base to a gang.
        on_training: Called once, when the first training has begun.
        base: What the adapters are trained against.
        queue: Data sets in the order in which they get a gang.
    """

    def __init__(
        self, store: RunStore, fleet: Fleet, display: Display, load_base: Callable[[Gang, Base], object],
        on_training: Callable[[], None], *, base: Base, queue: Sequence[str],
    ) -> None:  # fmt: skip
        self._store, self._fleet, self._display, self._load_base = store, fleet, display, load_base
        self._on_training, self._begun = on_training, False
        self._base = base
        self._trainings = [_Training(dataset, Budget(store.config.cluster.max_failures)) for dataset in queue]
        self._queue = deque(self._trainings)
        self._in_doubt: list[_Training] = []
        self._running: dict[Gang, _Training] = {}
        self._liveness: Liveness[Gang] = Liveness(Limits.of(store.config.cluster), POLL_S, self._take_report)
        self._metrics = RoundMetrics(store.config.run.name, base.index + 1)
        self._fatal: BaseException | None = None
        self._stopping_s: float | None = None

    def run(self) -> dict[str, Adapter]:
        """Returns the committed adapters, without those of data sets that are quarantined.

        Raises Interrupted, or GangFailedError where no trainer can go on.
        """
        while self._queue or self._running or self._in_doubt:
            activity.moved()
            if self._store.stop_reason() is not None:
                self._fleet.request_stop()
                if not self._running or self._stopped_for_too_long():
                    break
            elif self._tick():
                self._start_idle()
                if self._running and not self._begun:
                    self._begun = True
                    self._on_training()
            self._fleet.wait([ref for training in self._running.values() for ref in training.refs])
            self._settle_ended()
            hanging = self._liveness.poll()
            if self._store.stop_reason() is None:  # trainers that were asked to stop have a limit of their own
                for gang, hang in hanging:
                    self._end_hung(self._running[gang], gang, hang)
        for gang, training in self._running.items():
            training.ending = Ending("late", host=gang.host)
        adapters = {training.dataset: training.adapter for training in self._trainings if training.adapter is not None}
        cut_off = [training for training in self._trainings if training.adapter is None and not self._is_aside(training)]
        if isinstance(self._fatal, GangFailedError):
            raise self._fatal
        if cut_off or self._fatal:
            reason = str(self._fatal) if self._fatal else self._store.stop_reason()
            raise stopped(reason, {training.dataset: training.ending for training in cut_off})
        return adapters

    def _is_aside(self, training: _Training) -> bool:
        return self._store.quarantine.holds(self._base.index + 1, training.dataset)

    def _tick(self) -> bool:
        """Lets the fleet take in what has changed. Returns whether the round can go on; else the trainings are asked to stop."""
        try:
            self._fleet.tick()
        except (GangFailedError, Interrupted) as error:
            self._fatal = error
            self._store.stop(f"round {self._base.index + 1}: no trainer is left", by_itself=True)
        return self._fatal is None

    def _stopped_for_too_long(self) -> bool:
        """Whether trainers that were asked to stop hang: a step and a checkpoint may take as long as a start may take."""
        self._stopping_s = self._stopping_s or time.monotonic()
        return time.monotonic() - self._stopping_s > self._store.config.cluster.start_timeout_s

    def _start_idle(self) -> None:
        self._fleet.retire(self._running.keys())
        for gang in [gang for gang in self._fleet.ready() if gang not in self._running]:
            if not self._queue:
                return
            training = self._queue.popleft()
            self._load_base(gang, self._base)
            job = training_job(self._store, self._base, training.dataset)
            training.gang, training.refs, training.staged = gang, gang.train(job), job.output_dir
            self._running[gang] = training
            self._liveness.add(gang, gang.workers)
            logger.info("%s: training on %s (trainer %d)", training.dataset, gang.host, gang.index)

    def _take_report(self, gang: Gang, rank: int, report: Report) -> None:
        if rank == 0 and gang in self._running:
            self._display.update(self._running[gang].dataset, report.progress, gang.host)
            if report.progress is not None:
                self._fleet.worked(gang, to_the_end=False)

    def _end_hung(self, training: _Training, gang: Gang, hang: Hang) -> None:
        self._end(training, gang)
        self._in_doubt.append(training)
        rank = hang.state.rank
        error = hang.error(f"round {self._base.index + 1}, {training.dataset}", gang.locations[rank].host)
        logger.warning("%s", error)
        self._display.say(str(error))
        self._fleet.end_hung(gang, rank, error, lambda loss: self._fail(training, gang, loss, hang.facts()))

    def _settle_ended(self) -> None:
        """Asks Ray once for all trainings: hundreds of questions for every one that ends would be the coordinator's main work."""
        by_ref = {ref: gang for gang, training in self._running.items() for ref in training.refs}
        ended, _ = ray.wait(list(by_ref), num_returns=len(by_ref), timeout=0) if by_ref else ([], [])
        for gang in dict.fromkeys(by_ref[ref] for ref in ended):
            self._settle(self._running[gang], gang)

    def _settle(self, training: _Training, gang: Gang) -> None:
        done, waiting = ray.wait(training.refs, num_returns=len(training.refs), timeout=0)
        try:
            results = ray.get(done)
        except RayError as error:
            self._end(training, gang)
            if self._store.stop_reason() is None:
                self._in_doubt.append(training)
                self._fleet.lose(gang, dict(enumerate(training.refs)), lambda loss: self._fail(training, gang, loss))
            else:  # a gang lost while stopping is not replaced
                training.ending = _ending(error, gang)
            return
        if not waiting:
            self._end(training, gang)
            self._fleet.worked(gang, to_the_end=True)
            training.adapter = self._commit(training, gang, results)

    def _end(self, training: _Training, gang: Gang) -> None:
        training.gang = None
        del self._running[gang]
        self._liveness.drop(gang)

    def _commit(self, training: _Training, gang: Gang, results: Sequence[Any]) -> Adapter:
        """Commits what a gang trained; every rank reports the same adapter."""
        staged = Path(training.staged)
        if not self._store.mirror.is_remote:  # else they are fetched, not seen
            durable.await_files(staged, peft_folder.FILES)
        return self._store.commit_adapter(self._base, training.dataset, staged, asdict(results[0]) | {"host": gang.host})

    def _fail(self, training: _Training, gang: Gang, loss: Loss, more: Mapping[str, object] = MappingProxyType({})) -> None:
        self._in_doubt.remove(training)
        moved = gang.stopping and loss.failure is Failure.STOPPED
        failure = Failure.NODE_GONE if moved else loss.failure
        decision = training.budget.decide(failure, loss.node_id)
        if failure is not Failure.NODE_GONE:
            self._metrics.failed(training.dataset)
        name, reason = training.dataset, "node drained" if moved else one_line(loss.cause)
        facts = {"dataset": name, "host": loss.host, "kind": failure.value, "reason": reason, "decision": decision.value, **more}
        self._store.ledger.record("moved" if moved else "failure", round=self._base.index + 1, **facts)
        if decision is not Decision.RESTART:
            self._give_up(name, loss)
            return
        logger.warning("%s: lost its trainer on %s (%s); goes on from its last checkpoint", name, loss.host, loss.cause)
        self._display.say(f"{name}: trainer on {loss.host} is gone; it goes on from its last checkpoint")
        self._queue.appendleft(training)

    def _give_up(self, dataset: str, loss: Loss) -> None:
        where, cause = f"round {self._base.index + 1}, {dataset}", loss.cause
        error = cause if isinstance(cause, WfcError) else GangFailedError(
            f"{where}: the trainer on {loss.host} failed: {one_line(cause)}; "
            "see its log under logs/, then run the same command"
        )  # fmt: skip
        self._store.quarantine.add(self._base.index + 1, dataset, error, loss.trace, loss.host)
        self._display.say(f"{dataset}: failed on {loss.host} and is quarantined; the others go on")


def _ending(error: RayError, gang: Gang) -> Ending:
    """Returns how a training has ended that raised an error after it was asked to stop."""
    failure, cause = classify(error)
    if failure is Failure.STOPPED and isinstance(cause, Interrupted):
        return Ending("checkpointed", cause.facts.get("step"), gang.host)
    return Ending("lost", host=gang.host, reason=one_line(cause))
