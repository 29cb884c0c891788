"""Singular values of updates in factors, by QR and an SVD of an (R, R) matrix instead of an (out, in) matrix.

Shape letters are those of `factors`. All computations are in float64.
"""

from collections.abc import Sequence

import torch

from wfc_dist.merging.factors import AnyDelta, DenseDelta, Factors, ModuleDelta, is_smaller_dense

_TOLERANCE = 1e-8  # relative to the largest singular value; smaller values belong to repeated directions


def svd(delta: AnyDelta) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns (u_OR, sigma_R, v_RI) with delta = u @ diag(sigma) @ v, sigma descending, R <= min(out, in, rank of factors)."""
    if isinstance(delta, DenseDelta):
        u_OR, sigma_R, v_RI = torch.linalg.svd(delta.dense(), full_matrices=False)
        return u_OR, sigma_R, v_RI
    left, right = torch.linalg.qr(delta.b_OR.double() * delta.coefficients_R), torch.linalg.qr(delta.a_RI.double().T)
    u_RR, sigma_R, v_RR = torch.linalg.svd(left.R @ right.R.T, full_matrices=False)
    return left.Q @ u_RR, sigma_R, v_RR @ right.Q.T


def directions(delta: AnyDelta, tolerance: float = _TOLERANCE) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the result of `svd` without zero singular values, because their vectors are arbitrary. A zero update gives R = 0.

    Args:
        delta: The update of one module.
        tolerance: A singular value counts as zero up to this share of the largest one. The default separates repeated
            directions. Rounding of float32 factors leaves values of up to about 1e-7.
    """
    u_OR, sigma_R, v_RI = svd(delta)
    kept = sigma_R > tolerance * sigma_R.max()
    return u_OR[:, kept], sigma_R[kept], v_RI[kept]


def nearest_orthonormal(columns: torch.Tensor) -> torch.Tensor:
    """Returns P @ Q for columns = P @ diag(s) @ Q: the nearest matrix with orthonormal columns (Procrustes).

    Directions with s near zero come from repeated columns and are left out, because they do not determine a nearest matrix.
    """
    if not columns.shape[1]:
        return columns
    left, sigma, right = torch.linalg.svd(columns, full_matrices=False)
    kept = sigma > _TOLERANCE * sigma.max()
    nearest: torch.Tensor = left[:, kept] @ right[kept]
    return nearest


def inner_products(factors: Sequence[Factors]) -> list[list[float]]:
    """Returns <delta_i, delta_j> (Frobenius) of one module's updates, K by K, without computing an update.

    The table is symmetric to the bit, and an entry depends on its two adapters only, so another order of the adapters permutes
    the table.
    """
    pairs = [(item.b_OR.double() * item.scaling, item.a_RI.double()) for item in factors]
    one_way = [[float(((b.T @ other_b) * (a @ other_a.T)).sum()) for other_b, other_a in pairs] for b, a in pairs]
    return [[(one_way[i][j] + one_way[j][i]) / 2 for j in range(len(pairs))] for i in range(len(pairs))]


def update_of(b_OR: torch.Tensor, coefficients_R: torch.Tensor, a_RI: torch.Tensor) -> AnyDelta:
    """Returns the update b @ diag(coefficients) @ a, rounded to float32, in factors or dense, whichever is smaller."""
    if is_smaller_dense(a_RI.shape[0], b_OR.shape[0], a_RI.shape[1]):
        return DenseDelta(((b_OR * coefficients_R) @ a_RI).float(), 1.0)
    return ModuleDelta(a_RI.float().contiguous(), b_OR.float().contiguous(), coefficients_R)


def weighted_sum(terms: Sequence[tuple[float, AnyDelta]]) -> AnyDelta:
    """Returns the sum of coefficient * update, in the order given.

    The result stacks the factors, which is exact. If a term is dense, or dense is smaller, the result is dense in float32.
    """
    deltas = [delta.scaled(coefficient) for coefficient, delta in terms]
    out_features, in_features = deltas[0].shape
    stacked = [delta for delta in deltas if isinstance(delta, ModuleDelta)]
    total_r = sum(delta.a_RI.shape[0] for delta in stacked)
    if len(stacked) < len(deltas) or is_smaller_dense(total_r, out_features, in_features):
        total_OI = deltas[0].dense()
        for delta in deltas[1:]:
            total_OI += delta.dense()
        return DenseDelta(total_OI.float(), 1.0)
    return ModuleDelta(
        torch.cat([delta.a_RI for delta in stacked]),
        torch.cat([delta.b_OR for delta in stacked], dim=1),
        torch.cat([delta.coefficients_R for delta in stacked]),
    )
