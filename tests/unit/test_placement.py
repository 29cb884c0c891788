"""Where gangs go, and what follows when one fails: pure decisions."""

import pytest

from wfc_dist.backends.failure_policy import Decision, Failure, FailurePolicy
from wfc_dist.backends.ray.placement import Need, Node, plan_gangs
from wfc_dist.errors import ConfigError

NODES = [Node("n1", "node1", 8, 2), Node("n2", "node2", 8, 2), Node("n3", "node3", 4, 0)]


def test_gangs_go_to_different_nodes_first() -> None:
    assert plan_gangs(NODES, Need(2, 0), 1, 3) == [["n1"], ["n2"], ["n3"]]
    assert plan_gangs(NODES, Need(2, 0), 1, 5) == [["n1"], ["n2"], ["n3"], ["n1"], ["n2"]]


def test_a_gang_stays_on_one_node_when_it_fits() -> None:
    assert plan_gangs(NODES, Need(2, 1), 2, 9) == [["n1", "n1"], ["n2", "n2"]]
    assert plan_gangs(NODES, Need(1, 1), 3, 9) == [["n1", "n1", "n2"]]  # three GPUs are on no one node


def test_fractional_gpus_share_a_device() -> None:
    assert len(plan_gangs(NODES, Need(1, 0.5), 1, 99)) == 8


def test_fewer_gangs_where_there_is_less_room() -> None:
    assert plan_gangs([Node("n", "n", 3, 0)], Need(2, 0), 1, 4) == [["n"]]


def test_what_does_not_fit_is_refused_with_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r"one needs 2 x \(8 CPU, 2 GPU\).*node3: 4 CPU, 0 GPU"):
        plan_gangs(NODES[2:], Need(8, 2), 2, 1)
    with pytest.raises(ConfigError, match="no node"):
        plan_gangs([], Need(1, 0), 1, 1)


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
    assert FailurePolicy(max_failures=2).decide(failure, count) is decision
