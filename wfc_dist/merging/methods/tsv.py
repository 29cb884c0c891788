"""tsv: TSV-M, the sum of the updates with their singular vectors made orthogonal. Source: Gargiulo et al., arXiv 2412.00081."""

from collections.abc import Callable, Sequence

import torch

from wfc_dist.merging import low_rank
from wfc_dist.merging.factors import AnyDelta, Factors, concatenated


def tsv(factors: Sequence[Factors], weights: Sequence[float]) -> AnyDelta:
    """Returns delta = U' @ diag(K w_1 sigma_1, ..., K w_K sigma_K) @ V', without the interference of the plain sum.

    U_i, sigma_i, V_i are the largest floor(min(out, in) / K) singular values of delta_i with their vectors. U' and V' are the
    orthonormal matrices nearest to [U_1 ... U_K] and [V_1 ... V_K]. The update is as large as a sum; use `norm: mean` to compare.
    The source has uniform weights and updates of full rank. It also stacks the singular vectors of zero singular values, which
    are arbitrary for an update of low rank. This method leaves them out, as Core Space Merging (arXiv 2509.17786) does.
    """
    return low_rank.update_of(*orthogonal_parts(factors, weights))


def orthogonal_parts(
    factors: Sequence[Factors],
    weights: Sequence[float],
    raised: Callable[[torch.Tensor], torch.Tensor] = lambda sigma_R: sigma_R,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns (U', the weighted singular values, V') of TSV-M, float64.

    Directions with a singular value of zero are left out: an adapter of rank 3 that is stored with r = 32 adds three directions.

    Args:
        factors: One module of each adapter.
        weights: w_i, sum 1.
        raised: Takes the nonzero singular values of one adapter, descending. Returns the values that are stacked.
    """
    num_kept = max(1, min(factors[0].b_OR.shape[0], factors[0].a_RI.shape[1]) // len(factors))
    left, sigmas, right = [], [], []
    for item, weight in zip(factors, weights, strict=True):
        u_OR, sigma_R, v_RI = low_rank.directions(concatenated([item], [1.0]))
        left.append(u_OR[:, :num_kept])
        sigmas.append(raised(sigma_R)[:num_kept] * (weight * len(factors)))
        right.append(v_RI[:num_kept])
    u_OR, v_IR = low_rank.nearest_orthonormal(torch.cat(left, dim=1)), low_rank.nearest_orthonormal(torch.cat(right).T)
    return u_OR, torch.cat(sigmas), v_IR.T
