"""Which nodes of the site the next job must keep off, since jobs failed there."""

from wfc_dist.backends.node_failures import NodeFailures
from wfc_dist.backends.slurm import client
from wfc_dist.config.cluster import ClusterConfig


def excluded(failures: NodeFailures, cluster: ClusterConfig) -> list[str]:
    """Returns the nodes for `--exclude`, in order.

    Raises:
        GangFailedError, Interrupted: No node of the partition would be left; names each with its last failure.
        SlurmError: Slurm does not answer.
    """
    failures.show()
    left_out = failures.left_out()
    if not left_out:
        return []
    by_user = client.host_names(str(cluster.slurm.parameters.get("exclude", "")))
    site = [node for node in client.node_names(cluster.slurm.partition) if node not in by_user]
    if failures.free(site):
        return sorted(left_out)
    spared = failures.better_than_none(site)
    if site and not spared and (error := failures.none_left({})):
        raise error
    return sorted(left_out.keys() - set(spared))
