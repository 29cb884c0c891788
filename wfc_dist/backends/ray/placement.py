"""Placement of gangs on nodes: pure functions from nodes and needs to a plan."""

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from wfc_dist.errors import ConfigError


@dataclass(frozen=True)
class Node:
    """What a node offers.

    Attributes:
        node_id: Ray's id.
        name: Host name.
        cpus, gpus: In all, used or free.
        address: The node's IP in the cluster.
        labels: Ray's node labels.
        draining: Whether the node was told to leave the cluster.
    """

    node_id: str
    name: str
    cpus: float
    gpus: float
    address: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    draining: bool = False


@dataclass(frozen=True)
class Need:
    """What one worker asks for."""

    cpus: float
    gpus: float
    labels: Mapping[str, str] = field(default_factory=dict)

    def bundle(self) -> dict[str, float]:
        """Returns the need as Ray's resources."""
        return {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})

    def allows(self, node: Node) -> bool:
        """Whether a worker may run on `node` at all."""
        return not node.draining and all(node.labels.get(key) == value for key, value in self.labels.items())


def room(node: Node, need: Need) -> int:
    """Returns how many workers fit on an empty node; a worker's part of a GPU lies on one GPU."""
    if not need.allows(node):
        return 0
    by_cpu = int(node.cpus / need.cpus + 1e-9)
    if not need.gpus:
        return by_cpu
    by_gpu = int(node.gpus) * int(1 / need.gpus + 1e-9) if need.gpus < 1 else int(node.gpus / need.gpus + 1e-9)
    return min(by_cpu, by_gpu)


def plan_gangs(
    nodes: Sequence[Node], need: Need, workers_per_gang: int, wanted: int, taken: Sequence[str] = ()
) -> list[list[str]]:
    """Places up to `wanted` gangs: each on one node if it fits there, and on different nodes as long as there are any.

    Args:
        nodes: What the cluster offers.
        need: What one worker asks for.
        workers_per_gang: Workers of one gang.
        wanted: Gangs asked for; fewer, or none, are placed where there is less room.
        taken: Node ids of the workers that are placed already, one entry per worker.

    Returns:
        For each gang the node ids of its workers, in rank order.
    """
    used = Counter(taken)
    ids = [node.node_id for node in sorted(nodes, key=lambda node: node.name)]
    rooms = {node.node_id: room(node, need) for node in nodes}
    free = [max(0, rooms[node_id] - used[node_id]) for node_id in ids]
    gangs: list[list[str]] = []
    # Heaps, not sorted lists: with a thousand nodes every gang of a first plan would sort them again. Ties go by name.
    whole = [(used[ids[i]], -number, i) for i, number in enumerate(free) if number >= workers_per_gang]
    heapq.heapify(whole)
    while whole and len(gangs) < wanted:
        num_used, _, i = whole[0]
        gangs.append([ids[i]] * workers_per_gang)
        free[i] -= workers_per_gang
        if free[i] >= workers_per_gang:
            heapq.heapreplace(whole, (num_used + workers_per_gang, -free[i], i))
        else:
            heapq.heappop(whole)
    return gangs + _spread(ids, free, workers_per_gang, wanted - len(gangs))


def _spread(ids: Sequence[str], free: Sequence[int], workers_per_gang: int, wanted: int) -> list[list[str]]:
    """Places gangs that are larger than any node, each on as few nodes as possible."""
    roomiest = [(-number, i) for i, number in enumerate(free) if number > 0]
    heapq.heapify(roomiest)
    gangs: list[list[str]] = []
    for _ in range(min(wanted, sum(free) // workers_per_gang)):
        places: list[str] = []
        while len(places) < workers_per_gang:
            number, i = heapq.heappop(roomiest)
            taken = min(-number, workers_per_gang - len(places))
            places += [ids[i]] * taken
            if taken < -number:
                heapq.heappush(roomiest, (number + taken, i))
        gangs.append(places)
    return gangs


def nothing_fits(nodes: Sequence[Node], need: Need, workers_per_gang: int) -> ConfigError:
    """Returns the error that names the nodes and what one gang asks for."""
    there = ", ".join(f"{node.name}: {node.cpus:g} CPU, {node.gpus:g} GPU{_why_not(node, need)}" for node in nodes) or "no node"
    return ConfigError(
        f"no trainer fits: one needs {workers_per_gang} x ({need.cpus:g} CPU, {need.gpus:g} GPU), there is {there}; "
        "lower cluster.workers_per_trainer, cpus_per_worker or gpus_per_worker"
    )


def _why_not(node: Node, need: Need) -> str:
    if node.draining:
        return " (draining)"
    missing = [f"{key}={value}" for key, value in need.labels.items() if node.labels.get(key) != value]
    return f" (not {', '.join(missing)})" if missing else ""
