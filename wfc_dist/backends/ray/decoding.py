"""Decoding of test sets on a fleet: every worker of every gang takes one task after the other."""

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from wfc_dist.backends.failure_policy import Budget, Decision
from wfc_dist.backends.ray.failures import one_line
from wfc_dist.backends.ray.fleet import Fleet, Loss
from wfc_dist.backends.ray.gangs import Gang
from wfc_dist.errors import GangFailedError, WfcError
from wfc_dist.evaluation.scoring import HypothesesBySet, ScoreTask
from wfc_dist.rounds import Base
from wfc_dist.runs.store import RunStore

ASK_EVERY_S, ASK_AT_ONCE = 5.0, 8
logger = logging.getLogger(__name__)


class Decoding:
    """The event loop of one call of `scoring.Decoders.decode`.

    Args:
        store, fleet: The run and its gangs.
        load_base: Brings a base to a gang.
        tasks: What to decode.
        on_done: Gets each result as it comes.
        told: Gets how many sets are decoded, fractions included.
    """

    def __init__(
        self, store: RunStore, fleet: Fleet, load_base: Callable[[Gang, Base], object], tasks: Sequence[ScoreTask],
        on_done: Callable[[ScoreTask, HypothesesBySet], None], *, told: Callable[[float], None],
    ) -> None:  # fmt: skip
        self._store, self._fleet, self._load_base, self._on_done = store, fleet, load_base, on_done
        self._waiting = list(tasks)
        self._running: dict[Any, tuple[ScoreTask, Gang, Any]] = {}
        self._budgets: dict[str, Budget] = {}  # by model
        self._told, self._num_done = told, 0
        self._shares: dict[Any, float] = {}
        self._asked: dict[Any, Any] = {}  # question -> key in _running
        self._asked_s, self._turn = 0.0, 0

    def run(self) -> None:
        """Decodes every task. Raises Interrupted, or GangFailedError when decoders are lost too often."""
        while self._waiting or self._running:
            self._store.raise_if_stopped("while scoring")
            self._fleet.tick()
            self._start_idle()
            self._fleet.wait(list(self._running))
            done, _ = ray.wait(list(self._running), num_returns=len(self._running), timeout=0) if self._running else ([], [])
            for ref in done:
                if ref in self._running:
                    self._settle(ref)
            self._report()

    def _report(self) -> None:
        """Tells how many sets are decoded, and asks a few workers every ASK_EVERY_S how far they are."""
        answered, _ = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0) if self._asked else ([], [])
        for question in answered:
            key = self._asked.pop(question)
            with contextlib.suppress(RayError):
                self._shares[key] = ray.get(question)
        self._told(self._num_done + sum(self._shares.get(key, 0.0) * len(task.sets) for key, (task, *_) in self._running.items()))
        if not self._asked and time.monotonic() - self._asked_s >= ASK_EVERY_S:
            self._asked_s = time.monotonic()
            running = list(self._running)
            next_ones = [running[(self._turn + place) % len(running)] for place in range(min(ASK_AT_ONCE, len(running)))]
            self._turn += ASK_AT_ONCE
            self._asked = {self._running[key][2].decoded.remote(): key for key in next_ones}

    def _start_idle(self) -> None:
        busy = {id(worker) for _, _, worker in self._running.values()}
        idle = [(gang, worker) for gang in self._fleet.ready() for worker in gang.workers if id(worker) not in busy]
        for gang, worker in idle[: len(self._waiting)]:
            task = self._waiting.pop(0)
            self._load_base(gang, task.base)
            self._running[worker.score.remote(task)] = (task, gang, worker)
        self._fleet.retire({gang for _, gang, _ in self._running.values()})

    def _settle(self, ref: Any) -> None:
        task, gang, _ = self._running[ref]
        try:
            hypotheses = ray.get(ref)
        except RayError:
            self._lose(ref)
            return
        del self._running[ref]
        self._fleet.worked(gang, to_the_end=True)
        self._num_done += len(task.sets)
        self._on_done(task, hypotheses)

    def _lose(self, ref: Any) -> None:
        """Gives the tasks of a gang back, one of whose workers failed at its task, and finds out whose failure that is."""
        task, gang, _ = self._running[ref]
        mine = [(key, worker) for key, (_, other, worker) in self._running.items() if other is gang]
        last = {rank: key for rank, worker in enumerate(gang.workers) for key, busy in mine if busy is worker}
        self._waiting = [self._running.pop(key)[0] for key, _ in mine] + self._waiting
        self._fleet.lose(gang, last, lambda loss: self._fail(task, loss))

    def _fail(self, task: ScoreTask, loss: Loss) -> None:
        work = task.model_name()
        budget = self._budgets.setdefault(work, Budget(self._store.config.cluster.max_failures))
        if budget.decide(loss.failure, loss.node_id) is not Decision.RESTART:
            failed = GangFailedError(f"scoring {work} on {loss.host} failed: {one_line(loss.cause)}")
            raise loss.cause if isinstance(loss.cause, WfcError) else failed
        logger.warning("a decoder on %s was lost (%s); other workers decode its test sets", loss.host, one_line(loss.cause))
