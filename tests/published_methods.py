"""Every merge method, and one kind of adapter, beside its source: published steps in dense float64, and what differs.

python tests/published_methods.py    writes the table between the marks of docs/merging.md

Each reference is written in this project's words from the file that its docstring names. References are slow and obvious: they
see dense updates and nothing of `wfc_dist.merging`. Where PEFT or torch has the method, their function is called.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft.utils import merge_utils

from wfc_dist.merging import merge_method
from wfc_dist.merging.curvature import Curvature
from wfc_dist.merging.factors import Factors
from wfc_dist.seeds import derived_seed
from wfc_dist.training.tail import Rotation, tail_of

PAGE = Path(__file__).parents[1] / "docs" / "merging.md"
BEGIN, END = "<!-- made by tests/published_methods.py -->", "<!-- end -->"
SAME = 1e-6
"""Relative difference up to which an update is that of the source: it is stored in float32, whose half step is 6e-8."""
SHAPES = ((72, 48), (40, 56))
Updates = list[np.ndarray]


@dataclass(frozen=True)
class Case:
    """One module of K adapters, as this project sees it and as a source sees it.

    Attributes:
        items: The factors.
        updates: Their dense updates, float64.
        seed: Seed of the case.
    """

    items: list[Factors]
    updates: Updates
    seed: int

    @property
    def weights(self) -> list[float]:
        """Returns uniform weights."""
        return [1 / len(self.items)] * len(self.items)


def case(shape: tuple[int, int], lora_rs: Sequence[int], seed: int, shared: float = 0.0) -> Case:
    """Returns random adapters of the given ranks; `shared` is the share of a common update in each."""
    draw = np.random.default_rng(seed)
    out_features, in_features = shape
    common_a, common_b = draw.standard_normal((max(lora_rs), in_features)), draw.standard_normal((out_features, max(lora_rs)))
    items = []
    for place, lora_r in enumerate(lora_rs):
        a_RI = shared * common_a[:lora_r] + draw.standard_normal((lora_r, in_features))
        b_OR = shared * common_b[:, :lora_r] + draw.standard_normal((out_features, lora_r))
        items.append(Factors(torch.from_numpy(a_RI).float(), torch.from_numpy(b_OR).float(), 0.5 * (1 + place)))
    return Case(items, [dense(item) for item in items], seed)


def dense(item: Factors) -> np.ndarray:
    """Returns scaling * B @ A, float64."""
    return item.scaling * (item.b_OR.numpy().astype("f8") @ item.a_RI.numpy().astype("f8"))


@cache
def low_rank_cases() -> list[Case]:
    """Returns cases of K = 2, 3 and 5 adapters whose ranks differ and leave room for all directions of all adapters."""
    return [
        case(shape, ranks, seed, shared=0.7)
        for shape in SHAPES
        for seed, ranks in enumerate([(4, 6), (3, 4, 5), (2, 3, 4, 2, 3)])
    ]


@cache
def equal_rank_cases() -> list[Case]:
    """Returns cases in which all adapters have one rank and one scaling."""
    cases = [case(shape, ranks, seed, shared=0.7) for shape in SHAPES for seed, ranks in enumerate([(5, 5), (4, 4, 4)])]
    for item in cases:
        item.items[:] = [Factors(one.a_RI, one.b_OR, 2.0) for one in item.items]
        item.updates[:] = [dense(one) for one in item.items]
    return cases


@cache
def full_rank_cases() -> list[Case]:
    """Returns cases of adapters of full rank, such as those of `lora.variant: full`."""
    return [case(shape, [min(shape)] * count, count, shared=0.7) for shape in SHAPES for count in (2, 3)]


def one(method: str, **options: Any) -> Callable[[Case], np.ndarray]:
    """Returns this project's method as a function of a case."""
    return lambda item: merge_method(method)(item.items, item.weights, **options).dense().numpy()


# References


def mean_of_merged_models(item: Case) -> np.ndarray:
    """enesyugan/continual-asr 4e71122, whisper/centralize_2.py: each adapter is merged into its own base; the mean of those."""
    base = np.random.default_rng(item.seed).standard_normal(item.updates[0].shape)
    return np.mean([base + update for update in item.updates], axis=0) - base


def mean_of_factors(item: Case) -> np.ndarray:
    """enesyugan/continual-asr 4e71122, whisper/centralize.py: the tensors of the adapters are averaged, then merged."""
    a_RI = np.mean([each.a_RI.numpy().astype("f8") for each in item.items], axis=0)
    b_OR = np.mean([each.b_OR.numpy().astype("f8") for each in item.items], axis=0)
    return item.items[0].scaling * b_OR @ a_RI


def pefts(function: Callable[..., torch.Tensor], weight: float, *options: Any) -> Callable[[Case], np.ndarray]:
    """Returns a function of peft.utils.merge_utils as a function of a case, all weights `weight`."""
    return lambda item: function(
        [torch.from_numpy(update) for update in item.updates], torch.full((len(item.updates),), weight).double(), *options
    ).numpy()


def ties_of_a_model(item: Case) -> np.ndarray:
    """arXiv 2306.01708: one threshold for all entries of a model. A second module, twice as large, is part of the model."""
    kept = []
    for update in item.updates:
        model = np.concatenate([update.ravel(), 2 * update.ravel()])
        threshold = np.sort(np.abs(model))[-int(0.2 * model.size)]
        kept.append(np.where(np.abs(update) >= threshold, update, 0))
    sign = np.where(np.sum(kept, axis=0) >= 0, 1.0, -1.0)
    agree = [update * (update * sign > 0) for update in kept]
    count = np.sum([update != 0 for update in agree], axis=0)
    return np.sum(agree, axis=0) / np.maximum(count, 1)


def dare_with_masks(item: Case) -> np.ndarray:
    """arXiv 2311.03099: entries are dropped and the rest divided by the density; the masks are those that this project draws."""
    total = np.zeros_like(item.updates[0])
    for place, update in enumerate(item.updates):
        source = torch.Generator().manual_seed(derived_seed(item.seed, place))
        drawn = torch.cat([torch.rand(len(rows), update.shape[1], generator=source, dtype=torch.float64)
                           for rows in torch.from_numpy(update).split(64)])  # fmt: skip
        total += np.where(drawn.numpy() < 0.5, update, 0) / 0.5 / len(item.updates)
    return total


def trimmed(item: Case) -> np.ndarray:
    """arXiv 1803.01498, definition 2: the mean of the sorted entries without the smallest and largest."""
    num_cut = int(0.34 * len(item.updates))
    return np.sort(np.stack(item.updates), axis=0)[num_cut : len(item.updates) - num_cut].mean(axis=0)


def polar(columns: np.ndarray) -> np.ndarray:
    """Returns the nearest matrix with orthonormal columns."""
    left, _, right = np.linalg.svd(columns, full_matrices=False)
    return left @ right


def tsv_of(updates: Updates, retraction: Callable[[np.ndarray], np.ndarray] = polar, beta: float = 1.0) -> np.ndarray:
    """AntoAndGar/task_singular_vectors a6c9718, src/utils/TSVM_utils.py, compute_and_sum_svd_mem_reduction.

    The largest floor(min(out, in) / K) singular values of each dense update are stacked with their vectors, and two polar factors
    make the vectors orthonormal. `beta` < 1 raises the singular values of each update first (arXiv 2603.05354).
    """
    size = min(updates[0].shape) // len(updates)
    left, values, right = [], [], []
    for update in updates:
        u, sigma, v = np.linalg.svd(update, full_matrices=False)
        if beta < 1:
            sigma = np.maximum(sigma, sigma[np.argmax(np.cumsum(sigma) / sigma.sum() >= beta)])
        left, values, right = [*left, u[:, :size]], [*values, sigma[:size]], [*right, v[:size]]
    return retraction(np.hstack(left)) @ np.diag(np.concatenate(values)) @ retraction(np.vstack(right).T).T


def with_null_vectors(item: Case) -> np.ndarray:
    """`tsv_of` as its code runs on updates of low rank: vectors of zero singular values are stacked, too, here random ones."""
    draw, filled = np.random.default_rng(item.seed), []
    for update, each in zip(item.updates, item.items, strict=True):
        u, sigma, v = np.linalg.svd(update)
        rank = each.a_RI.shape[0]
        left, right = (np.linalg.qr(np.hstack([kept, draw.standard_normal((len(kept), min(update.shape) - rank))]))[0]
                       for kept in (u[:, :rank], v[:rank].T))  # fmt: skip
        left[:, :rank], right[:, :rank] = u[:, :rank], v[:rank].T
        filled.append((left, np.concatenate([sigma[:rank], np.zeros(min(update.shape) - rank)]), right))
    size = min(item.updates[0].shape) // len(filled)
    left, right = (polar(np.hstack([each[side][:, :size] for each in filled])) for side in (0, 2))
    return left @ np.diag(np.concatenate([sigma[:size] for _, sigma, _ in filled])) @ right.T


def core_space(item: Case, method: Callable[[Updates], np.ndarray]) -> np.ndarray:
    """apanariello4/core-space-merging 85176fa, task_merger.py, get_core_matrices: a method on updates in a common small basis.

    The bases are the singular vectors of the stacked A and of the stacked B. Factors of equal rank are needed, so an update is
    cut into its singular directions first, and the shorter ones are padded with zeros.
    """
    rank = max(each.a_RI.shape[0] for each in item.items)
    factors = []
    for update in item.updates:
        u, sigma, v = np.linalg.svd(update)
        sigma = np.where(sigma > 1e-9 * sigma[0], sigma, 0)[:rank]
        factors.append((u[:, :rank] * sigma, v[:rank]))
    left = np.linalg.svd(np.hstack([b for b, _ in factors]), full_matrices=False)[0]
    right = np.linalg.svd(np.vstack([a for _, a in factors]), full_matrices=False)[2]
    return left @ method([left.T @ b @ a @ right.T for b, a in factors]) @ right


def newton_schulz(steps: Sequence[tuple[float, float, float]]) -> Callable[[np.ndarray], np.ndarray]:
    """Returns the iteration X <- a X + b X X'X + c X (X'X)^2 from X / ||X||; a step is (a, b, c)."""

    def retraction(columns: np.ndarray) -> np.ndarray:
        found = columns / np.linalg.norm(columns)
        for first, second, third in steps:
            gram = found.T @ found
            found = first * found + found @ (second * gram + third * gram @ gram)
        return found

    return retraction


TO_THE_END = newton_schulz([(15 / 8, -10 / 8, 3 / 8)] * 60)
MUONS_FIVE = newton_schulz([(3.4445, -4.7750, 2.0315)] * 5)
"""Five quintic steps with the coefficients of the Muon optimizer; those of arXiv 2603.05354 could not be read."""


def truncated_mean(item: Case) -> np.ndarray:
    """Eckart and Young 1936: the first five singular directions of the mean."""
    u, sigma, v = np.linalg.svd(np.mean(item.updates, axis=0))
    return u[:, :5] @ np.diag(sigma[:5]) @ v[:5]


def torchs_nesterov(item: Case) -> np.ndarray:
    """torch.optim.SGD with Nesterov momentum, each adapter a round; the update of the last round."""
    weight = torch.zeros(item.updates[0].shape, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.7, momentum=0.9, nesterov=True)
    before = weight.detach().clone()
    for update in item.updates:
        before = weight.detach().clone()
        weight.grad = -torch.from_numpy(update)
        optimizer.step()
    return (weight.detach() - before).numpy()


def our_nesterov(item: Case) -> np.ndarray:
    """Returns the update of the last of K rounds with one adapter each."""
    past: list[Any] = []
    for each in item.items:
        past.append(merge_method("nesterov")([each], [1.0], past=list(past)))
    return past[-1].dense().numpy()


def mergekits_model_stock(item: Case) -> np.ndarray:
    """arcee-ai/mergekit a6e4028, mergekit/merge_methods/model_stock.py: the mean of the cosines of all pairs, then t."""
    flat, count = [update.ravel() for update in item.updates], len(item.updates)
    cosines = [
        flat[i] @ flat[j] / (np.linalg.norm(flat[i]) * np.linalg.norm(flat[j])) for i in range(count) for j in range(i + 1, count)
    ]
    cosine = np.mean(cosines)
    return count * cosine / (1 + (count - 1) * cosine) * np.mean(item.updates, axis=0)


def fusion_benchs_model_stock(item: Case) -> np.ndarray:
    """tanganke/fusion_bench 54c9e8c, fusion_bench/method/model_stock/model_stock.py: the mean of the pairs' angles, then t."""
    flat, count = [update.ravel() for update in item.updates], len(item.updates)
    angles = [
        np.arccos(flat[i] @ flat[j] / (np.linalg.norm(flat[i]) * np.linalg.norm(flat[j])))
        for i in range(count) for j in range(i + 1, count)
    ]  # fmt: skip
    cosine = np.cos(np.mean(angles))
    return count * cosine / (1 + (count - 1) * cosine) * np.mean(item.updates, axis=0)


def karcher_mean(points: Updates, num_steps: int = 1000) -> np.ndarray:
    """arcee-ai/mergekit a6e4028, mergekit/merge_methods/karcher.py, uniform weights, with more steps than its ten."""
    norms = [np.linalg.norm(point) for point in points]
    units = [point / norm for point, norm in zip(points, norms, strict=True)]
    at = np.mean(units, axis=0)
    at = at / np.linalg.norm(at)
    for _ in range(num_steps):
        tangent = np.zeros_like(at)
        for unit in units:
            cosine = np.clip(np.sum(at * unit), -1, 1)
            if (angle := np.arccos(cosine)) > 1e-7:
                tangent += angle / np.sin(angle) * (unit - cosine * at) / len(units)
        if (length := np.linalg.norm(tangent)) < 1e-13:
            break
        at = np.cos(length) * at + np.sin(length) * tangent / length
        at = at / np.linalg.norm(at)
    return np.mean(norms) * at


def karcher_of_weights(item: Case) -> np.ndarray:
    """mergekit's karcher as it is used: on whole weights, here a hundred times as long as an update; less the base."""
    base = np.random.default_rng(item.seed).standard_normal(item.updates[0].shape)
    base *= 100 * np.linalg.norm(item.updates[0]) / np.linalg.norm(base)
    return karcher_mean([base + update for update in item.updates]) - base


def fishers_of(item: Case) -> Updates:
    """Returns a Fisher information for each adapter, in float32 as they are stored; the adapters' sizes differ by ten."""
    draw = np.random.default_rng(100 + item.seed)
    return [
        (10.0**place * draw.random(update.shape) + 1e-3).astype("f4").astype("f8") for place, update in enumerate(item.updates)
    ]


def our_fisher(**options: Any) -> Callable[[Case], np.ndarray]:
    """Returns `fisher` as a function of a case, with the Fisher information of `fishers_of`."""

    def merged(item: Case) -> np.ndarray:
        informed = [
            replace(each, curvature=Curvature(torch.from_numpy(found).float(), fishernorm_=torch.tensor(norm_of_model(found))))
            for each, found in zip(item.items, fishers_of(item), strict=True)
        ]
        return merge_method("fisher")(informed, item.weights, **options).dense().numpy()

    return merged


def norm_of_model(fisher: np.ndarray) -> float:
    """Returns the L2 norm of a model's Fisher information: the module's, and that of a second one, three times as large."""
    return float(np.sqrt(np.sum(fisher**2) + np.sum((3 * fisher) ** 2)))


def fisher_merging(item: Case, *, is_normalized: bool = False) -> np.ndarray:
    """mmatena/model_merging 46802f9, model_merging/merging.py, generate_merged_for_coeffs_set, equal coefficients."""
    constants = [norm_of_model(found) if is_normalized else 1.0 for found in fishers_of(item)]
    parts = [np.maximum(found, 1e-6) / len(item.updates) / size for found, size in zip(fishers_of(item), constants, strict=True)]
    return np.sum([part * update for part, update in zip(parts, item.updates, strict=True)], axis=0) / np.sum(parts, axis=0)


def moments_of(item: Case) -> tuple[np.ndarray, np.ndarray]:
    """Returns second moments of a module's inputs and of the gradients of its outputs, float32, with eigenvalues over decades."""
    draw, found = np.random.default_rng(200 + item.seed), []
    for size in reversed(item.updates[0].shape):
        samples = draw.standard_normal((2 * size, size)) * np.geomspace(10, 0.1, size)
        found.append((samples.T @ samples / len(samples)).astype("f4").astype("f8"))
    return found[0], found[1] * 1e-4


def our_ihr(**options: Any) -> Callable[[Case], np.ndarray]:
    """Returns `ihr` as a function of a case, with the moments of `moments_of`."""

    def merged(item: Case) -> np.ndarray:
        inputs, outputs = (torch.from_numpy(found).float() for found in moments_of(item))
        return one("ihr", previous=[Curvature(None, inputs, outputs)], **options)(item)

    return merged


def kfac_step(item: Case) -> np.ndarray:
    """arXiv 1503.05671: the inverses of the Kronecker factors, each damped by its mean eigenvalue; the norm of the mean."""
    mean = np.mean(item.updates, axis=0)
    inputs, outputs = ((found + np.trace(found) / len(found) * np.eye(len(found))) for found in moments_of(item))
    found = np.linalg.inv(outputs) @ mean @ np.linalg.inv(inputs)
    return found * np.linalg.norm(mean) / np.linalg.norm(found)


def ihr_of_the_authors(item: Case) -> np.ndarray:
    """StevenVdEeckt/inverse-hessian-regularization a003492, code/merging_step/compute_ihr_model.py, one pair of factors.

    1e-3 is added to both factors, two Cholesky solves invert them, and the result gets the norm of the update.
    """
    delta = np.mean(item.updates, axis=0)
    inputs, outputs = (0.5 * (found + found.T) + 1e-3 * np.eye(len(found)) for found in moments_of(item))
    lower_O, lower_I = np.linalg.cholesky(outputs), np.linalg.cholesky(inputs)
    half = np.linalg.solve(lower_O.T, np.linalg.solve(lower_O, delta))
    found = np.linalg.solve(lower_I.T, np.linalg.solve(lower_I, half.T)).T
    return found / np.linalg.norm(found) * np.linalg.norm(delta)


def lors_of_updates(item: Case) -> np.ndarray:
    """qmgzhao/LoRS-Merging b90f10d, model_merging/merge_fft-lors-merge.py, with two singular directions in place of seven."""
    total = np.zeros_like(item.updates[0])
    for update in item.updates:
        u, sigma, v = np.linalg.svd(update)
        low = u[:, :2] @ np.diag(sigma[:2]) @ v[:2]
        rest = update - low
        smallest = np.sort(np.abs(rest), axis=None)[-int(0.2 * rest.size)]
        total += low + np.where(np.abs(rest) >= smallest, rest, 0)
    return 0.2 * total


def weight_and_skew(item: Case) -> tuple[np.ndarray, np.ndarray]:
    """Returns a weight, float32, and the numbers of a K for 0.4 of its directions."""
    draw, shape = np.random.default_rng(300 + item.seed), item.updates[0].shape
    size = int(0.4 * min(shape))
    return draw.standard_normal(shape).astype("f4").astype("f8"), 0.05 * draw.standard_normal(size * (size - 1) // 2)


def our_rotation(item: Case) -> np.ndarray:
    """Returns the update of `lora.variant: cssvd`, whose K has the numbers of `weight_and_skew`."""
    weight, skew = weight_and_skew(item)
    tail = tail_of(torch.from_numpy(weight), int(0.4 * min(weight.shape)))
    return (Rotation(tail.left_OR).of(torch.from_numpy(skew)) @ tail.right_RI.double()).numpy()


def rotation_of_the_authors(item: Case) -> np.ndarray:
    """StevenVdEeckt/pecl-for-asr 9fcfad8, espnet2/layers/ssvdolib.py, _build_weight, knowledge_preserved_mode, rotation_only.

    The last k columns of V are multiplied by (I - 2 K)^T, and the weight is put together again. The vectors of a singular value
    have the sign that makes the right one's largest entry positive: with other signs, another K gives the same update.
    """
    weight, skew = weight_and_skew(item)
    size = int(0.4 * min(weight.shape))
    left, values, right = np.linalg.svd(weight, full_matrices=False)
    signs = np.sign(right[np.arange(len(right)), np.argmax(np.abs(right), axis=1)])
    left, turned = left * signs, (right * signs[:, None]).T
    places = np.triu_indices(size, 1)
    rotation = np.zeros((size, size))
    rotation[places] = skew
    rotation[places[1], places[0]] = -skew
    turned[:, -size:] = turned[:, -size:] @ (np.eye(size) - 2 * rotation).T
    return left @ np.diag(values) @ turned.T - weight


# The table


@dataclass(frozen=True)
class Row:
    """A method beside a reference.

    Attributes:
        method: The method, with its options.
        reference: What it is compared with.
        ours, theirs: The updates of a case.
        is_same: Whether the two are the same operation; else the row says how far a deliberate deviation goes.
        cases: The cases.
    """

    method: str
    reference: str
    ours: Callable[[Case], np.ndarray]
    theirs: Callable[[Case], np.ndarray]
    is_same: bool = True
    cases: Callable[[], Sequence[Case]] = field(default=low_rank_cases)

    def difference(self) -> float:
        """Returns the largest difference of an entry over all cases, as a share of the reference's largest entry."""
        found = []
        for item in self.cases():
            expected = self.theirs(item)
            found.append(np.abs(self.ours(item) - expected).max() / np.abs(expected).max())
        return float(max(found))


ROWS = [
    Row("`mean`", "merged models averaged, continual-asr centralize_2.py", one("mean"), mean_of_merged_models),
    Row("`factor_mean`", "adapters averaged, continual-asr centralize.py", one("factor_mean"), mean_of_factors,
        cases=equal_rank_cases),
    Row("`task_arithmetic`", "PEFT `task_arithmetic`", one("task_arithmetic"), pefts(merge_utils.task_arithmetic, 0.3)),
    Row("`ties`", "PEFT `ties`", one("ties"), pefts(merge_utils.ties, 1.0, 0.2)),
    Row("`ties`", "one threshold for a model of unlike modules, 2306.01708", one("ties"), ties_of_a_model, is_same=False),
    Row("`dare`", "2311.03099 with the same masks",
        lambda item: one("dare", seed=item.seed)(item), dare_with_masks),
    Row("`trimmed_mean`", "1803.01498", one("trimmed_mean"), trimmed),
    Row("`tsv`", "TSV in core space, core-space-merging task_merger.py", one("tsv"), lambda item: core_space(item, tsv_of),
        cases=equal_rank_cases),
    Row("`tsv`, updates of full rank", "TSV-M, task_singular_vectors TSVM_utils.py", one("tsv"),
        lambda item: tsv_of(item.updates), cases=full_rank_cases),
    Row("`tsv`, updates of low rank", "the same, with the arbitrary vectors of zero singular values", one("tsv"),
        with_null_vectors, is_same=False),
    Row("`boosted_tsv`, full rank", "2603.05354, Newton-Schulz until it ends", one("boosted_tsv"),
        lambda item: tsv_of(item.updates, TO_THE_END, 0.3), cases=full_rank_cases),
    Row("`boosted_tsv`, low rank", "the same in core space", one("boosted_tsv"),
        lambda item: core_space(item, lambda updates: tsv_of(updates, TO_THE_END, 0.3)), cases=equal_rank_cases),
    Row("`boosted_tsv`, low rank", "the same in core space with five steps of Muon's coefficients", one("boosted_tsv"),
        lambda item: core_space(item, lambda updates: tsv_of(updates, MUONS_FIVE, 0.3)), is_same=False, cases=equal_rank_cases),
    Row("`svd`, r=5", "the truncated mean", one("svd", r=5), truncated_mean),
    Row("`nesterov`", "`torch.optim.SGD`", our_nesterov, torchs_nesterov),
    Row("`fisher`", "model_merging merging.py, not normalized", our_fisher(), fisher_merging),
    Row("`fisher`, normalize=1", "model_merging merging.py as it is", our_fisher(normalize=1),
        lambda item: fisher_merging(item, is_normalized=True)),
    Row("`fisher`", "model_merging merging.py as it is", our_fisher(), lambda item: fisher_merging(item, is_normalized=True),
        is_same=False),
    Row("`ihr`", "K-FAC, 1503.05671, damped by the mean eigenvalues", our_ihr(), kfac_step),
    Row("`ihr`, relative=0, damping=0.001", "inverse-hessian-regularization compute_ihr_model.py",
        our_ihr(relative=0, damping=1e-3), ihr_of_the_authors),
    Row("`ihr`", "inverse-hessian-regularization compute_ihr_model.py", our_ihr(), ihr_of_the_authors, is_same=False),
    Row("`model_stock`", "mergekit model_stock.py", one("model_stock"), mergekits_model_stock),
    Row("`model_stock`", "fusion_bench model_stock.py, the mean of angles", one("model_stock"), fusion_benchs_model_stock,
        is_same=False, cases=equal_rank_cases),
    Row("`karcher`", "mergekit karcher.py on updates", one("karcher"), lambda item: karcher_mean(item.updates)),
    Row("`karcher`", "mergekit karcher.py on weights", one("karcher"), karcher_of_weights, is_same=False),
    Row("`mean`", "mergekit karcher.py on weights", one("mean"), karcher_of_weights, is_same=False),
    Row("`lors`, r=2", "LoRS-Merging merge_fft-lors-merge.py", one("lors", r=2), lors_of_updates),
    Row("`lora.variant: cssvd`, the update of an adapter", "pecl-for-asr ssvdolib.py", our_rotation, rotation_of_the_authors),
]  # fmt: skip


@cache
def differences() -> Mapping[int, float]:
    """Returns the largest difference of every row, by its place in `ROWS`."""
    return {place: row.difference() for place, row in enumerate(ROWS)}


def shown(difference: float) -> str:
    """Returns a difference with one digit, or that it is that of float32, so that every processor shows the same."""
    return f"below {SAME:g}" if difference < SAME else f"{difference:.1g}"


def table() -> str:
    """Returns the table: method, reference, largest difference, and what that means."""
    lines = ["| method | reference | largest difference | |", "| --- | --- | --- | --- |"]
    for place, row in enumerate(ROWS):
        kind = "the same" if row.is_same else "deviation"
        lines.append(f"| {row.method} | {row.reference} | {shown(differences()[place])} | {kind} |")
    return "\n".join([*lines, ""])


def written(page: str) -> str:
    """Returns the page with the table between its marks."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(PAGE.parents[1])}")
