"""factor_mean: the product of the averaged factors. Source: the first script of the authors' code for arXiv 2506.16574."""

from collections.abc import Sequence

import torch

from wfc_dist.errors import InputError
from wfc_dist.merging.factors import Factors, ModuleDelta


def factor_mean(factors: Sequence[Factors], weights: Sequence[float]) -> ModuleDelta:
    """Returns delta = s * (sum_i w_i B_i) @ (sum_i w_i A_i), which is not the mean of the updates.

    Raises:
        InputError: The adapters differ in r or in scaling; use `mean`.
    """
    if len({(item.a_RI.shape[0], item.scaling) for item in factors}) > 1:
        raise InputError("factor_mean needs adapters of one r and one alpha; use centralize.method=mean, which takes any")
    a_RI = sum(weight * item.a_RI.double() for item, weight in zip(factors, weights, strict=True))
    b_OR = sum(weight * item.b_OR.double() for item, weight in zip(factors, weights, strict=True))
    assert isinstance(a_RI, torch.Tensor) and isinstance(b_OR, torch.Tensor)
    return ModuleDelta(a_RI.float(), b_OR.float(), torch.full((a_RI.shape[0],), factors[0].scaling, dtype=torch.float64))
