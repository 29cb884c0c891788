"""fisher: the mean of each entry, weighted by how much the loss of each data set depends on the entry.

Source: Matena and Raffel, arXiv 2111.09832.
"""

from collections.abc import Sequence

import torch

from wfc_dist.errors import InputError
from wfc_dist.merging.factors import DenseDelta, Factors, as_column, stacked_rows


def fisher(factors: Sequence[Factors], weights: Sequence[float], *, floor: float = 1e-6, normalize: int = 0) -> DenseDelta:
    """Returns delta = sum_i w_i F_i * delta_i / sum_i w_i F_i, entry by entry, with F_i = max(fisher_i, floor * m).

    fisher_i is `curvature.fisher_OI` of the adapter, and m is the weighted mean of all its entries. If no loss depends on an
    entry, the entry gets the weighted mean without Fisher information.

    Args:
        floor: As above. The source has an absolute floor of 1e-6, for the first model.
        normalize: 0 takes fisher_i as it is, so a data set with larger gradients weighs more. 1 divides fisher_i by its L2 norm
            over all modules of the adapter, `curvature.fishernorm_`, as the source's code does by default.

    Raises:
        InputError: An adapter without Fisher information, or without its norm if `normalize` is 1.
    """
    found = [item.curvature.fisher_OI for item in factors if item.curvature and item.curvature.fisher_OI is not None]
    if len(found) < len(factors):
        raise InputError("fisher needs the Fisher information of every adapter; train the adapters with train.curvature")
    norms = _norms(factors) if normalize else [1.0] * len(factors)
    mean = sum(
        weight * float(information.double().mean()) / norm
        for weight, norm, information in zip(weights, norms, found, strict=True)
    )
    least = floor * mean if mean > 0 else 1.0
    shares, scales, rows, start = as_column(weights), as_column(norms), [], 0
    for block in stacked_rows(factors):
        end = start + block.shape[1]
        parts = shares * torch.stack([information[start:end].double() for information in found]).div_(scales).clamp_(min=least)
        rows.append((parts * block).sum(0).div_(parts.sum(0)).float())
        start = end
    return DenseDelta(torch.cat(rows), 1.0)


def _norms(factors: Sequence[Factors]) -> list[float]:
    """Returns the norm of every adapter's Fisher information over all its modules; 1 for an adapter without any curvature."""
    found = [item.curvature.fishernorm_ for item in factors if item.curvature and item.curvature.fishernorm_ is not None]
    if len(found) < len(factors):
        raise InputError(
            "fisher with normalize=1 needs the norm of every adapter's Fisher information; set curvature.fishernorm_"
        )
    return [float(norm) or 1.0 for norm in found]
