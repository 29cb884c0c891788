"""Connection to a Ray cluster, or to a node embedded in this program for the length of a run; the nodes of the cluster."""

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from wfc_dist.backends.ray import embedded, joined
from wfc_dist.backends.ray.embedded import NOBODY, User
from wfc_dist.backends.ray.placement import Node
from wfc_dist.backends.ray.start_limit import ends_after
from wfc_dist.config.cluster import ClusterConfig
from wfc_dist.errors import ConfigError, Interrupted

logger = logging.getLogger(__name__)
EMBEDDED_STORE_BYTES = 512 * 2**20
PROBE_TIMEOUT_S = 10.0
POLL_S = 1.0


def address_of(cluster: ClusterConfig) -> str | None:
    """Returns the address of the running cluster to use, or None for an embedded node."""
    return cluster.address or os.environ.get("RAY_ADDRESS")


def named_address(cluster: ClusterConfig) -> str:
    """Returns the address of the running cluster with where it comes from, for messages."""
    if cluster.address:
        return f"cluster.address {cluster.address}"
    return f"RAY_ADDRESS={address_of(cluster)} of the environment (unset it to use this machine, or set cluster.address)"


def prepare_environment(cluster: ClusterConfig) -> None:
    """Sets environment variables that Ray reads at import; the embedded node listens on the loopback address only."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address_of(cluster) is None:
        # Ray's switch for a node that stays alone, named after the systems where that is the default.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        # Ray would start a worker for each core, of which none is used, and would wait for them for ever where they start slowly.
        os.environ.setdefault("RAY_prestart_worker_first_driver", "0")


@contextlib.contextmanager
def connected(cluster: ClusterConfig, store_bytes: int = EMBEDDED_STORE_BYTES, user: User = NOBODY) -> Iterator[None]:
    """Connects to `cluster.address`, or starts an embedded node on loopback; disconnects, or ends it, at the end.

    Inside another such context of this process this one only has `user` told: several runs share one connection.

    Args:
        cluster: Has the address; without one `RAY_ADDRESS` counts, which `ray job submit` sets. `prepare_environment` must
            have been called.
        store_bytes: Size of the object store of an embedded node.
        user: Who is told when Ray is lost, or an embedded node is started again.

    Raises:
        ConfigError: No cluster answers at the address, or the cluster refuses the token or runs other versions of Ray or Python.
        Interrupted: The embedded node does not start.
    """
    address = address_of(cluster)
    require_reachable(cluster)
    import ray

    if ray.is_initialized():
        with embedded.used_by(user):
            yield
    elif address is None:
        with embedded.node(store_bytes, user):
            yield
    else:
        _join(address)
        try:
            with joined.watched(ray.get_runtime_context().gcs_address, user):
                yield
        finally:
            embedded.disconnect()


def _join(address: str) -> None:
    import ray
    from ray.exceptions import AuthenticationError

    on_term = signal.getsignal(signal.SIGTERM)
    too_long = f"the Ray cluster at {address} has not let this program in for minutes; look at its nodes; run again"
    try:
        with ends_after(embedded.START_LIMIT_S, too_long):
            ray.init(address=address, namespace="wfc_dist", log_to_driver=False, logging_level=logging.ERROR)
    except AuthenticationError as error:
        raise ConfigError(
            f"the Ray cluster at {address} refuses the token; set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's own"
        ) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _connection_error(address, error) from error
    if threading.current_thread() is threading.main_thread():  # elsewhere Python handles no signals, and ray.init takes none
        signal.signal(signal.SIGTERM, on_term)  # ray.init takes it, to end the process at once


def require_reachable(cluster: ClusterConfig) -> None:
    """Raises ConfigError when nobody answers at `cluster.address`, where Ray itself would try for minutes."""
    address = address_of(cluster)
    if address is None:
        return
    if address.startswith("ray://"):
        raise ConfigError(
            f"{named_address(cluster)}: Ray Client connections are not supported; "
            "start the run inside the cluster with `ray job submit --working-dir . -- wfc run CONFIG`"
        )
    host, _, port = address.rpartition(":")
    if not host:
        return  # "auto" and other names that Ray looks up itself
    try:
        with socket.create_connection((host, int(port)), timeout=PROBE_TIMEOUT_S):
            pass
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"no Ray cluster answers at {named_address(cluster)} ({error}); "
            "is it up (`ray status`), and is this the address of its GCS, by default port 6379?"
        ) from error


def _connection_error(address: str, error: Exception) -> ConfigError:
    if "Version mismatch" in str(error):
        facts = " ".join(str(error).split())
        return ConfigError(f"the Ray cluster at {address} runs other versions than this program: {facts}; make them equal")
    return ConfigError(  # a wrong token, a missing token and a machine that is no node look the same in Ray's error
        f"something answers at {address}, but this program cannot join it as a Ray cluster ({error}); start it on a node of the "
        "cluster, with RAY_AUTH_MODE=token and the cluster's own RAY_AUTH_TOKEN if it has one"
    )


def alive_nodes() -> list[Node]:
    """Returns the nodes of the connected cluster, with the resources and labels of each and whether the node is draining."""
    import ray
    from ray._private.state import state  # knows of drains as no public call does; ray.train reads it here, too

    draining = state.get_draining_nodes()
    return [
        Node(
            node["NodeID"],
            node["NodeManagerHostname"],
            node["Resources"].get("CPU", 0.0),
            node["Resources"].get("GPU", 0.0),
            node["NodeManagerAddress"],
            node.get("Labels") or {},
            node["NodeID"] in draining,
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def missing_nodes(wanted: int | Sequence[str], nodes: Sequence[Node]) -> str:
    """Returns the nodes of `cluster.wait_for_nodes` that have not joined, in words; "" when all have."""
    if isinstance(wanted, int):
        return f"{wanted - len(nodes)} more" if len(nodes) < wanted else ""
    short = {node.name.partition(".")[0] for node in nodes} | {node.address for node in nodes}
    return ", ".join(name for name in wanted if name.partition(".")[0] not in short and name not in short)


def wait_for_nodes(cluster: ClusterConfig, say: Callable[[str], None]) -> list[Node]:
    """Waits until the nodes of `cluster.wait_for_nodes` have joined, and returns all nodes but the draining ones.

    Raises:
        Interrupted: Some had not joined after `cluster.start_timeout_s`; names the nodes that are there and those missing.
    """
    end, told = time.monotonic() + cluster.start_timeout_s, ""
    while missing := missing_nodes(cluster.wait_for_nodes, nodes := [node for node in alive_nodes() if not node.draining]):
        there = ", ".join(sorted(f"{node.name} ({node.address})" for node in nodes)) or "none"
        if time.monotonic() > end:
            raise Interrupted(
                f"cluster.wait_for_nodes: after cluster.start_timeout_s = {cluster.start_timeout_s:g} s there are {there}; "
                f"missing: {missing}. Look at the Ray logs of the missing nodes, or lower "
                "cluster.wait_for_nodes; the same command tries again"
            )
        if missing != told:
            say(f"waiting for nodes: {missing}; there are {there}")
            told = missing
        time.sleep(POLL_S)
    return nodes
