"""The mean of many adapters from partial sums of any processes. The bytes do not depend on the grouping.

Stacked factors of K adapters hold K r (in + out) numbers, and their sum holds in * out numbers. If the sum is smaller, the update
is stored as the sum, and a process with many adapters sends its partial sum instead of their factors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from wfc_dist.merging import exact_sum
from wfc_dist.merging.factors import ROWS, DenseDelta, Factors, squared_sum


@dataclass(frozen=True)
class Facts:
    """Facts about one module of one adapter, which every process needs before the sum.

    Attributes:
        lora_r, scaling: Rank and scaling of the adapter.
        delta_bound: At least every |weight * scaling * B @ A|.
        a_bound, b_bound: At least every |weight * A| and every |weight * B|.
    """

    lora_r: int
    scaling: float
    delta_bound: float
    a_bound: float
    b_bound: float


def facts_of(item: Factors, weight: float) -> Facts:
    """Returns the facts of one module. Each entry of B @ A is at most the largest row norm of B times that of A's columns."""
    a_RI, b_OR = item.a_RI.double(), item.b_OR.double()
    norms = float(b_OR.norm(dim=1).max() * a_RI.norm(dim=0).max()) * (1 + 1e-12)  # because the norms are rounded
    return Facts(
        item.a_RI.shape[0], item.scaling, weight * abs(item.scaling) * norms,
        weight * float(a_RI.abs().max()), weight * float(b_OR.abs().max()),
    )  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """The grids of the sums of one module. `scaling` is that of the adapters if all have the same r and scaling, else None."""

    delta: float
    a: float
    b: float
    scaling: float | None


def grid_of(facts: Sequence[Facts]) -> Grid:
    """Returns the grids for adapters in data-set order."""
    alike = len({(item.lora_r, item.scaling) for item in facts}) == 1
    return Grid(
        exact_sum.quantum(item.delta_bound for item in facts),
        exact_sum.quantum(item.a_bound for item in facts),
        exact_sum.quantum(item.b_bound for item in facts),
        facts[0].scaling if alike else None,
    )


@dataclass(frozen=True)
class PartialMean:
    """Sums over some of the adapters, as multiples of the grid, float64.

    Attributes:
        delta_OI: (out, in), sum of the weighted updates.
        a_RI: (r, in), sum of the weighted lora_A, for `factor_mean`; None if the adapters differ in r or scaling.
        b_OR: (out, r), sum of the weighted lora_B, likewise.
    """

    delta_OI: torch.Tensor
    a_RI: torch.Tensor | None
    b_OR: torch.Tensor | None

    def add_(self, other: "PartialMean") -> None:
        """Adds `other` to these sums."""
        self.delta_OI.add_(other.delta_OI)
        if self.a_RI is not None and self.b_OR is not None:
            assert other.a_RI is not None and other.b_OR is not None
            self.a_RI.add_(other.a_RI)
            self.b_OR.add_(other.b_OR)


def partial_mean(items: Sequence[Factors], weights: Sequence[float], grid: Grid) -> PartialMean:
    """Returns the sums over `items`, which must not be empty.

    Args:
        items: One module of some adapters.
        weights: Their weights in the mean over all adapters.
        grid: The grid for all adapters of the mean.
    """
    buffer = torch.empty(ROWS, items[0].a_RI.shape[1], dtype=torch.float64)
    delta_OI = torch.zeros(items[0].b_OR.shape[0], items[0].a_RI.shape[1], dtype=torch.float64)
    for item, weight in zip(items, weights, strict=True):
        b_OR, a_RI = item.b_OR.double() * (weight * item.scaling / grid.delta), item.a_RI.double()
        for total, block in zip(delta_OI.split(ROWS), b_OR.split(ROWS), strict=True):
            total.add_(torch.mm(block, a_RI, out=buffer[: len(block)]).round_())
    if grid.scaling is None:
        return PartialMean(delta_OI, None, None)
    pairs = list(zip(items, weights, strict=True))
    return PartialMean(
        delta_OI,
        torch.stack([(item.a_RI.double() * (weight / grid.a)).round_() for item, weight in pairs]).sum(0),
        torch.stack([(item.b_OR.double() * (weight / grid.b)).round_() for item, weight in pairs]).sum(0),
    )


def finished(total: PartialMean, grid: Grid) -> tuple[DenseDelta, float | None, float | None]:
    """Returns the mean in float32, ||factor_mean - mean||^2 and ||mean||^2. The squares are None if r or scaling differ."""
    mean_OI = total.delta_OI * grid.delta  # exact: the grid is a power of two, and float64 holds whole numbers below 2^53
    delta = DenseDelta(mean_OI.float(), 1.0)
    if grid.scaling is None or total.a_RI is None or total.b_OR is None:
        return delta, None, None
    factor_mean_OI = (total.b_OR * grid.b * grid.scaling) @ (total.a_RI * grid.a)
    return delta, squared_sum(factor_mean_OI.sub_(mean_OI)), squared_sum(mean_OI)


def size_bytes(lora_r: int, out_features: int, in_features: int) -> int:
    """Returns the size of the partial sums of one module on the wire."""
    return exact_sum.PACKED_BYTES * (out_features * in_features + lora_r * (out_features + in_features))


def mean_of(factors: Sequence[Factors], weights: Sequence[float]) -> tuple[DenseDelta, float | None, float | None]:
    """Returns the result of `finished` for all adapters in one process, in data-set order. `weights` have sum 1."""
    grid = grid_of([facts_of(item, weight) for item, weight in zip(factors, weights, strict=True)])
    return finished(partial_mean(factors, weights, grid), grid)
