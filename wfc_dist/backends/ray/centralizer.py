"""The centralizer on Ray: ranks in processes of their own, so that a dead trainer cannot break the collective."""

import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from safetensors.torch import save

from wfc_dist import activity, log
from wfc_dist.backends import memory, net
from wfc_dist.backends.failure_policy import Budget, Decision, Failure
from wfc_dist.backends.hangs import Limits
from wfc_dist.backends.jobs import centralize_job
from wfc_dist.backends.ray.failures import classify, culprit, kind_of_crash, one_line
from wfc_dist.backends.ray.fleet import POLL_S
from wfc_dist.backends.ray.liveness import Liveness
from wfc_dist.backends.ray.nodes import Fate, Nodes
from wfc_dist.backends.ray.placement import Node
from wfc_dist.backends.worker import Broadcast, Report, adopt_work_dir
from wfc_dist.centralize import collectives
from wfc_dist.centralize.rank import CentralizeJob, centralize_rank, prepare_rank
from wfc_dist.errors import GangFailedError, Interrupted, WfcError
from wfc_dist.rounds import Adapter, Base, StagedBase
from wfc_dist.runs.store import RunStore
from wfc_dist.storage.mirror import AnyMirror
from wfc_dist.weights import base_chain

logger = logging.getLogger(__name__)


class RankActor:
    """One rank of the centralizer."""

    def __init__(self, world_rank: int, world_size: int, log_dir: str, mirror: AnyMirror, work_dir: str) -> None:
        adopt_work_dir(work_dir)
        mirror.adopt()
        prepare_rank(log_dir, world_rank)
        self._rank, self._size = world_rank, world_size
        self._group: collectives.Group | None = None

    def endpoint(self) -> tuple[str, int]:
        """Returns host and a free port for the group; called on rank 0."""
        host = ray.util.get_node_ip_address()
        return host, net.free_port(host)

    def host(self) -> str:
        """Returns the host name, for the ledger."""
        return socket.gethostname()

    @ray.method(concurrency_group="status")
    def report(self) -> Report:
        """Returns what this process works at; it answers while it works."""
        return Report(activity.now())

    def centralize(self, job: CentralizeJob, endpoint: tuple[str, int]) -> StagedBase | None:
        """See `centralize.rank.centralize_rank`; the first call joins the group."""
        activity.begin("the average")
        if self._group is None:
            net.choose_interface(ray.util.get_node_ip_address())
            self._group = collectives.join(self._rank, self._size, *endpoint)
        activity.moved(steady=True)  # the libraries are loaded, and every rank is there
        try:
            return centralize_rank(job, self._group)
        finally:
            memory.trim()

    def read_changed(self, base: Base, hashes: dict[str, str]) -> Broadcast:
        """Returns the changed tensors of a committed base, which go to the trainers without passing the coordinator."""
        tensors = dict(base_chain.read_tensors(Path(base.path), hashes))
        return Broadcast(base, np.frombuffer(save(tensors), dtype=np.uint8), hashes)


_REMOTE_RANK: Any = ray.remote(num_cpus=0, max_restarts=0, concurrency_groups={"status": 1})(RankActor)  # type: ignore[call-overload]


class _RankError(Exception):
    """A rank failed.

    Args:
        rank: Its world rank.
        cause: Its error.
        more: What the ledger keeps of it besides.
    """

    def __init__(self, rank: int, cause: BaseException, more: Mapping[str, object] = MappingProxyType({})) -> None:
        super().__init__(rank, cause)
        self.rank, self.cause, self.more = rank, cause, more


def _error(ref: Any) -> RayError | None:
    """Returns the error of a call that has ended; None when it has a value."""
    try:
        ray.get(ref)
    except RayError as error:
        return error
    return None


class RayCentralizer:
    """Averages on ranks spread over the nodes (see `rounds.Centralizer`).

    Rank 0 writes and the coordinator commits. Both run on one node, so that what was written is seen at once on any file system.

    Args:
        store: The opened run.
        nodes: The nodes of the run, with what failed on each.
    """

    def __init__(self, store: RunStore, nodes: Nodes) -> None:
        self._store, self._nodes = store, nodes
        self._ranks: list[Any] = []
        self._hosts: list[Any] = []
        self._places: list[str] = []
        self._endpoint: Any = None

    def centralize_interim(self, base: Base, adapters: Sequence[Adapter]) -> StagedBase:
        """See `stream.StreamCentralizer`."""
        return self.centralize(base, adapters, interim=True)

    def centralize(self, base: Base, adapters: Sequence[Adapter], *, interim: bool = False) -> StagedBase:
        """See `rounds.Centralizer`; `interim` makes an interim base (see `stream`).

        After the loss of a rank all ranks are restarted, up to `cluster.max_failures` times; the failures of a rank's node before
        its work count for the node alone.
        """
        budget = Budget(self._store.config.cluster.max_failures)
        while True:
            try:
                return self._once(base, adapters, interim)
            except Interrupted:
                self.shutdown()  # the same adapters are averaged again later
                raise
            except _RankError as error:
                self._fail(base, budget, error)

    def _fail(self, base: Base, budget: Budget, error: "_RankError") -> None:
        """Counts the failure of a rank. Raises the error of a rank that cannot go on; else the ranks can start again."""
        failure, cause = classify(error.cause)
        place, has_started = self._places[error.rank], self._has_started(error.rank)
        self.shutdown()
        if failure in (Failure.CRASHED, Failure.HUNG):
            self._nodes.doubt([place])
            if self._nodes.await_fate([place], self._pause) is Fate.GONE:
                failure = Failure.NODE_GONE
            elif failure is Failure.CRASHED:
                failure = kind_of_crash(cause, has_worked=has_started)
        decision, why, name = budget.decide(failure, place), one_line(cause), self._nodes.name(place)
        facts = {"host": name, "kind": failure.value, "reason": why, "decision": decision.value, **error.more}
        self._store.ledger.record("failure", round=base.index + 1, work="centralize", **facts)
        if decision is not Decision.RESTART:
            raise (cause if isinstance(cause, WfcError) else self._lost_too_often(base, name, why)) from error.cause
        logger.warning("round %d: a rank of the centralizer failed on %s (%s); the ranks start again", base.index + 1, name, why)
        if failure in (Failure.CRASHED, Failure.EARLY, Failure.HUNG):
            self._nodes.failed(place, why, at_start=failure is Failure.EARLY)

    def _pause(self) -> None:
        activity.moved()
        self._store.raise_if_stopped("while averaging")
        time.sleep(POLL_S)

    def _has_started(self, rank: int) -> bool:
        """Whether a rank has answered at all: its libraries are loaded."""
        try:
            ray.get(self._hosts[rank], timeout=0)
        except RayError:
            return False
        return True

    def _lost_too_often(self, base: Base, node: str, why: str) -> GangFailedError:
        return GangFailedError(
            f"round {base.index + 1}: ranks of the centralizer were lost more than cluster.max_failures = "
            f"{self._store.config.cluster.max_failures} times; the last on {node}: {why}; run the same command"
        )

    def _once(self, base: Base, adapters: Sequence[Adapter], interim: bool) -> StagedBase:
        self.prepare(len(adapters))
        while not self._ranks and self._nodes.undecided():
            self._pause()
            self.prepare(len(adapters))
        if not self._ranks:
            draining = "every node is draining, none is left for the average; the same command goes on"
            raise self._nodes.none_left() or Interrupted(f"round {base.index + 1}: {draining}")
        if self._endpoint is None:  # not earlier: the port must still be free when the ranks meet there
            self._endpoint = self._ranks[0].endpoint.remote()
        job = centralize_job(self._store, base, list(adapters), interim=interim)
        with log.span("centralize", phase="merging", round=base.index + 1, num_ranks=len(self._ranks)):
            work = f"round {base.index + 1}, average"
            staged = self._await([rank.centralize.remote(job, self._endpoint) for rank in self._ranks], work)[0]
            staged = replace(staged, facts={**staged.facts, "hosts": ray.get(self._hosts)})
        self._nodes.worked(self._places)
        logger.info(
            "round %d: %d adapters averaged over %d ranks, %d matrices merged", base.index + 1, len(adapters), len(self._ranks),
            len(staged.facts["changed"]),
        )  # fmt: skip
        return staged

    def _await(self, refs: list[Any], work: str) -> list[Any]:
        """Returns the values of all ranks.

        Raises the first error at once, since the other ranks would wait for the one that failed; or Interrupted. The error of a
        rank that hangs names it and `work`.
        """
        liveness: Liveness[str] = Liveness(Limits.of(self._store.config.cluster), POLL_S)
        liveness.add(work, self._ranks)
        waiting = refs
        while waiting:
            done, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=POLL_S)
            activity.moved()
            self._raise_culprit(refs, done)
            for _, hang in liveness.poll():
                rank = hang.state.rank
                error = hang.error(work, self._nodes.name(self._places[rank]))
                self._nodes.say(str(error))
                raise _RankError(rank, error, hang.facts())
            if waiting:
                self._store.raise_if_stopped("while averaging")
        return ray.get(refs)  # type: ignore[no-any-return]

    def _raise_culprit(self, refs: list[Any], done: list[Any]) -> None:
        """Raises _RankError when a rank failed: before it could start, since the others need it, or else at its work."""
        failed = [pair for pair in enumerate(refs) if pair[1] in done and _error(pair[1])]
        if failed:
            started, _ = ray.wait(self._hosts, num_returns=len(self._hosts), timeout=0)
            calls = [pair for pair in enumerate(self._hosts) if pair[1] in started] + failed
            raise _RankError(*culprit([(rank, error) for rank, ref in calls if (error := _error(ref))]))

    def prepare(self, num_adapters: int) -> None:
        """Starts the ranks unless they are up, and returns at once: they load their libraries while the trainers train."""
        nodes = self._staying()
        if self._ranks and set(self._places) <= {node.node_id for node in nodes}:
            return
        self.shutdown()
        if not nodes:
            return
        world_size = self._store.config.cluster.centralizer_ranks or min(len(nodes), num_adapters)
        for rank in range(world_size):
            self._places.append(nodes[rank % len(nodes)].node_id)
            place = NodeAffinitySchedulingStrategy(self._places[rank], soft=False)
            environment = {"env_vars": {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **memory.ENVIRONMENT}}
            actor = _REMOTE_RANK.options(scheduling_strategy=place, runtime_env=environment)
            self._ranks.append(actor.remote(rank, world_size, str(self._store.log_dir()), self._store.mirror, os.getcwd()))
        self._hosts = [rank.host.remote() for rank in self._ranks]

    def _staying(self) -> list[Node]:
        """Returns the nodes that are not draining, this one first; nothing can be started on a draining node."""
        self._nodes.poll()
        here = ray.get_runtime_context().get_node_id()
        usable = self._nodes.free() or self._nodes.better_than_none()
        staying = [node for node in usable if not node.draining]
        return sorted(staying, key=lambda node: (node.node_id != here, node.name))

    def changed(self, base: Base) -> Any:
        """Returns a reference to the `Broadcast` of a committed base, made by rank 0; None when no rank is up."""
        if not self._ranks:
            return None
        manifest = self._store.manifest(base.index)
        return self._ranks[0].read_changed.remote(base, {name: manifest["tensors"][name] for name in manifest["changed"]})

    def shutdown(self) -> None:
        """Ends the ranks."""
        for rank in self._ranks:
            ray.kill(rank)
        self._ranks, self._hosts, self._places, self._endpoint = [], [], [], None
