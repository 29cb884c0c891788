"""Which nodes may be used: those that see the run directory and the root model, run the same versions and can import them.

A node that would give other bytes, or does not see the files, is refused. A node that can start nothing is unable; it may be
queried again later.
"""

import importlib
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

from wfc_dist import activity, log
from wfc_dist.backends import net
from wfc_dist.backends.ray.cluster import address_of, wait_for_nodes
from wfc_dist.backends.ray.failures import one_line
from wfc_dist.backends.ray.placement import Node
from wfc_dist.errors import ConfigError
from wfc_dist.runs.store import RunStore

PACKAGES = ("wfc-dist", "torch", "transformers", "peft", "accelerate", "deepspeed")
NEEDED = ("torch", "transformers", "peft", "wfc_dist.backends.worker")
"""What a trainer imports before anything else."""
SILENT_S = 15.0
"""Seconds in which a node must answer after a process on it was lost."""


@dataclass(frozen=True)
class NodeFacts:
    """What one node reports about itself.

    Attributes:
        host, address, interface: Host name, IP in the cluster and the network interface that has it.
        versions: Python's and each package's version, "-" where it is not installed.
        marker: Content of the coordinator's marker file; None where the node does not see it.
        root: Whether the folder of the root model is there.
        broken: The module of `NEEDED` that cannot be imported, and the error; "" when all can, or when nobody tried.
    """

    host: str
    address: str
    interface: str
    versions: dict[str, str]
    marker: str | None
    root: bool
    broken: str = ""


def versions() -> dict[str, str]:
    """Returns package -> version; they must be equal everywhere, since the bytes of the result depend on them."""
    numbers = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            numbers[package] = version(package).partition("+")[0]  # CPU and CUDA builds of one version may meet
        except ModuleNotFoundError:
            numbers[package] = "-"
    return numbers


def import_error(modules: Sequence[str] = NEEDED) -> str:
    """Imports modules, and returns the first that cannot be imported with the last line of its error; "" when all can."""
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # a broken installation raises anything
            return f"{module}: {one_line(error)}"
    return ""


def node_facts(marker_file: str, root: str, try_imports: bool) -> NodeFacts:
    """Returns the facts of the node that runs this call.

    Args:
        marker_file: The coordinator's marker file; "" where there is none.
        root: Folder of the root model; "" where no folder must be seen.
        try_imports: Whether to import what a trainer needs. Package metadata does not say that this works.
    """
    address = ray.util.get_node_ip_address()
    try:
        marker = Path(marker_file).read_text(encoding="utf-8")
    except OSError:
        marker = None
    broken = import_error() if try_imports else ""
    is_root_there = not root or Path(root).exists()
    return NodeFacts(socket.gethostname(), address, net.interface_of(address) or "?", versions(), marker, is_root_there, broken)


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


@dataclass(frozen=True)
class _Query:
    """A query that was sent to a node.

    Attributes:
        reply: Reference to the reply.
        sent_s: When, `time.monotonic`.
        again: Whether the node was admitted before.
    """

    node: Node
    reply: Any
    sent_s: float
    again: bool


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
        unable: Node id -> why nothing can start on a node.
    """

    def __init__(self, run_dir: Path, marker: Path | None, *, root: str, timeout_s: float) -> None:
        self._run_dir, self._root, self._timeout_s = run_dir, root, timeout_s
        self._marker = marker.resolve() if marker else None
        self._content = place_marker(self._marker) if self._marker else None
        self._versions = versions()
        self._here = ray.get_runtime_context().get_node_id()
        self._asked: dict[str, _Query] = {}
        self.admitted: dict[str, NodeFacts] = {}
        self.refused: dict[str, str] = {}
        self.unable: dict[str, str] = {}

    def query(self, nodes: Sequence[Node]) -> None:
        """Sends the query to the nodes that have not been asked yet, and returns at once."""
        known = self.admitted.keys() | self.refused.keys() | self.unable.keys() | self._asked.keys()
        for node in nodes:
            if node.node_id not in known:
                self._ask(node, again=False)

    def query_again(self, node: Node) -> None:
        """Admits a node only once it has replied anew: a process there was lost, and Ray lists a dead node for a while.

        Sends a short query to an admitted node, and the whole one to a node that was unable.
        """
        was_admitted = self.admitted.pop(node.node_id, None) is not None
        if self.unable.pop(node.node_id, None) is not None or was_admitted:
            self._ask(node, again=was_admitted)

    def _ask(self, node: Node, *, again: bool) -> None:
        place = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        # One call a process: else one with all libraries in memory would stay on every node.
        remote = ray.remote(num_cpus=0, max_retries=0, max_calls=1)(node_facts).options(scheduling_strategy=place)
        try_imports = not again and node.node_id != self._here  # this process has imported them here
        reply = remote.remote(str(self._marker or ""), self._root, try_imports)
        self._asked[node.node_id] = _Query(node, reply, time.monotonic(), again)

    def in_doubt(self, node_id: str) -> bool:
        """Whether a node that was admitted before has not replied anew, and still has time to do so."""
        query = self._asked.get(node_id)
        return query is not None and query.again and time.monotonic() - query.sent_s < SILENT_S

    def silent(self) -> list[Node]:
        """Returns the nodes that were admitted before and have not replied in time. They are admitted once they reply."""
        return [query.node for node_id, query in self._asked.items() if query.again and not self.in_doubt(node_id)]

    def collect_replies(self, timeout_s: float = 0) -> None:
        """Judges the replies, after waiting up to `timeout_s` for all of them; a node that is silent for too long is unable."""
        if not self._asked:
            return
        replies = [query.reply for query in self._asked.values()]
        done = set(ray.wait(replies, num_returns=len(replies), timeout=timeout_s)[0])
        for query in list(self._asked.values()):
            if query.reply in done:
                del self._asked[query.node.node_id]
                self._judge(query)
            elif not query.again and time.monotonic() - query.sent_s >= self._timeout_s:
                del self._asked[query.node.node_id]
                self.unable[query.node.node_id] = f"{_called(query.node)} did not answer within {self._timeout_s:g} s"

    def _judge(self, query: _Query) -> None:
        node_id, called = query.node.node_id, _called(query.node)
        try:
            facts = ray.get(query.reply)
        except RayError as error:
            self.unable[node_id] = f"{called} cannot run wfc_dist: {one_line(error)}"
            return
        if why := refusal(facts, self._content, self._versions, self._run_dir, self._root):
            self.refused[node_id] = f"{called} {why}"
        elif facts.broken:
            self.unable[node_id] = f"{called} cannot import {facts.broken}"
        else:
            self.admitted[node_id] = facts

    def require(self, nodes: Sequence[Node]) -> None:
        """Queries `nodes` and waits for their replies.

        Raises:
            ConfigError: A node is refused, or no node is able; names every such node.
        """
        self.query(nodes)
        self.collect_replies(self._timeout_s)
        if self.refused or not self.admitted:
            raise ConfigError("; ".join((self.refused or self.unable).values()))


def _called(node: Node) -> str:
    return f"{node.name} ({node.address})"


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
    with activity.excused():  # `start_timeout_s` is its limit
        nodes = wait_for_nodes(cluster, say)
    root = store.manifest(0)["found"] if Path(store.config.base.model).is_dir() else ""
    marker = None if store.mirror.is_remote else store.paths.shared_marker
    admission = Admission(store.paths.run_dir, marker, root=root, timeout_s=cluster.start_timeout_s)
    with log.span("admission", phase="loading", num_nodes=len(nodes)), activity.excused():
        admission.require(nodes)
    for node in sorted(nodes, key=lambda node: node.name):
        if facts := admission.admitted.get(node.node_id):
            say(f"node {facts.host} ({facts.address}, {facts.interface}): {node.cpus:g} CPU, {node.gpus:g} GPU")
    return admission
