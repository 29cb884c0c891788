"""All measures of one round, module by module: factors in, plain numbers out, which analysis.json holds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch

from wfc_dist.analysis import geometry
from wfc_dist.analysis.distributions import EntryPool, Pooled
from wfc_dist.analysis.geometry import VarianceSplit
from wfc_dist.analysis.module_names import place_of
from wfc_dist.data.features import single_threaded
from wfc_dist.errors import InputError
from wfc_dist.merging import low_rank
from wfc_dist.merging.factors import ROWS, AnyDelta, Factors, concatenated

_MOST_ENTRIES, _SIDES = 16_000_000, (16, 192)  # sampled entries of all updates together; limits of the side of one matrix's grid
_MOST_PAIRED = 16  # adapters whose subspaces are compared: the number of pairs grows with the square
_RANK_TOLERANCE = 1e-6  # relative to the largest singular value: the factors are float32
PairMatrix = list[list[float]]
"""A number for every pair of adapters."""


@dataclass(frozen=True)
class ModuleMeasures:
    """The measures of one adapted matrix. Means are over adapters, or over pairs of adapters.

    Attributes:
        kind, projection, depth: Such as "decoder cross", "q_proj", 3; depth is -1 if the name has none.
        variance: The split of ||mean of this module's updates||^2.
        sign_agreement: Mean over pairs; 0.5 for independent updates.
        column_overlap, row_overlap: Mean over pairs of the overlap of column spaces (outputs) and row spaces (inputs).
        column_random, row_random: Expected overlap of random subspaces, r / d.
        effective_rank: Mean over the updates.
        norms: Adapter -> ||d_i||.
        mean_norm: ||mean of the updates||.
        own_norm: ||update that the run has merged||, None before it has one.
        weight_norm: ||W|| of the root (base 0), None if the root is not on this machine.
        adapters_kurtosis, averaged_kurtosis: Excess kurtosis of the entries on the grid.
    """

    kind: str
    projection: str
    depth: int
    variance: VarianceSplit
    sign_agreement: float
    column_overlap: float
    column_random: float
    row_overlap: float
    row_random: float
    effective_rank: float
    norms: Mapping[str, float]
    mean_norm: float
    own_norm: float | None
    weight_norm: float | None
    adapters_kurtosis: float
    averaged_kurtosis: float


@dataclass(frozen=True)
class OwnUpdate:
    """The update that the run has merged, by any method, weights and scale, compared with the mean of the updates.

    Attributes:
        ratio: ||own||^2 / mean_i ||d_i||^2.
        cosine: Cosine with the mean.
    """

    ratio: float
    cosine: float


@dataclass(frozen=True)
class RoundMeasures:
    """The measures of one round.

    Attributes:
        round_index: 1-based.
        adapters: Data sets, in the order of the rows and columns of every matrix.
        modules: Module name -> its measures.
        variance: The split over all modules together.
        entry_mean_share: mean(entry)^2 / mean(entry^2) of the adapters: 0 where variance and mean square are the same.
        cosines: "updates", "lora_A" and "lora_B" -> cosines over all modules; the factors only if their shapes agree.
        sign_agreement: Of the updates, over all modules.
        pooled: "updates", "lora_A" and "lora_B" -> distributions.
        own: None before the round has its update.
        grid_side: Distributions and signs use a grid of at most side x side entries of each matrix. All else is exact.
    """

    round_index: int
    adapters: Sequence[str]
    modules: Mapping[str, ModuleMeasures]
    variance: VarianceSplit
    entry_mean_share: float
    cosines: Mapping[str, PairMatrix]
    sign_agreement: PairMatrix
    pooled: Mapping[str, Pooled]
    own: OwnUpdate | None
    grid_side: int


def grid_side(num_updates: int, num_modules: int) -> int:
    """Returns the side of the grid of entries of one matrix, such that the entries of all updates fit in memory."""
    side = math.isqrt(_MOST_ENTRIES // (num_updates * num_modules))
    return min(max(side, _SIDES[0]), _SIDES[1])


def _spread(size: int, side: int) -> torch.Tensor:
    """Returns at most `side` indices of 0..size-1, evenly spread, both ends among them; (min(size, side),) int64."""
    return torch.linspace(0, size - 1, min(size, side)).round().long()


class _Round:
    """Measures the modules of one round one after the other, and sums over them."""

    def __init__(self, loaded: Mapping[str, Mapping[str, Factors]], own: Mapping[str, AnyDelta] | None) -> None:
        self.names, self.own = list(loaded), own or {}
        first = next(iter(loaded.values()))
        self.side = grid_side(len(loaded) + 1, len(first))
        self.pools = {what: EntryPool(self.names) for what in ("updates", "lora_A", "lora_B")}
        self.are_alike = True
        self.grams: dict[str, list[torch.Tensor]] = {"updates": [], "lora_A": [], "lora_B": []}
        self.means_squared = self.own_squared = self.own_with_mean = 0.0

    def measure(self, name: str, factors: list[Factors], weight_norm: float | None) -> ModuleMeasures:
        """Returns the measures of one module, and adds them to the sums."""
        gram_KK = geometry.update_gram(factors)
        self.grams["updates"].append(gram_KK)
        num_entries = factors[0].b_OR.shape[0] * factors[0].a_RI.shape[1]
        self.means_squared += float((geometry.entry_sums(factors) ** 2).sum()) / num_entries
        self._pool_factors(factors)
        signs, adapters_kurtosis, averaged_kurtosis = self._pool_updates(factors)
        kind, projection, depth = place_of(name)
        (column_overlap, column_random), (row_overlap, row_random), effective_rank = _overlaps(factors)
        return ModuleMeasures(
            kind=kind,
            projection=projection,
            depth=depth,
            variance=geometry.variance_split(gram_KK),
            sign_agreement=signs,
            column_overlap=column_overlap,
            column_random=column_random,
            row_overlap=row_overlap,
            row_random=row_random,
            effective_rank=effective_rank,
            norms=dict(zip(self.names, gram_KK.diagonal().sqrt().tolist(), strict=True)),
            mean_norm=math.sqrt(max(0.0, float(gram_KK.mean()))),
            own_norm=self._compare_own(name, factors),
            weight_norm=weight_norm,
            adapters_kurtosis=adapters_kurtosis,
            averaged_kurtosis=averaged_kurtosis,
        )

    def _pool_updates(self, factors: list[Factors]) -> tuple[float, float, float]:
        """Pools a grid of the updates. Returns sign agreement, kurtosis of the adapters, and kurtosis of the average."""
        axes = [_spread(size, self.side) for size in (factors[0].b_OR.shape[0], factors[0].a_RI.shape[1])]
        grids = [concatenated([adapter], [1.0]).entries(*axes) for adapter in factors]
        averaged = sum(grids, torch.zeros(())) / len(grids)
        kurtosis = self.pools["updates"].add(grids, averaged)
        return geometry.mean_off_diagonal(geometry.sign_agreement(torch.stack(grids).flatten(1))), *kurtosis

    def _pool_factors(self, factors: list[Factors]) -> None:
        self.are_alike = self.are_alike and len({adapter.a_RI.shape[0] for adapter in factors}) == 1
        for what, matrices in (
            ("lora_A", [adapter.a_RI.double() for adapter in factors]),
            ("lora_B", [adapter.b_OR.double() for adapter in factors]),
        ):
            axes = [_spread(size, self.side) for size in matrices[0].shape]
            if self.are_alike:
                self.grams[what].append(geometry.matrix_gram(matrices))
                grids = [matrix[axes[0]][:, axes[1]] for matrix in matrices]
                self.pools[what].add(grids, sum(grids, torch.zeros(())) / len(grids))

    def _compare_own(self, name: str, factors: list[Factors]) -> float | None:
        """Compares the update that the run has merged with the mean. Returns its norm, None if there is no such update."""
        if name not in self.own:
            return None
        squared = with_mean = 0.0
        mean = concatenated(factors, [1 / len(factors)] * len(factors))
        for own, averaged in zip(self.own[name].rows(ROWS), mean.rows(ROWS), strict=True):
            squared += float(own.square().sum())
            with_mean += float((own * averaged).sum())
        self.own_squared += squared
        self.own_with_mean += with_mean
        return math.sqrt(squared)

    def own_update(self, gram_KK: torch.Tensor) -> OwnUpdate:
        """Returns how the run's update compares, from the inner products of the updates over all modules."""
        trace, squares = float(gram_KK.trace()), self.own_squared * float(gram_KK.mean())
        ratio = self.own_squared / (trace / len(gram_KK)) if trace else math.nan
        return OwnUpdate(ratio, self.own_with_mean / math.sqrt(squares) if squares > 0 else math.nan)

    def total(self, what: str) -> torch.Tensor:
        return torch.stack(self.grams[what]).sum(dim=0)


def _overlaps(factors: list[Factors]) -> tuple[tuple[float, float], tuple[float, float], float]:
    """Returns (overlap, its value for random subspaces) of columns and of rows, and the effective rank: means."""
    parts = [low_rank.directions(concatenated([adapter], [1.0]), _RANK_TOLERANCE) for adapter in factors[:_MOST_PAIRED]]
    rank = sum(geometry.effective_rank(sigma_R) for _, sigma_R, _ in parts) / len(parts)
    columns, rows = [u_OR for u_OR, _, _ in parts], [v_RI.T for _, _, v_RI in parts]
    return _mean_overlap(columns), _mean_overlap(rows), rank


def _mean_overlap(spaces: list[torch.Tensor]) -> tuple[float, float]:
    """Returns the overlap and that of random subspaces, means over pairs; NaN without a pair."""
    pairs = list(combinations(spaces, 2))
    if not pairs:
        return math.nan, math.nan
    measures = (geometry.overlap, geometry.random_overlap)
    mean, random = (sum(measure(*pair) for pair in pairs) / len(pairs) for measure in measures)
    return mean, random


def measure_round(
    round_index: int,
    loaded: Mapping[str, Mapping[str, Factors]],
    own: Mapping[str, AnyDelta] | None,
    weight_norms: Mapping[str, float],
) -> RoundMeasures:
    """Returns the measures of a round's adapters. Deterministic: torch computes on one thread.

    Args:
        round_index: 1-based.
        loaded: Data set -> module -> factors; at least one.
        own: Module -> the update that the run has merged; None before it has one.
        weight_norms: Module -> ||W|| of the root; may be empty.

    Raises:
        InputError: Adapters, or the update, differ in modules or shapes.
    """
    _check_alike(round_index, loaded, own)
    with single_threaded():
        sums = _Round(loaded, own)
        first = next(iter(loaded.values()))
        modules = {
            name: sums.measure(name, [factors[name] for factors in loaded.values()], weight_norms.get(name)) for name in first
        }
        gram_KK = sums.total("updates")
        kinds = [what for what in sums.grams if what == "updates" or sums.are_alike]
        signs_KN = torch.stack([sums.pools["updates"].entries(name) for name in sums.names])
        trace = float(gram_KK.trace())
        return RoundMeasures(
            round_index=round_index,
            adapters=sums.names,
            modules=modules,
            variance=geometry.variance_split(gram_KK),
            entry_mean_share=sums.means_squared / trace if trace else math.nan,
            cosines={what: geometry.cosines(sums.total(what)).tolist() for what in kinds},
            sign_agreement=geometry.sign_agreement(signs_KN).tolist(),
            pooled={what: sums.pools[what].close() for what in kinds},
            own=sums.own_update(gram_KK) if own else None,
            grid_side=sums.side,
        )


def _check_alike(round_index: int, loaded: Mapping[str, Mapping[str, Factors]], own: Mapping[str, AnyDelta] | None) -> None:
    def shapes(factors: Mapping[str, Factors]) -> dict[str, tuple[int, int]]:
        return {module: (pair.b_OR.shape[0], pair.a_RI.shape[1]) for module, pair in factors.items()}

    first, *others = loaded
    wanted = shapes(loaded[first])
    others_shapes = {f"adapter {name}": shapes(loaded[name]) for name in others}
    others_shapes |= {"delta": {module: update.shape for module, update in own.items()}} if own else {}
    for what, has in others_shapes.items():
        if has != wanted:
            module = sorted(dict(wanted.items() ^ has.items()))[0]
            raise InputError(
                f"round {round_index}: {what} and adapter {first} differ in {module}; all of a round adapt the same matrices"
            )
