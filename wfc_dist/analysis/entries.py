"""Adapters of a round as factors, and the grid of entries that is looked at."""

from pathlib import Path

import torch

from wfc_dist.merging.factors import Factors
from wfc_dist.weights import peft_folder


def grid(size: int, side: int) -> torch.Tensor:
    """Returns at most `side` indices of 0..size-1, evenly spread, both ends among them; (min(size, side),) int64."""
    return torch.linspace(0, size - 1, min(size, side)).round().long()


def read_adapters(round_dir: Path) -> dict[str, dict[str, Factors]]:
    """Reads RUN/round-000R/adapters/*: data set -> module -> factors, in name order; empty when there are none (yet)."""
    folders = sorted((round_dir / "adapters").glob("*"))
    return {
        folder.name: peft_folder.read_factors(folder)
        for folder in folders
        if (folder / peft_folder.CONFIG).is_file() and ".tmp-" not in folder.name
    }
