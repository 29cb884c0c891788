"""Which nodes may be used: those that see the run directory and the root model, and run the same versions."""

import platform
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from wfc_dist import log
from wfc_dist.backends import net
from wfc_dist.backends.ray.cluster import address_of, wait_for_nodes
from wfc_dist.backends.ray.failures import one_line
from wfc_dist.backends.ray.placement import Node
from wfc_dist.errors import ConfigError
from wfc_dist.runs.store import RunStore

PACKAGES = ("wfc-dist", "torch", "transformers", "peft", "accelerate", "deepspeed")


@dataclass(frozen=True)
class NodeFacts:
    """What one node reports about itself.

    Attributes:
        host, address, interface: Host name, IP in the cluster and the network interface that has it.
        versions: Python's and each package's version, "-" where it is not installed.
        marker: Content of the coordinator's marker file; None where the node does not see it.
        root: Whether the folder of the root model is there.
    """

    host: str
    address: str
    interface: str
    versions: dict[str, str]
    marker: str | None
    root: bool


def versions() -> dict[str, str]:
    """Returns package -> version; they must be equal everywhere, since the bytes of the result depend on them."""
    numbers = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            numbers[package] = version(package).partition("+")[0]  # CPU and CUDA builds of one version may meet
        except ModuleNotFoundError:
            numbers[package] = "-"
    return numbers


def node_facts(marker_file: str, root: str) -> NodeFacts:
    """Returns the facts of the node that runs this call. `root` is a folder, or "" where no folder must be seen."""
    address = ray.util.get_node_ip_address()
    try:
        marker = Path(marker_file).read_text(encoding="utf-8")
    except OSError:
        marker = None
    return NodeFacts(
        socket.gethostname(), address, net.interface_of(address) or "?", versions(), marker, not root or Path(root).exists()
    )


def place_marker(path: Path) -> str:
    """Writes a new random marker to `path` and returns its content."""
    content = uuid4().hex
    path.write_text(content, encoding="utf-8")
    return content


def refusal(facts: NodeFacts, marker: str | None, here: dict[str, str], run_dir: Path, root: str) -> str | None:
    """Returns why a node may not be used, or None. Pure."""
    if marker is not None and facts.marker != marker:
        return f"does not see the run directory {run_dir.resolve()}; put run.dir on a shared file system or on object storage"
    if not facts.root:
        return f"does not see the root model {root}; put base.model where every node sees it, or name a hub model"
    other = {name: facts.versions.get(name) for name, number in here.items() if facts.versions.get(name) != number}
    named = ", ".join(f"{name} {number} (here {here[name]})" for name, number in other.items())
    return f"runs other versions: {named}; they are part of the result" if other else None


class Admission:
    """Queries nodes and remembers their replies.

    Args:
        run_dir: The run directory, as every process names it.
        marker: File that every node must see with the content written here; None where nodes need not share a folder.
        root: Folder of the root model; "" where the root model is no folder.
        timeout_s: How long a node has to reply.

    Attributes:
        admitted: Node id -> facts of a node that may be used.
        refused: Node id -> why a node may not be used.
    """

    def __init__(self, run_dir: Path, marker: Path | None, *, root: str, timeout_s: float) -> None:
        self._run_dir, self._root, self._timeout_s = run_dir, root, timeout_s
        self._marker = marker.resolve() if marker else None
        self._content = place_marker(self._marker) if self._marker else None
        self._versions = versions()
        self._asked: dict[str, tuple[Node, Any, float]] = {}
        self.admitted: dict[str, NodeFacts] = {}
        self.refused: dict[str, str] = {}

    def query(self, nodes: Sequence[Node]) -> None:
        """Sends the query to the nodes that have not been asked yet, and returns at once."""
        known = self.admitted.keys() | self.refused.keys() | self._asked.keys()
        for node in nodes:
            if node.node_id not in known:
                place = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
                remote = ray.remote(num_cpus=0, max_retries=0)(node_facts).options(scheduling_strategy=place)
                reply = remote.remote(str(self._marker or ""), self._root)
                self._asked[node.node_id] = (node, reply, time.monotonic())

    def collect_replies(self, timeout_s: float = 0) -> None:
        """Judges the replies, after waiting up to `timeout_s` for all of them; a node that is silent for too long is refused."""
        if not self._asked:
            return
        replies = [reply for _, reply, _ in self._asked.values()]
        done = set(ray.wait(replies, num_returns=len(replies), timeout=timeout_s)[0])
        for node, reply, asked_s in list(self._asked.values()):
            if reply in done:
                why = self._judge(node, reply)
            elif time.monotonic() - asked_s >= self._timeout_s:
                why = f"did not answer within {self._timeout_s:g} s"
            else:
                continue
            del self._asked[node.node_id]
            if why:
                self.refused[node.node_id] = f"{node.name} ({node.address}) {why}"

    def _judge(self, node: Node, reply: Any) -> str | None:
        try:
            facts = ray.get(reply)
        except RayError as error:
            return f"cannot run wfc_dist: {one_line(error)}"
        why = refusal(facts, self._content, self._versions, self._run_dir, self._root)
        if why is None:
            self.admitted[node.node_id] = facts
        return why

    def require(self, nodes: Sequence[Node]) -> None:
        """Queries `nodes` and waits for their replies. Raises ConfigError that names every node that may not be used."""
        self.query(nodes)
        self.collect_replies(self._timeout_s)
        if self.refused:
            raise ConfigError("; ".join(self.refused.values()))


def admit(store: RunStore, say: Callable[[str], None]) -> Admission | None:
    """Waits for the nodes that the configuration asks for, checks each and says one line about it.

    Returns:
        What decides about nodes that come later; None for the embedded node, which is this machine.

    Raises:
        ConfigError: A node is missing or may not be used.
    """
    cluster = store.config.cluster
    if address_of(cluster) is None:
        return None
    nodes = wait_for_nodes(cluster, say)
    root = store.manifest(0)["found"] if Path(store.config.base.model).is_dir() else ""
    marker = None if store.mirror.is_remote else store.paths.shared_marker
    admission = Admission(store.paths.run_dir, marker, root=root, timeout_s=cluster.start_timeout_s)
    with log.span("admission", phase="loading", num_nodes=len(nodes)):
        admission.require(nodes)
    for node in sorted(nodes, key=lambda node: node.name):
        if facts := admission.admitted.get(node.node_id):
            say(f"node {facts.host} ({facts.address}, {facts.interface}): {node.cpus:g} CPU, {node.gpus:g} GPU")
    return admission
