"""Intervals and tests of any figure of error rates, by leaving out one unit of a test set at a time (see docs/metrics.md).

A unit is what is independent of the rest of its set: a window of clips, the clips of a speaker, or a clip. A rate comes with
columns: the rate itself, then for every test set a block of WIDTH columns, the rate without one unit of that set after the
other. A figure that is computed column by column gets all that its interval needs, whatever the figure is.

Letters of shapes: N clips, C = 1 + sets * WIDTH columns. Columns are nan where the set has no further unit.
Sources: Efron and Stein 1981 (the variance), Satterthwaite 1946 (its degrees of freedom), Holm 1979 (many tests).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from wfc_dist.evaluation import student

WIDTH = 200
"""Columns of a set. Of more than 199 units neighbours are left out together: the last column of a block is always nan."""
FEW_UNITS, LEAST_UNITS = 10, 5
"""With fewer than the first nothing is called better or worse, with fewer than the second there is no interval: Student's t of
two or three windows says 5 to 300 %."""
TOO_FEW = "too few to say"
_LEAST = 1e-9  # a kurtosis is 1 or more, but for rounding
_ROUNDING = 1e-12  # an error of float64 alone, where every unit has the same rate
_MOST_REACH = 700.0  # a float holds exp(709)

Columns = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]
Scale = Literal["difference", "rate", "change"]
"""What a figure is: a difference of rates; a rate, which is above 0; a relative change of a rate, which is above -1."""


class Spread(NamedTuple):
    """How far figures may be from what they estimate: standard errors and their degrees of freedom; nan where not known."""

    error: npt.NDArray[np.float64]
    freedom: npt.NDArray[np.float64]


class Estimated(NamedTuple):
    """A figure with what is known about it.

    Attributes:
        value: The figure.
        low, high: Its interval; None where there is none.
        p: The chance of a figure so far from 0, if its true value is 0 (two-sided); None where there is no interval.
        num_units: Units of all sets that the figure is computed from, at most 199 of each.
    """

    value: float
    low: float | None
    high: float | None
    p: float | None
    num_units: int


def units_of(sizes: Sequence[int], groups: Sequence[Sequence[str]] = ()) -> Numbers:
    """Returns the unit of every clip, (N,), numbered from 0: clips that share a window or a group share a unit.

    Args:
        sizes: Clips of every window.
        groups: For every window the groups of its clips, "" or () where they are not known.
    """
    leaders = list(range(len(sizes)))  # window -> an earlier window of its unit, or itself

    def leader(window: int) -> int:
        while leaders[window] != window:
            leaders[window] = window = leaders[leaders[window]]
        return window

    first_of: dict[str, int] = {}
    for window, names in enumerate(groups):
        for name in filter(None, names):
            one, other = sorted((leader(first_of.setdefault(name, window)), leader(window)))
            leaders[other] = one
    numbers: dict[int, int] = {}
    of_windows = [numbers.setdefault(leader(window), len(numbers)) for window in range(len(sizes))]
    return np.repeat(np.array(of_windows, dtype=np.int64), sizes)


def columns_without_each(above: Numbers, below: Numbers, units: Numbers) -> Columns:
    """Returns sum(above) / sum(below) without each unit, (WIDTH,).

    It is infinite without the only unit with something below, and what it is with it where there is no other unit.
    """
    num_units = int(units.max()) + 1
    num_parts = min(num_units, WIDTH - 1)
    parts = units * num_parts // num_units
    tops, bottoms = (np.bincount(parts, numbers, num_parts) for numbers in (above, below))
    left = bottoms.sum() - bottoms
    made, nothing = np.full(WIDTH, np.nan), np.inf if num_parts > 1 else tops.sum() / bottoms.sum()
    made[:num_parts] = np.divide(tops.sum() - tops, left, out=np.full(num_parts, nothing), where=left > 0)
    return made


def spread(figures: Columns, scale: Scale) -> Spread:
    """Returns the standard error of each figure, of a rate or a relative change that of its logarithm, and its freedom.

    The variance is the sum over the sets of `(n - 1) / n sum_u (f_u - mean f)^2`, f_u the figure without unit u of the set's n.
    A set has n - 1 degrees of freedom. For rates and relative changes it has `2 n / (kurtosis of the f_u - 1)` of them, if that
    is less: a variance that the errors of few units make is as uncertain as that of a set of few units.

    Args:
        figures: (..., C).
        scale: What the figures are.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        if scale != "difference":
            figures = np.log(figures + (scale == "change"))
        blocks = figures[..., 1:].reshape(*figures.shape[:-1], -1, WIDTH)
        is_unit = ~np.isnan(blocks)
        sizes = is_unit.sum(axis=-1)
        is_used = sizes < WIDTH  # a figure that does not use a set is a number in all columns of its block
        deviations = np.where(is_unit, blocks - figures[..., :1, None], 0.0)
        deviations = np.where(is_unit, deviations - deviations.sum(axis=-1, keepdims=True) / sizes[..., None], 0.0)
        squares = (deviations**2).sum(axis=-1)
        variances = np.where(is_used, (sizes - 1) / sizes * squares, 0.0)
        freedoms = sizes - 1.0
        if scale != "difference":
            kurtosis = sizes * (deviations**4).sum(axis=-1) / squares**2
            freedoms = np.where(squares > 0, np.clip(2 * sizes / np.maximum(kurtosis - 1, _LEAST), 1.0, freedoms), freedoms)
        variances = np.where(is_used & (sizes < 2), np.nan, variances)
        total = variances.sum(axis=-1)
        return Spread(np.sqrt(total), total**2 / (variances**2 / freedoms).sum(axis=-1))


def limits(value: float, error: float, freedom: float, confidence: float, scale: Scale) -> tuple[float, float] | None:
    """Returns the interval of a figure: value -+ t error, of a rate or a relative change on the scale of its logarithm.

    None where it can't be known: no error, an infinite one (all errors are in one unit), or a rate of zero. A difference of
    zero in every unit is [0, 0].
    """
    if scale == "difference" and value == error == 0:
        return 0.0, 0.0
    if not np.isfinite(error) or error < _ROUNDING:
        return None
    reach = student.quantile(confidence, freedom) * error
    if scale == "difference":
        return value - reach, value + reach
    factor, offset = math.exp(min(reach, _MOST_REACH)), float(scale == "change")
    return (value + offset) / factor - offset, (value + offset) * factor - offset


def with_seeds(found: Spread, values: Sequence[float], scale: Scale) -> Spread:
    """Returns how far the mean of a figure over seeds may be from what it estimates, over other units and other seeds.

    The seeds add a variance of their own: that of `values`, divided by their number n, with n - 1 degrees of freedom. One seed
    says nothing of others, and adds nothing.

    Args:
        found: Of the mean: what other units would change.
        values: The figure with each seed.
        scale: What it is.
    """
    if len(values) < 2:
        return found
    numbers = np.array(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        if scale != "difference":
            numbers = np.log(numbers + (scale == "change"))
        units, seeds = found.error**2, numbers.var(ddof=1) / len(numbers)
        freedom = (units + seeds) ** 2 / (np.where(units > 0, units**2 / found.freedom, 0.0) + seeds**2 / (len(numbers) - 1))
        return Spread(np.sqrt(units + seeds), freedom)


def estimated(figure: Columns, confidence: float, scale: Scale, seeds: Sequence[float] = ()) -> Estimated:
    """Returns a figure, (C,), with its interval, its p (of a difference) and its number of units.

    Args:
        figure: Of a mean over seeds the mean of every column.
        confidence: The share of intervals that hold the true value.
        scale: What the figure is.
        seeds: The figure with each seed; see `with_seeds`.
    """
    value, blocks = float(figure[0]), figure[1:].reshape(-1, WIDTH)
    sizes = (~np.isnan(blocks)).sum(axis=-1)
    num_units = int(sizes[sizes < WIDTH].sum())
    if num_units < LEAST_UNITS or not np.isfinite(value):
        return Estimated(value, None, None, None, num_units)
    error, freedom = (float(number) for number in with_seeds(spread(figure, scale), seeds, scale))
    found = limits(value, error, freedom, confidence, scale)
    if found is None:
        return Estimated(value, None, None, None, num_units)
    p = student.both_tails(value / error, freedom) if error and scale == "difference" else 1.0 if not error else None
    return Estimated(value, *found, p, num_units)


def holm(chances: Mapping[str, float | None]) -> dict[str, float]:
    """Returns name -> p after Holm's correction: the chance of so small a p anywhere in the family, if nothing is true of it.

    Names without a p are left out; they are no part of the family.
    """
    family = sorted(((p, name) for name, p in chances.items() if p is not None))
    corrected, least = {}, 0.0
    for place, (p, name) in enumerate(family):
        least = max(least, min(1.0, (len(family) - place) * p))
        corrected[name] = least
    return corrected


def corrected(found: Mapping[str, Estimated]) -> dict[str, float]:
    """Returns name -> p after Holm's correction over the differences of a page; what has few units gets no mark, and no p."""
    return holm({name: each.p for name, each in found.items() if each.num_units >= FEW_UNITS})


def mark(found: Estimated, p: float | None, confidence: float) -> str:
    """Returns `lower` or `higher` where a difference is beyond chance, else `same`; `too few to say` with few units.

    Nothing is known of a difference without units, such as one of texts that are not there: it is `same`.

    Args:
        found: The difference.
        p: Its p, corrected for the other marks of its page.
        confidence: p must not exceed 1 - confidence.
    """
    if 0 < found.num_units < FEW_UNITS:
        return TOO_FEW
    if p is None or p > 1 - confidence:
        return "same"
    return "lower" if found.value < 0 else "higher"
