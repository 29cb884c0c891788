"""nesterov: the outer step of DiLoCo, with momentum over the rounds. Source: Douillard et al., arXiv 2311.08105."""

from collections.abc import Sequence

from wfc_dist.merging.factors import AnyDelta, Factors
from wfc_dist.merging.low_rank import weighted_sum
from wfc_dist.merging.methods.mean import mean


def nesterov(
    factors: Sequence[Factors], weights: Sequence[float], *, past: Sequence[AnyDelta], lr: float = 0.7, momentum: float = 0.9
) -> AnyDelta:
    """Returns u_t = lr * (delta_t + momentum * v_t), v_t = momentum * v_{t-1} + delta_t, v_0 = 0, delta_t the mean of round t.

    The velocity is not stored. It follows from the updates: v_t = (u_t / lr + momentum * v_{t-1}) / (1 + momentum), up to their
    rounding to float32. The result is in factors or dense, whichever is smaller.

    Args:
        past: u_1 to u_{t-1}, the results of this method in earlier rounds with the same options.
    """
    coefficients: list[float] = []  # v_{t-1} = sum_j coefficients_j * u_j
    for _ in past:
        coefficients = [value * momentum / (1 + momentum) for value in coefficients] + [1 / (lr * (1 + momentum))]
    earlier = [(lr * momentum**2 * value, update) for value, update in zip(coefficients, past, strict=True)]
    return weighted_sum([(lr * (1 + momentum), mean(factors, weights)), *(earlier if momentum else [])])
