"""The trainer gangs of a run on nodes that come and go: which are ready, which get ready, which must leave.

The event loops call `tick`, which does not wait, and use the gangs that are ready.

    planned -> starting -> ready -> (training or scoring) -> stopping -> gone
"""

import logging
import time
from collections.abc import Callable, Collection
from typing import Any

import ray
from ray.exceptions import RayError

from wfc_dist.backends.ray.admission import Admission
from wfc_dist.backends.ray.cluster import alive_nodes
from wfc_dist.backends.ray.failures import one_line
from wfc_dist.backends.ray.gangs import Gang
from wfc_dist.backends.ray.placement import Need, Node, nothing_fits, plan_gangs
from wfc_dist.errors import GangFailedError
from wfc_dist.runs.store import RunStore

logger = logging.getLogger(__name__)
POLL_NODES_S = 2.0
POLL_S = 0.5


class Fleet:
    """Up to `wanted` gangs, on different nodes while there are any.

    Args:
        store: The opened run.
        say: Gets a line for each gang that becomes ready or leaves, and for each node that cannot be used.
        admission: Knows which nodes may be used; None where there is only the embedded node.

    Attributes:
        gangs: The gangs that start, are ready or stop.
    """

    def __init__(self, store: RunStore, say: Callable[[str], None], admission: Admission | None = None) -> None:
        self._store, self._say, self._admission = store, say, admission
        cluster = store.config.cluster
        self._cluster = cluster
        self._need = Need(cluster.cpus_per_worker, cluster.gpus_per_worker, cluster.node_labels)
        self._wanted = min(max(len(names) for names in store.config.round_list()), cluster.max_trainers or 10**6)
        self.gangs: list[Gang] = []
        self._num_started = self._num_failed_starts = 0
        self._nodes_polled_s = float("-inf")
        self._here = ray.get_runtime_context().get_node_id()
        self._nodes: list[Node] = []
        self._told_refusals: set[str] = set()
        self._none_ready_since_s: float | None = None

    def open(self) -> None:
        """Starts the first gangs, unless they are started. Raises ConfigError when no gang fits."""
        if self.gangs:
            return
        self.poll_nodes()
        self._grow()
        if not self.gangs:
            raise nothing_fits(self._nodes, self._need, self._cluster.workers_per_trainer)

    def nodes(self) -> list[Node]:
        """Polls the nodes, and returns those that may be used."""
        self.poll_nodes()
        return list(self._nodes)

    def ready(self) -> list[Gang]:
        """Returns the gangs that can be given a job."""
        return [gang for gang in self.gangs if gang.ready and not gang.stopping]

    def tick(self) -> None:
        """Takes in what has changed: gangs that became ready or died while starting, nodes that came, drain or are gone.

        Raises:
            GangFailedError: Gangs die while they start, or no gang was ready for `cluster.start_timeout_s`.
        """
        joining = {ref: gang for gang in self.gangs if not gang.ready for ref in gang.joining}
        answered, _ = ray.wait(list(joining), num_returns=len(joining), timeout=0) if joining else ([], [])
        for gang in dict.fromkeys(joining[ref] for ref in answered):
            self._settle_start(gang)
        if time.monotonic() - self._nodes_polled_s >= POLL_NODES_S:
            self.poll_nodes()
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
        self._nodes_polled_s = float("-inf")

    def retire(self, busy: Collection[Gang]) -> None:
        """Ends the gangs that were asked to stop and are not among `busy`."""
        for gang in [gang for gang in self.gangs if gang.stopping and gang not in busy]:
            self.remove(gang)

    def shutdown(self) -> None:
        """Ends every gang."""
        for gang in self.gangs:
            gang.kill()
        self.gangs = []

    def leaving(self, gang: Gang) -> bool:
        """Whether one of the gang's nodes drains or is gone."""
        staying = {node.node_id for node in self._nodes if not node.draining}
        return not staying.issuperset(gang.places)

    def _settle_start(self, gang: Gang) -> None:
        try:
            if not gang.poll():
                return
        except RayError as error:
            self.remove(gang)
            self._num_failed_starts += 1
            logger.warning("trainer %d died while starting: %s", gang.index, one_line(error))
            if self._num_failed_starts > self._cluster.max_failures:
                raise GangFailedError(
                    f"trainers died while starting more than cluster.max_failures = {self._cluster.max_failures} times; "
                    f"the last: {one_line(error)}; see gang-{gang.index}-rank-*.log under {self._store.log_dir()}"
                ) from error
            return
        self._num_failed_starts = 0
        places = ", ".join(f"{rank.host} ({rank.address}, {rank.interface})" for rank in gang.locations)
        self._say(f"trainer {gang.index} is ready on {places}")
        logger.info("trainer %d is ready on %s", gang.index, places)

    def poll_nodes(self) -> None:
        """Lists the nodes of the cluster, queries new ones (see `Admission`), and keeps those that may be used."""
        self._nodes, self._nodes_polled_s = alive_nodes(), time.monotonic()
        if self._admission is None:
            return
        self._admission.query([node for node in self._nodes if not node.draining])
        self._admission.collect_replies()
        for node_id, why in self._admission.refused.items():
            if node_id not in self._told_refusals:
                self._told_refusals.add(node_id)
                self._say(f"not used: {why}")
        self._nodes = [node for node in self._nodes if node.node_id in self._admission.admitted]

    def _drain(self) -> None:
        """Stops the run or moves gangs when nodes drain on which this run has a process; other nodes do not matter."""
        ours = {place for gang in self.gangs for place in gang.places} | {self._here}
        draining = [node for node in self._nodes if node.draining and node.node_id in ours]
        if not draining:
            return
        names = ", ".join(node.name for node in draining)
        if self._cluster.on_drain == "stop" or any(node.node_id == self._here for node in draining):
            self._store.stop(f"node drained: {names}")
            return
        for gang in [gang for gang in self.gangs if self.leaving(gang) and not gang.stopping]:
            self._say(f"{names} drained: trainer {gang.index} checkpoints and moves")
            if gang.ready:
                gang.request_stop()
            else:
                self.remove(gang)

    def _grow(self) -> None:
        taken = [node_id for gang in self.gangs for node_id in gang.places]
        missing = self._wanted - len(self.gangs)
        places = plan_gangs(self._nodes, self._need, self._cluster.workers_per_trainer, missing, taken) if missing > 0 else []
        names, logs = {node.node_id: node.name for node in self._nodes}, str(self._store.log_dir())
        for nodes in places:
            gang = Gang.start(
                self._num_started, nodes, self._cluster, logs, self._store.mirror, run_name=self._store.config.run.name
            )
            self._num_started += 1
            self.gangs.append(gang)
            logger.info("trainer %d starts on %s", gang.index, ", ".join(names[node_id] for node_id in nodes))

    def _check_some_ready(self) -> None:
        timeout_s = self._cluster.start_timeout_s
        if any(gang.ready for gang in self.gangs):
            self._none_ready_since_s = None
            return
        self._none_ready_since_s = self._none_ready_since_s or time.monotonic()
        if time.monotonic() - self._none_ready_since_s < timeout_s:
            return
        names = {node.node_id: node.name for node in self._nodes}
        starting = "; ".join(
            f"trainer {gang.index} on {', '.join(names.get(place, place) for place in gang.places)}" for gang in self.gangs
        )
        raise GangFailedError(
            f"no trainer was ready for cluster.start_timeout_s = {timeout_s:g} s; starting: {starting or 'none has room'}; "
            f"nodes: {', '.join(sorted(names.values())) or 'none'}. `ray status` says what is taken; the same command goes on"
        )
