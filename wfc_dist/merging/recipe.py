"""From one module's factors to its update: a method with its options, then the norm, then the scale."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wfc_dist.merging import merge_method
from wfc_dist.merging.factors import AnyDelta, Factors, at_norm, squared_norm_of
from wfc_dist.merging.methods.mean import mean

_SUMS = ("mean", "factor_mean")  # where an adapter of weight zero adds zero


@dataclass(frozen=True)
class Recipe:
    """How the updates of a round become one.

    Attributes:
        method: Name of a merge method (docs/merging.md).
        options: Options of the method; those that are not named have the defaults of its function.
        norm: "own", or "mean": every module's update gets the Frobenius norm that `mean` would have there.
        scale: Factor of the whole update.
        seed: Seed of the round, for methods that sample (dare).
    """

    method: str = "mean"
    options: Mapping[str, float] = field(default_factory=dict)
    norm: str = "own"
    scale: float = 1.0
    seed: int = 0


def merged_update(
    factors: Sequence[Factors], weights: Sequence[float], recipe: Recipe, inputs: Mapping[str, Any] | None = None
) -> AnyDelta:
    """Returns scale * method(factors, weights), at the norm asked for, for one module.

    Args:
        factors: One module of each adapter, in the order of summation.
        weights: >= 0, sum 1. An adapter of weight zero is as if it were not there.
        recipe: The method and what follows.
        inputs: What else the method needs of this module, by parameter name (see `catalog.INPUTS`).

    Returns:
        The update of the module, (out, in), in factors or dense; `.dense()` is the matrix in float64.

    Raises:
        ConfigError: No such method.
        InputError: The method cannot take these factors.

    Example:
        >>> import torch
        >>> from wfc_dist import Factors, Recipe, merged_update
        >>> adapter = Factors(a_RI=torch.ones(1, 3), b_OR=torch.ones(2, 1), scaling=2.0)
        >>> merged_update([adapter, adapter], [0.5, 0.5], Recipe("mean")).dense().tolist()
        [[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]]
    """
    if recipe.method not in _SUMS:
        factors = [item for item, weight in zip(factors, weights, strict=True) if weight]
        weights = [weight for weight in weights if weight]
    update = merge_method(recipe.method)(factors, weights, **recipe.options, **(inputs or {}))
    if recipe.norm == "mean" and recipe.method != "mean":
        update = at_norm(update, squared_norm_of(mean(factors, weights)))
    return update.scaled(recipe.scale)
