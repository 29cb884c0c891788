"""The distributions of an adapter's entries over all modules of a round, at three levels of standardization.

A mixture of Gaussians of different scales has heavy tails. If the kurtosis vanishes when entries are divided by the s of their
module, or of their output row, such a mixture is its cause.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from wfc_dist.analysis import gaussian
from wfc_dist.analysis.gaussian import GaussianFit

LEVELS: dict[str, Callable[[Sequence[torch.Tensor]], list[torch.Tensor]]] = {
    "as they are": list,
    "per module": gaussian.per_module,
    "per row": gaussian.per_row,
}
PROBABILITIES = tuple([0.0001, 0.0003, 0.001, 0.003] + [index / 100 for index in range(1, 100)] + [0.997, 0.999, 0.9997, 0.9999])
_BINS = 120


@dataclass(frozen=True)
class Distribution:
    """The entries of one adapter's matrices, or of their average, all modules together.

    Attributes:
        shapes: Level ("as they are", "per module", "per row") -> how the entries compare with a Gaussian.
        quantiles: Level -> quantiles of entries / s at `PROBABILITIES`.
        densities: Of the entries as they are, in bins between the edges of `Pooled`.
    """

    shapes: Mapping[str, GaussianFit]
    quantiles: Mapping[str, Sequence[float]]
    densities: Sequence[float]


@dataclass(frozen=True)
class Pooled:
    """Distributions before and after averaging.

    Attributes:
        adapters: Data set -> distribution.
        averaged: Distribution of the uniform mean.
        edges: Edges of the bins of densities.
    """

    adapters: Mapping[str, Distribution]
    averaged: Distribution
    edges: Sequence[float]


class EntryPool:
    """Gathers grids of entries of the adapters `names`, module by module."""

    def __init__(self, names: Sequence[str]) -> None:
        self._grids: dict[str, list[torch.Tensor]] = {name: [] for name in names}
        self._averaged: list[torch.Tensor] = []

    def add(self, grids: Sequence[torch.Tensor], averaged: torch.Tensor) -> tuple[float, float]:
        """Adds one module's entries. Returns the excess kurtosis of the adapters (mean) and of their average."""
        for kept, entries in zip(self._grids.values(), grids, strict=True):
            kept.append(entries)
        self._averaged.append(averaged)
        kurtoses = [_excess_kurtosis(entries) for entries in grids]
        return sum(kurtoses) / len(kurtoses), _excess_kurtosis(averaged)

    def entries(self, name: str) -> torch.Tensor:
        """Returns the entries of one adapter, flat."""
        return _flat(self._grids[name])

    def close(self) -> Pooled:
        """Returns the distributions."""
        widest = max(float(self.entries(name).square().mean()) for name in self._grids) ** 0.5 or 1.0
        edges = torch.linspace(-4 * widest, 4 * widest, _BINS + 1, dtype=torch.float64).tolist()
        adapters = {name: _distribution(grids, edges) for name, grids in self._grids.items()}
        return Pooled(adapters, _distribution(self._averaged, edges), edges)


def _flat(grids: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([entries.flatten() for entries in grids])


def _excess_kurtosis(entries: torch.Tensor) -> float:
    squares = entries.double().square()
    return float(squares.square().mean() / squares.mean() ** 2) - 3


def _distribution(grids: Sequence[torch.Tensor], edges: Sequence[float]) -> Distribution:
    values = {level: _flat(standardize(grids)) for level, standardize in LEVELS.items()}
    return Distribution(
        {level: gaussian.fit(entries) for level, entries in values.items()},
        {level: gaussian.quantiles(entries, PROBABILITIES) for level, entries in values.items()},
        gaussian.densities(values["as they are"], edges),
    )
