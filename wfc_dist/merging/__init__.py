"""Merge methods by name: pure functions from one module's factors of K adapters and K weights (sum 1) to its update."""

from collections.abc import Callable, Sequence

from wfc_dist.errors import ConfigError
from wfc_dist.lora_math import AnyDelta, Factors
from wfc_dist.merging.factor_mean import factor_mean
from wfc_dist.merging.mean import mean

MergeMethod = Callable[[Sequence[Factors], Sequence[float]], AnyDelta]
METHODS: dict[str, MergeMethod] = {"mean": mean, "factor_mean": factor_mean}


def merge_method(name: str) -> MergeMethod:
    """Returns the method called `name`. Raises ConfigError listing the names there are."""
    if name not in METHODS:
        raise ConfigError(f"centralize.method: {name!r} is not known; there are: {', '.join(sorted(METHODS))}")
    return METHODS[name]
