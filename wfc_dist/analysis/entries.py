"""Entries of the updates of a round, before and after averaging: do averaged weights lie nearer zero, as 1/N says?"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from wfc_dist.errors import InputError
from wfc_dist.merging.factors import AnyDelta, Factors, concatenated
from wfc_dist.weights import base_chain, peft_folder

_SIDE = 96  # a grid of at most 96 x 96 entries of every module is looked at
Entries = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RoundWeights:
    """The same sampled entries of every adapter's update and of the averaged one.

    Attributes:
        adapters: Data set -> entries of scaling * B @ A, over all modules.
        averaged: Entries of the averaged update.
    """

    adapters: Mapping[str, Entries]
    averaged: Entries

    @property
    def variance_ratio(self) -> float:
        """Returns var(averaged) / mean of the adapters' variances; 1/N for independent updates, 1 for identical ones."""
        mean = float(np.mean([values.var() for values in self.adapters.values()]))
        return float(self.averaged.var()) / mean if mean else float("nan")


def grid(size: int, side: int = _SIDE) -> torch.Tensor:
    """Returns at most `side` indices of 0..size-1, evenly spread, both ends among them; (min(size, side),) int64."""
    return torch.linspace(0, size - 1, min(size, side)).round().long()


def _entries(delta: AnyDelta) -> Entries:
    """Returns a grid of entries of an update, flat, float64."""
    entries: Entries = delta.entries(*map(grid, delta.shape)).flatten().numpy()
    return entries


def read_adapters(round_dir: Path) -> dict[str, dict[str, Factors]]:
    """Reads RUN/round-000R/adapters/*: data set -> module -> factors, in name order; empty when there are none (yet)."""
    folders = sorted((round_dir / "adapters").glob("*"))
    return {
        folder.name: peft_folder.read_factors(folder)
        for folder in folders
        if (folder / peft_folder.CONFIG).is_file() and ".tmp-" not in folder.name
    }


def read_weights(round_dir: Path) -> RoundWeights:
    """Reads RUN/round-000R/adapters/* and RUN/round-000R/delta.

    Raises:
        InputError: No adapters, no delta, or adapters of other modules than the delta's.
    """
    delta = base_chain.read_delta(round_dir / "delta")
    found = {}
    for name, factors in read_adapters(round_dir).items():
        if factors.keys() != delta.keys():
            folder = round_dir / "adapters" / name
            raise InputError(f"{folder} has other modules than {round_dir / 'delta'}; it was replaced after the round")
        found[name] = np.concatenate([_entries(concatenated([item], [1.0])) for item in factors.values()])
    if not found:
        raise InputError(f"{round_dir / 'adapters'} holds no adapters")
    return RoundWeights(found, np.concatenate([_entries(delta[name]) for name in sorted(delta)]))
