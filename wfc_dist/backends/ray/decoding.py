"""Decoding of test sets on a fleet: every worker of every gang takes one task after the other."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import ray
from ray.exceptions import RayError

from wfc_dist import activity
from wfc_dist.backends.failure_policy import Budget, Decision, Failure
from wfc_dist.backends.hangs import Hang, Limits
from wfc_dist.backends.ray.failures import one_line
from wfc_dist.backends.ray.fleet import Fleet, Loss
from wfc_dist.backends.ray.gangs import Gang
from wfc_dist.backends.ray.liveness import Liveness
from wfc_dist.backends.worker import Report
from wfc_dist.errors import GangFailedError, WfcError
from wfc_dist.evaluation.scoring import HypothesesBySet, ScoreTask
from wfc_dist.rounds import Base
from wfc_dist.runs.store import RunStore

ASK_EVERY_S = 5.0
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
        self._liveness: Liveness[Any] = Liveness(Limits.of(store.config.cluster), ASK_EVERY_S, self._take_report)

    def run(self) -> None:
        """Decodes every task. Raises Interrupted, or GangFailedError when decoders are lost too often."""
        while self._waiting or self._running:
            activity.moved()
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
        """Tells how many sets are decoded, and finds the workers that hang."""
        for ref, hang in self._liveness.poll():
            self._end_hung(ref, hang)
        self._told(self._num_done + sum(self._shares.get(key, 0.0) * len(task.sets) for key, (task, *_) in self._running.items()))

    def _take_report(self, ref: Any, _rank: int, report: Report) -> None:
        self._shares[ref] = report.decoded

    def _start_idle(self) -> None:
        busy = {id(worker) for _, _, worker in self._running.values()}
        idle = [(gang, worker) for gang in self._fleet.ready() for worker in gang.workers if id(worker) not in busy]
        for gang, worker in idle[: len(self._waiting)]:
            task = self._waiting.pop(0)
            self._load_base(gang, task.base)
            ref = worker.score.remote(task)
            self._running[ref] = (task, gang, worker)
            self._liveness.add(ref, [worker])
        self._fleet.retire({gang for _, gang, _ in self._running.values()})

    def _settle(self, ref: Any) -> None:
        task, gang, _ = self._running[ref]
        try:
            hypotheses = ray.get(ref)
        except RayError:
            self._lose(ref)
            return
        del self._running[ref]
        self._liveness.drop(ref)
        self._fleet.worked(gang, to_the_end=True)
        self._num_done += len(task.sets)
        self._on_done(task, hypotheses)

    def _lose(self, ref: Any) -> None:
        """Gives the tasks of a gang back, one of whose workers failed at its task, and finds out whose failure that is."""
        task, gang, _ = self._running[ref]
        mine = [(key, worker) for key, (_, other, worker) in self._running.items() if other is gang]
        last = {rank: key for rank, worker in enumerate(gang.workers) for key, busy in mine if busy is worker}
        self._give_back([key for key, _ in mine])
        self._fleet.lose(gang, last, lambda loss: self._fail(task, loss))

    def _give_back(self, refs: Sequence[Any]) -> None:
        self._waiting = [self._running.pop(ref)[0] for ref in refs] + self._waiting
        for ref in refs:
            self._liveness.drop(ref)

    def _end_hung(self, ref: Any, hang: Hang) -> None:
        if ref not in self._running:  # another worker of its gang hangs, too
            return
        task, gang, worker = self._running[ref]
        hang = replace(hang, state=replace(hang.state, rank=gang.workers.index(worker)))
        error = hang.error(f"scoring {task.model_name()}", gang.locations[hang.state.rank].host)
        logger.warning("%s", error)
        self._fleet.nodes.say(str(error))
        self._give_back([key for key, (_, other, _) in self._running.items() if other is gang])
        self._fleet.end_hung(gang, hang.state.rank, error, lambda loss: self._fail(task, loss, hang.facts()))

    def _fail(self, task: ScoreTask, loss: Loss, more: Mapping[str, object] = MappingProxyType({})) -> None:
        work = task.model_name()
        budget = self._budgets.setdefault(work, Budget(self._store.config.cluster.max_failures))
        decision = budget.decide(loss.failure, loss.node_id)
        if loss.failure is Failure.HUNG:
            facts = {"host": loss.host, "kind": loss.failure.value, "reason": one_line(loss.cause), "decision": decision.value}
            self._store.ledger.record("failure", round=task.base.index, work=f"scoring {work}", **facts, **more)
        if decision is not Decision.RESTART:
            failed = GangFailedError(f"scoring {work} on {loss.host} failed: {one_line(loss.cause)}")
            raise loss.cause if isinstance(loss.cause, WfcError) else failed
        logger.warning("a decoder on %s was lost (%s); other workers decode its test sets", loss.host, one_line(loss.cause))
