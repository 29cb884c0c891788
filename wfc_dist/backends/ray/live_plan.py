"""`wfc plan` against a running cluster: which trainer would go where, and what does not fit. Starts no trainer."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wfc_dist.backends.ray.cluster import alive_nodes, connected, missing_nodes
from wfc_dist.backends.ray.placement import Need, Node, nothing_fits, plan_gangs, room
from wfc_dist.config.schema import Config
from wfc_dist.errors import ConfigError


@dataclass(frozen=True)
class NodePlan:
    """One node: its resources, those that are free, the trainer workers planned for it, and why not more."""

    node: Node
    free_cpus: float
    free_gpus: float
    num_workers: int
    note: str


@dataclass(frozen=True)
class LivePlan:
    """Placement on the free resources of a cluster.

    Attributes:
        nodes: Every node, in the order of names.
        gangs: Host names of each trainer's workers.
        missing: Nodes of `cluster.wait_for_nodes` that have not joined, in words.
        refused: Why nodes cannot be used.
    """

    nodes: Sequence[NodePlan]
    gangs: Sequence[Sequence[str]]
    missing: str
    refused: Sequence[str]


def plan_on(
    nodes: Sequence[Node], free: Mapping[str, tuple[float, float]], refused: Mapping[str, str], config: Config
) -> LivePlan:
    """Plans trainers on free resources. Pure.

    Args:
        nodes: The cluster's nodes.
        free: Node id -> free CPUs and GPUs.
        refused: Node id -> why the node cannot be used.
        config: The resolved configuration.

    Raises:
        ConfigError: No trainer fits, even on an empty cluster; or no node can be used.
    """
    cluster = config.cluster
    need = Need(cluster.cpus_per_worker, cluster.gpus_per_worker, cluster.node_labels)
    wanted = min(max(len(names) for names in config.round_list()), cluster.max_trainers or 10**6)
    usable = [node for node in nodes if node.node_id not in refused]
    if refused and not usable:
        raise ConfigError("; ".join(refused.values()))
    if not plan_gangs(usable, need, cluster.workers_per_trainer, 1):
        raise nothing_fits(usable, need, cluster.workers_per_trainer)
    now = [replace(node, cpus=free[node.node_id][0], gpus=free[node.node_id][1]) for node in usable]
    gangs = plan_gangs(now, need, cluster.workers_per_trainer, wanted)
    workers = Counter(node_id for places in gangs for node_id in places)
    names = {node.node_id: node.name for node in nodes}
    rows = []
    for node in sorted(nodes, key=lambda node: node.name):
        cpus, gpus = free[node.node_id]
        rows.append(NodePlan(node, cpus, gpus, workers[node.node_id], _note(node, need, node.node_id in refused, cpus, gpus)))
    places = [[names[node_id] for node_id in group] for group in gangs]
    return LivePlan(rows, places, missing_nodes(cluster.wait_for_nodes, nodes), list(refused.values()))


def _note(node: Node, need: Need, is_refused: bool, free_cpus: float, free_gpus: float) -> str:
    if is_refused:
        return "cannot be used, see below"
    if node.draining:
        return "draining"
    if not need.allows(node):
        return "has not the labels of cluster.node_labels"
    if not room(node, need):
        return "too small for one worker"
    return "" if room(replace(node, cpus=free_cpus, gpus=free_gpus), need) else "taken by others now"


def plan_live(config: Config) -> LivePlan:
    """Connects to the cluster of `config`, queries every node, and plans. Raises ConfigError (see `connected`, `plan_on`)."""
    with connected(config.cluster):
        from ray._private.state import available_resources_per_node

        from wfc_dist.backends.ray.admission import Admission

        nodes, available = alive_nodes(), available_resources_per_node()
        free = {node.node_id: available.get(node.node_id, {}) for node in nodes}
        root = str(Path(config.base.model).resolve()) if Path(config.base.model).is_dir() else ""
        run_dir = config.run_dir()
        folder = next(path for path in (run_dir, *run_dir.resolve().parents) if path.is_dir())
        marker = None if config.run_url() else folder / f".shared-{os.getpid()}"
        try:
            admission = Admission(run_dir, marker, root=root, timeout_s=config.cluster.start_timeout_s)
            admission.query([node for node in nodes if not node.draining])
            admission.collect_replies(config.cluster.start_timeout_s)
        finally:
            if marker is not None:
                marker.unlink(missing_ok=True)
        numbers = {node_id: (float(left.get("CPU", 0)), float(left.get("GPU", 0))) for node_id, left in free.items()}
        return plan_on(nodes, numbers, admission.refused | admission.unable, config)
