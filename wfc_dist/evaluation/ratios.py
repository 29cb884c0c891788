"""Ratios of sums over clips, with bootstrap intervals: all figures that explain an error rate (see docs/metrics.md)."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from wfc_dist.evaluation.metrics import Counts, bootstrap_rates, interval

Clips = npt.NDArray[np.int64]  # (N,): a number per clip


class Ratio(NamedTuple):
    """A ratio, or a difference of two, with its interval; low and high are None without samples."""

    value: float
    low: float | None
    high: float | None


def ratios(
    parts: Mapping[str, tuple[Clips, Clips]], differences: Mapping[str, tuple[str, str]] | None = None, *,
    samples: int = 1000, confidence: float = 0.95, seed: int = 1,
) -> dict[str, Ratio]:  # fmt: skip
    """Returns sum(numerator) / sum(denominator) of every part, and differences of parts, all on the same resampled clips.

    With errors over reference tokens this is the rate and the interval of `metrics.score`.

    Args:
        parts: Name -> (numerator, denominator), each (N,). Where the denominators sum to 0 the name is left out.
        differences: Name -> (first, second): first - second; the name is left out where one of the two is.
        samples: Bootstrap resamples; 0 leaves the intervals out.
        confidence: Confidence level of the intervals.
        seed: Seed of the resampling.
    """
    kept = {name: (above, below) for name, (above, below) in parts.items() if below.sum()}
    values = {name: float(above.sum() / below.sum()) for name, (above, below) in kept.items()}
    draws: dict[str, npt.NDArray[np.float64]] = {}
    if samples and kept:
        systems = [Counts(above, np.zeros_like(above), np.zeros_like(above), below) for above, below in kept.values()]
        draws = dict(zip(kept, bootstrap_rates(systems, samples, seed), strict=True))
    for name, (first, second) in (differences or {}).items():
        if first in values and second in values:
            values[name] = values[first] - values[second]
            if draws:
                draws[name] = draws[first] - draws[second]
    return {
        name: Ratio(value, *interval(draws[name], value, confidence)) if draws else Ratio(value, None, None)
        for name, value in values.items()
    }
