"""Averaging and merging against float64 formulas written out another way, and against properties that must hold."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wfc_dist.centralize.apply import merge_module
from wfc_dist.centralize.rank import diagnostics
from wfc_dist.errors import ConfigError, InputError
from wfc_dist.merging import merge_method
from wfc_dist.merging.factors import AnyDelta, DenseDelta, Factors, exactness_gap, is_smaller_dense, normalized, ratio_of_norms
from wfc_dist.merging.recipe import Recipe, merged_update

OUT, IN = 24, 16
SUMS = ["factor_mean", "mean"]


def averaged(items: list[Factors], weights: list[float], method: str, scale: float = 1.0) -> AnyDelta:
    return merged_update(items, normalized(weights), Recipe(method, scale=scale), {})


def factors(seed: int, lora_r: int = 4, scaling: float = 2.0) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    a_RI = torch.randn(lora_r, IN, generator=generator)
    return Factors(a_RI, torch.randn(OUT, lora_r, generator=generator), scaling)


def reference_mean(items: list[Factors], weights: list[float]) -> np.ndarray:
    shares = np.array(weights) / sum(weights)
    update = np.zeros((OUT, IN))
    for share, item in zip(shares, items, strict=True):
        update += share * item.scaling * np.einsum("or,ri->oi", item.b_OR.numpy().astype("f8"), item.a_RI.numpy().astype("f8"))
    return update


@settings(max_examples=25, deadline=None)
@given(
    ranks=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    scale=st.floats(0.1, 3),
    seed=st.integers(0, 10**6),
)
def test_mean_is_the_weighted_mean_of_the_updates(ranks: list[int], scale: float, seed: int) -> None:
    items = [factors(seed + i, lora_r, scaling=0.5 + i) for i, lora_r in enumerate(ranks)]
    weights = [1.0 + i for i in range(len(ranks))]
    delta = averaged(items, weights, "mean", scale).dense().numpy()
    expected = scale * reference_mean(items, weights)
    rounding = 2**-24 if is_smaller_dense(sum(ranks), OUT, IN) else 1e-12  # a dense update is float32
    assert np.abs(delta - expected).max() <= rounding * np.abs(expected).max()


def whole(seed: int, out: int, into: int) -> Factors:
    """Factors of variant full: the update of a whole (out, into) weight, beside an identity on the smaller side."""
    update, unit = 0.01 * torch.randn(out, into, generator=torch.Generator().manual_seed(seed)), torch.eye(min(out, into))
    return Factors(unit, update, 1.0) if into <= out else Factors(update, unit, 1.0)


@pytest.mark.parametrize("shape", [(24, 16), (16, 24), (16, 16)])
@pytest.mark.parametrize("method", SUMS)
@pytest.mark.parametrize("num_adapters", [1, 3, 8])
def test_whole_updates_average_entry_by_entry(method: str, shape: tuple[int, int], num_adapters: int) -> None:
    items, weights = [whole(seed, *shape) for seed in range(num_adapters)], [1.0 + seed for seed in range(num_adapters)]
    found = averaged(items, weights, method)
    updates = [(item.b_OR if shape[1] <= shape[0] else item.a_RI).double() for item in items]
    expected = sum(weight * update for weight, update in zip(weights, updates, strict=True)) / sum(weights)
    # The mean is dense, in float32; factor_mean's factors are float32, and its identity is a sum of shares of 1.
    assert isinstance(found, DenseDelta) == (method == "mean")
    assert (found.dense() - expected).abs().max() <= 2**-23 * expected.abs().max()


@pytest.mark.parametrize("method", SUMS)
@pytest.mark.parametrize("num_adapters", [1, 2, 3, 7])
def test_identical_adapters_merge_to_that_adapter(method: str, num_adapters: int) -> None:
    item = factors(1)
    delta = averaged([item] * num_adapters, [1.0] * num_adapters, method).dense()
    alone = item.scaling * item.b_OR.double() @ item.a_RI.double()
    assert torch.equal(delta.float(), alone.float())  # the last bit of float32 included


@pytest.mark.parametrize("method", SUMS)
def test_zero_adapters_leave_every_byte_of_the_base(method: str) -> None:
    item = factors(1)
    zero = Factors(item.a_RI, torch.zeros_like(item.b_OR), item.scaling)
    root = torch.randn(OUT, IN).to(torch.bfloat16)
    merged, update, lost = merge_module(root, [], averaged([zero, zero], [1, 1], method), root.dtype)
    assert torch.equal(merged, root) and update == 0 and lost == 0


def test_factor_mean_is_the_product_of_the_mean_factors_and_not_the_mean() -> None:
    items = [factors(1), factors(2), factors(3)]
    delta = averaged(items, [1, 1, 1], "factor_mean")
    a_RI = np.mean([item.a_RI.numpy().astype("f8") for item in items], axis=0)
    b_OR = np.mean([item.b_OR.numpy().astype("f8") for item in items], axis=0)
    expected = 2.0 * b_OR @ a_RI
    assert np.abs(delta.dense().numpy() - expected).max() < 1e-6 * np.abs(expected).max()  # its factors are stored in float32
    assert np.linalg.norm(expected - reference_mean(items, [1, 1, 1])) > 0.5 * np.linalg.norm(reference_mean(items, [1, 1, 1]))


def test_with_one_shared_a_factor_mean_is_the_mean() -> None:
    first, other = factors(1), factors(2)
    items = [first, Factors(first.a_RI, other.b_OR, first.scaling)]
    gap, norm = exactness_gap(items, [0.5, 0.5])
    assert ratio_of_norms(gap, norm) < 1e-6  # float32 rounding of the averaged B


def test_exactness_gap_of_independent_factors_is_as_derived() -> None:
    # K independent adapters: ||factor_mean||^2 = ||mean||^2 / K and <factor_mean, mean> = ||mean||^2 / K,
    # so the gap is sqrt(1 - 1/K): 0.816 for K = 3.
    generator = torch.Generator().manual_seed(0)
    items = [Factors(torch.randn(8, 400, generator=generator), torch.randn(400, 8, generator=generator), 1.0) for _ in range(3)]
    gap, norm = exactness_gap(items, [1 / 3] * 3)
    assert ratio_of_norms(gap, norm) == pytest.approx((2 / 3) ** 0.5, abs=0.03)


def test_exactness_gap_is_that_of_the_dense_updates() -> None:
    items, shares = [factors(1), factors(2), factors(3)], [0.2, 0.3, 0.5]
    mean = sum(share * item.scaling * item.b_OR.double() @ item.a_RI.double() for item, share in zip(items, shares, strict=True))
    mean_b = sum(share * item.b_OR.double() for item, share in zip(items, shares, strict=True))
    mean_a = sum(share * item.a_RI.double() for item, share in zip(items, shares, strict=True))
    gap, norm = exactness_gap(items, shares)
    assert gap == pytest.approx(float((items[0].scaling * mean_b @ mean_a - mean).square().sum()), rel=1e-10)
    assert norm == pytest.approx(float(mean.square().sum()), rel=1e-10)
    assert exactness_gap([items[0]] * 4, [0.25] * 4)[0] == 0.0, "equal adapters: nothing may remain of a cancellation"


def test_factor_mean_refuses_adapters_of_other_rank_or_scaling() -> None:
    for other in (factors(2, lora_r=5), factors(2, scaling=1.0)):
        with pytest.raises(InputError, match="one r and one alpha"):
            merge_method("factor_mean")([factors(1), other], [0.5, 0.5])


def test_chained_rounds_do_not_accumulate_rounding() -> None:
    root = torch.randn(OUT, IN, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    small = [merge_method("mean")([Factors(item.a_RI * 0.03, item.b_OR * 0.03, 1.0)], [1.0]) for item in map(factors, range(40))]
    merged, in_place = root, root
    for number in range(len(small)):
        merged = merge_module(root, small[:number], small[number], root.dtype)[0]
        in_place = merge_module(in_place, [], small[number], root.dtype)[0]
    exact = root.double() + sum(item.dense() for item in small)
    half_step = exact.abs().max() * 2**-8  # one rounding to bfloat16's 8 bits
    assert (merged.double() - exact).abs().max() <= half_step
    assert (in_place.double() - exact).norm() > 2 * (merged.double() - exact).norm()


def test_update_loss_counts_what_the_cast_lost() -> None:
    root, item = torch.randn(OUT, IN).to(torch.float16), factors(3)
    delta = averaged([item], [1.0], "mean", 1e-3)
    merged, update, lost = merge_module(root, [], delta, root.dtype)
    expected = (merged.double() - root.double() - delta.dense()).norm() / delta.dense().norm()
    assert ratio_of_norms(lost, update) == pytest.approx(float(expected), rel=1e-9) and lost > 0


def test_wrong_weights_and_methods_are_refused() -> None:
    with pytest.raises(InputError, match="sum > 0"):
        normalized([0.0, 0.0])
    with pytest.raises(InputError, match="sum > 0"):
        normalized([1.0, -0.5])
    with pytest.raises(ConfigError, match="did you mean 'ties'"):
        merge_method("tie")


def test_diagnostics_of_adapters_without_factor_mean_say_none() -> None:
    assert diagnostics({}, {})["exactness_gap"] is None
