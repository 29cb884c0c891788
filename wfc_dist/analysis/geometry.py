"""How the updates of a round relate to one another: inner products, subspaces, signs. No dense update is computed.

Letters of shapes: K adapters, O out features, I in features, R and S ranks, D dimensions of a space, N entries.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from wfc_dist.merging.factors import Factors


@dataclass(frozen=True)
class VarianceSplit:
    """||mean of the updates||^2 relative to the mean of ||update||^2, split into its terms.

    From ||mean||^2 = (1/N^2) sum_ij <d_i, d_j>: ratio = own + cross, exactly.

    Attributes:
        ratio: ||mean||^2 / mean_i ||d_i||^2: 1/N for orthogonal updates, 1 for identical ones.
        own: Part of the terms i = j; always 1/N.
        cross: Part of the terms i != j.
        mean_cosine: cross / (1 - 1/N): the mean cosine of pairs, weighted by norms; None for a single adapter.
    """

    ratio: float
    own: float
    cross: float
    mean_cosine: float | None


def update_gram(factors: Sequence[Factors]) -> torch.Tensor:
    """Returns <d_i, d_j> = s_i s_j sum((B_i^T B_j) * (A_i A_j^T)) of the updates of one module, (K, K) float64.

    The ranks may differ.
    """
    a_RI = torch.cat([adapter.a_RI.double() for adapter in factors])
    b_OR = torch.cat([adapter.b_OR.double() * adapter.scaling for adapter in factors], dim=1)
    ranks = [adapter.a_RI.shape[0] for adapter in factors]
    owner_R = torch.repeat_interleave(torch.arange(len(factors)), torch.tensor(ranks))
    rows = []
    for a_SI, b_OS in zip(a_RI.split(ranks), b_OR.split(ranks, dim=1), strict=True):
        products_R = ((b_OS.T @ b_OR) * (a_SI @ a_RI.T)).sum(dim=0)
        rows.append(torch.zeros(len(factors), dtype=torch.float64).index_add_(0, owner_R, products_R))
    gram_KK = torch.stack(rows)
    return (gram_KK + gram_KK.T) / 2  # symmetric to the last bit


def matrix_gram(matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    """Returns <m_i, m_j> of matrices of one shape, (K, K) float64."""
    flat_KN = torch.stack([matrix.double().flatten() for matrix in matrices])
    return flat_KN @ flat_KN.T


def entry_sums(factors: Sequence[Factors]) -> torch.Tensor:
    """Returns the sum of the entries of each update, s (1^T B)(A 1), (K,) float64."""
    sums = [adapter.scaling * (adapter.b_OR.double().sum(dim=0) @ adapter.a_RI.double().sum(dim=1)) for adapter in factors]
    return torch.stack(sums)


def variance_split(gram_KK: torch.Tensor) -> VarianceSplit:
    """Returns the split of ||mean||^2, from the inner products of one module or their sum over modules.

    ratio and cross are NaN if all updates are zero.
    """
    num = len(gram_KK)
    mean_squared = float(gram_KK.trace()) / num
    if not mean_squared:
        return VarianceSplit(float("nan"), 1 / num, float("nan"), None)
    cross = float(gram_KK.sum() - gram_KK.trace()) / num**2 / mean_squared
    return VarianceSplit(1 / num + cross, 1 / num, cross, cross / (1 - 1 / num) if num > 1 else None)


def cosines(gram_KK: torch.Tensor) -> torch.Tensor:
    """Returns the cosine of every pair, (K, K) float64; NaN where an update is zero."""
    norms_K = gram_KK.diagonal().sqrt()
    return gram_KK / (norms_K[:, None] * norms_K)


def mean_off_diagonal(values_KK: torch.Tensor) -> float:
    """Returns the mean over pairs i != j; NaN for a single adapter."""
    num = len(values_KK)
    return float((values_KK.sum() - values_KK.trace()) / (num * (num - 1))) if num > 1 else float("nan")


def effective_rank(singular_R: torch.Tensor) -> float:
    """Returns (sum s^2)^2 / sum s^4: r for r equal singular values, 1 if one prevails, 0 for none."""
    squares_R = singular_R.double() ** 2
    return float(squares_R.sum() ** 2 / (squares_R**2).sum()) if len(squares_R) else 0.0


def overlap(p_DR: torch.Tensor, q_DS: torch.Tensor) -> float:
    """Returns the mean squared cosine of the principal angles: 1 if one space is in the other, 0 if they are orthogonal.

    The columns are orthonormal, float64. NaN if a space has no direction.
    """
    if not p_DR.shape[1] or not q_DS.shape[1]:
        return float("nan")
    return float((p_DR.T @ q_DS).square().sum()) / min(p_DR.shape[1], q_DS.shape[1])


def random_overlap(p_DR: torch.Tensor, q_DS: torch.Tensor) -> float:
    """Returns the expected `overlap` of random subspaces of these dimensions, max(R, S) / D."""
    return max(p_DR.shape[1], q_DS.shape[1]) / p_DR.shape[0]


def sign_agreement(entries_KN: torch.Tensor) -> torch.Tensor:
    """Returns for every pair the share of equal signs among the entries that are zero in neither; (K, K) float64."""
    signs_KN = entries_KN.sign().double()
    both_KK = signs_KN.abs() @ signs_KN.abs().T
    return (signs_KN @ signs_KN.T / both_KK + 1) / 2
