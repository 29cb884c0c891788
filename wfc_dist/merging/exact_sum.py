"""Sums whose bytes do not depend on the order or grouping of the terms.

Floating-point addition is not associative, so another grouping of the terms would give other bytes. Therefore each term is
rounded once, to a multiple of a common grid. Then the multiples are added, which are integers, and integer addition is
associative.
"""

import math
from collections.abc import Iterable

import torch

_BITS = 46  # a sum keeps 46 bits below its bound, 22 more than float32; with sign and carry it fits into 48 bits
_SMALLEST = -1022  # exponent of the smallest normal float64; dividing by a smaller grid could overflow


def quantum(bounds: Iterable[float]) -> float:
    """Returns the grid of a sum: a power of two, 2^-46 to 2^-45 of the sum of `bounds`. The order of `bounds` does not matter.

    Args:
        bounds: One number >= 0 for each term, at least the largest absolute value in the term.
    """
    total = math.fsum(bounds)
    return 2.0 ** max(math.ceil(math.log2(total)) - _BITS, _SMALLEST) if total > 0 else 1.0


def pack(total: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the upper 32 and the lower 16 bits of whole numbers in float64. A number takes 6 bytes on the wire instead of 8."""
    whole = total.to(torch.int64)
    return (whole >> 16).to(torch.int32), (whole & 0xFFFF).to(torch.int32).to(torch.int16)


def unpack(upper: torch.Tensor, lower: torch.Tensor) -> torch.Tensor:
    """Returns the whole numbers that `pack` split, float64."""
    return ((upper.to(torch.int64) << 16) + (lower.to(torch.int64) & 0xFFFF)).double()


PACKED_BYTES = 6
"""Size of one packed number in bytes."""
