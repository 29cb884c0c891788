"""task_arithmetic: the sum of the updates, scaled. Source: Ilharco et al., arXiv 2212.04089."""

from collections.abc import Sequence

from wfc_dist.merging.factors import AnyDelta, Factors
from wfc_dist.merging.methods.mean import mean


def task_arithmetic(factors: Sequence[Factors], weights: Sequence[float], *, lam: float = 0.3) -> AnyDelta:
    """Returns delta = lam * sum_i K w_i delta_i. With uniform weights it is lam * sum_i delta_i, and lam = 1/K gives the mean."""
    return mean(factors, weights).scaled(lam * len(factors))
