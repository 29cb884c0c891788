"""Sums whose bytes depend neither on order nor on grouping."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wfc_dist.centralize import exchange
from wfc_dist.centralize.exchange import Packet
from wfc_dist.merging import exact_sum, merge_method, partial_mean
from wfc_dist.merging.factors import DenseDelta, Factors, ModuleDelta, exactness_gap

OUT, IN = 24, 16


def factors(seed: int, lora_r: int = 4, size: float = 1.0) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    return Factors(torch.randn(lora_r, IN, generator=generator), size * torch.randn(OUT, lora_r, generator=generator), 2.0)


@given(st.lists(st.integers(-(2**47), 2**47 - 1), min_size=1))
def test_packing_keeps_every_48_bit_number(numbers: list[int]) -> None:
    total = torch.tensor(numbers, dtype=torch.float64)
    upper, lower = exact_sum.pack(total)
    assert upper.element_size() + lower.element_size() == exact_sum.PACKED_BYTES
    assert torch.equal(exact_sum.unpack(upper, lower), total)


@given(st.lists(st.floats(0, 1e30), min_size=1, max_size=40))
@example([5e-324])
@example([1.0, 2**-53, 2**-53])
def test_a_sum_within_its_bounds_never_leaves_48_bits(bounds: list[float]) -> None:
    grid = exact_sum.quantum(bounds)
    assert math.frexp(grid)[0] == 0.5, "no power of two: scaling would round"
    total = sum(round(bound / grid) for bound in bounds)
    assert total < 2**47
    assert sum(bounds) < 2**-970 or total >= 2**44, "bits are wasted"
    assert exact_sum.quantum(reversed(bounds)) == grid, "it depends on the order"


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(7)), cut=st.integers(1, 6), magnitudes=st.lists(st.integers(-6, 6), min_size=7, max_size=7))
def test_the_mean_is_the_same_however_its_terms_are_grouped(order: list[int], cut: int, magnitudes: list[int]) -> None:
    items, weights = [factors(n, size=10.0**size) for n, size in enumerate(magnitudes)], [(1 + n) / 28 for n in range(7)]
    whole, gap, square = partial_mean.mean_of(items, weights)
    grid = partial_mean.grid_of([partial_mean.facts_of(item, weight) for item, weight in zip(items, weights, strict=True)])
    total, rest = (
        partial_mean.partial_mean([items[n] for n in part], [weights[n] for n in part], grid)
        for part in (order[:cut], order[cut:])
    )
    total.add_(rest)
    found, found_gap, found_square = partial_mean.finished(total, grid)
    assert torch.equal(found.dense_OI, whole.dense_OI)
    assert (found_gap, found_square) == (gap, square)
    exact = np.zeros((OUT, IN))
    for weight, item in zip(weights, items, strict=True):
        exact += weight * item.scaling * (item.b_OR.numpy().astype("f8") @ item.a_RI.numpy().astype("f8"))
    assert np.abs(whole.dense().numpy() - exact).max() <= 2**-24 * np.abs(exact).max()


def test_the_gap_of_a_dense_mean_is_that_of_its_factors() -> None:
    items, weights = [factors(n) for n in range(5)], [0.1, 0.1, 0.2, 0.2, 0.4]
    _, gap, square = partial_mean.mean_of(items, weights)
    assert (gap, square) == pytest.approx(exactness_gap(items, weights), rel=1e-9)
    _, gap, _ = partial_mean.mean_of([*items, factors(9, lora_r=3)], [*weights, 0.0])
    assert gap is None, "adapters of other ranks have no factor mean"


def test_the_smaller_form_is_chosen_and_zeros_stay_zero() -> None:
    few, many = [factors(n) for n in range(2)], [factors(n) for n in range(3)]  # 24 * 16 / (24 + 16) = 9.6
    assert isinstance(merge_method("mean")(few, [0.5, 0.5]), ModuleDelta)
    dense = merge_method("mean")(many, [0.5, 0.25, 0.25])
    assert isinstance(dense, DenseDelta)
    rows, columns = torch.tensor([0, 5, 23]), torch.tensor([1, 15])
    scaled = dense.scaled(0.3)
    assert torch.equal(scaled.entries(rows, columns), scaled.dense()[rows][:, columns])
    assert torch.equal(torch.cat([block.clone() for block in scaled.rows(7)]), scaled.dense())
    zeros = [Factors(item.a_RI, torch.zeros_like(item.b_OR), 2.0) for item in many]
    assert not merge_method("mean")(zeros, [0.5, 0.25, 0.25]).dense().any()


@pytest.mark.parametrize("num_adapters", [1, 8, 16, 40])
def test_a_rank_sends_the_smaller_of_its_factors_and_its_sum(num_adapters: int) -> None:
    names = [f"set{n}" for n in range(num_adapters)]
    items = {name: Factors(torch.randn(4, 96), torch.randn(96, 4), 2.0) for name in names}
    shares = dict.fromkeys(names, 1 / num_adapters)
    grid = partial_mean.grid_of([partial_mean.facts_of(item, shares[name]) for name, item in items.items()])
    in_factors = len(Packet(items).to_bytes())
    for chosen, smallest in ((None, in_factors), (grid, min(in_factors, partial_mean.size_bytes(4, 96, 96)))):
        loaded = {name: {"m": item} for name, item in items.items()}
        sent = exchange.packet_of(loaded, "m", shares, chosen).to_bytes()
        assert len(sent) <= smallest + 700, "more than the numbers and a header"
        assert not any(loaded.values()), "what was sent is still held"
        share = exchange.share_of([Packet.from_bytes(b""), Packet.from_bytes(sent)], chosen)
        if share.sums:
            mean = exchange.mean_of(share, shares)[0]
            assert torch.equal(mean.dense_OI, partial_mean.mean_of(list(items.values()), list(shares.values()))[0].dense_OI)
        else:
            assert share.factors.keys() == items.keys()
    assert bool(share.sums) == (num_adapters > 19), "96 x 96 at 48 bits are as much as 19 adapters of r 4"
