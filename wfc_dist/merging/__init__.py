"""Merge methods by name. A method is a pure function: factors of one module of K adapters and K weights (sum 1) -> its update.

The method NAME is the function NAME in methods/NAME.py. `catalog` lists the methods and loads no torch.
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
    method: MergeMethod = getattr(importlib.import_module(f"wfc_dist.merging.methods.{name}"), name)
    return method
