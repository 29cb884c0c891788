"""Exceptions that come from other processes: what kind of failure one is, its cause, and its text in one line."""

from collections.abc import Sequence
from typing import TypeVar

from ray.exceptions import RayTaskError

from wfc_dist.backends.failure_policy import Failure
from wfc_dist.errors import HungError, IntegrityError, Interrupted, WfcError

T = TypeVar("T", bound=BaseException)


def classify(error: BaseException) -> tuple[Failure, BaseException]:
    """Returns what kind of failure an exception of a worker is, and the error inside Ray's wrapping.

    A rank that failed because another one is gone counts as crashed, too.
    """
    cause = error.cause if isinstance(error, RayTaskError) and isinstance(error.cause, BaseException) else error
    if isinstance(cause, Interrupted):
        return Failure.STOPPED, cause
    if isinstance(cause, HungError):
        return Failure.HUNG, cause
    if isinstance(cause, WfcError) and not isinstance(cause, IntegrityError):
        return Failure.REFUSED, cause
    return Failure.CRASHED, cause


def one_line(error: BaseException) -> str:
    """Returns the type and the last line of an exception's text; the last line of a remote traceback says what happened."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:300]


def culprit(errors: Sequence[tuple[int, T]]) -> tuple[int, T]:
    """Returns the rank that made a gang fail, and its error, from (rank, error) in the order in which they were seen.

    A rank whose process ended made the others fail, whose own errors are of the connection to it.
    """
    return next((pair for pair in errors if not isinstance(pair[1], RayTaskError)), errors[0])


def kind_of_crash(cause: BaseException, *, has_worked: bool) -> Failure:
    """Returns whose failure it is when a process crashed on a node that answers.

    Args:
        cause: Its error. What the program itself found wrong, such as a damaged base, is found on any node.
        has_worked: Whether the process had made a step before.
    """
    return Failure.CRASHED if has_worked or isinstance(cause, WfcError) else Failure.EARLY
