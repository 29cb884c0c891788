"""What an exception of another process means."""

import pytest
from ray.exceptions import RayActorError, RayError, RayTaskError

from wfc_dist.backends.failure_policy import Failure
from wfc_dist.backends.ray.failures import classify, culprit, kind_of_crash, one_line
from wfc_dist.errors import IntegrityError, Interrupted, TrainingError


def raised(cause: Exception) -> RayError:
    """Returns what `ray.get` raises for an exception of a worker."""
    return RayTaskError("train", "Traceback\n  here\n", cause).as_instanceof_cause()


@pytest.mark.parametrize(
    ("error", "failure", "cause"),
    [
        (raised(Interrupted("checkpointed")), Failure.STOPPED, Interrupted),
        (raised(TrainingError("loss is nan")), Failure.REFUSED, TrainingError),
        (raised(IntegrityError("not the bytes")), Failure.CRASHED, IntegrityError),
        (raised(OSError("disk")), Failure.CRASHED, OSError),
        (RayActorError(), Failure.CRASHED, RayActorError),
    ],
)
def test_the_cause_says_what_kind_of_failure_it_is(error: RayError, failure: Failure, cause: type) -> None:
    kind, inner = classify(error)
    assert kind is failure and isinstance(inner, cause)


def test_a_traceback_is_told_by_its_last_line() -> None:
    assert one_line(ValueError("Traceback (most recent call last):\n  here\nKeyError: 'x'\n\n")) == "ValueError: KeyError: 'x'"
    assert one_line(ValueError()) == "ValueError: "


def test_the_rank_that_died_made_the_others_fail() -> None:
    closed, died = raised(RuntimeError("Connection closed by peer")), RayActorError()
    assert culprit([(0, closed), (1, died)]) == (1, died)
    assert culprit([(1, closed), (0, raised(ImportError("torch")))]) == (1, closed), "the first that was seen"


def test_what_the_program_found_wrong_is_no_failure_of_a_node() -> None:
    assert kind_of_crash(IntegrityError("not the bytes"), has_worked=False) is Failure.CRASHED
    assert kind_of_crash(OSError("disk"), has_worked=False) is Failure.EARLY
    assert kind_of_crash(OSError("disk"), has_worked=True) is Failure.CRASHED
