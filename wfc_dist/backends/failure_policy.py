"""What to do about a failed gang: status in, decision out. Pure."""

from dataclasses import dataclass
from enum import Enum


class Failure(Enum):
    """How a gang ended without an adapter."""

    LOST = "lost"  # a process or a node died, a heartbeat stopped
    REFUSED = "refused"  # the trainer said why, and would say so again
    STOPPED = "stopped"  # it was asked to, and has checkpointed


class Decision(Enum):
    """What follows."""

    RESTART = "restart"  # this gang only, from its last checkpoint; the others train on
    GIVE_UP = "give up"  # stop the others after a checkpoint and fail
    WAIT = "wait"  # let the others stop, too


@dataclass(frozen=True)
class FailurePolicy:
    """Bounds restarts per adapter.

    Attributes:
        max_failures: Lost gangs per adapter that are made good.
    """

    max_failures: int

    def decide(self, failure: Failure, num_failures: int) -> Decision:
        """Returns what follows when an adapter's gang fails for the `num_failures`-th time (1-based)."""
        if failure is Failure.STOPPED:
            return Decision.WAIT
        if failure is Failure.LOST and num_failures <= self.max_failures:
            return Decision.RESTART
        return Decision.GIVE_UP
