"""How the distribution of weights compares with N(0, s^2). Entries in, numbers out; float64. N: number of entries.

With millions of entries every test of normality rejects, whatever the weights are, and the entries of a product of low rank are
not independent: p-values say nothing here. So these functions measure distances between distribution functions, which do not
grow with N, and how few entries suffice to tell the two apart.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

THRESHOLDS = (0.01, 0.1, 0.5, 1.0)
"""Sizes in units of s. The share of entries below a threshold is the sparsity."""
_KS_CRITICAL = 1.3581  # sqrt(N) * distance exceeds it for 5 % of samples of the distribution itself (Kolmogorov)


@dataclass(frozen=True)
class GaussianFit:
    """Entries against N(0, s^2). Numbers are NaN where all entries are zero.

    Attributes:
        num: Number of entries.
        mean: Their mean.
        s: sqrt(mean of squares), which fits N(0, s^2).
        excess_kurtosis: mean(x^4) / s^4 - 3: 0 for a Gaussian, above for heavy tails, -1.2 for a uniform distribution.
        ks_distance: Kolmogorov-Smirnov, the largest difference of the distribution functions.
        anderson_darling: A^2 / N, the mean squared difference weighted with 1 / (F (1 - F)), which stresses the tails.
        num_to_reject: How many independent entries at this KS distance reject the Gaussian at 5 %.
        zeros: Share of entries that are exactly 0.
        below: Threshold in units of s -> share of entries of smaller size.
    """

    num: int
    mean: float
    s: float
    excess_kurtosis: float
    ks_distance: float
    anderson_darling: float
    num_to_reject: float
    zeros: float
    below: Mapping[str, float]


def fit(values_N: torch.Tensor) -> GaussianFit:
    """Returns how entries compare with N(0, s^2), s^2 their mean square."""
    x_N = values_N.double().flatten().sort().values
    num, s = len(x_N), math.sqrt(float(x_N.square().mean()))
    mean, zeros = float(x_N.mean()), float((x_N == 0).double().mean())
    if not s:
        below = {f"{threshold:g}": math.nan for threshold in THRESHOLDS}
        return GaussianFit(num, mean, s, math.nan, math.nan, math.nan, math.nan, zeros, below)
    z_N = x_N / s
    distance = ks_distance(z_N)
    below = {f"{threshold:g}": float((z_N.abs() < threshold).double().mean()) for threshold in THRESHOLDS}
    kurtosis = float(z_N.pow(4).mean()) - 3
    return GaussianFit(num, mean, s, kurtosis, distance, anderson_darling(z_N), (_KS_CRITICAL / distance) ** 2, zeros, below)


def ks_distance(sorted_N: torch.Tensor) -> float:
    """Returns the Kolmogorov-Smirnov distance of sorted entries to N(0, 1)."""
    num, cdf_N = len(sorted_N), torch.special.ndtr(sorted_N)
    steps_N = torch.arange(num, dtype=torch.float64) / num
    return float(torch.maximum(cdf_N - steps_N, steps_N + 1 / num - cdf_N).max())


def anderson_darling(sorted_N: torch.Tensor) -> float:
    """Returns A^2 / N of sorted entries against N(0, 1), all parameters known."""
    num = len(sorted_N)
    odd_N = 2 * torch.arange(1, num + 1, dtype=torch.float64) - 1
    logs_N = torch.special.log_ndtr(sorted_N) + torch.special.log_ndtr(-sorted_N.flip(0))
    return -1 - float((odd_N * logs_N).sum()) / num / num


def gaussian_below(threshold: float) -> float:
    """Returns the share of a Gaussian's entries below `threshold` * s in size, erf(threshold / sqrt(2))."""
    return math.erf(threshold / math.sqrt(2))


def per_module(grids: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Returns every module's entries divided by their own s, so that all have one scale. Zeros stay."""
    return [_divided(grid, grid.double().square().mean().sqrt()) for grid in grids]


def per_row(grids: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Returns every output row's entries divided by their own s."""
    return [_divided(grid, grid.double().square().mean(dim=1, keepdim=True).sqrt()) for grid in grids]


def _divided(values: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    return values.double() / torch.where(by > 0, by, torch.ones_like(by))


def normal_quantiles(probabilities: Sequence[float]) -> list[float]:
    """Returns the quantiles of N(0, 1): the horizontal axis of a QQ plot."""
    return [float(value) for value in torch.special.ndtri(torch.tensor(probabilities, dtype=torch.float64))]


def quantiles(values_N: torch.Tensor, probabilities: Sequence[float]) -> list[float]:
    """Returns the quantiles of entries / s (linear between order statistics); NaN where all are zero."""
    x_N = values_N.double().flatten().sort().values
    position = torch.tensor(probabilities, dtype=torch.float64) * (len(x_N) - 1)
    low = position.floor().long()
    high = (low + 1).clamp(max=len(x_N) - 1)
    values = x_N[low] + (position - low) * (x_N[high] - x_N[low])
    return [float(value) for value in values / x_N.square().mean().sqrt()]


def densities(values_N: torch.Tensor, edges: Sequence[float]) -> list[float]:
    """Returns the density of entries in each bin between `edges`. Entries outside count in the total only."""
    bins = torch.tensor(edges, dtype=torch.float64)
    counts = torch.histogram(values_N.double().flatten().contiguous(), bins).hist
    return [float(value) for value in counts / (max(1, values_N.numel()) * bins.diff())]
