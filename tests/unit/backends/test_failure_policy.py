"""What follows when a gang fails."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wfc_dist.backends.failure_policy import Budget, Decision, Failure
from wfc_dist.backends.node_record import NodeRecord

COUNTED = (Failure.CRASHED, Failure.EARLY, Failure.NODE_GONE)


@pytest.mark.parametrize(
    ("failure", "before", "decision"),
    [
        (Failure.CRASHED, 0, Decision.RESTART),
        (Failure.CRASHED, 1, Decision.RESTART),
        (Failure.CRASHED, 2, Decision.GIVE_UP),
        (Failure.EARLY, 2, Decision.RESTART),
        (Failure.NODE_GONE, 9, Decision.RESTART),
        (Failure.REFUSED, 0, Decision.GIVE_UP),
        (Failure.STOPPED, 9, Decision.WAIT),
        (Failure.HUNG, 9, Decision.RESTART),
    ],
)
def test_failure_policy(failure: Failure, before: int, decision: Decision) -> None:
    assert Budget(2, before).decide(failure, "node1") is decision


def test_hangs_have_a_budget_of_their_own() -> None:
    budget = Budget(2)
    assert [budget.decide(Failure.HUNG, "node1") for _ in range(3)] == [Decision.RESTART, Decision.RESTART, Decision.GIVE_UP]
    assert budget.decide(Failure.CRASHED, "node1") is Decision.RESTART


@given(st.lists(st.tuples(st.sampled_from(COUNTED), st.sampled_from("xyz"))), st.integers(0, 5))
def test_kinds_are_counted_apart(failures: list[tuple[Failure, str]], max_failures: int) -> None:
    budget = Budget(max_failures)
    decisions = [budget.decide(failure, node) for failure, node in failures]
    crashes = sum(failure is Failure.CRASHED for failure, _ in failures)
    early = sum(failure is Failure.EARLY for failure, _ in failures)
    assert crashes <= budget.num_failures <= crashes + early
    assert (Decision.GIVE_UP in decisions) == (budget.num_failures > max_failures)
    if len({node for failure, node in failures if failure is not Failure.NODE_GONE}) == 1:
        assert budget.num_failures == crashes, "early failures on one node are the node's"


@given(num_nodes=st.integers(2, 30), max_failures=st.integers(0, 5), of_node=st.integers(1, 4))
def test_work_that_fails_everywhere_costs_few_nodes(num_nodes: int, max_failures: int, of_node: int) -> None:
    """A data set at which every trainer dies before its first step, on a cluster of good nodes."""
    budget, record = Budget(max_failures), NodeRecord(of_node, rest_s=1e6)
    nodes, num_attempts = [f"node{number}" for number in range(num_nodes)], 0
    while usable := [node for node in nodes if node not in record.left_out(0.0)]:
        num_attempts += 1
        record.failed(usable[0], "died", 0.0, at_start=True)
        if budget.decide(Failure.EARLY, usable[0]) is Decision.GIVE_UP:
            break
    assert num_attempts <= of_node + max_failures + 1
    assert len(record.left_out(0.0)) <= 1 + (max_failures + 1) / of_node
