"""mean: the exact mean of the updates. Source: the later script of the authors' code for arXiv 2506.16574."""

from collections.abc import Sequence

from wfc_dist.merging.factors import AnyDelta, Factors, concatenated, is_smaller_dense
from wfc_dist.merging.partial_mean import mean_of


def mean(factors: Sequence[Factors], weights: Sequence[float]) -> AnyDelta:
    """Returns delta = sum_i w_i * scaling_i * B_i @ A_i with sum w_i = 1, in factors or dense, whichever is smaller."""
    out_features, in_features = factors[0].b_OR.shape[0], factors[0].a_RI.shape[1]
    if is_smaller_dense(sum(item.a_RI.shape[0] for item in factors), out_features, in_features):
        return mean_of(factors, weights)[0]
    return concatenated(factors, weights)
