"""svd: the mean of the updates, truncated to rank r. Source: Eckart and Young, 1936."""

from collections.abc import Sequence

from wfc_dist.merging import low_rank
from wfc_dist.merging.factors import AnyDelta, Factors
from wfc_dist.merging.methods.mean import mean


def svd(factors: Sequence[Factors], weights: Sequence[float], *, r: int = 32) -> AnyDelta:
    """Returns the update of rank at most r that is nearest to the mean in the Frobenius norm."""
    u_OR, sigma_R, v_RI = low_rank.svd(mean(factors, weights))
    return low_rank.update_of(u_OR[:, :r], sigma_R[:r], v_RI[:r])
