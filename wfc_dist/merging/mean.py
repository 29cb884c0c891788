"""mean: the exact mean of the updates. Source: arXiv 2506.16574, the later script of the authors' code."""

from collections.abc import Sequence

from wfc_dist.lora_math import Factors, ModuleDelta, concatenated


def mean(factors: Sequence[Factors], weights: Sequence[float]) -> ModuleDelta:
    """Returns delta = sum_i w_i * scaling_i * B_i @ A_i, sum w_i = 1.

    Args:
        factors: One module of each adapter; they may differ in r and alpha.
        weights: w_i.
    """
    return concatenated(factors, weights)
