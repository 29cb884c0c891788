"""Values of a comparison's rows: means over seeds, paired differences, verdicts."""

import json

import numpy as np
import pytest

from wfc_dist.compare.results import (
    SystemRow,
    Value,
    _differences,
    _finite,
    _value,
    _values,
    _verdict,
    num_marks,
    over_seeds,
    spread,
)
from wfc_dist.evaluation.continual import FIGURES
from wfc_dist.evaluation.intervals import TOO_FEW, WIDTH, Estimated
from wfc_dist.evaluation.rates import Rates


def figure(rate: float, *without: float) -> Rates:
    """Returns a figure with a unit for every further number: the figure without that unit."""
    return np.array([rate, *without, *[np.nan] * (WIDTH - len(without))])


def compared(ours: dict[int, dict[str, Rates]], theirs: dict[int, dict[str, Rates]], name: str = "new") -> Value:
    found = _differences(ours, theirs, 0.95).get(name)
    return _value(name, _values(ours, 0.95)[name], found, found and found.p, 0.95)


def test_seeds_are_averaged_and_their_spread_is_told() -> None:
    seeds = [{"new": figure(0.1, 0.1, 0.2)}, {"new": figure(0.3, 0.2, 0.4), "fwt": figure(1.0)}]
    assert over_seeds(seeds)["new"][:3] == pytest.approx([0.2, 0.15, 0.3])
    assert list(over_seeds(seeds)) == ["new"]
    assert spread(seeds, "new") == pytest.approx(np.std([0.1, 0.3], ddof=1))
    assert spread(seeds[:1], "new") is None


def test_a_difference_is_paired_over_units_and_over_the_seeds_that_both_have() -> None:
    noise = [0.01 * (number % 5 - 2) for number in range(20)]
    ours = {1: {"new": figure(0.2, *(0.2 + each for each in noise))}, 2: {"new": figure(0.4, *(0.4 - each for each in noise))}}
    theirs = {1: {"new": figure(0.25, *(0.25 + 1.1 * each for each in noise))}}

    value = compared(ours, theirs)

    assert value.value == pytest.approx(0.3)
    error = np.sqrt(19 / 20 * sum((0.1 * each) ** 2 for each in noise))
    assert (value.difference, value.difference_low) == pytest.approx((-0.05, -0.05 - 2.093024 * error))  # t of 19
    assert value.verdict == "better" and value.p is not None and value.p < 1e-5 and value.num_units == 20


def test_few_units_decide_nothing() -> None:
    for number, verdict in ((9, TOO_FEW), (10, "better")):
        noise = [0.001 * (place % 3) for place in range(number)]
        value = compared({1: {"new": figure(0.2, *(0.2 + each for each in noise))}}, {1: {"new": figure(0.3, *[0.3] * number)}})
        assert value.difference == pytest.approx(-0.1) and value.verdict == verdict


def test_marks_are_corrected_for_all_differences_of_a_comparison() -> None:
    estimated = Estimated(-0.1, -0.19, -0.01, 0.03, 20)
    mean = _values({1: {"new": figure(0.2, 0.1, 0.3)}}, 0.95)["new"]
    alone, one_of_two = (_value("new", mean, estimated, p, 0.95) for p in (0.03, 0.06))
    assert (alone.verdict, one_of_two.verdict) == ("better", "same")
    assert num_marks([SystemRow("a", "", [1], 1, 0.0, {"new": alone, "own": one_of_two})]) == 2


def test_what_is_no_number_is_null_in_json() -> None:
    text = json.dumps(_finite({"value": float("inf"), "low": 0.1, "high": float("nan"), "verdict": "same"}), allow_nan=False)
    assert json.loads(text) == {"value": None, "low": 0.1, "high": None, "verdict": "same"}


def test_without_columns_nothing_is_better_or_worse() -> None:
    value = compared({1: {"new": np.array([0.2])}}, {1: {"new": np.array([0.3])}})
    assert value.difference == pytest.approx(-0.1)
    assert (value.difference_low, value.difference_high, value.p, value.verdict) == (None, None, None, "same")


@pytest.mark.parametrize("rate", [np.inf, np.nan])
def test_what_is_no_number_is_neither_better_nor_worse(rate: float) -> None:
    ours, theirs = {1: {"new_relative": figure(rate)}}, {1: {"new_relative": figure(np.inf)}}
    value = compared(ours, theirs, "new_relative")
    assert (value.difference, value.difference_low, value.verdict) == (None, None, "same")


@pytest.mark.parametrize(
    ("marked", "error", "gain"),
    [("lower", "better", "worse"), ("higher", "worse", "better"), ("same", "same", "same"), (TOO_FEW, TOO_FEW, TOO_FEW)],
)
def test_verdicts(marked: str, error: str, gain: str) -> None:
    assert _verdict("new", marked) == error
    assert {_verdict(name, marked) for name, figure in FIGURES.items() if figure.higher_is_better} == {gain}
