"""fisher: the mean of each entry, weighted by how much the loss of each data set depends on the entry.

Source: Matena and Raffel, arXiv 2111.09832.
"""

from collections.abc import Sequence

import torch

from wfc_dist.errors import InputError
from wfc_dist.merging.factors import DenseDelta, Factors, as_column, stacked_rows


def fisher(factors: Sequence[Factors], weights: Sequence[float], *, floor: float = 1e-6) -> DenseDelta:
    """Returns delta = sum_i w_i F_i * delta_i / sum_i w_i F_i, entry by entry, with F_i = max(fisher_i, floor * m).

    fisher_i is `curvature.fisher_OI` of the adapter, and m is the weighted mean of all its entries. If no loss depends on an
    entry, the entry gets the weighted mean without Fisher information.

    Raises:
        InputError: An adapter without Fisher information.
    """
    found = [item.curvature.fisher_OI for item in factors if item.curvature and item.curvature.fisher_OI is not None]
    if len(found) < len(factors):
        raise InputError("fisher needs the Fisher information of every adapter; train the adapters with train.curvature")
    mean = sum(weight * float(information.double().mean()) for weight, information in zip(weights, found, strict=True))
    least = floor * mean if mean > 0 else 1.0
    shares, rows, start = as_column(weights), [], 0
    for block in stacked_rows(factors):
        end = start + block.shape[1]
        parts = shares * torch.stack([information[start:end].double() for information in found]).clamp_(min=least)
        rows.append((parts * block).sum(0).div_(parts.sum(0)).float())
        start = end
    return DenseDelta(torch.cat(rows), 1.0)
