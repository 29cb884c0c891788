"""ties: trim, elect a sign, average what agrees. Source: Yadav et al., arXiv 2306.01708."""

from collections.abc import Sequence

import torch

from wfc_dist.merging.factors import DenseDelta, Factors, as_column, stacked_rows


def ties(factors: Sequence[Factors], weights: Sequence[float], *, density: float = 0.2) -> DenseDelta:
    """Returns, for every entry, the weighted mean of those trimmed updates whose sign is that of sum_i w_i delta_i (0 is +).

    Trimming sets all but the largest `density` of an update's own entries of the module to zero; zeros agree with no sign.
    The paper trims whole models; a module at a time, as in PEFT, every module keeps its share.
    """
    thresholds, shares, rows = as_column([_threshold(item, density) for item in factors]), as_column(weights), []
    for block in stacked_rows(factors):
        kept = torch.where(block.abs() >= thresholds, block, 0.0)
        elected = torch.where((shares * kept).sum(0) >= 0, 1.0, -1.0)
        agreeing = shares * (kept.sign() == elected)
        rows.append((agreeing * kept).sum(0).div_(agreeing.sum(0).clamp(min=min(weights) / 2)).float())  # 0 where none agrees
    return DenseDelta(torch.cat(rows), 1.0)


def _threshold(item: Factors, density: float) -> float:
    """Returns the magnitude of the smallest entry that is kept; entries equal to it are all kept."""
    magnitudes = torch.cat([block[0].abs().flatten() for block in stacked_rows([item])])
    num_kept = max(1, int(density * magnitudes.numel()))
    return float(magnitudes.kthvalue(magnitudes.numel() - num_kept + 1).values)
