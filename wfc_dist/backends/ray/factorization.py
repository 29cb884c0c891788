"""One round's trainings on a fleet: a queue of data sets, a gang for each, and what follows when one is lost.

It moves references, never tensors.
"""

import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from wfc_dist.backends.failure_policy import Decision, Failure, FailurePolicy
from wfc_dist.backends.jobs import training_job
from wfc_dist.backends.ray.fleet import POLL_S, Fleet, first_line
from wfc_dist.backends.ray.gangs import Gang
from wfc_dist.errors import GangFailedError, IntegrityError, Interrupted, WfcError
from wfc_dist.progress import Display
from wfc_dist.rounds import Adapter, Base
from wfc_dist.runs.store import RunStore
from wfc_dist.storage import durable
from wfc_dist.weights import peft_folder

logger = logging.getLogger(__name__)
ASK_AT_ONCE = 8  # trainers asked for their progress each POLL_S: messages a second don't grow with the number of trainers


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


class Factorization:
    """The event loop of one round's trainings.

    Args:
        store, fleet, display: The run, its gangs, and who is told of progress.
        hold: Brings a base to a gang.
        on_training: Called once, when the first training has begun.
        base: What the adapters are trained against.
        queue: Data sets in the order in which they get a gang.
    """

    def __init__(
        self,
        store: RunStore,
        fleet: Fleet,
        display: Display,
        hold: Callable[[Gang, Base], object],
        on_training: Callable[[], None],
        *,
        base: Base,
        queue: list[str],
    ) -> None:
        self._store, self._fleet, self._display, self._hold = store, fleet, display, hold
        self._on_training, self._begun = on_training, False
        self._base, self._queue = base, queue
        self._policy = FailurePolicy(store.config.cluster.max_failures)
        self._running: dict[str, _Running] = {}
        self._failures: dict[str, int] = {}
        self._stopped: set[str] = set()
        self._finished: dict[str, Adapter] = {}
        self._fatal: BaseException | None = None
        self._stopping_s: float | None = None
        self._to_ask: deque[_Running] = deque()
        self._asked: dict[Any, _Running] = {}
        self._asked_s = float("-inf")

    def run(self) -> dict[str, Adapter]:
        """Returns the committed adapters. Raises Interrupted, or the error of a trainer that cannot go on."""
        while self._queue or self._running:
            if self._store.stop_reason() is not None:
                self._fleet.request_stop()
                if not self._running or self._stopped_for_too_long():
                    break
            else:
                self._fleet.tick()
                self._start_idle()
                if self._running and not self._begun:
                    self._begun = True
                    self._on_training()
            self._fleet.wait([ref for item in self._running.values() for ref in item.refs])
            self._settle_ended()
            self._show()
        if self._fatal:
            raise self._fatal
        if self._running:
            late = ", ".join(f"{item.dataset} on {item.gang.host}" for item in self._running.values())
            raise Interrupted(f"{self._store.stop_reason()}: no checkpoint in time of {late}; the same command goes on before it")
        if self._queue or self._stopped:
            raise Interrupted(f"{self._store.stop_reason()}: every trainer has checkpointed, the same command goes on")
        return self._finished

    def _stopped_for_too_long(self) -> bool:
        """Whether trainers that were asked to stop hang: as long as a start may take, a step and a checkpoint may take, too."""
        self._stopping_s = self._stopping_s or time.monotonic()
        return time.monotonic() - self._stopping_s > self._store.config.cluster.start_timeout_s

    def _start_idle(self) -> None:
        busy = {item.gang for item in self._running.values()}
        self._fleet.retire(busy)
        for gang in [gang for gang in self._fleet.ready() if gang not in busy]:
            if not self._queue:
                return
            dataset = self._queue.pop(0)
            self._hold(gang, self._base)
            job = training_job(self._store, self._base, dataset)
            self._running[dataset] = item = _Running(dataset, gang, gang.train(job), job.output_dir)
            self._to_ask.append(item)
            logger.info("%s: training on %s (trainer %d)", dataset, gang.host, gang.index)

    def _settle_ended(self) -> None:
        """Asks Ray once for all trainings: hundreds of questions for every one that ends would be the coordinator's main work."""
        items = {ref: item for item in self._running.values() for ref in item.refs}
        ended, _ = ray.wait(list(items), num_returns=len(items), timeout=0) if items else ([], [])
        for name in dict.fromkeys(items[ref].dataset for ref in ended):
            self._settle(self._running[name])

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
        self._finished[item.dataset] = commit_result(self._store, self._base, item, results)

    def _fail(self, item: _Running, error: BaseException) -> None:
        name = item.dataset
        failure, cause = classify(item.gang.blame(error))
        del self._running[name]
        if self._store.stop_reason() is not None:  # a gang lost while stopping is not replaced
            self._stopped.add(name)
            return
        self._fleet.look()
        if item.gang.stopping or (failure is Failure.LOST and self._fleet.leaving(item.gang)):
            decision = Decision.RESTART  # its node goes, or is gone: that is no failure of the adapter's
        else:
            self._failures[name] = self._failures.get(name, 0) + 1
            decision = self._policy.decide(failure, self._failures[name])
        moved = item.gang.stopping and failure is Failure.STOPPED
        self._store.record(
            "moved" if moved else "failure",
            round=self._base.index + 1,
            dataset=name,
            host=item.gang.host,
            reason="node drained" if moved else first_line(cause),
            decision=decision.value,
        )
        if decision is Decision.RESTART:
            logger.warning("%s: lost its trainer on %s (%s); goes on from its last checkpoint", name, item.gang.host, cause)
            self._display.say(f"{name}: trainer on {item.gang.host} is gone; it goes on from its last checkpoint")
            self._queue.insert(0, name)
            self._fleet.remove(item.gang)
            return
        self._give_up(item, cause)

    def _give_up(self, item: _Running, cause: BaseException) -> None:
        where = f"round {self._base.index + 1}, {item.dataset}"
        self._fatal = cause if isinstance(cause, WfcError) else GangFailedError(
            f"{where}: the trainer on {item.gang.host} failed: {first_line(cause)}; "
            "see its log under logs/, then run the same command"
        )  # fmt: skip
        self._store.stop(f"{where} failed")  # the others checkpoint

    def _show(self) -> None:
        """Asks a few trainers at a time, in turn, how far they are. Waits for none: a lost one is `_settle`'s to find."""
        answered, _ = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0) if self._asked else ([], [])
        for ref in answered:
            item = self._asked.pop(ref)
            with contextlib.suppress(RayError):
                self._display.update(item.dataset, ray.get(ref), item.gang.host)
                self._to_ask.append(item)
        if time.monotonic() - self._asked_s < POLL_S:
            return
        self._asked_s = time.monotonic()
        for _ in range(min(ASK_AT_ONCE, len(self._to_ask))):
            item = self._to_ask.popleft()
            if self._running.get(item.dataset) is item:
                self._asked[item.gang.workers[0].progress.remote()] = item


def commit_result(store: RunStore, base: Base, item: _Running, results: Sequence[Any]) -> Adapter:
    """Commits what a gang trained. Every rank reports the same adapter, or it is none."""
    if not store.mirror.is_remote:  # else they are fetched, not seen
        durable.await_files(Path(item.staged), peft_folder.FILES)
    facts = asdict(results[0]) | {"host": item.gang.host}
    return store.commit_adapter(base, item.dataset, Path(item.staged), facts)
