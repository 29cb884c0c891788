"""model_stock: the mean, shortened by how much the updates agree. Source: Model Stock, Jang et al., arXiv 2403.19522."""

import math
from collections.abc import Sequence

from wfc_dist.merging.factors import AnyDelta, Factors
from wfc_dist.merging.low_rank import inner_products
from wfc_dist.merging.methods.mean import mean


def model_stock(factors: Sequence[Factors], weights: Sequence[float]) -> AnyDelta:
    """Returns t * mean with t = K cos / (1 + (K - 1) cos), cos the mean cosine between the module's updates of two adapters.

    The source takes one angle for all pairs. The mean of the cosines over the pairs stands for it, a pair weighs w_i w_j. The
    update of a module is zero where the updates are orthogonal, or on average opposed (cos <= 0): nothing says then that the mean
    is nearer to the centre than the base. Equal adapters, and one adapter, give that adapter. A zero update has cosine 0 with
    every other. With `norm: mean` the method is `mean`, unless the update is zero.
    """
    return mean(factors, weights).scaled(ratio(inner_products(factors), weights))


def ratio(products: Sequence[Sequence[float]], weights: Sequence[float]) -> float:
    """Returns t of `model_stock`, between 0 and 1. The bits do not depend on the order of the adapters.

    Args:
        products: <delta_i, delta_j> of one module, K by K.
        weights: w_i > 0.
    """
    num_adapters = len(weights)
    if num_adapters == 1:
        return 1.0
    pairs = [(i, j) for i in range(num_adapters) for j in range(i)]
    shares = [weights[i] * weights[j] for i, j in pairs]
    cosines = [_cosine(products[i][j], products[i][i], products[j][j]) for i, j in pairs]
    cosine = math.fsum(share * value for share, value in zip(shares, cosines, strict=True)) / math.fsum(shares)
    return num_adapters * cosine / (1 + (num_adapters - 1) * cosine) if cosine > 0 else 0.0


def _cosine(product: float, one: float, other: float) -> float:
    return max(-1.0, min(1.0, product / math.sqrt(one * other))) if one > 0 and other > 0 else 0.0
