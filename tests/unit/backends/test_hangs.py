"""Which work counts as hung, and which of its ranks that is due to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wfc_dist.activity import Activity
from wfc_dist.backends.hangs import LEAST_S, TIMES_SLOWEST, Limits, RankState, hang_of

LIMITS = Limits(60.0, start_s=300.0)


def at_step(step: int, **facts: object) -> Activity:
    return Activity(doing="train", step=step, is_steady=True, **facts)  # type: ignore[arg-type]


def test_the_limit_is_what_is_configured() -> None:
    assert LIMITS.limit_s([at_step(3, slowest_s=50.0)]) == 60.0


def test_before_its_first_step_work_may_take_as_long_as_a_start() -> None:
    assert LIMITS.limit_s([]) == LIMITS.limit_s([Activity(doing="load_base")]) == 300.0
    assert LIMITS.limit_s([Activity(doing="load_base"), at_step(1)]) == 60.0
    assert Limits(900.0, start_s=300.0).limit_s([]) == 900.0


def test_auto_goes_by_the_slowest_step_of_all_ranks() -> None:
    assert Limits("auto", 300.0).limit_s([at_step(3, slowest_s=2.0)]) == LEAST_S
    assert Limits("auto", 300.0).limit_s([at_step(3, slowest_s=2.0), at_step(3, slowest_s=100.0)]) == 100.0 * TIMES_SLOWEST


def test_work_that_moves_or_is_slow_is_no_hang() -> None:
    assert hang_of([RankState(0, 0.0, 59.0, at_step(3)), RankState(1, 0.5, 0.0, at_step(3))], LIMITS) is None
    assert hang_of([RankState(0, 299.0, 0.0)], LIMITS) is None, "it may be starting"


def test_a_stopped_rank_is_named_and_not_those_that_wait_for_it() -> None:
    states = [RankState(0, 0.0, 60.0, at_step(7)), RankState(1, 58.0, 0.4, at_step(7)), RankState(2, 0.0, 60.2, at_step(7))]
    hang = hang_of(states, LIMITS)
    assert hang is not None and hang.state.rank == 1
    assert "rank 1 on node2 has not answered for 58 s, last seen in train after step 7" in str(hang.error("a", "node2"))
    assert hang.facts() == {"rank": 1, "step": 7, "phase": "train"}


def test_the_rank_that_reads_a_file_is_named_with_the_file() -> None:
    reader = at_step(6, reading="/mnt/a.wav", reading_s=61.0)
    busy = at_step(6, reading="/mnt/b.wav", reading_s=0.1)
    hang = hang_of([RankState(0, 0.0, 61.0, busy), RankState(1, 0.0, 61.0, reader)], LIMITS)
    assert hang is not None and hang.facts()["file"] == "/mnt/a.wav"
    said = str(hang.error("a", "node2"))
    assert "rank 1 on node2 has not moved for 61 s in train after step 6, reading /mnt/a.wav; look at the file" in said


def test_of_a_stuck_collective_the_rank_with_the_least_steps_is_named() -> None:
    hang = hang_of([RankState(0, 0.0, 61.0, at_step(7)), RankState(1, 0.0, 61.0, at_step(6))], LIMITS)
    assert hang is not None and hang.state.rank == 1


STATES = st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 1e4), st.booleans(), st.integers(0, 9)), min_size=1, max_size=5)


@given(STATES, st.floats(1, 1e3), st.floats(1, 1e3))
def test_who_is_named_has_passed_half_the_limit(
    rows: list[tuple[float, float, bool, int]], limit_s: float, start_s: float
) -> None:
    states = [
        RankState(rank, silent_s, still_s, at_step(step) if answered else None) if answered else RankState(rank, silent_s, 0.0)
        for rank, (silent_s, still_s, answered, step) in enumerate(rows)
    ]
    limits = Limits(limit_s, start_s)
    hang = hang_of(states, limits)
    late = [state for state in states if max(state.silent_s, state.still_s) >= limits.limit_s([s.said for s in states if s.said])]
    assert (hang is not None) == bool(late)
    if hang is not None:
        assert str(hang.state.rank) in str(hang.error("a", "here"))


@pytest.mark.parametrize("value", [0, -1, "never"])
def test_the_key_takes_seconds_or_auto(value: object) -> None:
    from pydantic import ValidationError

    from wfc_dist.config.cluster import ClusterConfig

    with pytest.raises(ValidationError, match="hang_timeout_s"):
        ClusterConfig(hang_timeout_s=value)  # type: ignore[arg-type]
