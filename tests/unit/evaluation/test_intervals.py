"""Units, standard errors against plain loops, degrees of freedom by hand, and Holm's correction."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wfc_dist.evaluation import student
from wfc_dist.evaluation.intervals import (
    TOO_FEW,
    WIDTH,
    Estimated,
    columns_without_each,
    corrected,
    estimated,
    holm,
    mark,
    spread,
    units_of,
)


def rates(errors, words, units=None, place=0, num_sets=1):
    """Returns a rate with its columns, in the block `place` of `num_sets`."""
    above, below = np.array(errors), np.array(words)
    units = np.arange(len(errors)) if units is None else np.array(units)
    made = np.full(1 + num_sets * WIDTH, above.sum() / below.sum())
    made[1 + place * WIDTH :][:WIDTH] = columns_without_each(above, below, units)
    return made


def test_a_window_is_a_unit_and_a_group_joins_windows() -> None:
    assert units_of([1, 3, 2]).tolist() == [0, 1, 1, 1, 2, 2]
    assert units_of([1, 1, 1, 1], [("a",), ("b",), ("a",), ()]).tolist() == [0, 1, 0, 2]
    assert units_of([2, 1, 2, 1], [("a", "b"), ("c",), ("b", "d"), ("d",)]).tolist() == [0, 0, 1, 0, 0, 0], "a and d by way of b"
    assert units_of([1, 1], [("",), ("",)]).tolist() == [0, 1], "no group is not a group"
    assert units_of([]).tolist() == []


@given(st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=3), min_size=1, max_size=8))
def test_units_are_the_connected_parts(groups: list[list[str]]) -> None:
    found = units_of(list(map(len, groups)), groups)
    of_group: dict[str, set[int]] = {}
    for unit, name in zip(found, [name for names in groups for name in names], strict=True):
        of_group.setdefault(name, set()).add(int(unit))
    assert all(len(units) == 1 for units in of_group.values())
    assert sorted({*found.tolist()}) == list(range(found.max() + 1))
    parts: list[set[str]] = []
    for names in groups:
        joined = [part for part in parts if part & {*names}]
        parts = [part for part in parts if not part & {*names}] + [{*names}.union(*joined)]
    assert len(parts) == found.max() + 1


def test_the_error_is_that_of_a_plain_jackknife_of_each_set() -> None:
    rng = np.random.default_rng(3)
    sets = [(rng.poisson(3, size), rng.integers(5, 20, size)) for size in (12, 30)]
    figure = sum(rates(*each, place=place, num_sets=2) for place, each in enumerate(sets)) / 2
    variances = []
    for errors, words in sets:
        without = [(errors.sum() - e) / (words.sum() - n) / 2 for e, n in zip(errors, words, strict=True)]
        variances.append((len(errors) - 1) / len(errors) * np.sum((without - np.mean(without)) ** 2))

    error, freedom = spread(figure, "difference")

    assert float(error) == pytest.approx(np.sqrt(sum(variances)), rel=1e-9)
    assert float(freedom) == pytest.approx(sum(variances) ** 2 / (variances[0] ** 2 / 11 + variances[1] ** 2 / 29), rel=1e-9)
    assert estimated(figure, 0.95, "difference").num_units == 42


def test_the_error_of_a_mean_is_the_textbooks() -> None:
    errors = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5])
    found = estimated(rates(errors, [10] * 11), 0.9, "difference")
    reach = student.quantile(0.9, 10) * np.std(errors, ddof=1) / np.sqrt(11) / 10
    assert (found.low, found.high) == pytest.approx((found.value - reach, found.value + reach))
    assert found.p == pytest.approx(student.both_tails(found.value / (reach / student.quantile(0.9, 10)), 10))


def test_of_one_seed_only_units_count_and_of_equal_seeds_too() -> None:
    figure = rates([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5], [10] * 11)
    alone = estimated(figure, 0.9, "rate")
    assert estimated(figure, 0.9, "rate", [0.4]) == alone
    assert estimated(figure, 0.9, "rate", [0.4, 0.4, 0.4])[:3] == pytest.approx(alone[:3])


def test_intervals_over_seeds_and_units_hold_the_true_value_of_both() -> None:
    rng, true, held, of_units, trials = np.random.default_rng(4), 0.5, 0, 0, 800
    for _ in range(trials):
        clips = rng.normal(0, 0.3, size=60)
        seeds = [true + clips + rng.normal(0, 0.05) + rng.normal(0, 0.1, size=60) for _ in range(3)]
        columns = [rates(np.rint(1000 * errors), [1000] * 60) for errors in seeds]
        mean = np.mean(columns, axis=0)
        found = estimated(mean, 0.95, "difference", [float(one[0]) for one in columns])
        alone = estimated(mean, 0.95, "difference")
        held += found.low < true < found.high
        of_units += alone.low < true < alone.high
    assert 0.93 <= held / trials <= 0.98
    assert of_units / trials < 0.92, "units alone do not hold what other seeds change"


def test_a_p_and_its_interval_agree() -> None:
    for shift in (0.0, 0.02, 0.05, 0.1):
        figure = rates([4, 5, 6, 5, 4, 6, 5, 7, 3, 5, 5, 6], [10] * 12) - (0.5 + shift)
        found = estimated(figure, 0.95, "difference")
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high)


def test_rates_and_relative_changes_have_intervals_around_their_logarithms() -> None:
    first, second = rates([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5], [10] * 11), rates([2, 1, 2, 1, 4, 6, 1, 6, 2, 3, 1], [10] * 11)
    rate, change = estimated(first, 0.95, "rate"), estimated(second / first - 1, 0.95, "change")
    assert rate.low > 0 and rate.low * rate.high == pytest.approx(rate.value**2)
    assert change.low > -1 and (1 + change.low) * (1 + change.high) == pytest.approx((1 + change.value) ** 2)
    assert (rate.p, change.p) == (None, None)


def test_errors_of_few_units_have_few_degrees_of_freedom() -> None:
    plain, looped = np.array([1, 2] * 50), np.array([1, 2] * 49 + [200, 150])
    freedoms = [float(spread(rates(errors, [10] * 100), "rate").freedom) for errors in (plain, looped)]
    assert freedoms[0] == 99 and 3 < freedoms[1] < 5, "two units make the variance"
    assert float(spread(rates(looped, [10] * 100), "difference").freedom) == 99


@pytest.mark.parametrize(("num_clips", "num_columns"), [(1, 1), (198, 198), (199, 199), (200, 199), (1000, 199)])
def test_of_many_units_neighbours_are_left_out_together(num_clips: int, num_columns: int) -> None:
    errors = np.random.default_rng(1).poisson(2, num_clips) + 1
    found = columns_without_each(errors, np.full(num_clips, 10), np.arange(num_clips))
    assert (~np.isnan(found)).sum() == num_columns
    if num_clips == 1000:
        whole = np.std(errors, ddof=1) / np.sqrt(1000) / 10
        assert float(spread(rates(errors, [10] * 1000), "difference").error) == pytest.approx(whole, rel=0.15)


@pytest.mark.parametrize(
    ("errors", "words", "scale"),
    [([3], [10], "rate"), ([0] * 5, [5] * 5, "rate"), ([0, 4, 0, 0, 0], [5] * 5, "rate"), ([2] * 5, [5] * 5, "rate"),
     ([2, 1], [9, 0], "difference"), ([3] * 30, [7] * 30, "rate"), ([2] * 5, [5] * 5, "difference")],
)  # fmt: skip
def test_where_nothing_tells_how_far_off_a_figure_is_it_has_no_interval(errors, words, scale) -> None:
    found = estimated(rates(errors, words), 0.95, scale)
    assert (found.low, found.high, found.p) == (None, None, None)


def test_a_set_without_texts_takes_the_interval_of_all_that_is_computed_from_it() -> None:
    known = rates([3, 1, 4, 1, 5], [10] * 5, num_sets=2)
    unknown = np.full(1 + 2 * WIDTH, np.nan)
    unknown[0] = 0.3
    assert estimated(known, 0.95, "rate").low is not None
    assert estimated((known + unknown) / 2, 0.95, "rate")[1:] == (None, None, None, 0)
    assert estimated(np.array([0.25]), 0.95, "rate") == (0.25, None, None, None, 0), "no columns"


def test_two_models_that_write_the_same_differ_by_zero() -> None:
    same = rates([3, 1, 4, 1, 5], [9] * 5)
    assert estimated(same - same, 0.95, "difference") == (0, 0, 0, 1, 5)


def test_four_units_have_no_interval_and_nine_are_no_part_of_a_family() -> None:
    five = estimated(rates([3, 1, 4, 1, 5], [9] * 5), 0.95, "rate")
    four = estimated(rates([3, 1, 4, 1], [9] * 4), 0.95, "rate")
    assert five.low is not None and four == (0.25, None, None, None, 4)
    found = {str(number): Estimated(-0.1, -0.2, -0.01, 0.03, number) for number in (9, 10, 300)}
    assert corrected(found) == pytest.approx({"10": 0.06, "300": 0.06})


def test_holm_steps_down() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": None, "d": 0.03}) == pytest.approx({"a": 0.03, "d": 0.06, "b": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}
    assert holm({}) == {}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_refuses_what_comparing_one_by_one_with_shrinking_families_refuses(chances: list[float]) -> None:
    corrected = holm({str(number): p for number, p in enumerate(chances)})
    kept, left = set(), sorted(range(len(chances)), key=lambda number: (chances[number], str(number)))
    while left and chances[left[0]] * len(left) <= 0.05:
        kept.add(str(left.pop(0)))
    assert {name for name, p in corrected.items() if p <= 0.05} == kept


def test_marks() -> None:
    def found(value: float, num_units: int = 10) -> Estimated:
        return Estimated(value, None, None, None, num_units)

    assert [mark(found(value), 0.05, 0.95) for value in (-1.0, 1.0)] == ["lower", "higher"]
    assert [mark(found(-1.0), p, 0.95) for p in (0.051, None)] == ["same", "same"]
    assert [mark(found(-1.0, number), 0.001, 0.95) for number in (9, 1)] == [TOO_FEW, TOO_FEW]
    assert mark(found(-1.0, 0), None, 0.95) == "same"
