"""lors: the sum of updates that are pruned to a part of low rank and a sparse rest. Source: Zhao et al., arXiv 2502.17380."""

from collections.abc import Sequence

import torch

from wfc_dist.merging import low_rank
from wfc_dist.merging.factors import DenseDelta, Factors, as_column, concatenated, largest_entries_from, stacked_rows


def lors(
    factors: Sequence[Factors], weights: Sequence[float], *, r: int = 7, density: float = 0.2, lam: float = 0.2
) -> DenseDelta:
    """Returns lam * sum_i K w_i (L_i + S_i). L_i is delta_i cut to rank r, S_i the share `density` of the rest, largest first.

    The source has uniform weights. An adapter of rank r or less is not pruned; of adapters trained as LoRA, r must be smaller
    than theirs to change anything.
    """
    kept, rests = zip(*(_split(item, r) for item in factors), strict=True)
    thresholds = as_column([largest_entries_from(rest, density) for rest in rests])
    shares, rows = as_column([lam * len(factors) * weight for weight in weights]), []
    for low, rest in zip(stacked_rows(kept), stacked_rows(rests), strict=True):
        rows.append((shares * (low + torch.where(rest.abs() >= thresholds, rest, 0.0))).sum(0).float())
    return DenseDelta(torch.cat(rows), 1.0)


def _split(item: Factors, r: int) -> tuple[Factors, Factors]:
    """Returns the nearest update of rank r, and what is left, float64 factors."""
    u_OR, sigma_R, v_RI = low_rank.svd(concatenated([item], [1.0]))
    b_OR = u_OR * sigma_R
    return Factors(v_RI[:r], b_OR[:, :r], 1.0), Factors(v_RI[r:], b_OR[:, r:], 1.0)
