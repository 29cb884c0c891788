"""dare: drop entries at random and rescale the rest. Source: Yu et al., arXiv 2311.03099."""

from collections.abc import Sequence

import torch

from wfc_dist.merging.factors import DenseDelta, Factors, as_column, stacked_rows
from wfc_dist.seeds import derived_seed


def dare(factors: Sequence[Factors], weights: Sequence[float], *, seed: int, density: float = 0.5) -> DenseDelta:
    """Returns delta = sum_i w_i m_i * delta_i / density. Each entry of the mask m_i is 1 with probability `density`, else 0.

    The expected value is the mean.

    Args:
        seed: Seed of the module. The mask of an adapter depends on the seed and on the position of the adapter.
        density: 1 - p of the paper.
    """
    generators = [torch.Generator().manual_seed(derived_seed(seed, place)) for place in range(len(factors))]
    shares, rows = as_column(weights), []
    for block in stacked_rows(factors):
        drawn = torch.stack([torch.rand(block.shape[1:], generator=source, dtype=torch.float64) for source in generators])
        rows.append((shares * block * (drawn < density)).sum(0).div_(density).float())
    return DenseDelta(torch.cat(rows), 1.0)
