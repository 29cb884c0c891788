"""ties: trim the updates, elect a sign per entry, average the updates of that sign. Source: Yadav et al., arXiv 2306.01708."""

from collections.abc import Sequence

import torch

from wfc_dist.merging.factors import DenseDelta, Factors, as_column, largest_entries_from, stacked_rows


def ties(factors: Sequence[Factors], weights: Sequence[float], *, density: float = 0.2) -> DenseDelta:
    """Returns, for each entry, the weighted mean of the trimmed updates with the elected sign.

    The elected sign is that of sum_i w_i delta_i over the trimmed updates; 0 counts as +. Trimming keeps the share `density` of
    an update's entries in the module, the largest ones, and sets the others to zero. A zero agrees with no sign. The paper trims
    the whole model at once. This method trims each module, as PEFT does, so every module keeps the same share.
    """
    thresholds, shares, rows = as_column([largest_entries_from(item, density) for item in factors]), as_column(weights), []
    for block in stacked_rows(factors):
        kept = torch.where(block.abs() >= thresholds, block, 0.0)
        elected = torch.where((shares * kept).sum(0) >= 0, 1.0, -1.0)
        agreeing = shares * (kept.sign() == elected)
        rows.append((agreeing * kept).sum(0).div_(agreeing.sum(0).clamp(min=min(weights) / 2)).float())  # 0 where none agrees
    return DenseDelta(torch.cat(rows), 1.0)
