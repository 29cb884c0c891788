"""Which nodes are left out, and for how long."""

from hypothesis import given
from hypothesis import strategies as st

from wfc_dist.backends.node_record import MOST_DOUBLINGS, PAUSE_S, NodeRecord

EVENTS = st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from(["start", "work", "done"]), st.floats(0, 2000)))


def play(record: NodeRecord, events: list[tuple[str, str, float]]) -> float:
    """Plays (node, what happens, seconds since the event before), and returns the time at the end."""
    now_s = 0.0
    for node, what, after_s in events:
        now_s += after_s
        if what == "done":
            record.worked(node)
        else:
            record.failed(node, what, now_s, at_start=what == "start")
    return now_s


def test_a_node_is_left_out_after_failures_in_a_row_and_tried_again() -> None:
    record = NodeRecord(2, rest_s=100)
    first = record.failed("x", "no torch", 0.0, at_start=True)
    assert first.paused and record.resting(PAUSE_S - 1) and not record.resting(PAUSE_S) and not record.left_out(0.0)
    second = record.failed("x", "no torch", 10.0, at_start=True)
    assert not second.paused and record.left_out(10.0) == {"x": second} and second.reason == "no torch"
    assert record.failed("x", "another trainer that was there", 11.0, at_start=False) is second
    assert record.free(["x", "y"], 109.0) == ["y"] and record.free(["x", "y"], 110.0) == ["x", "y"]
    assert record.failed("x", "no torch", 111.0, at_start=True).until_s == 111 + 200, "the second rest is twice as long"
    assert record.failed("x", "no torch", 311 + 101.0, at_start=True).paused, "so long without a failure: a new beginning"


def test_a_node_on_which_work_dies_is_better_than_none() -> None:
    record = NodeRecord(1, rest_s=100)
    record.failed("x", "killed", 0.0, at_start=False)
    record.failed("y", "no torch", 0.0, at_start=True)
    assert record.better_than_none(["x", "y"], 1.0) == ["x"]
    assert record.free(["x", "y", "z"], 1.0) == ["z"]


def test_a_node_of_which_it_is_known_is_left_out_at_once() -> None:
    record = NodeRecord(3, rest_s=100)
    assert record.unable("x", "no torch", 0.0).until_s == 100
    assert record.unable("x", "no torch", 100.0).until_s == 300
    record.worked("x")
    assert record.free(["x"], 0.0) == ["x"]


@given(EVENTS, st.integers(1, 4))
def test_nodes_are_counted_apart(events: list[tuple[str, str, float]], max_failures: int) -> None:
    together, alone = NodeRecord(max_failures, 1000), NodeRecord(max_failures, 1000)
    end_s = play(together, events)
    now_s = 0.0
    for node, what, after_s in events:
        now_s += after_s
        if node == "x":
            alone.worked("x") if what == "done" else alone.failed("x", what, now_s, at_start=what == "start")
    assert together.resting(end_s).get("x") == alone.resting(end_s).get("x")


@given(EVENTS, st.integers(1, 4))
def test_a_rest_is_bounded_and_work_ends_it(events: list[tuple[str, str, float]], max_failures: int) -> None:
    record = NodeRecord(max_failures, 1000)
    end_s = play(record, events)
    for node, rest in record.resting(end_s).items():
        assert rest.until_s <= end_s + 1000 * 2**MOST_DOUBLINGS
        assert rest.paused == (rest.num_failures < max_failures)
        record.worked(node)
    assert record.free("xyz", end_s) == ["x", "y", "z"]


@given(st.integers(1, 4), st.floats(10, 1000), st.floats(0.1, 10))
def test_a_node_on_which_every_start_fails_is_tried_a_few_times_only(max_failures: int, rest_s: float, start_s: float) -> None:
    record, now_s, num_starts = NodeRecord(max_failures, rest_s), 0.0, 0
    while now_s < 60 * rest_s:
        now_s += start_s
        num_starts += 1
        now_s = record.failed("x", "no torch", now_s, at_start=True).until_s
    assert num_starts <= max_failures + 7
