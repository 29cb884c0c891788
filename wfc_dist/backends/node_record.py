"""Remembers failures by node, and says which nodes are left out. Pure: the time is given in, and nothing is started."""

from collections.abc import Iterable
from dataclasses import dataclass

PAUSE_S = 5.0
"""Pause of a node after its first failed start; it doubles with each further one until the node is left out."""
MOST_DOUBLINGS = 6


@dataclass(frozen=True)
class LeftOut:
    """A node that gets no process for a while.

    Attributes:
        reason: The last failure there, in the words of the process that failed.
        until_s: When the rest ends, on the clock of the caller.
        num_failures: Failures in a row.
        at_start: Whether the last failure was one of a start; else something died at work.
        paused: Whether this is the pause between two starts, and the node has failures left.
    """

    reason: str
    until_s: float
    num_failures: int
    at_start: bool
    paused: bool


class NodeRecord:
    """The failures of every node.

    After `max_failures` failures in a row a node is left out for `rest_s`, then tried once; each further failure doubles the
    rest. Work that comes to its end on a node clears its record. So does a time of `rest_s` after a rest without a failure.

    Args:
        max_failures: Failures in a row after which a node is left out.
        rest_s: For how long, in seconds.
    """

    def __init__(self, max_failures: int, rest_s: float) -> None:
        self._max_failures, self._rest_s = max_failures, rest_s
        self._rests: dict[str, LeftOut] = {}

    def failed(self, node: str, reason: str, now_s: float, *, at_start: bool) -> LeftOut:
        """Counts a failure on a node. Returns its rest, which may be over at once, with `paused` for no more than a pause.

        What fails on a node that is left out was started there before: its rest stays as it is.
        """
        before = self._rests.get(node)
        if before is not None and not before.paused and now_s < before.until_s:
            return before
        in_a_row = 1 if before is None or now_s > before.until_s + self._rest_s else before.num_failures + 1
        return self._rest(node, reason, now_s, in_a_row, at_start)

    def unable(self, node: str, reason: str, now_s: float) -> LeftOut:
        """Leaves out a node of which it is known that nothing can start there, without waiting for `max_failures` failures."""
        before = self._rests.get(node)
        in_a_row = max(self._max_failures, before.num_failures + 1 if before else 0)
        return self._rest(node, reason, now_s, in_a_row, at_start=True)

    def _rest(self, node: str, reason: str, now_s: float, in_a_row: int, at_start: bool) -> LeftOut:
        beyond = in_a_row - self._max_failures
        if beyond >= 0:
            length_s = self._rest_s * 2 ** min(beyond, MOST_DOUBLINGS)
        else:
            length_s = min(self._rest_s, PAUSE_S * 2 ** min(in_a_row - 1, MOST_DOUBLINGS)) if at_start else 0.0
        rest = self._rests[node] = LeftOut(reason, now_s + length_s, in_a_row, at_start, paused=beyond < 0)
        return rest

    def worked(self, node: str) -> None:
        """Clears the record of a node on which work came to its end."""
        self._rests.pop(node, None)

    def resting(self, now_s: float) -> dict[str, LeftOut]:
        """Returns node -> rest, pauses included, of the nodes that get nothing now."""
        return {node: rest for node, rest in self._rests.items() if now_s < rest.until_s}

    def left_out(self, now_s: float) -> dict[str, LeftOut]:
        """Returns node -> rest of the nodes that are left out now, without those that only pause."""
        return {node: rest for node, rest in self.resting(now_s).items() if not rest.paused}

    def free(self, nodes: Iterable[str], now_s: float) -> list[str]:
        """Returns the nodes that may get a process now, in the given order."""
        resting = self.resting(now_s)
        return [node for node in nodes if node not in resting]

    def better_than_none(self, nodes: Iterable[str], now_s: float) -> list[str]:
        """Returns the nodes of `free`, and those left out on which processes start, though work died there.

        Where nothing fits on free nodes, these are better than none: the budget of the work bounds the attempts.
        """
        resting = self.resting(now_s)
        return [node for node in nodes if node not in resting or not resting[node].at_start]
