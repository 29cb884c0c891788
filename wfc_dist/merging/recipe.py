"""Computes the update of a module from its factors: a method with its options, then the norm, then the scale."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wfc_dist.errors import InputError
from wfc_dist.merging import catalog, merge_method
from wfc_dist.merging.factors import AnyDelta, Factors, at_norm, squared_norm_of
from wfc_dist.merging.methods.mean import mean

_SUMS = ("mean", "factor_mean")  # methods in which an adapter of weight zero adds zero
_SUM_TOLERANCE = 1e-6
"""Tolerance of the sum of weights. The rounding of thousands of normalized weights is far below it."""


@dataclass(frozen=True)
class Recipe:
    """How the updates of a round are merged into one.

    Attributes:
        method: Name of a merge method (docs/merging.md).
        options: Options of the method. Options that are not named have their defaults.
        norm: "own" keeps the norm of each module's update; "mean" scales it to the Frobenius norm of the update of `mean`.
        scale: Factor of the whole update.
        seed: Seed of the round, for methods that sample (dare).
    """

    method: str = "mean"
    options: Mapping[str, float] = field(default_factory=dict)
    norm: str = "own"
    scale: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.norm not in ("own", "mean"):
            raise InputError(f"norm {self.norm!r} is unknown; give own or mean")


def merged_update(
    factors: Sequence[Factors], weights: Sequence[float], recipe: Recipe, inputs: Mapping[str, Any] | None = None
) -> AnyDelta:
    """Returns the update of one module: scale * method(factors, weights), with the norm of the recipe.

    Args:
        factors: One module of each adapter, in the order of summation.
        weights: Numbers >= 0 with sum 1. An adapter of weight zero has no effect.
        recipe: Method, options, norm, scale and seed.
        inputs: Parameter name -> further inputs of the method for this module (see `catalog.INPUTS`). The default seed is that
            of the recipe.

    Returns:
        The update of the module, (out, in), in factors or dense; `.dense()` is the matrix in float64.

    Raises:
        ConfigError: The method or the option does not exist, or a value is out of range.
        InputError: The shapes of the factors differ, the weights have another number or sum, or an input is missing.

    Example:
        >>> import torch
        >>> from wfc_dist import Factors, Recipe, merged_update
        >>> adapter = Factors(a_RI=torch.ones(1, 3), b_OR=torch.ones(2, 1), scaling=2.0)
        >>> merged_update([adapter, adapter], [0.5, 0.5], Recipe("mean")).dense().tolist()
        [[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]]
    """
    options = catalog.resolved(recipe.method, recipe.options)
    _check(factors, weights)
    needed = set(catalog.entry(recipe.method).needs) - {"fisher"}
    given = {"seed": recipe.seed} if "seed" in needed else {}
    given |= inputs or {}
    if missing := sorted(needed - given.keys()):
        raise InputError(f"{recipe.method} needs {missing[0]}: {catalog.INPUTS[missing[0]]}")
    if recipe.method not in _SUMS:
        factors = [item for item, weight in zip(factors, weights, strict=True) if weight]
        weights = [weight for weight in weights if weight]
    update = merge_method(recipe.method)(factors, weights, **options, **given)
    if recipe.norm == "mean" and recipe.method != "mean":
        update = at_norm(update, squared_norm_of(mean(factors, weights)))
    return update.scaled(recipe.scale)


def _check(factors: Sequence[Factors], weights: Sequence[float]) -> None:
    if not factors or len(factors) != len(weights):
        raise InputError(
            f"{len(factors)} adapters and {len(weights)} weights; give at least one adapter, and one weight for each"
        )
    if any(not weight >= 0 for weight in weights) or not abs(math.fsum(weights) - 1) < _SUM_TOLERANCE:
        raise InputError(f"weights {list(weights)} must be >= 0 with sum 1; divide them by their sum")
    shapes = {(item.b_OR.shape[0], item.a_RI.shape[1]) for item in factors}
    if len(shapes) > 1:
        raise InputError(
            f"the adapters have different shapes (out, in) of a module: {sorted(shapes)}; merge adapters of one model"
        )
