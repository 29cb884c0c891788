"""The distributed average and the merge: K adapters on N ranks -> one delta -> the next base.

Every rank reads and verifies its adapters, sends each module's factors to the rank that owns the module, averages and
merges the modules it owns, and rank 0 writes. K is the number of adapters, not the world size.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load, save

from wfc_dist import adapters, base_chain, collectives, log, lora_math
from wfc_dist.errors import InputError, IntegrityError
from wfc_dist.hashing import content_sha256, tensor_sha256
from wfc_dist.lora_math import Factors, ModuleDelta
from wfc_dist.merging import MergeMethod, merge_method
from wfc_dist.merging.factor_mean import factor_mean
from wfc_dist.merging.mean import mean
from wfc_dist.rounds import Adapter, Base, StagedBase

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CentralizeJob:
    """What every rank must know.

    Attributes:
        base: The base the adapters were trained against.
        adapters: In data-set order, which is the order of summation.
        weights: One per adapter, any positive sum.
        method, scale: As configured.
        dtype: The new base's data type; "auto" keeps the root's.
        root: Checkpoint folder of base 0 as it was found, and `shared`, the folder whose files the new base links to.
        past_deltas: Delta folders of rounds 1 to base.index, in order.
        tensor_hashes: sha256 of every tensor of `shared`.
        delta_dir, base_dir: Empty staging folders that rank 0 fills.
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


@dataclass(frozen=True)
class MergedModule:
    """One module's part of the result, with the sums of squares its diagnostics are made of (float64)."""

    delta: ModuleDelta
    merged: torch.Tensor
    update_squared: float
    lost_squared: float
    gap_squared: float | None
    mean_squared: float | None


def load_adapters(found: Sequence[Adapter], base: Base) -> dict[str, dict[str, Factors]]:
    """Reads and verifies adapters: data set -> module -> factors.

    Raises:
        InputError: An adapter of another base, not finite, or no LoRA.
        IntegrityError: Its tensors are not the ones that were committed.
    """
    loaded = {}
    for adapter in found:
        if adapter.base_sha256 != base.sha256:
            raise InputError(f"{adapter.path} was trained against base {adapter.base_sha256[:12]}, not {base.sha256[:12]}")
        if adapters.folder_sha256(Path(adapter.path)) != adapter.sha256:
            raise IntegrityError(f"{adapter.path} is not the adapter that was committed; remove it and run again to retrain it")
        loaded[adapter.dataset] = adapters.read_factors(Path(adapter.path))
    return loaded


def same_modules(modules: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns the module names all adapters share. Raises InputError naming an adapter that has others."""
    (first, expected), *rest = [(name, sorted(names)) for name, names in modules.items()]
    for name, names in rest:
        if difference := sorted(set(names) ^ set(expected)):
            raise InputError(
                f"adapters {first} and {name} have other modules (first difference: {difference[0]}); "
                "only adapters of the same target modules can be averaged"
            )
    return expected


def _pack(loaded: Mapping[str, Mapping[str, Factors]], modules: Sequence[str]) -> bytes:
    tensors = {}
    for dataset, factors in loaded.items():
        for module in modules:
            item = factors[module]
            tensors[f"{dataset}|{module}|a"], tensors[f"{dataset}|{module}|b"] = item.a_RI.contiguous(), item.b_OR.contiguous()
            tensors[f"{dataset}|{module}|s"] = torch.tensor([item.scaling], dtype=torch.float64)
    return save(tensors)


def _unpack(parts: Sequence[bytes]) -> dict[tuple[str, str], Factors]:
    factors = {}
    for part in parts:
        tensors = load(part)
        for key in [key for key in tensors if key.endswith("|a")]:
            dataset, module, _ = key.split("|")
            stem = key[:-1]
            factors[dataset, module] = Factors(tensors[key], tensors[stem + "b"], float(tensors[stem + "s"]))
    return factors


def average_module(factors: Sequence[Factors], weights: Sequence[float], method: MergeMethod, scale: float) -> ModuleDelta:
    """Returns scale * method(factors, weights / sum(weights)) for one module."""
    return method(factors, lora_math.normalized(weights)).scaled(scale)


def merge_module(
    root_OI: torch.Tensor, past: Sequence[ModuleDelta], delta: ModuleDelta, dtype: torch.dtype
) -> tuple[torch.Tensor, float, float]:
    """Returns (cast(root + past + delta), ||delta||^2, ||what the cast lost||^2)."""
    exact = lora_math.chain_sum(root_OI, [*past, delta])
    merged = exact.to(dtype)
    return merged, float(delta.dense().square().sum()), float((merged.double() - exact).square().sum())


def _gap(factors: Sequence[Factors], weights: Sequence[float]) -> tuple[float | None, float | None]:
    if len({(item.a_RI.shape[0], item.scaling) for item in factors}) > 1:
        return None, None  # factor_mean does not exist for them
    shares = lora_math.normalized(weights)
    return lora_math.exactness_gap(factor_mean(factors, shares), mean(factors, shares))


def _merge_owned(job: CentralizeJob, factors: Mapping[tuple[str, str], Factors]) -> dict[str, MergedModule]:
    modules = sorted({module for _, module in factors})
    names = [f"{module}.weight" for module in modules]
    past = [base_chain.read_delta(Path(folder), modules) for folder in job.past_deltas]
    method, merged = merge_method(job.method), {}
    for module, (_, root_OI) in zip(modules, base_chain.read_tensors(Path(job.root), names), strict=True):
        ordered = [factors[adapter.dataset, module] for adapter in job.adapters]
        delta = average_module(ordered, job.weights, method, job.scale)
        dtype = root_OI.dtype if job.dtype == "auto" else base_chain.DTYPES[job.dtype]
        tensor, update, lost = merge_module(root_OI, [item[module] for item in past if module in item], delta, dtype)
        if not torch.isfinite(tensor).all():
            raise InputError(f"base {job.base.index + 1}: {module} is not finite; lower centralize.scale or train.lr")
        merged[module] = MergedModule(delta, tensor, update, lost, *_gap(ordered, job.weights))
    return merged


def _pack_merged(merged: Mapping[str, MergedModule]) -> bytes:
    tensors: dict[str, torch.Tensor] = {}
    sums = {}
    for module, item in merged.items():
        tensors |= {f"{module}|a": item.delta.a_RI, f"{module}|b": item.delta.b_OR, f"{module}|c": item.delta.coefficients_R}
        tensors[f"{module}|w"] = item.merged
        sums[module] = [item.update_squared, item.lost_squared, item.gap_squared, item.mean_squared]
    return save({key: tensor.contiguous() for key, tensor in tensors.items()}, {"sums": json.dumps(sums)})


def _unpack_merged(parts: Sequence[bytes]) -> dict[str, MergedModule]:
    merged = {}
    for part in parts:
        header = json.loads(part[8 : 8 + int.from_bytes(part[:8], "little")])
        tensors = load(part)
        for module, sums in json.loads(header["__metadata__"]["sums"]).items():
            delta = ModuleDelta(*(tensors[f"{module}|{letter}"] for letter in "abc"))
            merged[module] = MergedModule(delta, tensors[f"{module}|w"], *sums)
    return dict(sorted(merged.items()))


def diagnostics(merged: Mapping[str, MergedModule]) -> dict[str, object]:
    """Returns what the round records about itself, in all and per module (Frobenius norms).

    exactness_gap = ||factor_mean - mean|| / ||mean||, update_loss = ||cast(W + delta) - W - delta|| / ||delta||.
    """
    items = merged.values()
    squares = {module: (item.gap_squared, item.mean_squared) for module, item in merged.items()}
    known = {module: (gap, norm) for module, (gap, norm) in squares.items() if gap is not None and norm is not None}
    ratio = lora_math.ratio_of_norms
    return {
        "exactness_gap": ratio(sum(gap for gap, _ in known.values()), sum(norm for _, norm in known.values())) if known else None,
        "update_loss": ratio(sum(item.lost_squared for item in items), sum(item.update_squared for item in items)),
        "update_norm": float(sum(item.update_squared for item in items) ** 0.5),
        "gap_per_module": {module: ratio(gap, norm) for module, (gap, norm) in known.items()},
        "update_norm_per_module": {module: item.update_squared**0.5 for module, item in merged.items()},
    }


def _write(job: CentralizeJob, merged: Mapping[str, MergedModule]) -> StagedBase:
    with log.span("write_delta"):
        base_chain.write_delta(Path(job.delta_dir), {module: item.delta for module, item in merged.items()})
    changed = {f"{module}.weight": item.merged for module, item in merged.items()}
    with log.span("write_base"):
        links = base_chain.write_overlay(Path(job.shared), changed, Path(job.base_dir))
    changed_hashes = {name: tensor_sha256(tensor) for name, tensor in changed.items()}
    tensor_hashes = dict(job.tensor_hashes) | changed_hashes
    facts = diagnostics(merged) | {
        "tensors": tensor_hashes,
        "changed": sorted(changed),
        "links": links,
        "method": job.method,
        "scale": job.scale,
        "weights": dict(zip([adapter.dataset for adapter in job.adapters], lora_math.normalized(job.weights), strict=True)),
        "adapters": {adapter.dataset: adapter.sha256 for adapter in job.adapters},
        "parent_sha256": job.base.sha256,
    }
    return StagedBase(job.base.index + 1, job.base_dir, job.delta_dir, content_sha256(tensor_hashes), facts)


def centralize_rank(job: CentralizeJob, group: collectives.Group) -> StagedBase | None:
    """Does one rank's share of averaging and merging. Every rank calls it with the same job.

    Single-threaded float64 arithmetic per module: the bytes do not depend on the number of ranks or threads.

    Returns:
        On rank 0 the staged base, written to the job's folders; None elsewhere.
    """
    torch.set_num_threads(1)
    mine = job.adapters[group.world_rank :: group.world_size]
    with log.span("average"):
        loaded = load_adapters(mine, job.base)
        modules = _agree_on_modules(loaded, group)
        for adapter in mine:
            shapes = {module: (item.b_OR.shape[0], item.a_RI.shape[1]) for module, item in loaded[adapter.dataset].items()}
            base_chain.check_fits(Path(job.root), shapes)
        parts: list[bytes] = []
        for owner in range(group.world_size):
            sent = _pack(loaded, modules[owner :: group.world_size])
            parts = collectives.gather_bytes(sent, group, owner) or parts
    with log.span("merge"):
        merged = _merge_owned(job, _unpack(parts))
    gathered = collectives.gather_bytes(_pack_merged(merged), group, 0)
    return _write(job, _unpack_merged(gathered)) if gathered is not None else None


def _agree_on_modules(loaded: Mapping[str, Mapping[str, Factors]], group: collectives.Group) -> list[str]:
    names = json.dumps({dataset: list(factors) for dataset, factors in loaded.items()}).encode()
    everyone: dict[str, list[str]] = {}
    for rank in range(group.world_size):  # every rank needs all of them: one gather to each
        for part in collectives.gather_bytes(names, group, rank) or []:
            everyone |= json.loads(part)
    return same_modules(everyone)
