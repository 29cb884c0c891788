"""Where gangs go, and what follows when one fails: pure decisions."""

from wfc_dist.backends.ray.placement import Need, Node, nothing_fits, plan_gangs, room

NODES = [Node("n1", "node1", 8, 2), Node("n2", "node2", 8, 2), Node("n3", "node3", 4, 0)]


def test_gangs_go_to_different_nodes_first() -> None:
    assert plan_gangs(NODES, Need(2, 0), 1, 3) == [["n1"], ["n2"], ["n3"]]
    assert plan_gangs(NODES, Need(2, 0), 1, 5) == [["n1"], ["n2"], ["n3"], ["n1"], ["n2"]]


def test_a_gang_stays_on_one_node_when_it_fits() -> None:
    assert plan_gangs(NODES, Need(2, 1), 2, 9) == [["n1", "n1"], ["n2", "n2"]]
    assert plan_gangs(NODES, Need(1, 1), 3, 9) == [["n1", "n1", "n2"]]  # three GPUs are on no one node


def test_fractional_gpus_share_a_device() -> None:
    assert len(plan_gangs(NODES, Need(1, 0.5), 1, 99)) == 8


def test_a_part_of_a_gpu_lies_on_one_gpu() -> None:
    assert room(Node("n", "n", 99, 2), Need(1, 0.4)) == 4  # not five: the fifth would be torn
    assert room(Node("n", "n", 99, 2), Need(1, 0.5)) == 4
    assert room(Node("n", "n", 99, 3), Need(1, 2)) == 1


def test_fewer_gangs_where_there_is_less_room() -> None:
    assert plan_gangs([Node("n", "n", 3, 0)], Need(2, 0), 1, 4) == [["n"]]
    assert plan_gangs([Node("n", "n", 3, 0)], Need(4, 0), 1, 4) == []


def test_gangs_that_are_there_already_take_their_room() -> None:
    assert plan_gangs(NODES, Need(2, 0), 1, 2, taken=["n1", "n2"]) == [["n3"], ["n1"]]
    assert plan_gangs(NODES, Need(4, 0), 1, 9, taken=["n1", "n1", "n3"]) == [["n2"], ["n2"]]
    assert plan_gangs(NODES[:1], Need(8, 0), 1, 1, taken=["n1", "gone"]) == []


def test_only_nodes_with_the_labels_that_stay_get_gangs() -> None:
    fast = {"accelerator": "H100"}
    nodes = [Node("a", "a", 4, 0, labels=fast), Node("b", "b", 4, 0), Node("c", "c", 4, 0, labels=fast, draining=True)]
    need = Need(4, 0, fast)
    assert plan_gangs(nodes, need, 1, 9) == [["a"]]
    said = str(nothing_fits(nodes[1:], need, 1))
    assert "b: 4 CPU, 0 GPU (not accelerator=H100)" in said and "c: 4 CPU, 0 GPU (draining)" in said


def test_what_does_not_fit_is_refused_with_what_there_is() -> None:
    error = nothing_fits(NODES[2:], Need(8, 2), 2)
    assert error.exit_code == 2
    assert "one needs 2 x (8 CPU, 2 GPU), there is node3: 4 CPU, 0 GPU" in str(error)
    assert "no node" in str(nothing_fits([], Need(1, 0), 1))
