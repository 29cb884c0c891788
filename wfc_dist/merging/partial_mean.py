"""The mean of many adapters, from partial sums that any process may have added up: same bytes, however they are grouped.

Stacked factors of K adapters hold K r (in + out) numbers, their sum in * out. Once the sum is the smaller, it is the better
form of an update, and a process with many adapters of its own sends its partial sum instead of their factors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from wfc_dist.merging import exact_sum
from wfc_dist.merging.factors import ROWS, DenseDelta, Factors, squared_sum


@dataclass(frozen=True)
class Facts:
    """What every process must know of one module of one adapter before anything is summed.

    Attributes:
        lora_r, scaling: Of the adapter.
        delta_bound: >= every |weight * scaling * B @ A|.
        a_bound, b_bound: >= every |weight * A| and |weight * B|.
    """

    lora_r: int
    scaling: float
    delta_bound: float
    a_bound: float
    b_bound: float


def facts_of(item: Factors, weight: float) -> Facts:
    """Returns the facts of one adapter's module. No entry of B @ A exceeds the largest row norm of B times column norm of A."""
    a_RI, b_OR = item.a_RI.double(), item.b_OR.double()
    norms = float(b_OR.norm(dim=1).max() * a_RI.norm(dim=0).max()) * (1 + 1e-12)  # the norms themselves were rounded
    return Facts(
        item.a_RI.shape[0], item.scaling, weight * abs(item.scaling) * norms,
        weight * float(a_RI.abs().max()), weight * float(b_OR.abs().max()),
    )  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """The grids of one module's sums. `scaling` is the adapters' own where all have one r and scaling, else None."""

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
    """Sums over some of the adapters, in counts of the grid, float64: of the updates, (out, in), and, where all adapters
    are alike, of the weighted factors, (r, in) and (out, r), which `factor_mean` is made of."""

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
        weights: Their shares of the whole mean.
        grid: Of all adapters of the mean.
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
    """Returns the mean in float32, ||factor_mean - mean||^2 (None where adapters differ in r or scaling), and ||mean||^2."""
    mean_OI = total.delta_OI * grid.delta  # exact, as the grid is a power of two and float64 holds whole numbers below 2^53
    delta = DenseDelta(mean_OI.float(), 1.0)
    if grid.scaling is None or total.a_RI is None or total.b_OR is None:
        return delta, None, None
    factor_mean_OI = (total.b_OR * grid.b * grid.scaling) @ (total.a_RI * grid.a)
    return delta, squared_sum(factor_mean_OI.sub_(mean_OI)), squared_sum(mean_OI)


def size_bytes(lora_r: int, out_features: int, in_features: int) -> int:
    """Returns what one module's partial sums take on the wire."""
    return exact_sum.PACKED_BYTES * (out_features * in_features + lora_r * (out_features + in_features))


def mean_of(factors: Sequence[Factors], weights: Sequence[float]) -> tuple[DenseDelta, float | None, float | None]:
    """Returns `finished` for adapters that are all at hand, in data-set order; `weights` sum to 1."""
    grid = grid_of([facts_of(item, weight) for item, weight in zip(factors, weights, strict=True)])
    return finished(partial_mean(factors, weights, grid), grid)
