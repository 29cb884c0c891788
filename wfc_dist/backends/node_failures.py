"""The failures of the nodes of one attempt (see `node_record`), with the clock, the ledger and the live table."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta, timezone

from wfc_dist.backends.node_record import LeftOut, NodeRecord
from wfc_dist.errors import GangFailedError, Interrupted
from wfc_dist.progress import Display
from wfc_dist.runs.store import RunStore

logger = logging.getLogger(__name__)
START_LIMIT = "cluster.start_timeout_s"
"""The key that the reason of a start names which took too long."""


class NodeFailures:
    """Remembers what failed on which node. The ledger, the log and the live table say which node is left out, why and how long.

    Args:
        store: The opened run.
        display: Shows what is left out.
        name: Returns the host name of a node.

    Attributes:
        has_worked: Whether work has come to its first step, or to its end, on any node in this attempt.
    """

    def __init__(self, store: RunStore, display: Display, name: Callable[[str], str] = str) -> None:
        self._store, self._display, self._name = store, display, name
        self._max_failures = store.config.cluster.node_failures
        self._record = NodeRecord(self._max_failures, store.config.cluster.node_rest_s)
        self.has_worked = False

    def failed(self, node: str, reason: str, *, at_start: bool, at_once: bool = False) -> None:
        """Counts a failure on a node.

        Args:
            node: The node; nothing is counted for "".
            reason: What the process said last.
            at_start: Whether it failed before its first step.
            at_once: Whether the node is left out, whatever was before.
        """
        if not node:
            return
        now_s = time.monotonic()
        was_left_out = node in self._record.left_out(now_s)
        rest = (
            self._record.unable(node, reason, now_s) if at_once else self._record.failed(node, reason, now_s, at_start=at_start)
        )
        if not rest.paused and not was_left_out:
            self.say(node, reason, rest)

    def say(self, node: str, reason: str, rest: LeftOut | None) -> None:
        """Says that a node is left out, until the end of its `rest` where it has one."""
        name, left_s = self._name(node), rest.until_s - time.monotonic() if rest else None
        until = None
        if left_s is not None:
            until = (datetime.now(timezone.utc) + timedelta(seconds=left_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._store.ledger.record("node_left_out", node=name, reason=reason, until=until)
        logger.warning("%s is left out until %s: %s", name, until, reason)
        self._display.say(
            f"{name} is left out: {reason}" if left_s is None else f"{name} is left out for {left_s:.0f} s: {reason}"
        )
        self.show()

    def show(self) -> None:
        """Brings the live table up to date."""
        self._display.left_out = {self._name(node): rest.reason for node, rest in self.left_out().items()}

    def worked(self, nodes: Iterable[str]) -> None:
        """Clears the record of nodes on which work came to its end."""
        self.has_worked = True
        for node in nodes:
            self._record.worked(node)

    def resting(self) -> dict[str, LeftOut]:
        """See `NodeRecord.resting`."""
        return self._record.resting(time.monotonic())

    def left_out(self) -> dict[str, LeftOut]:
        """See `NodeRecord.left_out`."""
        return self._record.left_out(time.monotonic())

    def free(self, nodes: Iterable[str]) -> list[str]:
        """See `NodeRecord.free`."""
        return self._record.free(nodes, time.monotonic())

    def better_than_none(self, nodes: Iterable[str]) -> list[str]:
        """See `NodeRecord.better_than_none`."""
        return self._record.better_than_none(nodes, time.monotonic())

    def none_left(self, others: Mapping[str, str]) -> GangFailedError | Interrupted | None:
        """Returns the error that names every node that is left out, with its last failure; None where none is.

        Args:
            others: Host name -> why a node cannot be used that this record does not know of.

        Returns:
            `Interrupted` where the same command can go on, since this attempt has got somewhere.
        """
        reasons = {self._name(node): rest.reason for node, rest in self.left_out().items()} | dict(others)
        if not reasons:
            return None
        each = "; ".join(f"{name}: {reason}" for name, reason in sorted(reasons.items()))
        message = f"no node is left for the work (cluster.node_failures = {self._max_failures}): {each}"
        slow = f"raise {START_LIMIT} if it is only slow" if any(START_LIMIT in reason for reason in reasons.values()) else ""
        if self.has_worked:
            return Interrupted(f"{message}. The same command goes on{f'; {slow}' if slow else ''}")
        return GangFailedError(f"{message}. Repair a node{f', or {slow}' if slow else ''}, then run the same command")
