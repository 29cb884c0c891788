"""Asks the nodes of a cluster whether their processors calculate in bfloat16: the coordinator's may be of another kind."""

import time

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from wfc_dist import activity
from wfc_dist.backends.ray.fleet import POLL_S
from wfc_dist.backends.ray.nodes import Nodes
from wfc_dist.backends.ray.placement import Need, room
from wfc_dist.runs.precision import has_bf16
from wfc_dist.runs.store import RunStore


def nodes_with_bf16(store: RunStore, nodes: Nodes) -> dict[str, bool]:
    """Returns host -> whether its processor, or the GPU that a worker gets there, calculates in bfloat16.

    A node without room for a worker is left out, and so is one that does not answer within `cluster.start_timeout_s`.

    Raises:
        Interrupted: A stop was asked for.
    """
    cluster = store.config.cluster
    need = Need(cluster.cpus_per_worker, cluster.gpus_per_worker, cluster.node_labels)
    # One call a process: else one that holds memory of a GPU would stay on the node.
    remote = ray.remote(num_cpus=0, num_gpus=need.gpus, max_retries=0, max_calls=1)(has_bf16)
    nodes.poll()
    asked = {}
    for node in nodes.admitted:
        if room(node, need):
            place = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
            asked[remote.options(scheduling_strategy=place).remote(need.gpus > 0)] = node.name
    found: dict[str, bool] = {}
    end = time.monotonic() + cluster.start_timeout_s
    with activity.excused():  # `start_timeout_s` is its limit
        while asked and time.monotonic() < end:
            store.raise_if_stopped("before the first round")
            for reply in ray.wait(list(asked), num_returns=len(asked), timeout=POLL_S)[0]:
                name = asked.pop(reply)
                try:
                    found[name] = ray.get(reply) and found.get(name, True)
                except RayError:  # a node that is lost trains nothing
                    continue
    for reply in asked:
        ray.cancel(reply, force=True)
    return found
