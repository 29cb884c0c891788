"""Distances to the Gaussian against the standard library's normal distribution and plain loops."""

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch

from wfc_dist.analysis import gaussian
from wfc_dist.analysis.distributions import EntryPool

NORMAL = NormalDist()


def draws(num, s=1.0, seed=0):
    return s * torch.randn(num, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_distances_are_those_of_their_definitions():
    values = draws(200).exp()  # log-normal: far from Gaussian
    s = math.sqrt(sum(x * x for x in values.tolist()) / 200)
    z = sorted(x / s for x in values.tolist())
    cdf = [math.erfc(-x / math.sqrt(2)) / 2 for x in z]
    ks = max(max((i + 1) / 200 - value, value - i / 200) for i, value in enumerate(cdf))
    terms = [(2 * i + 1) * (math.log(cdf[i]) + math.log(math.erfc(z[199 - i] / math.sqrt(2)) / 2)) for i in range(200)]

    found = gaussian.fit(values)

    assert found.s == pytest.approx(s, rel=1e-12) and found.mean == pytest.approx(sum(values.tolist()) / 200, rel=1e-12)
    assert found.ks_distance == pytest.approx(ks, rel=1e-9)
    assert found.anderson_darling == pytest.approx((-200 - sum(terms) / 200) / 200, rel=1e-9)
    assert found.excess_kurtosis == pytest.approx(sum(x**4 for x in z) / 200 - 3, rel=1e-9)


def test_a_gaussian_is_near_itself_and_others_have_their_kurtosis():
    found = gaussian.fit(draws(100_000, s=3e-3))
    # a sample of N is 0.87 / sqrt(N) away on average, its kurtosis has a standard deviation of sqrt(24 / N) = 0.015
    assert found.ks_distance < 0.008 and abs(found.excess_kurtosis) < 0.08 and found.s == pytest.approx(3e-3, rel=0.01)
    assert found.below["1"] == pytest.approx(gaussian.gaussian_below(1), abs=0.01) and found.zeros == 0
    uniform = gaussian.fit(torch.linspace(-1, 1, 100_001))
    assert uniform.excess_kurtosis == pytest.approx(-1.2, abs=1e-3)
    assert uniform.below["0.1"] == pytest.approx(0.1 / math.sqrt(3), abs=1e-3)
    assert gaussian.gaussian_below(1) == pytest.approx(NORMAL.cdf(1) - NORMAL.cdf(-1))


def test_the_distance_does_not_grow_with_the_number_of_entries():
    values = torch.linspace(-1, 1, 2001)
    few, many = gaussian.fit(values), gaussian.fit(values.repeat(50))
    assert many.ks_distance == pytest.approx(few.ks_distance, abs=1 / 2001)
    assert many.num_to_reject == pytest.approx((1.3581 / many.ks_distance) ** 2)


def test_zeros_have_no_shape():
    found = gaussian.fit(torch.zeros(9))
    assert found.zeros == 1 and found.s == 0 and math.isnan(found.ks_distance) and math.isnan(found.below["1"])


def test_quantiles_and_densities_are_numpys():
    values = draws(997, seed=1)
    wanted = np.quantile(values.numpy(), [0.01, 0.5, 0.999]) / np.sqrt(np.mean(values.numpy() ** 2))
    np.testing.assert_allclose(gaussian.quantiles(values, [0.01, 0.5, 0.999]), wanted, rtol=1e-10)
    assert gaussian.normal_quantiles([0.025, 0.5]) == pytest.approx([NORMAL.inv_cdf(0.025), 0], abs=1e-12)
    edges = np.linspace(-1, 1, 11)
    counts, _ = np.histogram(values.numpy(), edges)
    np.testing.assert_allclose(gaussian.densities(values, edges.tolist()), counts / 997 / 0.2, rtol=1e-9)


def test_a_mixture_of_scales_is_gaussian_module_by_module_and_row_by_row():
    modules = [draws(40_000, s=scale, seed=seed).view(200, 200) for seed, scale in enumerate((1, 5))]
    rows = [grid * torch.linspace(0.2, 2, 200, dtype=torch.float64)[:, None] for grid in modules]

    pool, other = EntryPool(["a"]), EntryPool(["a"])
    for grid in modules:
        pool.add([grid], grid)
    for grid in rows:
        other.add([grid], grid)
    found, by_row = pool.close().adapters["a"].shapes, other.close().averaged.shapes

    # mixture of N(0, s_m^2): kurtosis 3 * mean(s^4) / mean(s^2)^2; sampling moves it by sqrt(24 / 80000) times a few
    assert found["as they are"].excess_kurtosis == pytest.approx(3 * (1 + 625) / 2 / 13**2 - 3, abs=0.2)
    assert abs(found["per module"].excess_kurtosis) < 0.1 and found["per module"].ks_distance < 0.01
    assert by_row["per module"].excess_kurtosis > 0.5 and abs(by_row["per row"].excess_kurtosis) < 0.1
    assert pool.close() == pool.close()


def test_zero_modules_stay_zero_when_standardized():
    grids = [torch.zeros(3, 4), torch.ones(3, 4)]
    assert (
        [float(grid.sum()) for grid in gaussian.per_module(grids)] == [0, 12] == [float(g.sum()) for g in gaussian.per_row(grids)]
    )
