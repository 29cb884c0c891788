"""Each merge method against an independent reference: PEFT, torch's optimizer, or float64 on dense matrices."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from peft.utils import merge_utils

from wfc_dist.errors import InputError
from wfc_dist.merging import low_rank
from wfc_dist.merging.curvature import Curvature
from wfc_dist.merging.factors import DenseDelta, Factors
from wfc_dist.merging.methods.boosted_tsv import boosted, boosted_tsv
from wfc_dist.merging.methods.dare import dare
from wfc_dist.merging.methods.fisher import fisher
from wfc_dist.merging.methods.ihr import ihr
from wfc_dist.merging.methods.karcher import karcher
from wfc_dist.merging.methods.lors import lors
from wfc_dist.merging.methods.mean import mean
from wfc_dist.merging.methods.model_stock import model_stock, ratio
from wfc_dist.merging.methods.nesterov import nesterov
from wfc_dist.merging.methods.svd import svd
from wfc_dist.merging.methods.task_arithmetic import task_arithmetic
from wfc_dist.merging.methods.ties import ties
from wfc_dist.merging.methods.trimmed_mean import trimmed_mean
from wfc_dist.merging.methods.tsv import tsv

OUT, IN = 96, 80  # more rows than one block of 64
STORED = 2**-23  # float32, twice its half step


def adapters(num_adapters: int, lora_r: int = 4) -> list[Factors]:
    generator = torch.Generator().manual_seed(num_adapters)
    return [
        Factors(torch.randn(lora_r + i, IN, generator=generator), torch.randn(OUT, lora_r + i, generator=generator), 0.5 + i)
        for i in range(num_adapters)
    ]


def dense(items: list[Factors]) -> list[np.ndarray]:
    return [item.scaling * (item.b_OR.numpy().astype("f8") @ item.a_RI.numpy().astype("f8")) for item in items]


def assert_close(found: torch.Tensor, expected: np.ndarray | torch.Tensor, tolerance: float = STORED) -> None:
    difference = np.abs(found.numpy() - np.asarray(expected)).max()
    assert difference <= tolerance * np.abs(np.asarray(expected)).max(), difference


def test_task_arithmetic_is_pefts() -> None:
    items = adapters(3)
    updates = [torch.from_numpy(update) for update in dense(items)]
    expected = merge_utils.task_arithmetic(updates, torch.full((3,), 0.4, dtype=torch.float64))
    assert_close(task_arithmetic(items, [1 / 3] * 3, lam=0.4).dense(), expected, 1e-12)
    weighted = merge_utils.task_arithmetic(updates, torch.tensor([0.4 * 3 * 0.2, 0.4 * 3 * 0.3, 0.4 * 3 * 0.5]).double())
    assert_close(task_arithmetic(items, [0.2, 0.3, 0.5], lam=0.4).dense(), weighted, 1e-7)  # the weights above are float32


@pytest.mark.parametrize("density", [0.05, 0.2, 0.7])
def test_ties_is_pefts(density: float) -> None:
    items = adapters(5)
    updates = [torch.from_numpy(update) for update in dense(items)]
    expected = merge_utils.ties(updates, torch.ones(5, dtype=torch.float64), density)
    assert_close(ties(items, [0.2] * 5, density=density).dense(), expected)


def test_ties_with_weights_is_written_out_entry_by_entry() -> None:
    items, weights = adapters(3), [0.2, 0.3, 0.5]
    trimmed = []
    for update in dense(items):
        smallest = np.sort(np.abs(update), axis=None)[-int(0.3 * update.size)]
        trimmed.append(np.where(np.abs(update) >= smallest, update, 0))
    expected = np.zeros((OUT, IN))
    for index in np.ndindex(OUT, IN):
        entries = [(weight, update[index]) for weight, update in zip(weights, trimmed, strict=True)]
        sign = 1 if sum(weight * value for weight, value in entries) >= 0 else -1
        agreeing = [(weight, value) for weight, value in entries if value * sign > 0]
        if agreeing:
            expected[index] = sum(weight * value for weight, value in agreeing) / sum(weight for weight, _ in agreeing)
    assert_close(ties(items, weights, density=0.3).dense(), expected)


def test_dare_drops_and_rescales_and_is_the_mean_in_expectation() -> None:
    item = adapters(1)[0]
    update = dense([item])[0]
    found = dare([item], [1.0], seed=3, density=0.3).dense().numpy()
    kept = found != 0
    assert_close(torch.from_numpy(found[kept]), update[kept] / 0.3)
    assert kept.mean() == pytest.approx(0.3, abs=4 * (0.21 / kept.size) ** 0.5)  # four standard errors

    items = adapters(3)
    expected = merge_utils.dare_linear([torch.from_numpy(one) for one in dense(items)], torch.full((3,), 1 / 3).double(), 1.0)
    assert_close(dare(items, [1 / 3] * 3, seed=3, density=1.0).dense(), expected)
    many = torch.stack([dare(items, [1 / 3] * 3, seed=seed, density=0.5).dense() for seed in range(400)]).mean(0)
    spread = np.sqrt(sum((one / 3) ** 2 for one in dense(items)) / 400)  # of the mean of 400 draws, each w^2 d^2 (1 - p) / p
    assert np.abs(many.numpy() - expected.numpy()).max() < 6 * spread.max()


def test_dare_is_the_same_every_time_and_other_for_other_seeds_and_places() -> None:
    item = adapters(1)[0]
    first = dare([item, item], [0.5, 0.5], seed=7).dense()
    assert torch.equal(first, dare([item, item], [0.5, 0.5], seed=7).dense())
    assert not torch.equal(first, dare([item, item], [0.5, 0.5], seed=8).dense())
    assert len(first[first != 0].div(mean([item], [1.0]).dense()[first != 0]).float().round(decimals=3).unique()) == 2, (
        "each adapter draws its own: entries that one or that both kept"
    )


@pytest.mark.parametrize(("num_adapters", "trim"), [(3, 0.34), (5, 0.2), (7, 0.4), (4, 0.1), (1, 0.4)])
def test_trimmed_mean_is_that_of_the_sorted_entries(num_adapters: int, trim: float) -> None:
    items = adapters(num_adapters)
    num_cut = {3: 1, 5: 1, 7: 2, 4: 0, 1: 0}[num_adapters]
    expected = np.sort(np.stack(dense(items)), axis=0)[num_cut : num_adapters - num_cut].mean(axis=0)
    assert_close(trimmed_mean(items, [1 / num_adapters] * num_adapters, trim=trim).dense(), expected)


def test_trimmed_mean_of_three_is_the_median_whatever_the_weights() -> None:
    items = adapters(3)
    assert_close(trimmed_mean(items, [0.1, 0.2, 0.7]).dense(), np.median(np.stack(dense(items)), axis=0))


def whitened(columns: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(columns.T @ columns)
    return columns @ (vectors / np.sqrt(values)) @ vectors.T


def reference_tsv(items: list[Factors], weights: list[float]) -> np.ndarray:
    """The published algorithm, on dense matrices, with X (X^T X)^-1/2 for the nearest orthonormal matrix."""
    num_kept = min(OUT, IN) // len(items)
    left, sigmas, right = [], [], []
    for update, weight in zip(dense(items), weights, strict=True):
        u, sigma, v = np.linalg.svd(update, full_matrices=False)
        count = min(num_kept, int((sigma > 1e-9 * sigma[0]).sum()))
        left, sigmas, right = [*left, u[:, :count]], [*sigmas, weight * len(items) * sigma[:count]], [*right, v[:count].T]
    u, v = whitened(np.hstack(left)), whitened(np.hstack(right))
    return u @ np.diag(np.concatenate(sigmas)) @ v.T


@pytest.mark.parametrize(("num_adapters", "lora_r"), [(1, 4), (3, 4), (6, 11)])  # 6 x 13 <= 80; of 16 ranks 13 are kept
def test_tsv_is_the_published_algorithm_on_dense_matrices(num_adapters: int, lora_r: int) -> None:
    items, weights = adapters(num_adapters, lora_r), list(np.arange(1, num_adapters + 1) / sum(range(num_adapters + 1)))
    assert_close(tsv(items, weights).dense(), reference_tsv(items, weights), 1e-5)  # polar of hundreds of float32 columns


def test_tsv_of_orthogonal_adapters_is_their_sum() -> None:
    basis_O, basis_I = torch.linalg.qr(torch.randn(OUT, 8))[0], torch.linalg.qr(torch.randn(IN, 8))[0]
    items = [Factors(basis_I[:, part].T.contiguous(), basis_O[:, part].contiguous(), 1.5) for part in (slice(0, 4), slice(4, 8))]
    assert_close(tsv(items, [0.5, 0.5]).dense(), sum(dense(items)), 1e-6)


@pytest.mark.parametrize("beta", [0.01, 0.3, 0.9, 1.0])
def test_boosted_tsv_raises_each_adapters_singular_values_before_they_are_stacked(beta: float) -> None:
    items, weights = adapters(3), [0.2, 0.3, 0.5]
    raised = []
    for item in items:
        u, sigma, v = np.linalg.svd(dense([item])[0])
        rank = item.a_RI.shape[0]
        cutoff = next((n for n in range(rank) if sum(sigma[: n + 1]) >= beta * sum(sigma[:rank]) - 1e-9), rank - 1)
        b_OR = u[:, :rank] * np.maximum(sigma[:rank], sigma[cutoff])
        raised.append(Factors(torch.from_numpy(v[:rank]).float(), torch.from_numpy(b_OR).float(), 1.0))
    assert_close(boosted_tsv(items, weights, beta=beta).dense(), reference_tsv(raised, weights), 1e-5)


def test_the_weakest_adapter_stays_the_weakest_when_values_are_raised() -> None:
    basis_O, basis_I = torch.linalg.qr(torch.randn(OUT, 8))[0], torch.linalg.qr(torch.randn(IN, 8))[0]
    strong, weak = (
        Factors(basis_I[:, part].T.contiguous(), (basis_O[:, part] * torch.tensor([4.0, 3.0, 2.0, 1.0])).contiguous(), scaling)
        for part, scaling in ((slice(0, 4), 1.0), (slice(4, 8), 0.01))
    )
    found = boosted_tsv([strong, weak], [0.5, 0.5]).dense()
    for item, expected in ((strong, [4.0, 4.0, 4.0, 4.0]), (weak, [0.04, 0.04, 0.04, 0.04])):
        own = torch.linalg.qr(item.b_OR.double())[0]
        assert_close(torch.linalg.svdvals(own.T @ found)[:4], np.array(expected), 1e-5)  # 0.3 of the sum is reached at the first


def test_boosting_of_nothing_is_nothing() -> None:
    assert not boosted(torch.zeros(5, dtype=torch.float64), 0.01).any()
    assert torch.equal(boosted(torch.tensor([3.0, 2.0, 1.0]).double(), 0.6), torch.tensor([3.0, 2.0, 2.0]).double())


@pytest.mark.parametrize("r", [1, 5, 1000])
def test_svd_is_the_truncated_mean(r: int) -> None:
    items, weights = adapters(3), [0.2, 0.3, 0.5]
    whole = sum(weight * update for weight, update in zip(weights, dense(items), strict=True))
    u, sigma, v = np.linalg.svd(whole, full_matrices=False)
    assert_close(svd(items, weights, r=r).dense(), u[:, :r] @ np.diag(sigma[:r]) @ v[:r], 1e-6)
    many = adapters(20)  # a mean that is dense
    u, sigma, v = np.linalg.svd(sum(dense(many)) / 20, full_matrices=False)
    assert_close(svd(many, [1 / 20] * 20, r=r).dense(), u[:, :r] @ np.diag(sigma[:r]) @ v[:r], 1e-6)


def test_nesterov_is_torchs_optimizer_over_the_rounds() -> None:
    weight = torch.zeros(OUT, IN, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.7, momentum=0.9, nesterov=True)
    past: list = []
    for round_index in range(5):  # from the third on the factors are the larger form
        items = adapters(round_index + 1)
        shares = [1 / len(items)] * len(items)
        before = weight.detach().clone()
        weight.grad = -mean(items, shares).dense()
        optimizer.step()
        past.append(nesterov(items, shares, past=list(past)))
        assert_close(past[-1].dense(), weight.detach() - before, 1e-6)


def with_fisher(items: list[Factors], fishers: list[torch.Tensor]) -> list[Factors]:
    return [replace(item, curvature=Curvature(fisher_OI=found)) for item, found in zip(items, fishers, strict=True)]


def test_fisher_is_the_weighted_mean_entry_by_entry() -> None:
    generator = torch.Generator().manual_seed(0)
    fishers = [torch.rand(OUT, IN, generator=generator) ** 8 for _ in range(3)]
    fishers[0][3, 4] = fishers[1][3, 4] = fishers[2][3, 4] = 0
    items, weights = adapters(3), [0.2, 0.3, 0.5]
    level = sum(weight * found.double().numpy().mean() for weight, found in zip(weights, fishers, strict=True))
    updates = dense(items)
    expected = np.zeros((OUT, IN))
    for index in np.ndindex(OUT, IN):
        parts = [weight * max(float(found[index]), 1e-3 * level) for weight, found in zip(weights, fishers, strict=True)]
        expected[index] = sum(part * update[index] for part, update in zip(parts, updates, strict=True)) / sum(parts)
    found = fisher(with_fisher(items, fishers), weights, floor=1e-3).dense()
    assert_close(found, expected)
    assert float(found[3, 4]) == pytest.approx(sum(w * u[3, 4] for w, u in zip(weights, updates, strict=True)), rel=1e-6)


def test_normalized_fisher_does_not_depend_on_the_size_of_an_adapters_information() -> None:
    generator = torch.Generator().manual_seed(0)
    fishers = [torch.rand(OUT, IN, generator=generator) ** 4 for _ in range(3)]
    items, found = adapters(3), []
    for sizes in ([1.0, 1.0, 1.0], [1.0, 64.0, 2.0**-9]):
        scaled = with_fisher(items, [size * fisher for size, fisher in zip(sizes, fishers, strict=True)])
        for item, size in zip(scaled, sizes, strict=True):
            object.__setattr__(item.curvature, "fishernorm_", torch.tensor(7.0 * size).double())
        found.append(fisher(scaled, [0.2, 0.3, 0.5], normalize=1).dense())
        assert (fisher(scaled, [0.2, 0.3, 0.5]).dense() - found[-1]).norm() > 0 or sizes[1] == 1.0
    assert torch.equal(found[0], found[1])
    with pytest.raises(InputError, match="normalize=1 needs the norm"):
        fisher(with_fisher(items, fishers), [0.2, 0.3, 0.5], normalize=1)


def test_fisher_of_equal_or_no_information_is_the_mean_and_needs_every_adapters() -> None:
    items = adapters(3)
    for level in (1.0, 0.0):
        found = fisher(with_fisher(items, [torch.full((OUT, IN), level)] * 3), [1 / 3] * 3).dense()
        assert_close(found, sum(dense(items)) / 3)
    with pytest.raises(InputError, match=r"train\.curvature"):
        fisher([*with_fisher(items[:2], [torch.ones(OUT, IN)] * 2), items[2]], [1 / 3] * 3)


def orthogonal(num_adapters: int) -> list[Factors]:
    basis_O, basis_I = torch.linalg.qr(torch.randn(OUT, num_adapters))[0], torch.linalg.qr(torch.randn(IN, num_adapters))[0]
    return [
        Factors(basis_I[:, place : place + 1].T.contiguous(), basis_O[:, place : place + 1].contiguous(), 1.0)
        for place in range(num_adapters)
    ]


def test_model_stock_of_orthogonal_or_opposed_adapters_stays_at_the_base() -> None:
    item = adapters(1)[0]
    assert model_stock(orthogonal(3), [1 / 3] * 3).dense().abs().max() < 1e-7  # the cosines are rounding, about 1e-9
    assert not model_stock([item, replace(item, scaling=-item.scaling)], [0.5, 0.5]).dense().any()
    assert_close(model_stock([item], [1.0]).dense(), dense([item])[0], 1e-12)


def test_model_stocks_ratio_is_that_of_the_paper() -> None:
    cosine = np.cos(0.7)
    products = [[1.0 if i == j else cosine for j in range(4)] for i in range(4)]
    assert ratio(products, [0.25] * 4) == pytest.approx(4 * cosine / (1 + 3 * cosine), rel=1e-14)
    assert ratio([[4.0, 0.0], [0.0, 0.0]], [0.5, 0.5]) == 0.0, "a zero update agrees with nothing"
    assert ratio([[1.0, -0.5], [-0.5, 1.0]], [0.5, 0.5]) == 0.0


def test_karcher_of_two_adapters_is_half_way_on_the_great_circle() -> None:
    one, other = adapters(2)
    first, second = dense([one, other])
    u, v = first / np.linalg.norm(first), second / np.linalg.norm(second)
    angle = np.arccos(np.sum(u * v))
    for share in (0.5, 0.8):
        way = (np.sin(share * angle) * u + np.sin((1 - share) * angle) * v) / np.sin(angle)
        length = share * np.linalg.norm(first) + (1 - share) * np.linalg.norm(second)
        assert_close(karcher([one, other], [share, 1 - share]).dense(), length * way, 1e-9)


def test_karcher_of_orthogonal_adapters_keeps_their_length_and_of_opposite_ones_is_zero() -> None:
    assert float(karcher(orthogonal(4), [0.25] * 4).dense().norm()) == pytest.approx(1.0, abs=1e-6)
    item = adapters(1)[0]
    zero, opposite = replace(item, b_OR=torch.zeros_like(item.b_OR)), replace(item, scaling=-item.scaling)
    assert not karcher([item, opposite], [0.5, 0.5]).dense().any()
    assert_close(karcher([item, zero], [0.25, 0.75]).dense(), 0.25 * dense([item])[0], 1e-12)
    assert_close(karcher([item, opposite], [0.9, 0.1]).dense(), dense([item])[0], 1e-12)


@pytest.mark.parametrize("method", [model_stock, karcher])
def test_another_order_of_the_adapters_gives_the_same_bits(method: Any) -> None:
    items, weights, order = adapters(5), [0.1, 0.15, 0.2, 0.25, 0.3], [3, 0, 4, 2, 1]
    whole = method(items, weights)
    other = method([items[place] for place in order], [weights[place] for place in order])
    starts = np.cumsum([0, *(item.a_RI.shape[0] for item in items)])
    columns = torch.cat([torch.arange(starts[place], starts[place + 1]) for place in order])
    assert torch.equal(other.b_OR, whole.b_OR[:, columns]) and torch.equal(other.coefficients_R, whole.coefficients_R[columns])


def test_karcher_of_many_adapters_is_dense_and_of_the_least_squared_angle() -> None:
    items = adapters(20)
    found = karcher(items, [1 / 20] * 20)
    assert isinstance(found, DenseDelta)
    points = np.stack([update.ravel() / np.linalg.norm(update) for update in dense(items)])

    def spread(at: np.ndarray) -> float:
        return float((np.arccos(points @ (at / np.linalg.norm(at))) ** 2).sum())

    best = found.dense().numpy().ravel() / float(found.dense().norm())
    for seed in range(5):
        nudge = np.random.default_rng(seed).standard_normal(20) @ points
        assert spread(best + 1e-3 * nudge) > spread(best)


def test_lors_of_adapters_of_small_rank_is_task_arithmetic() -> None:
    items = adapters(3)  # of ranks 4, 5 and 6
    assert_close(lors(items, [0.2, 0.3, 0.5], r=6).dense(), task_arithmetic(items, [0.2, 0.3, 0.5], lam=0.2).dense())


def moments(size: int, seed: int) -> torch.Tensor:
    samples = torch.randn(size, 2 * size, generator=torch.Generator().manual_seed(seed)) * torch.linspace(0.1, 3, size)[:, None]
    return samples @ samples.T


@pytest.mark.parametrize("damping", [0.05, 1.0])
def test_ihr_solves_the_kronecker_system(damping: float) -> None:
    small = [Factors(item.a_RI[:, :7].contiguous(), item.b_OR[:9].contiguous(), item.scaling) for item in adapters(2, 1)]
    previous = [Curvature(None, moments(7, 1), moments(9, 2)), Curvature(None, moments(7, 3), moments(9, 4))]
    inputs = np.mean([item.inputs_II.numpy().astype("f8") for item in previous], axis=0)
    outputs = np.mean([item.outputs_OO.numpy().astype("f8") for item in previous], axis=0)
    inputs, outputs = inputs / np.linalg.eigvalsh(inputs).mean(), outputs / np.linalg.eigvalsh(outputs).mean()
    system = np.kron(outputs + damping * np.eye(9), inputs + damping * np.eye(7)) / damping**2
    update = 0.5 * (dense(small)[0] + dense(small)[1])
    solved = np.linalg.solve(system, update.reshape(-1)).reshape(9, 7)
    expected = solved * np.linalg.norm(update) / np.linalg.norm(solved)
    assert_close(ihr(small, [0.5, 0.5], previous=previous, damping=damping).dense(), expected, 1e-6)


def test_ihr_takes_the_damping_as_it_is_where_it_is_not_relative() -> None:
    items, curved = adapters(2), Curvature(None, moments(IN, 1), moments(OUT, 2))
    size_I, size_O = (float(moment.diagonal().double().mean()) for moment in (curved.inputs_II, curved.outputs_OO))
    levelled = Curvature(None, curved.inputs_II / size_I, curved.outputs_OO / size_O)
    expected = ihr(items, [0.5, 0.5], previous=[curved], damping=0.3).dense()
    assert_close(ihr(items, [0.5, 0.5], previous=[levelled], damping=0.3, relative=0).dense(), expected, 1e-5)
    assert (ihr(items, [0.5, 0.5], previous=[curved], damping=0.3, relative=0).dense() - expected).norm() > 0.1 * expected.norm()


def test_ihr_without_curvature_or_with_much_damping_is_the_mean_and_keeps_its_norm() -> None:
    items = adapters(2)
    whole = mean(items, [0.5, 0.5]).dense()
    curved = [Curvature(None, moments(IN, 1), moments(OUT, 2))]
    flat = [Curvature(None, torch.zeros(IN, IN), torch.zeros(OUT, OUT))]
    assert torch.equal(ihr(items, [0.5, 0.5], previous=[]).dense(), whole)
    assert_close(ihr(items, [0.5, 0.5], previous=flat).dense(), whole)
    assert_close(ihr(items, [0.5, 0.5], previous=curved, damping=1e9).dense(), whole, 1e-6)
    turned = ihr(items, [0.5, 0.5], previous=curved).dense()
    assert float(turned.norm()) == pytest.approx(float(whole.norm()), rel=1e-6) and (turned - whole).norm() > 0.01 * whole.norm()


def test_ihr_turns_away_from_curved_directions() -> None:
    curved = [Curvature(None, torch.diag(torch.tensor([100.0, 1.0, 1.0])), torch.eye(2))]
    item = Factors(torch.ones(1, 3), torch.ones(2, 1), 1.0)
    found = ihr([item], [1.0], previous=curved, damping=0.1).dense()
    assert (found[:, 0] < 0.1).all() and (found[:, 1:] > 1.1).all()


def test_singular_values_of_factors_are_those_of_their_product() -> None:
    update = mean(adapters(3), [0.2, 0.3, 0.5])
    u_OR, sigma_R, v_RI = low_rank.svd(update)
    assert_close(sigma_R, np.linalg.svd(update.dense().numpy(), compute_uv=False)[: len(sigma_R)], 1e-12)
    assert_close(u_OR @ torch.diag(sigma_R) @ v_RI, update.dense(), 1e-12)


def test_repeated_columns_are_one_direction() -> None:
    columns = torch.randn(OUT, 3, dtype=torch.float64)
    found = low_rank.nearest_orthonormal(torch.cat([columns, columns], dim=1))
    expected = whitened(columns.numpy()) / np.sqrt(2)
    assert_close(found, np.hstack([expected, expected]), 1e-10)


@pytest.mark.parametrize("method", [tsv, boosted_tsv])
def test_only_directions_that_an_adapter_has_count(method: Any) -> None:
    one, other = adapters(2)
    generator = torch.Generator().manual_seed(9)
    padded = Factors(
        torch.cat([one.a_RI, torch.randn(3, IN, generator=generator)]), torch.cat([one.b_OR, torch.zeros(OUT, 3)], 1), one.scaling
    )
    empty = Factors(torch.randn(4, IN, generator=generator), torch.zeros(OUT, 4), 1.0)
    whole = method([one, other], [0.5, 0.5]).dense()
    assert_close(method([padded, other], [0.5, 0.5]).dense(), whole, 1e-5)
    assert torch.linalg.matrix_rank(method([one, empty], [0.5, 0.5]).dense()) == 4
    assert not method([empty, empty], [0.5, 0.5]).dense().any()
