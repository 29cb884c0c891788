"""Student's t distribution, for any number of degrees of freedom: its distribution function, and its quantiles."""

import math
from statistics import NormalDist

_CLOSE = 1e-10
_MOST_STEPS = 500


def both_tails(t: float, freedom: float) -> float:
    """Returns P(|T| >= |t|) of a T with `freedom` > 0 degrees of freedom."""
    return _beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def quantile(confidence: float, freedom: float) -> float:
    """Returns the t with P(|T| <= t) = confidence, for 0 < confidence < 1 and `freedom` > 0 degrees of freedom."""
    t = NormalDist().inv_cdf((1 + confidence) / 2)  # below the quantile, and the tails are convex: Newton's steps only grow
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    for _ in range(_MOST_STEPS):
        density = scale * math.exp(-(freedom + 1) / 2 * math.log1p(t * t / freedom))
        step = (both_tails(t, freedom) - (1 - confidence)) / (2 * density)
        t += step
        if abs(step) <= _CLOSE * t:
            break
    return t


def _beta(a: float, b: float, x: float) -> float:
    """Returns the regularized incomplete beta function I_x(a, b)."""
    if x in (0.0, 1.0):
        return x
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):  # where the fraction converges fast
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, 1 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    """Returns the continued fraction of the incomplete beta function, by Lentz's method (DLMF 8.17.22)."""
    upper, lower = 1.0, _away_from_zero(1 - (a + b) * x / (a + 1))
    value = 1 / lower
    lower = value
    for step in range(1, _MOST_STEPS):
        even = step * (b - step) * x / ((a + 2 * step - 1) * (a + 2 * step))
        odd = -(a + step) * (a + b + step) * x / ((a + 2 * step) * (a + 2 * step + 1))
        for term in (even, odd):
            lower = 1 / _away_from_zero(1 + term * lower)
            upper = _away_from_zero(1 + term / upper)
            value *= lower * upper
        if abs(lower * upper - 1) < _CLOSE:
            break
    return value


def _away_from_zero(number: float) -> float:
    return number if abs(number) > 1e-300 else 1e-300
