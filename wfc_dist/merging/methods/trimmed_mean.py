"""trimmed_mean: the mean of every entry without its extremes. Source: Yin et al., arXiv 1803.01498."""

from collections.abc import Sequence

import torch

from wfc_dist.merging.factors import DenseDelta, Factors, as_column, stacked_rows


def trimmed_mean(factors: Sequence[Factors], weights: Sequence[float], *, trim: float = 0.34) -> DenseDelta:
    """Returns, for each entry, the weighted mean of the K updates without the floor(trim * K) smallest and largest values.

    The weights of the remaining values are normalized again. With three adapters, the default gives the median.
    """
    num_cut = int(trim * len(factors) + 1e-9)  # 0.29 * 100 is 28.999999999999996
    shares, rows = as_column(weights), []
    for block in stacked_rows(factors):
        order = block.argsort(dim=0, stable=True)[num_cut : len(factors) - num_cut]
        kept = shares.expand_as(block).gather(0, order)
        rows.append((kept * block.gather(0, order)).sum(0).div_(kept.sum(0)).float())
    return DenseDelta(torch.cat(rows), 1.0)
