"""Sums with the same bytes in every order and every grouping: each term is rounded once, to one grid; then integers add up.

Floating-point addition is not associative, so partial sums of other groups of terms give other bytes. Integers are.
"""

import math
from collections.abc import Iterable

import torch

_BITS = 46  # a sum keeps 46 bits below its bound: 22 more than float32 does; with the sign and a carry it fits into 48
_SMALLEST = -1022  # the exponent of the smallest normal float64; by a smaller grid a division could overflow


def quantum(bounds: Iterable[float]) -> float:
    """Returns the grid of a sum: a power of two, 2^-46 to 2^-45 of the sum of `bounds`, the same in any order of them.

    Args:
        bounds: One per term, >= every absolute value in it, >= 0.
    """
    total = math.fsum(bounds)
    return 2.0 ** max(math.ceil(math.log2(total)) - _BITS, _SMALLEST) if total > 0 else 1.0


def pack(total: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the upper 32 and the lower 16 bits of whole numbers in float64: 6 bytes a number travel, not 8."""
    whole = total.to(torch.int64)
    return (whole >> 16).to(torch.int32), (whole & 0xFFFF).to(torch.int32).to(torch.int16)


def unpack(upper: torch.Tensor, lower: torch.Tensor) -> torch.Tensor:
    """Returns what `pack` was given."""
    return ((upper.to(torch.int64) << 16) + (lower.to(torch.int64) & 0xFFFF)).double()


PACKED_BYTES = 6
"""Size of one packed number."""
