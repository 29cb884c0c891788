"""boosted_tsv: TSV-M with its small singular values raised.

Source: BoostedTSV-M, Carvalho et al., arXiv 2603.05354. Its abstract names "singular-value boosting" against rank collapse. The
full text was not available, so the boosting is that of Subspace Boosting, Skorobogat et al., arXiv 2506.16506, with the default
of that code.
"""

from collections.abc import Sequence

import torch

from wfc_dist.merging import low_rank
from wfc_dist.merging.factors import AnyDelta, Factors
from wfc_dist.merging.methods.tsv import orthogonal_parts


def boosted_tsv(factors: Sequence[Factors], weights: Sequence[float], *, beta: float = 0.01) -> AnyDelta:
    """Returns delta = U' @ diag(max(sigma, sigma_c)) @ V' with U', sigma, V' of `tsv`.

    In descending order, sigma_c is the first singular value at which the running sum reaches the share beta of the whole sum.
    With beta = 1, no value is raised. Singular values outside the span of the adapters stay zero, so the update keeps its low
    rank. A small beta makes nearly all singular values equal and the update large; use `norm: mean` to compare.
    """
    u_OR, sigma_R, v_RI = orthogonal_parts(factors, weights)
    return low_rank.update_of(u_OR, boosted(sigma_R, beta), v_RI)


def boosted(sigma_R: torch.Tensor, beta: float) -> torch.Tensor:
    """Returns max(sigma, sigma_c); see `boosted_tsv`."""
    if not len(sigma_R):
        return sigma_R
    descending = sigma_R.sort(descending=True).values
    below = descending.cumsum(0) < beta * descending.sum()
    cutoff = descending[min(int(below.sum()), len(descending) - 1)] if beta < 1 else descending[-1]
    return sigma_R.clamp(min=float(cutoff))
