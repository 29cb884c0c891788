"""boosted_tsv: TSV-M of updates whose small singular values are raised, each adapter's by its own.

Source: BoostedTSV-M, Carvalho et al., arXiv 2603.05354: each task's singular values are raised before they are stacked, beta is
0.3, and five steps of Newton-Schulz make the stacked vectors orthonormal. The rule that raises them is that of Subspace Boosting,
Skorobogat et al., arXiv 2506.16506.
"""

from collections.abc import Sequence

import torch

from wfc_dist.merging import low_rank
from wfc_dist.merging.factors import AnyDelta, Factors
from wfc_dist.merging.methods.tsv import orthogonal_parts


def boosted_tsv(factors: Sequence[Factors], weights: Sequence[float], *, beta: float = 0.3) -> AnyDelta:
    """Returns delta of `tsv` with max(sigma_i, c_i) in place of the singular values sigma_i of adapter i.

    In descending order, c_i is the first singular value of the adapter at which the running sum reaches the share beta of the
    adapter's whole sum. With beta = 1, no value is raised. Each adapter has its own c_i, so a weak adapter stays weak. Singular
    values that are zero stay zero, so the update keeps its low rank. U' and V' are the nearest orthonormal matrices, the limit of
    the source's Newton-Schulz steps. The update is larger than that of `tsv`; use `norm: mean` to compare.
    """
    return low_rank.update_of(*orthogonal_parts(factors, weights, lambda sigma_R: boosted(sigma_R, beta)))


def boosted(sigma_R: torch.Tensor, beta: float) -> torch.Tensor:
    """Returns max(sigma, c) for the descending singular values of one update; see `boosted_tsv`."""
    if not len(sigma_R):
        return sigma_R
    below = sigma_R.cumsum(0) < beta * sigma_R.sum()
    cutoff = sigma_R[min(int(below.sum()), len(sigma_R) - 1)] if beta < 1 else sigma_R[-1]
    return sigma_R.clamp(min=float(cutoff))
