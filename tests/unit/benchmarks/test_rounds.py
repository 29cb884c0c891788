"""What the turnaround benchmark makes of the events of a run."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))

import rounds

from wfc_dist.reports.timeline import Span, turnaround_moments

SPANS = [
    Span("coordinator", "factorize", 10, 41), Span("g0", "first_step", 20, 20), Span("g0", "train", 19, 40),
    Span("coordinator", "commit_adapter", 40.5, 41), Span("coordinator", "centralize", 41, 43),
    Span("c0", "average", 41.1, 41.5), Span("c1", "average", 41.1, 41.6), Span("c0", "merge", 41.6, 42.9),
    Span("coordinator", "commit_base", 43.1, 43.3), Span("coordinator", "broadcast", 43.3, 44.3), Span("g0", "receive", 43.5, 44),
    Span("g0", "train", 45, 60), Span("g0", "first_step", 46, 46),
]  # fmt: skip


def test_the_parts_of_a_turnaround_add_up_to_it() -> None:
    ((from_s, to_s),) = turnaround_moments(SPANS)

    found = rounds.parts(SPANS, from_s, to_s)

    expected = {"adapter": 1, "average": 0.5, "merge": 1.5, "commit": 0.2, "broadcast": 1, "to_first_step": 1.8}
    assert found == pytest.approx(expected)
    assert sum(found.values()) == pytest.approx(to_s - from_s)


def test_a_cold_start_lasts_until_the_first_step_of_the_first_round() -> None:
    assert rounds.cold_start_s(SPANS) == (10, 20)
