"""What follows when a gang fails."""

import pytest

from wfc_dist.backends.failure_policy import Decision, Failure, decide


@pytest.mark.parametrize(
    ("failure", "count", "decision"),
    [
        (Failure.LOST, 1, Decision.RESTART),
        (Failure.LOST, 2, Decision.RESTART),
        (Failure.LOST, 3, Decision.GIVE_UP),
        (Failure.REFUSED, 1, Decision.GIVE_UP),
        (Failure.STOPPED, 9, Decision.WAIT),
    ],
)
def test_failure_policy(failure: Failure, count: int, decision: Decision) -> None:
    assert decide(failure, count, max_failures=2) is decision
