"""What must be true of a node before a trainer goes there: it sees the run directory and runs the same code."""

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

from wfc_dist.backends import net
from wfc_dist.backends.ray.placement import Node
from wfc_dist.errors import ConfigError

PACKAGES = ("wfc-dist", "torch", "transformers", "peft", "accelerate", "deepspeed")


@dataclass(frozen=True)
class NodeFacts:
    """What one node says of itself.

    Attributes:
        host, address, interface: Host name, IP in the cluster and the network interface that has it.
        versions: Python's and each package's version, "-" where it is not installed.
        marker: Content of the coordinator's marker file; None where the run directory is not the same.
        root: Whether the root model's folder is there.
    """

    host: str
    address: str
    interface: str
    versions: dict[str, str]
    marker: str | None
    root: bool


def versions() -> dict[str, str]:
    """Returns the versions that must be equal everywhere: they are part of the result's bytes."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package).partition("+")[0]  # CPU and CUDA builds of one version may meet
        except ModuleNotFoundError:
            found[package] = "-"
    return found


def node_facts(marker_file: str, root: str) -> NodeFacts:
    """Runs on a node. `root` is a folder, or empty where there is nothing to see."""
    address = ray.util.get_node_ip_address()
    try:
        marker = Path(marker_file).read_text(encoding="utf-8")
    except OSError:
        marker = None
    return NodeFacts(
        socket.gethostname(), address, net.interface_of(address) or "?", versions(), marker, not root or Path(root).exists()
    )


def place_marker(path: Path) -> str:
    """Writes a fresh marker to `path` and returns its content."""
    content = uuid4().hex
    path.write_text(content, encoding="utf-8")
    return content


def refusal(seen: NodeFacts, marker: str | None, here: dict[str, str], run_dir: Path, root: str) -> str | None:
    """Returns why a node may not be used, or None. Pure."""
    if marker is not None and seen.marker != marker:
        return f"does not see the run directory {run_dir.resolve()}; put run.dir on a shared file system or on object storage"
    if not seen.root:
        return f"does not see the root model {root}; put base.model where every node sees it, or name a hub model"
    other = [
        f"{name} {seen.versions.get(name)} (here {number})" for name, number in here.items() if seen.versions.get(name) != number
    ]
    return f"runs other versions: {', '.join(other)}; they are part of the result" if other else None


class Admission:
    """Asks nodes and remembers their answers.

    Args:
        run_dir: The run directory, as every process names it.
        marker: File that every node must see with the content given here; None where they need not share a folder.
        root: Folder of the root model; empty where it is not one.
        timeout_s: What a node has to answer.

    Attributes:
        seen: Node id -> what a node that may be used said.
        refused: Node id -> why one may not.
    """

    def __init__(self, run_dir: Path, marker: Path | None, *, root: str, timeout_s: float) -> None:
        self._run_dir, self._root, self._timeout_s = run_dir, root, timeout_s
        self._marker = marker.resolve() if marker else None
        self._content = place_marker(self._marker) if self._marker else None
        self._versions = versions()
        self._asked: dict[str, tuple[Node, Any, float]] = {}
        self.seen: dict[str, NodeFacts] = {}
        self.refused: dict[str, str] = {}

    def query(self, nodes: Sequence[Node]) -> None:
        """Sends the question to the nodes not asked before; returns at once."""
        known = self.seen.keys() | self.refused.keys() | self._asked.keys()
        for node in nodes:
            if node.node_id not in known:
                place = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
                remote = ray.remote(num_cpus=0, max_retries=0)(node_facts).options(scheduling_strategy=place)
                answer = remote.remote(str(self._marker or ""), self._root)
                self._asked[node.node_id] = (node, answer, time.monotonic())

    def collect_replies(self, timeout_s: float = 0) -> None:
        """Takes the answers there are, waiting `timeout_s` for all; a node that is silent for too long is refused."""
        if not self._asked:
            return
        answers = [answer for _, answer, _ in self._asked.values()]
        done = set(ray.wait(answers, num_returns=len(answers), timeout=timeout_s)[0])
        for node, answer, asked_s in list(self._asked.values()):
            if answer in done:
                why = self._judge(node, answer)
            elif time.monotonic() - asked_s >= self._timeout_s:
                why = f"did not answer within {self._timeout_s:g} s"
            else:
                continue
            del self._asked[node.node_id]
            if why:
                self.refused[node.node_id] = f"{node.name} ({node.address}) {why}"

    def _judge(self, node: Node, answer: Any) -> str | None:
        try:
            seen = ray.get(answer)
        except RayError as error:
            return f"cannot run wfc_dist: {_last_line(error)}"
        why = refusal(seen, self._content, self._versions, self._run_dir, self._root)
        if why is None:
            self.seen[node.node_id] = seen
        return why

    def require(self, nodes: Sequence[Node]) -> None:
        """Asks `nodes`, waits for their answers, and raises ConfigError that names every one that may not be used."""
        self.query(nodes)
        self.collect_replies(self._timeout_s)
        if self.refused:
            raise ConfigError("; ".join(self.refused.values()))


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1][:300]


def announce(admission: Admission, nodes: list[Node], say: Callable[[str], None]) -> None:
    """Says what each admitted node is."""
    for node in sorted(nodes, key=lambda node: node.name):
        seen = admission.seen.get(node.node_id)
        if seen:
            say(f"node {seen.host} ({seen.address}, {seen.interface}): {node.cpus:g} CPU, {node.gpus:g} GPU")
