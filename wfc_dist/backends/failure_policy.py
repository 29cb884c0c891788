"""What to do about a failed gang: a pure function from failure to decision."""

from enum import Enum


class Failure(Enum):
    """Kinds of endings of a gang that made no adapter."""

    LOST = "lost"  # a process or a node died
    REFUSED = "refused"  # the trainer said why; another attempt would fail likewise
    STOPPED = "stopped"  # the gang was asked to stop, and has checkpointed


class Decision(Enum):
    """What the coordinator does about a failure."""

    RESTART = "restart"  # only this adapter, from its last checkpoint; the others train on
    GIVE_UP = "give up"  # the others checkpoint and stop, the run fails
    WAIT = "wait"  # until the others have stopped, too


def decide(failure: Failure, num_failures: int, max_failures: int) -> Decision:
    """Returns what follows a gang's `num_failures`-th failure (1-based); a lost gang is replaced `max_failures` times."""
    if failure is Failure.STOPPED:
        return Decision.WAIT
    if failure is Failure.LOST and num_failures <= max_failures:
        return Decision.RESTART
    return Decision.GIVE_UP
