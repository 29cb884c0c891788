"""The nodes of a run on Ray: which may get a process now, which are left out and why, and what became of one where work died."""

import time
from collections.abc import Callable, Collection, Sequence
from enum import Enum
from typing import Any

from wfc_dist.backends.node_failures import NodeFailures
from wfc_dist.backends.ray.admission import Admission
from wfc_dist.backends.ray.cluster import alive_nodes
from wfc_dist.backends.ray.placement import Node
from wfc_dist.errors import GangFailedError, Interrupted
from wfc_dist.progress import Display
from wfc_dist.runs.store import RunStore

POLL_NODES_S = 2.0


class Fate(Enum):
    """What became of the nodes on which a process was lost."""

    HERE = "here"  # they answer: the failure is that of the process
    GONE = "gone"  # one drains, is gone or does not answer


class Nodes:
    """Knows the nodes that Ray lists, which of them are admitted (see `Admission`), and what failed where (see `NodeFailures`).

    Args:
        store: The opened run.
        display: Shows what is left out.
        admission: Decides which nodes may be used; None where there is only the embedded node.

    Attributes:
        admitted: Nodes that may be used, those that drain included.
    """

    def __init__(self, store: RunStore, display: Display, admission: Admission | None = None) -> None:
        self._display, self._admission = display, admission
        self._failures = NodeFailures(store, display, self.name)
        self._listed: dict[str, Node] = {}
        self._names: dict[str, str] = {}
        self._polled_s = float("-inf")
        self._told: dict[str, str] = {}
        self._silent: set[str] = set()
        self.admitted: list[Node] = []

    # --- which nodes there are

    def poll(self, *, every_s: float = 0) -> bool:
        """Lists the nodes, queries new ones and those whose rest is over; does nothing within `every_s` of the last time.

        Returns:
            Whether the nodes were listed.
        """
        if time.monotonic() - self._polled_s < every_s:
            return False
        nodes, self._polled_s = alive_nodes(), time.monotonic()
        self._listed = {node.node_id: node for node in nodes}
        self._names |= {node.node_id: node.name for node in nodes}
        self.admitted = nodes if self._admission is None else self._judged(self._admission, nodes)
        self._failures.show()
        return True

    def hurry(self) -> None:
        """Makes the next `poll` list the nodes at once."""
        self._polled_s = float("-inf")

    def _judged(self, admission: Admission, nodes: Sequence[Node]) -> list[Node]:
        resting = self._failures.resting()
        for node_id in admission.unable.keys() & self._listed.keys():
            if node_id not in resting and node_id in self._told:  # its rest is over
                del self._told[node_id]
                admission.query_again(self._listed[node_id])
        admission.query([node for node in nodes if not node.draining])
        admission.collect_replies()
        for node_id, why in (admission.refused | admission.unable).items():
            if node_id in self._told or node_id not in self._listed:
                continue
            self._told[node_id] = why
            if node_id in admission.unable:
                self._failures.failed(node_id, why, at_start=True, at_once=True)
            else:
                self._display.say(f"not used: {why}")
        self._tell_silent(admission)
        return [node for node in nodes if node.node_id in admission.admitted]

    def _tell_silent(self, admission: Admission) -> None:
        silent = {node.node_id for node in admission.silent()} & self._listed.keys()
        for node_id in silent - self._silent:
            self._failures.say(node_id, "Ray lists it, but it does not answer; it is used again once it does", None)
        self._silent = silent

    def name(self, node_id: str) -> str:
        """Returns a node's host name, also of one that is gone."""
        return self._names.get(node_id, node_id)

    def say(self, text: str) -> None:
        """Shows one line."""
        self._display.say(text)

    # --- which may be used now

    def free(self) -> list[Node]:
        """Returns the admitted nodes that neither pause nor are left out; some may drain."""
        free = set(self._failures.free(self._ids()))
        return [node for node in self.admitted if node.node_id in free]

    def better_than_none(self) -> list[Node]:
        """Returns the nodes of `free`, and those on which processes start though work died there again and again."""
        better = set(self._failures.better_than_none(self._ids()))
        return [node for node in self.admitted if node.node_id in better]

    def _ids(self) -> list[str]:
        return [node.node_id for node in self.admitted]

    def all_but(self, nodes: Sequence[Node]) -> list[str]:
        """Returns the ids of all other nodes that Ray lists: a gang must go to none of them, whatever room Ray sees there."""
        return sorted(self._listed.keys() - {node.node_id for node in nodes})

    def undecided(self) -> bool:
        """Whether a node may become usable soon, without anybody's help: it pauses, or has still to reply."""
        resting = self._failures.resting()
        known = self._admission.refused.keys() | self._admission.unable.keys() if self._admission else set()
        listed = {node_id for node_id, node in self._listed.items() if not node.draining}
        return bool(listed - set(self._ids()) - known - self._silent) or any(
            resting[node_id].paused for node_id in resting.keys() & self._listed.keys()
        )

    # --- what happened where

    def doubt(self, places: Collection[str]) -> None:
        """Queries nodes on which a process was lost: they get no process, and their fate is not known, until they reply."""
        self.poll()
        if self._admission is None:
            return
        for node_id in set(places) & {node.node_id for node in self.admitted if not node.draining}:
            self._admission.query_again(self._listed[node_id])
        self.hurry()

    def fate(self, places: Collection[str]) -> Fate | None:
        """Returns what became of nodes, as of the last `poll`; None while one of them has still to reply."""
        staying = {node.node_id for node in self.admitted if not node.draining}
        if staying.issuperset(places):
            return Fate.HERE
        away = set(places) - staying
        if self._admission is not None and any(node_id in self._listed and self._admission.in_doubt(node_id) for node_id in away):
            return None
        return Fate.GONE

    def await_fate(self, places: Collection[str], pause: Callable[[], Any]) -> Fate:
        """Returns what became of nodes; polls, and calls `pause` in between, until that is known."""
        while (fate := self.fate(places)) is None:
            pause()
            self.poll()
        return fate

    def failed(self, node_id: str, reason: str, *, at_start: bool, at_once: bool = False) -> None:
        """Counts a failure on a node (see `NodeFailures.failed`)."""
        self._failures.failed(node_id, reason, at_start=at_start, at_once=at_once)

    def worked(self, places: Collection[str]) -> None:
        """Notes that work has got somewhere, and clears the record of nodes on which it came to its end."""
        self._failures.worked(places)

    def none_left(self) -> GangFailedError | Interrupted | None:
        """Returns the error that names every node that is left out or silent, with the reason; None where none is."""
        return self._failures.none_left({self.name(node_id): "does not answer" for node_id in self._silent})
