"""What to do about a failed gang or job: pure functions from failure to decision. `node_record` remembers what nodes did."""

from dataclasses import dataclass, field
from enum import Enum


class Failure(Enum):
    """Kinds of endings of a gang or job that made no result. Each kind has a budget of its own."""

    CRASHED = "crashed"  # a process died or raised at work, on a node that answers: counts for the adapter and for the node
    EARLY = "failed at its start"  # the same before its first step: counts for the node
    NODE_GONE = "lost with its node"  # the node was preempted, drains, is gone or silent: counts for nobody
    HUNG = "hung"  # a process stopped answering or moving at work: counts for the node, and for the work in a budget of its own
    REFUSED = "refused"  # the trainer said why (data, configuration, loss); another attempt would fail likewise
    STOPPED = "stopped"  # it was asked to stop, and has checkpointed


class Decision(Enum):
    """What the coordinator does about a failure."""

    RESTART = "restart"  # only this adapter, from its last checkpoint; the others train on
    GIVE_UP = "give up"  # a data set is quarantined while the others finish; other work ends the run
    WAIT = "wait"  # until the others have stopped, too


@dataclass
class Budget:
    """The failures of one adapter, scoring or average.

    An early failure counts for a node alone, unless the same work has failed on another node, too: then the work is to blame.

    Attributes:
        max_failures: So many failures of the work's own are made good.
        num_failures: Failures of the work's own so far.
        num_hangs: Hangs so far, of which as many are made good.
    """

    max_failures: int
    num_failures: int = 0
    num_hangs: int = 0
    _failed_on: set[str] = field(default_factory=set)

    def decide(self, failure: Failure, node: str = "") -> Decision:
        """Counts a failure on `node`, "" where it is not known, and returns what follows."""
        if failure is Failure.STOPPED:
            return Decision.WAIT
        if failure is Failure.REFUSED:
            return Decision.GIVE_UP
        if failure is Failure.NODE_GONE:
            return Decision.RESTART
        if failure is Failure.HUNG:
            self.num_hangs += 1
            return Decision.RESTART if self.num_hangs <= self.max_failures else Decision.GIVE_UP
        elsewhere = bool(self._failed_on - {node})
        self._failed_on.add(node)
        if failure is Failure.CRASHED or elsewhere:
            self.num_failures += 1
        return Decision.RESTART if self.num_failures <= self.max_failures else Decision.GIVE_UP
