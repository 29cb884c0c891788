"""Verdicts on the paper's three mechanisms: confirmed, in part, refuted. Every verdict names its thresholds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from wfc_dist.analysis.decay import AdapterPrior
from wfc_dist.analysis.distributions import Distribution
from wfc_dist.analysis.measure import RoundMeasures

Word = Literal["confirmed", "in part", "refuted", "cannot be told"]
VARIANCE_WITHIN, VARIANCE_IN_PART = 0.10, 0.50  # of N * ratio - 1
GAUSSIAN_KS, GAUSSIAN_KURTOSIS = 0.02, 0.5
PRIOR_ACTIVE, PRIOR_WEAK = 0.10, 0.01  # total shrinkage


@dataclass(frozen=True)
class Verdict:
    """The verdict on one mechanism in one round.

    Attributes:
        mechanism: The claim.
        round_index: 1-based.
        measured, expected: The numbers, as short texts.
        word: The verdict.
        rule: The thresholds of the verdict.
    """

    mechanism: str
    round_index: int
    measured: str
    expected: str
    word: Word
    rule: str

    @property
    def sentence(self) -> str:
        """Returns mechanism, numbers and verdict as one line."""
        return f"{self.mechanism}: {self.measured}, expected {self.expected}: {self.word}"


def variance_verdict(measures: RoundMeasures) -> Verdict:
    """Judges whether the variance of the mean falls as 1/N."""
    num, ratio, cosine = len(measures.adapters), measures.variance.ratio, measures.variance.mean_cosine
    rule = f"confirmed within {VARIANCE_WITHIN:.0%} of 1/N, in part within {VARIANCE_IN_PART:.0%}"
    claim = "variance falls as 1/N"
    if num < 2 or math.isnan(ratio):
        return Verdict(claim, measures.round_index, f"{num} adapter", "two or more", "cannot be told", rule)
    off = abs(num * ratio - 1)
    word: Word = "confirmed" if off <= VARIANCE_WITHIN else "in part" if off <= VARIANCE_IN_PART else "refuted"
    measured = f"measured {ratio:.3f} (mean cosine of the updates {cosine:+.3f})"
    return Verdict(claim, measures.round_index, measured, f"1/{num} = {1 / num:.3f}", word, rule)


def gaussian_verdict(measures: RoundMeasures) -> Verdict:
    """Judges whether the entries of the averaged update are Gaussian, all together or at least module by module."""
    averaged = measures.pooled["updates"].averaged
    pooled, module = averaged.shapes["as they are"], averaged.shapes["per module"]
    rule = (
        f"confirmed when KS <= {GAUSSIAN_KS:g} and |excess kurtosis| <= {GAUSSIAN_KURTOSIS:g} over all modules together, "
        "in part when only after dividing every module by its own s"
    )
    claim = "averaged weights are Gaussian"
    if not pooled.s:
        return Verdict(claim, measures.round_index, "the average is zero", "some update", "cannot be told", rule)
    word: Word = "confirmed" if _is_gaussian(averaged, "as they are") else "refuted"
    if word == "refuted" and _is_gaussian(averaged, "per module"):
        word = "in part"
    measured = (
        f"excess kurtosis {pooled.excess_kurtosis:.2f} pooled, {module.excess_kurtosis:.2f} per module; "
        f"KS distance {pooled.ks_distance:.3f}, {module.ks_distance:.3f}"
    )
    return Verdict(claim, measures.round_index, measured, "0 and 0", word, rule)


def _is_gaussian(distribution: Distribution, level: str) -> bool:
    fit = distribution.shapes[level]
    return fit.ks_distance <= GAUSSIAN_KS and abs(fit.excess_kurtosis) <= GAUSSIAN_KURTOSIS


def prior_verdict(round_index: int, priors: Sequence[AdapterPrior], weight_decay: float) -> Verdict:
    """Judges whether weight decay acts as a prior near zero."""
    most = max(prior.shrinkage for prior in priors)
    rule = (
        f"confirmed from a total shrinkage of {PRIOR_ACTIVE:.0%}, in part from {PRIOR_WEAK:.0%}; "
        "below that the prior is practically absent"
    )
    word: Word = "confirmed" if most >= PRIOR_ACTIVE else "in part" if most >= PRIOR_WEAK else "refuted"
    steps = max(prior.steps for prior in priors)
    measured = f"total shrinkage {100 * most:.2g} % in {steps} steps at weight decay {weight_decay:g}"
    return Verdict("prior near zero through weight decay", round_index, measured, f"at least {PRIOR_ACTIVE:.0%}", word, rule)
