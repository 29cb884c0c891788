"""Which gang goes where: nodes and needs in, plan out. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from wfc_dist.errors import ConfigError


@dataclass(frozen=True)
class Node:
    """What a node offers."""

    node_id: str
    name: str
    cpus: float
    gpus: float


@dataclass(frozen=True)
class Need:
    """What one worker asks for."""

    cpus: float
    gpus: float

    def bundle(self) -> dict[str, float]:
        """Returns it as Ray's resources."""
        return {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})


def _room(node: Node, need: Need) -> int:
    by_cpu = int(node.cpus / need.cpus + 1e-9)
    return min(by_cpu, int(node.gpus / need.gpus + 1e-9)) if need.gpus else by_cpu


def plan_gangs(nodes: Sequence[Node], need: Need, workers_per_gang: int, wanted: int) -> list[list[str]]:
    """Places up to `wanted` gangs: each on one node if it fits there, gangs on different nodes while there are any.

    Args:
        nodes: What the cluster offers, all of it free.
        need: What one worker asks for.
        workers_per_gang: Workers of one gang.
        wanted: Gangs asked for; fewer are placed where there is less room.

    Returns:
        For each gang the node ids of its workers, in rank order.

    Raises:
        ConfigError: Not even one gang fits; says what is there and what is asked for.
    """
    free = {node.node_id: _room(node, need) for node in sorted(nodes, key=lambda node: node.name)}
    used = dict.fromkeys(free, 0)
    gangs: list[list[str]] = []
    while len(gangs) < wanted and sum(free.values()) >= workers_per_gang:
        order = sorted(free, key=lambda node_id: (used[node_id], -free[node_id]))  # stable: by name among equals
        whole = next((node_id for node_id in order if free[node_id] >= workers_per_gang), None)
        places: list[str] = []
        for node_id in [whole] if whole else sorted(free, key=lambda node_id: -free[node_id]):
            places += [node_id] * min(free[node_id], workers_per_gang - len(places))
        for node_id in places:
            free[node_id] -= 1
            used[node_id] += 1
        gangs.append(places)
    if not gangs:
        there = ", ".join(f"{node.name}: {node.cpus:g} CPU, {node.gpus:g} GPU" for node in nodes) or "no node"
        raise ConfigError(
            f"no trainer fits: one needs {workers_per_gang} x ({need.cpus:g} CPU, {need.gpus:g} GPU), there is {there}; "
            "lower cluster.workers_per_trainer, cpus_per_worker or gpus_per_worker"
        )
    return gangs
