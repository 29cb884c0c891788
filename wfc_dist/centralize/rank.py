"""The distributed average and merge: K adapters on N ranks -> one delta -> the next base.

Each rank reads and verifies its adapters, and sends each module to the rank that owns the module. The owner averages and merges
the module. Rank 0 writes the results. K is the number of adapters and does not depend on the number of ranks.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load, save

from wfc_dist import activity, log
from wfc_dist.centralize import apply, collectives, exchange, inputs
from wfc_dist.centralize.apply import MergedModule
from wfc_dist.centralize.exchange import Share, Stacked
from wfc_dist.errors import InputError, IntegrityError
from wfc_dist.merging import catalog
from wfc_dist.merging.factors import AnyDelta, Factors, exactness_gap, is_smaller_dense, normalized, ratio_of_norms
from wfc_dist.merging.recipe import Recipe, merged_update
from wfc_dist.rounds import Adapter, Base, StagedBase
from wfc_dist.runs import layout
from wfc_dist.runs.root import bring_base
from wfc_dist.storage import durable
from wfc_dist.storage.mirror import NO_MIRROR, AnyMirror
from wfc_dist.storage.objects import at_once
from wfc_dist.weights import base_chain, peft_folder
from wfc_dist.weights.hashing import content_sha256
from wfc_dist.weights.tensor_files import TensorSpec, write_order


@dataclass(frozen=True)
class CentralizeJob:
    """The description of one average and merge. All ranks get the same job.

    Attributes:
        base: The base against which the adapters were trained.
        adapters: The adapters in data-set order, which is the order of summation.
        weights: One number per adapter, with any positive sum.
        are_shares: The weights are the shares of a committed round, which a second division by their sum could round.
        method, options, norm: The values of the configuration.
        scale: The scale of this round.
        dtype: Data type of the new base; "auto" keeps that of the root.
        root: Checkpoint folder of the root model.
        shared: Checkpoint folder of base 0, to whose files the new base links: the root model or its cast copy.
        past_deltas: Delta folders of rounds 1 to base.index, in order.
        tensor_hashes: Tensor name -> sha256, for every tensor of `base`.
        delta_dir, base_dir: Empty staging folders that rank 0 fills.
        mirror: Fetches the adapters and the past deltas of each rank. Rank 0 runs on the node that commits.
        seed: Seed of the round, for methods that sample (dare).
        previous_adapters: Adapter folders with the curvature of the previous round for methods that need it; else empty.
    """

    base: Base
    adapters: tuple[Adapter, ...]
    weights: tuple[float, ...]
    method: str
    scale: float
    dtype: str
    root: str
    shared: str
    past_deltas: tuple[str, ...]
    tensor_hashes: Mapping[str, str]
    delta_dir: str
    base_dir: str
    mirror: AnyMirror = NO_MIRROR
    options: Mapping[str, float] = field(default_factory=dict)
    norm: str = "own"
    seed: int = 0
    previous_adapters: tuple[str, ...] = ()
    are_shares: bool = False

    def shares(self) -> dict[str, float]:
        """Returns data set -> share of its adapter, in the order of summation. Raises InputError for weights without a sum."""
        shares = list(self.weights) if self.are_shares else normalized(self.weights)
        return dict(zip((adapter.dataset for adapter in self.adapters), shares, strict=True))

    def recipe(self) -> Recipe:
        """Returns the recipe that all modules share. Raises ConfigError for an option that the method does not have."""
        return Recipe(self.method, catalog.resolved(self.method, self.options), self.norm, self.scale, self.seed)


@dataclass(frozen=True)
class AveragedModule:
    """The update of one module, ||factor_mean - mean||^2 and ||mean||^2. The squares are None if `factor_mean` does not exist."""

    delta: AnyDelta
    gap_squared: float | None
    mean_squared: float | None


def load_adapters(found: Sequence[Adapter], base: Base, kinds: Sequence[str] = ()) -> dict[str, dict[str, Factors]]:
    """Reads and verifies adapters, with the statistics `kinds` of their curvature. Returns data set -> module -> factors.

    Raises:
        InputError: An adapter belongs to another base, is not finite, is not LoRA, or lacks the curvature.
        IntegrityError: The tensors of an adapter differ from those that were committed.
    """
    loaded = {}
    for adapter in found:
        if adapter.base_sha256 != base.sha256:
            raise InputError(
                f"{adapter.path} was trained against base {adapter.base_sha256[:12]}, not {base.sha256[:12]}; "
                "remove the adapter and run again to retrain it"
            )
        if peft_folder.folder_sha256(Path(adapter.path)) != adapter.sha256:
            raise IntegrityError(
                f"{adapter.path} is not the adapter that was committed; remove the folder and run again to retrain the adapter"
            )
        loaded[adapter.dataset] = peft_folder.read_with_curvature(Path(adapter.path), kinds)
    return loaded


def average_owned(
    loaded: exchange.Loaded,
    modules: Mapping[str, Stacked],
    shares: Mapping[str, float],
    group: collectives.Group,
    *,
    recipe: Recipe = Recipe(),  # noqa: B008 - frozen
    past_deltas: Sequence[Path] = (),
    previous_adapters: Sequence[Path] = (),
) -> dict[str, AveragedModule]:
    """Returns the averaged updates of the modules that this rank owns. Every rank must call it with its own adapters.

    Args:
        loaded: The adapters of this rank: data set -> module -> factors. The call empties it to save memory.
        modules: Module -> shapes, for all modules. Module number i belongs to rank i modulo world_size.
        shares: Data set -> weight, with sum 1, for all data sets, in data-set order.
        group: The process group.
        recipe: Method, options, norm and scale.
        past_deltas, previous_adapters: See `inputs.method_inputs`.
    """
    # Partial sums exist only for the mean. Whether its update is dense depends on the adapters, and not on the ranks.
    dense = [module for module, stacked in modules.items() if is_smaller_dense(*stacked)] if recipe.method == "mean" else []
    grids = exchange.agree_on_grids(loaded, shares, dense, group)

    def average(module: str, share: Share) -> AveragedModule:
        activity.moved()
        if share.grid is not None:
            mean, *squares = exchange.mean_of(share, shares)
            return AveragedModule(mean.scaled(recipe.scale), *squares)
        items, weights = [share.factors[dataset] for dataset in shares], list(shares.values())
        alike = len({(item.a_RI.shape[0], item.scaling) for item in items}) == 1
        gap = exactness_gap(items, weights) if alike else (None, None)
        shape = (modules[module].out_features, modules[module].in_features)
        extra = inputs.method_inputs(recipe, module, shape, past_deltas, previous_adapters)
        return AveragedModule(merged_update(items, weights, recipe, extra), *gap)  # normalizing the weights again would round

    with apply.threads() as pool:
        arrived = exchange.shares_of_owned(loaded, list(modules), shares, grids, group, pool=pool)
        futures = {module: pool.submit(average, module, share) for module, share in arrived}
        return {module: future.result() for module, future in futures.items()}


def _pack_averaged(averaged: Mapping[str, AveragedModule]) -> bytes:
    tensors: dict[str, torch.Tensor] = {}
    for module, item in averaged.items():
        tensors |= base_chain.delta_tensors(module, item.delta)
    gaps = {module: [item.gap_squared, item.mean_squared] for module, item in averaged.items()}
    return save(tensors, {"gaps": json.dumps(gaps)})


def _metadata(part: bytes) -> dict[str, str]:
    """Returns the metadata in the header of safetensors bytes."""
    texts: dict[str, str] = json.loads(part[8 : 8 + int.from_bytes(part[:8], "little")])["__metadata__"]
    return texts


def _unpack_averaged(parts: Sequence[bytes]) -> dict[str, AveragedModule]:
    averaged = {}
    for part in parts:
        tensors = load(part)
        for module, gap in json.loads(_metadata(part)["gaps"]).items():
            averaged[module] = AveragedModule(base_chain.delta_from(module, tensors, tensors.__getitem__), *gap)
    return dict(sorted(averaged.items()))


def _pack_merged(module: str, item: MergedModule) -> bytes:
    facts = {"module": module, "sha256": item.sha256, "sums": json.dumps([item.update_squared, item.lost_squared])}
    return save({"w": item.tensor.contiguous()}, facts)


def _unpack_merged(part: bytes) -> tuple[str, MergedModule]:
    facts = _metadata(part)
    return facts["module"], MergedModule(load(part)["w"], facts["sha256"], *json.loads(facts["sums"]))


def _gather_merged(
    mine: Iterator[tuple[str, MergedModule]], num_modules: int, group: collectives.Group
) -> Iterator[tuple[str, MergedModule]]:
    """Yields the merged modules of all ranks, in order, on rank 0. One module of each rank is sent at a time."""
    if group.world_size == 1:
        yield from mine
        return
    for _ in range(math.ceil(num_modules / group.world_size)):
        item = next(mine, None)
        parts = collectives.gather_bytes(_pack_merged(*item) if item else b"", group)
        yield from (_unpack_merged(part) for part in parts or () if part)


def diagnostics(averaged: Mapping[str, AveragedModule], squares: Mapping[str, tuple[float, float]]) -> dict[str, object]:
    """Returns the diagnostics of a round, for the whole update and per module (Frobenius norms).

    exactness_gap = ||factor_mean - mean|| / ||mean||, update_loss = ||cast(W + delta) - W - delta|| / ||delta||.

    Args:
        averaged: Module -> update.
        squares: Module -> (||delta||^2, ||exact sum - cast sum||^2).
    """
    pairs = {module: (item.gap_squared, item.mean_squared) for module, item in averaged.items()}
    known = {module: (gap, norm) for module, (gap, norm) in pairs.items() if gap is not None and norm is not None}
    ratio = ratio_of_norms
    updates, losses = sum(update for update, _ in squares.values()), sum(lost for _, lost in squares.values())
    return {
        "exactness_gap": ratio(sum(gap for gap, _ in known.values()), sum(norm for _, norm in known.values())) if known else None,
        "update_loss": ratio(losses, updates),
        "update_norm": float(updates**0.5),
        "gap_per_module": {module: ratio(gap, norm) for module, (gap, norm) in known.items()},
        "update_norm_per_module": {module: update**0.5 for module, (update, _) in squares.items()},
    }


def _write(
    job: CentralizeJob,
    averaged: Mapping[str, AveragedModule],
    specs: Mapping[str, TensorSpec],
    merged: Iterator[tuple[str, MergedModule]],
) -> StagedBase:
    changed: dict[str, str] = {}
    squares: dict[str, tuple[float, float]] = {}

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        for module, item in merged:
            changed[f"{module}.weight"], squares[module] = item.sha256, (item.update_squared, item.lost_squared)
            yield f"{module}.weight", item.tensor

    def write_delta() -> str:
        with log.span("write_delta", phase="merging"):
            return base_chain.write_delta(Path(job.delta_dir), {module: item.delta for module, item in averaged.items()})

    with ThreadPoolExecutor(1) as writer, log.span("write_base", phase="merging"):
        delta_written = writer.submit(write_delta)  # the delta is written while modules are merged
        links, update_sha256 = base_chain.write_overlay(Path(job.shared), specs, tensors(), Path(job.base_dir))
        delta_sha256 = delta_written.result()
    tensor_hashes = dict(job.tensor_hashes) | changed
    facts = diagnostics(averaged, dict(sorted(squares.items()))) | {
        "tensors": tensor_hashes,
        "changed": sorted(changed),
        "links": links,
        "written": {base_chain.CHANGED: update_sha256, base_chain.DELTA: delta_sha256},
        **asdict(job.recipe()),  # method, options, norm, scale, seed
        "weights": job.shares(),
        "adapters": {adapter.dataset: adapter.sha256 for adapter in job.adapters},
        "parent_sha256": job.base.sha256,
    }
    return StagedBase(job.base.index + 1, job.base_dir, job.delta_dir, content_sha256(tensor_hashes), facts)


def prepare_rank(log_dir: str, world_rank: int) -> None:
    """Prepares a process that only averages: silences libraries, returns freed memory to the system, writes logs to `log_dir`."""
    log.quiet_libraries()
    apply.return_freed_memory()
    layout.open_logs(Path(log_dir), f"centralizer-{world_rank}")


def centralize_rank(job: CentralizeJob, group: collectives.Group) -> StagedBase | None:
    """Does the work of one rank. Every rank must call it with the same job.

    One thread computes each module in float64, so the bytes do not depend on the number of ranks or threads.

    Returns:
        The staged base, written to the folders of the job, on rank 0; None on other ranks.
    """
    torch.set_num_threads(1)
    mine = job.adapters[group.world_rank :: group.world_size]
    if job.mirror.is_remote:
        with log.span("fetch", phase="merging"):
            bring_base(job.mirror, 0)
            wanted = (*(adapter.path for adapter in mine), *job.past_deltas, *job.previous_adapters)
            at_once(job.mirror.fetch, [Path(folder) for folder in dict.fromkeys(wanted)])
    with log.span("verify_past", phase="merging"):
        _verify((*job.past_deltas, *job.previous_adapters), job.mirror)
    with log.span("average", phase="merging"):
        averaged, specs = _average(job, load_adapters(mine, job.base, inputs.own_curvature(job.method)), group)
        gathered = collectives.gather_bytes(_pack_averaged(averaged), group) if group.world_size > 1 else None
    with log.span("merge", phase="merging"):
        deltas = {module: item.delta for module, item in averaged.items()}
        owned = apply.merged_modules(Path(job.root), [Path(folder) for folder in job.past_deltas], deltas, job.dtype)
        merged = _gather_merged(owned, len(specs), group)
        if group.world_rank == 0:
            return _write(job, _unpack_averaged(gathered) if gathered else averaged, specs, merged)
        for _ in merged:
            raise AssertionError("only rank 0 receives merged modules")
        return None


def _verify(folders: Sequence[str], mirror: AnyMirror) -> None:
    """Hashes committed folders that the merge reads. A damaged one is fetched again if the run is on object storage.

    Raises:
        IntegrityError: A folder is damaged. The next attempt of the run makes it anew where that is possible.
    """
    for folder in map(Path, folders):
        try:
            durable.verify_folder(folder)
        except IntegrityError:
            if not mirror.discard(folder):
                raise
            mirror.fetch(folder)


def _average(
    job: CentralizeJob, loaded: exchange.Loaded, group: collectives.Group
) -> tuple[dict[str, AveragedModule], dict[str, TensorSpec]]:
    """Returns the updates of the modules that this rank owns, and the type and shape of every changed tensor."""
    modules = exchange.agree_on_modules(loaded, group)
    for factors in loaded.values():
        shapes = {module: (item.b_OR.shape[0], item.a_RI.shape[1]) for module, item in factors.items()}
        base_chain.check_fits(Path(job.root), shapes)
    specs = apply.merged_specs(Path(job.root), modules, job.dtype)
    ordered = [name.removesuffix(".weight") for name in write_order(specs)]
    averaged = average_owned(
        loaded,
        {module: modules[module] for module in ordered},
        job.shares(),
        group,
        recipe=job.recipe(),
        past_deltas=[Path(folder) for folder in job.past_deltas],
        previous_adapters=[Path(folder) for folder in job.previous_adapters],
    )
    return averaged, specs
