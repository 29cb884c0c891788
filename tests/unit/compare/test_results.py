"""Values of a comparison's rows: means over seeds, paired differences, verdicts."""

import json

import numpy as np
import pytest

from wfc_dist.compare.results import _finite, _values, _verdict, over_seeds, spread
from wfc_dist.evaluation.continual import FIGURES
from wfc_dist.evaluation.rates import Rates


def figure(rate: float, *draws: float) -> Rates:
    return np.array([rate, *(draws or (rate, rate))])


def test_seeds_are_averaged_and_their_spread_is_told() -> None:
    seeds = [{"new": figure(0.1, 0.1, 0.2)}, {"new": figure(0.3, 0.2, 0.4), "fwt": figure(1.0)}]
    assert over_seeds(seeds)["new"] == pytest.approx([0.2, 0.15, 0.3])
    assert list(over_seeds(seeds)) == ["new"]
    assert spread(seeds, "new") == pytest.approx(np.std([0.1, 0.3], ddof=1))
    assert spread(seeds[:1], "new") is None


def test_a_difference_is_paired_over_draws_and_over_the_seeds_that_both_have() -> None:
    ours = {1: {"new": figure(0.2, 0.1, 0.3)}, 2: {"new": figure(0.4, 0.3, 0.5)}}
    theirs = {1: {"new": figure(0.25, 0.13, 0.37)}}
    value = _values(ours, theirs, 0.95)["new"]
    assert value.value == pytest.approx(0.3)
    assert (value.difference, value.difference_low, value.difference_high) == pytest.approx((-0.05, -0.069, -0.031))
    assert value.verdict == "better"


def test_draws_that_are_no_number_are_left_out() -> None:
    draws = np.array([0.1, 0.2, np.inf, 0.3, np.inf, np.nan])  # of the root, a draw without an error
    value = _values({1: {"new_relative": np.zeros(6)}}, {1: {"new_relative": -draws}}, 0.95)["new_relative"]
    assert (value.difference, value.verdict) == (pytest.approx(0.1), "worse")
    assert value.difference_low is not None and 0 < value.difference_low < value.difference_high < 0.3 + 1e-9
    assert (_values({1: {"new_relative": draws}}, None, 0.95)["new_relative"].high) == pytest.approx(0.2975)


def test_one_clip_decides_nothing() -> None:
    value = _values({1: {"new": figure(0.2)}}, {1: {"new": figure(0.3)}}, 0.95)["new"]  # all its draws are the same
    assert value.difference == pytest.approx(-0.1) and value.verdict == "same"


def test_what_is_no_number_is_null_in_json() -> None:
    text = json.dumps(_finite({"value": float("inf"), "low": 0.1, "high": float("nan"), "verdict": "same"}), allow_nan=False)
    assert json.loads(text) == {"value": None, "low": 0.1, "high": None, "verdict": "same"}


def test_without_draws_nothing_is_better_or_worse() -> None:
    value = _values({1: {"new": np.array([0.2])}}, {1: {"new": np.array([0.3])}}, 0.95)["new"]
    assert value.difference == pytest.approx(-0.1)
    assert (value.difference_low, value.difference_high, value.verdict) == (None, None, "same")


@pytest.mark.parametrize("rate", [np.inf, np.nan])
def test_what_is_no_number_is_neither_better_nor_worse(rate: float) -> None:
    ours, theirs = {1: {"new_relative": figure(rate)}}, {1: {"new_relative": figure(np.inf)}}
    value = _values(ours, theirs, 0.95)["new_relative"]
    assert (value.difference, value.difference_low, value.verdict) == (None, None, "same")


@pytest.mark.parametrize(
    ("low", "high", "error", "gain"),
    [(-2.0, -1.0, "better", "worse"), (1.0, 2.0, "worse", "better"), (-1.0, 1.0, "same", "same"), (None, None, "same", "same")],
)
def test_verdicts(low: float | None, high: float | None, error: str, gain: str) -> None:
    assert _verdict("new", low, high) == error
    assert {_verdict(name, low, high) for name, figure in FIGURES.items() if figure.higher_is_better} == {gain}
