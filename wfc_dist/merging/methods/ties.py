"""ties: trim the updates, elect a sign per entry, average the updates of that sign. Source: Yadav et al., arXiv 2306.01708."""

from collections.abc import Sequence

import torch

from wfc_dist.merging.factors import DenseDelta, Factors, as_column, stacked_rows


def ties(factors: Sequence[Factors], weights: Sequence[float], *, density: float = 0.2) -> DenseDelta:
    """Returns, for each entry, the weighted mean of the trimmed updates with the elected sign.

    The elected sign is that of sum_i w_i delta_i over the trimmed updates; 0 counts as +. Trimming keeps the share `density` of
    an update's entries in the module, the largest ones, and sets the others to zero. A zero agrees with no sign. The paper trims
    the whole model at once. This method trims each module, as PEFT does, so every module keeps the same share.
    """
    thresholds, shares, rows = as_column([_threshold(item, density) for item in factors]), as_column(weights), []
    for block in stacked_rows(factors):
        kept = torch.where(block.abs() >= thresholds, block, 0.0)
        elected = torch.where((shares * kept).sum(0) >= 0, 1.0, -1.0)
        agreeing = shares * (kept.sign() == elected)
        rows.append((agreeing * kept).sum(0).div_(agreeing.sum(0).clamp(min=min(weights) / 2)).float())  # 0 where none agrees
    return DenseDelta(torch.cat(rows), 1.0)


def _threshold(item: Factors, density: float) -> float:
    """Returns the magnitude of the smallest entry that is kept. All entries of this magnitude are kept."""
    magnitudes = torch.cat([block[0].abs().flatten() for block in stacked_rows([item])])
    num_kept = max(1, int(density * magnitudes.numel()))
    return float(magnitudes.kthvalue(magnitudes.numel() - num_kept + 1).values)
