"""The maths of averaging and merging, on tensors only.

Shape letters: O out features, I in features, R rank of an update. A and B are those of PEFT: lora_A is (r, in), lora_B is
(out, r). The paper (arXiv 2506.16574) swaps A and B. All sums are in float64 and in the order given. Products of float32 numbers
are exact in float64, so a sum over K adapters is right to the last bit of the float32 to which it is rounded.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from wfc_dist.errors import InputError
from wfc_dist.merging.curvature import Curvature

ROWS = 64
"""Number of rows of an update that are computed at a time. In float64 they fit into the cache of a core.

The number is part of the arithmetic: another number gives other bytes."""


@dataclass(frozen=True)
class Factors:
    """The factors of one module of an adapter: delta_OI = scaling * b_OR @ a_RI.

    Attributes:
        a_RI: lora_A.weight, (r, in), float32.
        b_OR: lora_B.weight, (out, r), float32.
        scaling: alpha / r, or alpha / sqrt(r) for rsLoRA.
        curvature: Statistics of the loss; None unless a merge method needs them.
    """

    a_RI: torch.Tensor
    b_OR: torch.Tensor
    scaling: float
    curvature: Curvature | None = None


@dataclass(frozen=True)
class ModuleDelta:
    """The averaged update of one module in factors: delta_OI = b_OR @ diag(coefficients_R) @ a_RI.

    The coefficients stay apart from the factors, because multiplying float32 factors by 1/K would round.

    Attributes:
        a_RI: (R, in), float32.
        b_OR: (out, R), float32.
        coefficients_R: (R,), float64.
    """

    a_RI: torch.Tensor
    b_OR: torch.Tensor
    coefficients_R: torch.Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Returns (out, in)."""
        return self.b_OR.shape[0], self.a_RI.shape[1]

    def dense(self) -> torch.Tensor:
        """Returns delta_OI, (out, in), float64."""
        return (self.b_OR.double() * self.coefficients_R) @ self.a_RI.double()

    def rows(self, num_rows: int) -> Iterator[torch.Tensor]:
        """Yields delta_OI in blocks of `num_rows` rows, float64; the next block is written over the one before."""
        b_OR, a_RI = self.b_OR.double() * self.coefficients_R, self.a_RI.double()
        buffer = torch.empty(num_rows, self.shape[1], dtype=torch.float64)
        for block in b_OR.split(num_rows):
            yield torch.mm(block, a_RI, out=buffer[: len(block)])

    def entries(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Returns delta_OI[rows][:, columns], float64, without computing other entries."""
        return (self.b_OR[rows].double() * self.coefficients_R) @ self.a_RI[:, columns].double()

    def scaled(self, scale: float) -> "ModuleDelta":
        """Returns scale * delta."""
        return ModuleDelta(self.a_RI, self.b_OR, self.coefficients_R * scale)


@dataclass(frozen=True)
class DenseDelta:
    """The averaged update of one module as a matrix, coefficient * dense_OI, for factors that would hold more numbers.

    Attributes:
        dense_OI: (out, in), float32.
        coefficient: The scale. It stays apart from the matrix, because multiplying float32 would round.
    """

    dense_OI: torch.Tensor
    coefficient: float

    @property
    def shape(self) -> tuple[int, int]:
        """Returns (out, in)."""
        return self.dense_OI.shape[0], self.dense_OI.shape[1]

    def dense(self) -> torch.Tensor:
        """Returns delta_OI, (out, in), float64."""
        return self.dense_OI.double() * self.coefficient

    def rows(self, num_rows: int) -> Iterator[torch.Tensor]:
        """Yields delta_OI in blocks of `num_rows` rows, float64; the next block is written over the one before."""
        buffer = torch.empty(num_rows, self.shape[1], dtype=torch.float64)
        for block in self.dense_OI.split(num_rows):
            yield buffer[: len(block)].copy_(block).mul_(self.coefficient)

    def entries(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Returns delta_OI[rows][:, columns], float64."""
        return self.dense_OI[rows][:, columns].double() * self.coefficient

    def scaled(self, scale: float) -> "DenseDelta":
        """Returns scale * delta."""
        return DenseDelta(self.dense_OI, self.coefficient * scale)


AnyDelta = ModuleDelta | DenseDelta


def is_smaller_dense(total_r: int, out_features: int, in_features: int) -> bool:
    """Returns whether stacked factors of rank `total_r` hold more numbers than their product, (out, in)."""
    return total_r * (out_features + in_features) > out_features * in_features


def normalized(weights: Sequence[float]) -> list[float]:
    """Returns weights / sum(weights). Raises InputError for a negative weight or a sum of zero."""
    total = float(sum(weights))
    if not 0 < total < math.inf or any(not weight >= 0 for weight in weights):
        raise InputError(f"weights {list(weights)} must be finite and >= 0 with a sum > 0")
    return [float(weight) / total for weight in weights]


def concatenated(factors: Sequence[Factors], weights: Sequence[float]) -> ModuleDelta:
    """Returns sum_i weights_i * scaling_i * B_i @ A_i as one product of stacked factors, which is exact.

    Args:
        factors: One module of each adapter. Ranks and scalings may differ.
        weights: One number per adapter, not normalized.
    """
    coefficients = [
        torch.full((item.a_RI.shape[0],), weight * item.scaling, dtype=torch.float64)
        for item, weight in zip(factors, weights, strict=True)
    ]
    return ModuleDelta(
        torch.cat([item.a_RI for item in factors]),
        torch.cat([item.b_OR for item in factors], dim=1),
        torch.cat(coefficients),
    )


def stacked_rows(factors: Sequence[Factors]) -> Iterator[torch.Tensor]:
    """Yields the updates of K adapters in blocks of rows, (K, rows, in), float64; the next block is written over the one before.

    It serves methods that work entry by entry. K dense updates are never in memory at once.
    """
    pairs = [(item.b_OR.double() * item.scaling, item.a_RI.double()) for item in factors]
    out_features, in_features = factors[0].b_OR.shape[0], factors[0].a_RI.shape[1]
    buffer = torch.empty(len(factors), ROWS, in_features, dtype=torch.float64)
    for start in range(0, out_features, ROWS):
        num_rows = min(ROWS, out_features - start)
        for (b_OR, a_RI), block in zip(pairs, buffer, strict=True):
            torch.mm(b_OR[start : start + num_rows], a_RI, out=block[:num_rows])
        yield buffer[:, :num_rows]


def as_column(values: Sequence[float]) -> torch.Tensor:
    """Returns K numbers as a tensor (K, 1, 1), float64, which broadcasts over the blocks of `stacked_rows`."""
    return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1)


def largest_entries_from(item: Factors, density: float) -> float:
    """Returns the magnitude from which on an entry is among the share `density` of an update's entries, the largest ones.

    All entries of this magnitude count, so ties at the threshold make the share larger. At least one entry counts.
    """
    magnitudes = torch.cat([block[0].abs().flatten() for block in stacked_rows([item])])
    num_kept = max(1, int(density * magnitudes.numel()))
    return float(magnitudes.kthvalue(magnitudes.numel() - num_kept + 1).values)


def chain_sum_rows(root_OI: torch.Tensor, deltas: Iterable[AnyDelta], num_rows: int) -> Iterator[torch.Tensor]:
    """Yields float64(root) + delta_1 + ... + delta_t in blocks of rows, summed in the order of the rounds.

    The next block is written over the one before.
    """
    blocks = [delta.rows(num_rows) for delta in deltas]
    buffer = torch.empty(num_rows, root_OI.shape[1], dtype=torch.float64)
    for root in root_OI.split(num_rows):
        total = buffer[: len(root)].copy_(root)
        for updates in blocks:
            total.add_(next(updates))
        yield total


def squared_norm(b_OR: torch.Tensor, a_RI: torch.Tensor) -> float:
    """Returns ||b_OR @ a_RI||^2 (Frobenius), float64, from the two (R, R) Gram matrices, without computing the product."""
    b_OR, a_RI = b_OR.double(), a_RI.double()
    return float(((b_OR.T @ b_OR) * (a_RI @ a_RI.T)).sum())


def squared_norm_of(delta: AnyDelta) -> float:
    """Returns ||delta||^2 (Frobenius), float64."""
    if isinstance(delta, DenseDelta):
        return squared_sum(delta.dense_OI.double()) * delta.coefficient**2
    return max(squared_norm(delta.b_OR.double() * delta.coefficients_R, delta.a_RI), 0.0)


def squared_sum(values: torch.Tensor) -> float:
    """Returns sum of values^2."""
    return float(torch.linalg.vector_norm(values)) ** 2


def exactness_gap(factors: Sequence[Factors], weights: Sequence[float]) -> tuple[float, float]:
    """Returns (||factor_mean - mean||^2, ||mean||^2), Frobenius, float64. The gap is the root of the ratio of their sums.

    With the weighted means A' and B' of the factors and one scaling s, mean - factor_mean = s sum_i w_i (B_i - B') @ (A_i - A').
    This form avoids cancellation, and equal adapters give exactly 0.

    Args:
        factors: One module of each adapter. All have the same r and scaling.
        weights: w_i, sum 1.
    """
    scaling = factors[0].scaling
    mean_a = sum((weight * item.a_RI.double() for item, weight in zip(factors, weights, strict=True)), torch.zeros(()))
    mean_b = sum((weight * item.b_OR.double() for item, weight in zip(factors, weights, strict=True)), torch.zeros(()))
    a_RI = torch.cat([item.a_RI.double() - mean_a for item in factors])
    b_OR = torch.cat([weight * (item.b_OR.double() - mean_b) for item, weight in zip(factors, weights, strict=True)], dim=1)
    mean = concatenated(factors, weights)
    gap = squared_norm(b_OR, a_RI) * scaling**2
    return max(gap, 0.0), squared_norm(mean.b_OR.double() * mean.coefficients_R, mean.a_RI)


def at_norm(delta: AnyDelta, squared: float) -> AnyDelta:
    """Returns the update scaled so that its squared norm is `squared`. A zero update stays zero."""
    own = squared_norm_of(delta)
    return delta.scaled(ratio_of_norms(squared, own)) if own else delta


def ratio_of_norms(numerator_squared: float, denominator_squared: float) -> float:
    """Returns sqrt(numerator / denominator). 0/0 gives 0: the gap between zero updates is 0."""
    if denominator_squared == 0:
        return 0.0 if numerator_squared == 0 else float("inf")
    return float((numerator_squared / denominator_squared) ** 0.5)
