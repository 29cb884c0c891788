"""Exceptions that come from other processes: what kind of failure one is, its cause, and its text in one line."""

from ray.exceptions import RayTaskError

from wfc_dist.backends.failure_policy import Failure
from wfc_dist.errors import IntegrityError, Interrupted, WfcError


def classify(error: BaseException) -> tuple[Failure, BaseException]:
    """Returns what kind of failure an exception of a worker is, and the error inside Ray's wrapping.

    A rank that failed because another one is gone counts as lost, too.
    """
    cause = error.cause if isinstance(error, RayTaskError) and isinstance(error.cause, BaseException) else error
    if isinstance(cause, Interrupted):
        return Failure.STOPPED, cause
    if isinstance(cause, WfcError) and not isinstance(cause, IntegrityError):
        return Failure.REFUSED, cause
    return Failure.LOST, cause


def one_line(error: BaseException) -> str:
    """Returns the type and the last line of an exception's text; the last line of a remote traceback says what happened."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:300]
