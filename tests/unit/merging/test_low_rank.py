"""Directions of an update against the SVD of the dense one, and which of them count."""

import numpy as np
import torch

from wfc_dist.merging import low_rank
from wfc_dist.merging.factors import Factors, ModuleDelta, concatenated


def update(*, lora_r: int) -> ModuleDelta:
    generator = torch.Generator().manual_seed(9)
    a_RI, b_OR = torch.randn(lora_r, 56, generator=generator), torch.randn(40, lora_r, generator=generator)
    return concatenated([Factors(a_RI, b_OR, 1.5)], [1.0])


def test_directions_are_those_of_the_dense_update_without_repeated_ones() -> None:
    delta = update(lora_r=5)
    delta.b_OR[:, 4] = delta.b_OR[:, 3]  # rank 4
    u_OR, sigma_R, v_RI = low_rank.directions(delta)

    dense = delta.dense().numpy()
    assert len(sigma_R) == 4
    np.testing.assert_allclose(sigma_R.numpy(), np.linalg.svd(dense, compute_uv=False)[:4], rtol=1e-9)
    np.testing.assert_allclose((u_OR * sigma_R @ v_RI).numpy(), dense, atol=1e-9)


def test_the_tolerance_decides_what_the_rounding_of_float32_factors_leaves() -> None:
    delta = update(lora_r=8)
    delta.a_RI[7] = delta.a_RI[:7].sum(dim=0)  # rounded: nearly, not quite, of rank 7

    assert len(low_rank.directions(delta)[1]) == 8
    assert len(low_rank.directions(delta, tolerance=1e-6)[1]) == 7


def test_a_zero_update_has_no_direction() -> None:
    delta = update(lora_r=2).scaled(0.0)

    assert [len(part) for part in low_rank.directions(delta)[1:]] == [0, 0]
