"""What `wfc average`, `wfc merge` and `wfc rebuild` do: the maths of a round on folders, without a run."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from wfc_dist.centralize import apply, inputs
from wfc_dist.centralize.exchange import same_modules
from wfc_dist.errors import InputError, IntegrityError
from wfc_dist.merging import catalog
from wfc_dist.merging.factors import AnyDelta, Factors, concatenated, normalized
from wfc_dist.merging.recipe import Recipe, merged_update
from wfc_dist.runs.layout import RunPaths, read_base, require_run
from wfc_dist.weights import base_chain, peft_folder
from wfc_dist.weights.hashing import content_sha256
from wfc_dist.weights.tensor_files import write_order


def _write_new(out: Path, write: Callable[[Path], None]) -> None:
    """Has `write` fill a new folder that appears under its name when it is complete; never touches one that is there."""
    if out.exists():
        raise InputError(f"{out} exists and is not written over; choose another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    staged = out.with_name(f".{out.name}.tmp-{os.getpid()}")
    try:
        staged.mkdir()
        write(staged)
        os.replace(staged, out)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def average(
    folders: Sequence[Path],
    out: Path,
    *,
    recipe: Recipe = Recipe(),  # noqa: B008 - frozen
    weights: Sequence[float] | None = None,
    past_deltas: Sequence[Path] = (),
    previous_adapters: Sequence[Path] = (),
) -> None:
    """Averages PEFT LoRA folders, in the order given, into a delta. Writes the new folder `out`.

    Args:
        folders: Made by PEFT or by a run.
        out: Must not exist.
        recipe: Method, norm and scale; options that are not named have their defaults.
        weights: One per folder, any positive sum; uniform by default.
        past_deltas: Delta folders of all earlier rounds, in order, for methods with a memory.
        previous_adapters: Adapter folders of the round before, for methods that need their curvature.

    Raises:
        ConfigError: No such method or option.
        InputError: Not LoRA, other modules, numbers that are not finite, wrong number of weights, no curvature.
    """
    if not folders:
        raise InputError("no adapter given")
    if weights is not None and len(weights) != len(folders):
        raise InputError(f"{len(folders)} adapters need {len(folders)} weights, {len(weights)} given")
    catalog.check_step(recipe.method, recipe.norm, recipe.scale)
    whole = replace(recipe, options=catalog.resolved(recipe.method, recipe.options))
    loaded = [_read(folder, inputs.own_curvature(recipe.method)) for folder in folders]
    modules = same_modules(
        {f"{i + 1} ({folder})": list(item) for i, (folder, item) in enumerate(zip(folders, loaded, strict=True))}
    )
    shares = normalized(weights if weights is not None else [1.0] * len(folders))

    def merged(module: str) -> AnyDelta:
        items = [item[module] for item in loaded]
        shape = (items[0].b_OR.shape[0], items[0].a_RI.shape[1])
        extra = inputs.method_inputs(whole, module, shape, past_deltas, previous_adapters)
        return merged_update(items, shares, whole, extra)

    with apply.threads() as pool:  # single-threaded each, as in a round: same bytes
        delta = dict(zip(modules, pool.map(merged, modules), strict=True))
    _write_new(out, lambda staged: base_chain.write_delta(staged, delta))


def _read(folder: Path, kinds: Sequence[str]) -> dict[str, Factors]:
    factors = peft_folder.read_factors(folder)
    return peft_folder.with_curvature(folder, factors, kinds) if kinds else factors


def read_update(folder: Path) -> dict[str, AnyDelta]:
    """Returns the update in a folder: a delta, or a single PEFT adapter."""
    if (folder / base_chain.DELTA).is_file():
        return base_chain.read_delta(folder)
    return {module: concatenated([factors], [1.0]) for module, factors in peft_folder.read_factors(folder).items()}


def merge(model: str, update_dir: Path, out: Path, *, revision: str | None = None, dtype: str = "auto") -> None:
    """Merges a delta or one adapter into a model: cast(float64(base) + delta). Writes the complete checkpoint `out`.

    Args:
        model: Folder or hub id.
        update_dir: A delta (`wfc average`, RUN/round-N/delta) or a PEFT folder.
        out: Must not exist.
        revision: Of a hub model.
        dtype: Of the result; `auto` keeps the base's.
    """
    delta = read_update(update_dir)
    folder = base_chain.resolve_root(model, revision)
    base_chain.check_fits(folder, {name: item.shape for name, item in delta.items()})
    _write_new(out, lambda staged: _write_merged(folder, [], delta, staged, dtype))


def _write_merged(root: Path, past: Sequence[Path], delta: Mapping[str, AnyDelta], out: Path, dtype: str) -> None:
    """Writes root + past deltas + delta as one complete checkpoint; a few tensors are in memory at a time."""
    torch.set_num_threads(1)  # as in a round: same bytes
    names = write_order(apply.merged_specs(root, delta, dtype))
    ordered = {module: delta[module] for module in (name.removesuffix(".weight") for name in names)}
    merged = apply.merged_modules(root, past, ordered, dtype)
    changed = ((f"{module}.weight", item.tensor) for module, item in merged)
    base_chain.write_standalone(root, out, dtype, changed, frozenset(names))


def rebuild(run_dir: Path, index: int, out: Path) -> str:
    """Makes base `index` again from the root and the deltas, bit for bit, as a complete checkpoint; returns its sha256.

    Writes the new folder `out`.

    Raises:
        InputError: No such run or base.
        IntegrityError: The result is not the base that was committed; nothing is left in `out`.
    """
    paths = require_run(run_dir)
    entry, root_entry = read_base(run_dir, index), read_base(run_dir, 0)
    if entry is None or root_entry is None:
        raise InputError(f"{run_dir} has no committed base {index}")
    base, root = entry[0], root_entry[1]
    dtype = _dtype(paths)
    deltas = [paths.delta(number) for number in range(1, index + 1)]

    def write(staged: Path) -> None:
        delta = base_chain.read_delta(deltas[-1]) if deltas else {}
        _write_merged(Path(root["root"]), deltas[:-1], delta, staged, dtype)
        found = content_sha256(base_chain.hash_tensors(staged))
        if found != base.sha256:
            raise IntegrityError(
                f"base {index} rebuilt from root and deltas is {found[:12]}, the run committed {base.sha256[:12]}"
            )

    _write_new(out, write)
    return base.sha256


def _dtype(paths: RunPaths) -> str:
    from wfc_dist.runs.layout import read_config

    return read_config(paths.run_dir).base.dtype
