"""Merge methods by name: pure functions from one module's factors of K adapters and K weights (sum 1) to its update.

Each is the function of its own name in the file of its own name; `catalog` says what there is without loading torch.
"""

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from wfc_dist.merging import catalog

if TYPE_CHECKING:
    from wfc_dist.merging.factors import AnyDelta

    MergeMethod = Callable[..., AnyDelta]


def merge_method(name: str) -> "MergeMethod":
    """Returns the method called `name`: f(factors, weights, **options and inputs). Raises ConfigError for an unknown name."""
    catalog.entry(name)
    found: MergeMethod = getattr(importlib.import_module(f"wfc_dist.merging.methods.{name}"), name)
    return found
