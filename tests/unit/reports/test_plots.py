"""The bars of a lane of the timeline: what is seen, whatever the number of spans."""

import pytest

from wfc_dist.reports.plots import lane_bars
from wfc_dist.reports.timeline import Span


def span(start_s: float, end_s: float, phase: str, *, beside: bool = False) -> Span:
    return Span("p", "name", start_s, end_s, "", phase, beside)


def test_inner_spans_cover_outer_ones_and_all_cover_what_is_done_beside() -> None:
    spans = [span(0, 10, "training"), span(4, 6, "checkpoint"), span(0, 15, "loading", beside=True)]

    bars = lane_bars(spans, 15.0)

    assert [phase for _, _, phase in bars] == ["training", "checkpoint", "training", "loading"]
    assert [place for bar in bars for place in bar[:2]] == pytest.approx([0, 4, 4, 2, 6, 4, 10, 5])


def test_a_long_run_has_no_more_bars_than_a_screen_has_columns_and_short_spans_stay_visible() -> None:
    spans = [span(number, number + 1e-6, ("training", "merging")[number % 2]) for number in range(20_000)]

    bars = lane_bars(spans, 20_000.0)

    assert 2 <= len(bars) <= 1500
    assert sum(width for _, width, _ in bars) == pytest.approx(20_000)
    (bar,) = lane_bars([span(1.0, 1.1, "training")], 3e6)
    assert bar == (0.0, 2000.0, "training"), "one column wide"
