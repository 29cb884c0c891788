"""Ratios of sums over clips, with intervals: all figures that explain an error rate (see docs/metrics.md)."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from wfc_dist.evaluation.intervals import Columns, Scale, columns_without_each, estimated

Clips = npt.NDArray[np.int64]  # (N,): a number per clip


class Ratio(NamedTuple):
    """A ratio, or a difference of two, with its interval; low and high are None where there is none."""

    value: float
    low: float | None
    high: float | None


@np.errstate(invalid="ignore")  # infinite without the only unit that has a denominator
def ratios(
    parts: Mapping[str, tuple[Clips, Clips]], units: Clips, differences: Mapping[str, tuple[str, str]] | None = None, *,
    confidence: float = 0.95, intervals: bool = True,
) -> dict[str, Ratio]:  # fmt: skip
    """Returns sum(numerator) / sum(denominator) of every part, and differences of parts.

    With errors over reference tokens this is the rate and the interval of `metrics.score`.

    Args:
        parts: Name -> (numerator, denominator), each (N,). Where the denominators sum to 0 the name is left out.
        units: The unit of every clip, (N,).
        differences: Name -> (first, second): first - second; the name is left out where one of the two is.
        confidence: Confidence level of the intervals.
        intervals: False leaves the intervals out.
    """
    columns: dict[str, tuple[Columns, Scale]] = {}
    for name, (above, below) in parts.items():
        if below.sum():
            columns[name] = _columns(above, below, units), "rate"
    for name, (first, second) in (differences or {}).items():
        if first in columns and second in columns:
            columns[name] = columns[first][0] - columns[second][0], "difference"
    if not intervals:
        return {name: Ratio(float(figure[0]), None, None) for name, (figure, _) in columns.items()}
    return {name: Ratio(*estimated(figure, confidence, scale)[:3]) for name, (figure, scale) in columns.items()}


def _columns(above: Clips, below: Clips, units: Clips) -> Columns:
    return np.concatenate([[above.sum() / below.sum()], columns_without_each(above, below, units)])
