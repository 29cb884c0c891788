"""Connecting to a Ray cluster, or starting one on this machine for the length of a run."""

import contextlib
import logging
import os
from collections.abc import Iterator

from wfc_dist.backends.ray.placement import Node
from wfc_dist.config import ClusterConfig
from wfc_dist.errors import ConfigError

logger = logging.getLogger(__name__)
EMBEDDED_STORE_BYTES = 512 * 2**20


def _address(cluster: ClusterConfig) -> str | None:
    return cluster.address or os.environ.get("RAY_ADDRESS")


def prepare_environment(cluster: ClusterConfig) -> None:
    """Sets what Ray reads when it is imported; the embedded node takes the loopback address and listens nowhere else."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if _address(cluster) is None:
        # Ray's switch for a node that will stay alone, named after the systems where that is the default.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


@contextlib.contextmanager
def connected(cluster: ClusterConfig, store_bytes: int = EMBEDDED_STORE_BYTES) -> Iterator[None]:
    """Connects to `cluster.address`, or starts an embedded node on loopback; disconnects, or ends it, at the end.

    Args:
        cluster: Where; `RAY_ADDRESS` counts too, as `ray job submit` sets it. `prepare_environment` came first.
        store_bytes: Size of an embedded node's object store.

    Raises:
        ConfigError: No cluster answers at the address, or it refuses the token.
    """
    address = _address(cluster)
    import ray
    from ray.exceptions import AuthenticationError

    try:
        if address:
            ray.init(address=address, log_to_driver=False, namespace="wfc_dist", logging_level=logging.ERROR)
        else:
            ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                object_store_memory=store_bytes,
                logging_level=logging.ERROR,
            )
    except AuthenticationError as error:
        raise ConfigError(
            f"the Ray cluster at {address} refuses the token; set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's own"
        ) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"no Ray cluster answers at {address or 'this machine'}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def alive_nodes() -> list[Node]:
    """Returns the nodes of the connected cluster and what each offers in all."""
    import ray

    return [
        Node(node["NodeID"], node["NodeManagerHostname"], node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        for node in ray.nodes()
        if node["Alive"]
    ]
