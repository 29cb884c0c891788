"""The trainer gangs of a run on nodes that come and go: which are ready, which get ready, which must leave.

The event loops call `tick`, which does not wait, and use the gangs that are ready.

    planned -> starting -> ready -> (training or scoring) -> stopping -> gone
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from wfc_dist import activity
from wfc_dist.backends.failure_policy import Failure
from wfc_dist.backends.ray.failures import classify, culprit, kind_of_crash, one_line
from wfc_dist.backends.ray.gangs import Gang
from wfc_dist.backends.ray.nodes import POLL_NODES_S, Fate, Nodes
from wfc_dist.backends.ray.placement import Need, nothing_fits, plan_gangs
from wfc_dist.errors import HungError, Interrupted
from wfc_dist.runs.store import RunStore

logger = logging.getLogger(__name__)
POLL_S = 0.5


@dataclass(frozen=True)
class Loss:
    """Why a gang was lost.

    Attributes:
        failure: Whose failure this is.
        cause: The error of the worker that made the gang fail.
        node_id: Ray's id of that worker's node.
        host: Its host name.
        trace: The traceback of that worker.
    """

    failure: Failure
    cause: BaseException
    node_id: str
    host: str
    trace: str = ""


@dataclass(frozen=True)
class _Lost:
    """A gang that failed and is judged once the fate of its nodes is known."""

    gang: Gang
    last: Mapping[int, Any]
    errors: Sequence[tuple[int, BaseException]]
    settle: Callable[[Loss], None]


class Fleet:
    """Up to `wanted` gangs, on different nodes while there are any.

    Args:
        store: The opened run.
        say: Gets a line for each gang that becomes ready or leaves.
        nodes: The nodes of the run, with what failed on each.

    Attributes:
        gangs: The gangs that start, are ready or stop.
    """

    def __init__(self, store: RunStore, say: Callable[[str], None], nodes: Nodes) -> None:
        self._store, self._say, self.nodes = store, say, nodes
        cluster = store.config.cluster
        self._cluster = cluster
        self._need = Need(cluster.cpus_per_worker, cluster.gpus_per_worker, cluster.node_labels)
        self._wanted = min(max(len(names) for names in store.config.round_list()), cluster.max_trainers or 10**6)
        self.gangs: list[Gang] = []
        self._lost: list[_Lost] = []
        self._num_started = 0
        self._here = ray.get_runtime_context().get_node_id()
        self._none_ready_since_s: float | None = None

    def open(self) -> None:
        """Starts the first gangs, unless they are started; waits for nodes that pause or have still to reply.

        Raises:
            ConfigError: No gang fits.
            GangFailedError, Interrupted: Every node where one would fit is left out; or the run was asked to stop.
        """
        while not self.gangs:
            self.nodes.poll()
            self._grow()
            if self.gangs or not self.nodes.undecided():
                break
            activity.moved()
            self._store.raise_if_stopped("while waiting for nodes")
            time.sleep(POLL_S)
        if not self.gangs:
            raise self.nodes.none_left() or nothing_fits(self.nodes.admitted, self._need, self._cluster.workers_per_trainer)

    def ready(self) -> list[Gang]:
        """Returns the gangs that can be given a job."""
        return [gang for gang in self.gangs if gang.ready and not gang.stopping and not gang.lost]

    def tick(self) -> None:
        """Takes in what has changed: gangs that became ready or failed, nodes that came, drain or are gone.

        Calls the `settle` of every gang that was lost (see `lose`), and what that raises.

        Raises:
            GangFailedError, Interrupted: No gang is left and no node may be used, or no gang was ready for
                `cluster.start_timeout_s`.
        """
        joining = {ref: gang for gang in self.gangs if not gang.ready for ref in gang.joining}
        answered, _ = ray.wait(list(joining), num_returns=len(joining), timeout=0) if joining else ([], [])
        for gang in dict.fromkeys(joining[ref] for ref in answered):
            self._settle_start(gang)
        self._end_hanging_starts()
        if self.nodes.poll(every_s=POLL_S if self._lost else POLL_NODES_S):
            self._settle_lost()
            self._drain()
            self._grow()
        self._check_some_ready()

    def wait(self, refs: list[Any]) -> None:
        """Waits until one of `refs` or a gang becomes ready, POLL_S at most."""
        refs = refs + [ref for gang in self.gangs if not gang.ready for ref in gang.joining]
        if refs:
            ray.wait(refs, num_returns=1, timeout=POLL_S)
        else:
            time.sleep(POLL_S)

    def request_stop(self) -> None:
        """Asks every gang to checkpoint and end; this also reaches nodes that do not see the stop file."""
        for gang in self.gangs:
            gang.request_stop()

    def remove(self, gang: Gang) -> None:
        """Ends a gang; `tick` starts another where there is room."""
        gang.kill()
        if gang in self.gangs:
            self.gangs.remove(gang)
        self.nodes.hurry()

    def lose(self, gang: Gang, last: Mapping[int, Any], settle: Callable[[Loss], None]) -> None:
        """Takes a gang out of use after an error of its workers.

        `tick` calls `settle`, once, when it is known whether the nodes of the gang answer, and removes the gang.

        Args:
            gang: The gang.
            last: Rank -> reference to what that worker was asked last.
            settle: Gets why the gang was lost.
        """
        gang.lost = True
        errors: list[tuple[int, BaseException]] = [*gang.errors(last)]
        self._lost.append(_Lost(gang, last, errors, settle))
        if classify(culprit(errors)[1])[0] is Failure.CRASHED and not gang.stopping:
            self.nodes.doubt(gang.places)
        self.nodes.hurry()

    def end_hung(self, gang: Gang, rank: int, error: HungError, settle: Callable[[Loss], None]) -> None:
        """Ends a gang one of whose ranks hangs. `tick` calls `settle`, once, when it is known whether its nodes answer."""
        gang.lost = True
        gang.kill()  # SIGKILL ends also a process that is stopped
        self._lost.append(_Lost(gang, {}, [(rank, error)], settle))
        self.nodes.doubt(gang.places)
        self.nodes.hurry()

    def _settle_lost(self) -> None:
        for lost in list(self._lost):
            gang, (rank, error) = lost.gang, culprit([*lost.errors, *lost.gang.errors(lost.last)])
            failure, cause = classify(error)
            if failure in (Failure.CRASHED, Failure.HUNG):
                fate = self.nodes.fate(gang.places) if not gang.stopping else Fate.GONE  # it was asked to leave its node
                if fate is None:
                    continue
                if fate is Fate.GONE:
                    failure = Failure.NODE_GONE
                elif failure is Failure.CRASHED:
                    failure = kind_of_crash(cause, has_worked=gang.proven)
            self._lost.remove(lost)
            self.remove(gang)
            loss = Loss(failure, cause, gang.places[rank], gang.locations[rank].host, str(error))
            lost.settle(loss)
            if failure in (Failure.EARLY, Failure.CRASHED, Failure.HUNG):
                self.nodes.failed(loss.node_id, one_line(cause), at_start=failure is Failure.EARLY)

    def worked(self, gang: Gang, *, to_the_end: bool) -> None:
        """Notes that a gang has made a step, or has come to the end of its work."""
        gang.proven = True
        self.nodes.worked(gang.places if to_the_end else ())

    def retire(self, busy: Collection[Gang]) -> None:
        """Ends the gangs that were asked to stop and are not among `busy`."""
        for gang in [gang for gang in self.gangs if gang.stopping and not gang.lost and gang not in busy]:
            self.remove(gang)

    def shutdown(self) -> None:
        """Ends every gang."""
        for gang in self.gangs:
            gang.kill()
        self.gangs, self._lost = [], []

    def _settle_start(self, gang: Gang) -> None:
        try:
            if not gang.poll():
                return
        except RayError:
            rank, error = culprit(gang.errors())
            self.fail_start(gang, one_line(classify(error)[1]), rank)
            return
        places = ", ".join(f"{rank.host} ({rank.address}, {rank.interface})" for rank in gang.locations)
        self._say(f"trainer {gang.index} is ready on {places}")
        logger.info("trainer %d is ready on %s", gang.index, places)

    def fail_start(self, gang: Gang, reason: str, rank: int, *, hangs: bool = False) -> None:
        """Counts a failure before the first step for the node of a rank, and removes the gang. `hangs` leaves the node out."""
        place = (gang.placed_on() or gang.places)[rank]
        logger.warning("trainer %d failed at its start on %s: %s", gang.index, self.nodes.name(place), reason)
        self._say(f"trainer {gang.index} failed at its start on {self.nodes.name(place)}: {reason}")
        self.remove(gang)
        self.nodes.failed(place, reason, at_start=True, at_once=hangs)
        self.nodes.doubt([place])

    def _end_hanging_starts(self) -> None:
        """Fails gangs that have their resources and are not ready for `cluster.start_timeout_s`."""
        limit_s, now_s = self._cluster.start_timeout_s, time.monotonic()
        for gang in [gang for gang in self.gangs if not gang.ready and now_s - gang.started_s >= limit_s]:
            if not gang.placed_on():
                gang.started_s = now_s  # others have its resources: that is nobody's failure
                continue
            rank = first_silent(gang.joining)
            self.fail_start(gang, f"not ready within cluster.start_timeout_s = {limit_s:g} s", rank, hangs=True)

    def _drain(self) -> None:
        """Stops the run or moves gangs when nodes drain on which this run has a process; other nodes do not matter."""
        ours = {place for gang in self.gangs for place in gang.places} | {self._here}
        draining = [node for node in self.nodes.admitted if node.draining and node.node_id in ours]
        if not draining:
            return
        names = ", ".join(node.name for node in draining)
        if self._cluster.on_drain == "stop" or any(node.node_id == self._here for node in draining):
            self._store.stop(f"node drained: {names}")
            return
        leaving = {node.node_id for node in draining}
        for gang in [gang for gang in self.gangs if not leaving.isdisjoint(gang.places) and not gang.stopping and not gang.lost]:
            self._say(f"{names} drained: trainer {gang.index} checkpoints and moves")
            if gang.ready:
                gang.request_stop()
            else:
                self.remove(gang)

    def _grow(self) -> None:
        taken = [node_id for gang in self.gangs for node_id in gang.places]
        missing = self._wanted - len(self.gangs)
        if missing <= 0:
            return
        places: list[list[str]] = []
        for nodes in (self.nodes.free(), self.nodes.better_than_none()):
            places = places or plan_gangs(nodes, self._need, self._cluster.workers_per_trainer, missing, taken)
            avoid = self.nodes.all_but(nodes)
            if places or self.gangs:
                break
        logs = str(self._store.log_dir())
        for planned in places:
            gang = Gang.start(
                self._num_started, planned, self._cluster, logs, self._store.mirror,
                run_name=self._store.config.run.name, avoid=avoid,
            )  # fmt: skip
            self._num_started += 1
            self.gangs.append(gang)
            logger.info("trainer %d starts on %s", gang.index, ", ".join(map(self.nodes.name, planned)))

    def _check_some_ready(self) -> None:
        if any(gang.ready for gang in self.gangs):
            self._none_ready_since_s = None
            return
        if not self.gangs and not self.nodes.undecided() and (error := self.nodes.none_left()):
            raise error
        timeout_s = self._cluster.start_timeout_s
        self._none_ready_since_s = self._none_ready_since_s or time.monotonic()
        if time.monotonic() - self._none_ready_since_s < timeout_s + 2 * POLL_NODES_S:  # a start that hangs is told first
            return
        starting = "; ".join(f"trainer {gang.index} on {', '.join(map(self.nodes.name, gang.places))}" for gang in self.gangs)
        raise Interrupted(
            f"no trainer was ready for cluster.start_timeout_s = {timeout_s:g} s; starting: {starting or 'none has room'}; "
            f"nodes: {', '.join(sorted(node.name for node in self.nodes.admitted)) or 'none'}. "
            "`ray status` says what is taken; the same command goes on"
        )


def first_silent(refs: Sequence[Any]) -> int:
    """Returns the first rank that has not answered; 0 where all have."""
    answered = set(ray.wait(list(refs), num_returns=len(refs), timeout=0)[0])
    return next((rank for rank, ref in enumerate(refs) if ref not in answered), 0)
