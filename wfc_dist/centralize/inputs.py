"""Reads the inputs that a merge method needs besides factors and weights from the files of earlier rounds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wfc_dist.merging import catalog
from wfc_dist.merging.curvature import NEEDED
from wfc_dist.merging.recipe import Recipe
from wfc_dist.seeds import derived_seed
from wfc_dist.weights import base_chain, peft_folder


def own_curvature(method: str) -> tuple[str, ...]:
    """Returns the statistics (`merging.curvature`) that a method needs for the adapters that it merges."""
    return NEEDED["fisher"] if "fisher" in catalog.entry(method).needs else ()


def method_inputs(
    recipe: Recipe, module: str, shape: tuple[int, int], past_deltas: Sequence[Path], previous_adapters: Sequence[Path]
) -> dict[str, Any]:
    """Returns the keyword arguments of a method for one module, with the names of `catalog.INPUTS`.

    Args:
        recipe: The method and its seed.
        module: Name of the module.
        shape: (out, in) of the module.
        past_deltas: Delta folders of all earlier rounds, in order.
        previous_adapters: Adapter folders with the curvature of the last round.

    Raises:
        InputError: A previous adapter has no curvature.
    """
    needs = catalog.entry(recipe.method).needs
    inputs: dict[str, Any] = {}
    if "seed" in needs:
        inputs["seed"] = derived_seed(recipe.seed, module)
    if "past" in needs:
        inputs["past"] = list(base_chain.past_updates(past_deltas, module))
    if "previous" in needs:
        shapes, statistics = {module: shape}, NEEDED["previous"]
        inputs["previous"] = [peft_folder.read_curvature(folder, shapes, statistics)[module] for folder in previous_adapters]
    return inputs
