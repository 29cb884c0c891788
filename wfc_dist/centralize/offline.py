"""Averages and merges folders outside of a run: `average`, `merge` and `rebuild` of the public API."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from wfc_dist import caller
from wfc_dist.centralize import apply, inputs
from wfc_dist.centralize.exchange import same_modules
from wfc_dist.centralize.readback import Sources, differing, rebuilt_hashes
from wfc_dist.errors import InputError, IntegrityError
from wfc_dist.merging import catalog
from wfc_dist.merging.factors import AnyDelta, concatenated, normalized
from wfc_dist.merging.recipe import Recipe, merged_update
from wfc_dist.rounds import Base
from wfc_dist.runs import layout
from wfc_dist.runs.handle import Run, open_run
from wfc_dist.storage import durable
from wfc_dist.storage.objects import is_url
from wfc_dist.weights import base_chain, checkpoint, peft_folder
from wfc_dist.weights.hashing import content_sha256
from wfc_dist.weights.tensor_files import write_order


def average(
    adapters: Sequence[str | Path],
    out: str | Path,
    *,
    method: str = "mean",
    options: Mapping[str, float] | None = None,
    weights: Sequence[float] | None = None,
    norm: str = "own",
    scale: float = 1.0,
    seed: int = 0,
    past: Sequence[str | Path] = (),
    previous: Sequence[str | Path] = (),
) -> Path:
    """Averages PEFT LoRA folders into one update: scale * method(adapters, weights). Writes the new folder `out`.

    Args:
        adapters: PEFT folders, written by PEFT or by a run, in the order of summation.
        out: The new folder; it must not exist.
        method: A merge method. `wfc average --help` and docs/merging.md list them with their formulas and sources.
        options: Options of the method, such as {"density": 0.2}. Options that are not named keep their defaults.
        weights: One number >= 0 per adapter. The weights are divided by their sum. The default is uniform.
        norm: "own" keeps the norm of each module's update; "mean" scales it to the Frobenius norm of the update of `mean`.
        scale: Factor of the whole update.
        seed: Seed for methods that sample (dare). Each round's seed is stored in its manifest.
        past: Delta folders of all earlier rounds, in order, for methods that need earlier updates (nesterov).
        previous: Adapter folders of the previous round, for methods that need their curvature (ihr).

    Returns:
        The folder `out`, which `merge` and `read_delta` read.

    Raises:
        ConfigError: The method or an option does not exist, or a value is out of range.
        InputError: An adapter is not LoRA, has other modules, numbers that are not finite or no curvature; the number of weights
            is wrong; or `out` exists.

    Example:
        >>> from wfc_dist import average
        >>> average([], "delta")
        Traceback (most recent call last):
            ...
        wfc_dist.errors.InputError: no adapter given; give at least one PEFT folder
    """
    folders = _adapter_folders(adapters, weights)
    if not math.isfinite(scale):
        raise InputError(f"scale {scale} is not finite; 1 leaves the update as it is")
    catalog.check_step(method, norm, scale)
    recipe = Recipe(method, catalog.resolved(method, options or {}), norm, scale, seed)
    shares = normalized(weights if weights is not None else [1.0] * len(folders))
    with caller.put_back():
        delta = _averaged(folders, shares, recipe, list(map(Path, past)), list(map(Path, previous)))
    with durable.new_folder(_local(out)) as staged:
        base_chain.write_delta(staged, delta)
    return Path(out)


def _adapter_folders(adapters: Sequence[str | Path], weights: Sequence[float] | None) -> list[Path]:
    """Returns the folders of the adapters. Raises InputError if there is none, or if the number of weights differs."""
    if isinstance(adapters, str | Path):
        raise InputError(f"adapters is one path, {adapters}; give a list of PEFT folders")
    folders = [Path(folder) for folder in adapters]
    if not folders:
        raise InputError("no adapter given; give at least one PEFT folder")
    if weights is not None and len(weights) != len(folders):
        raise InputError(
            f"{len(folders)} adapters need {len(folders)} weights, {len(weights)} given; give one weight per adapter"
        )
    return folders


def _averaged(
    folders: Sequence[Path], shares: Sequence[float], recipe: Recipe, past: Sequence[Path], previous: Sequence[Path]
) -> dict[str, AnyDelta]:
    """Returns module -> update. Each module is computed by one thread, as in a round, so its bytes are those of a round."""
    loaded = [peft_folder.read_with_curvature(folder, inputs.own_curvature(recipe.method)) for folder in folders]
    numbered = enumerate(zip(folders, loaded, strict=True), start=1)
    modules = same_modules({f"{number} ({folder})": list(item) for number, (folder, item) in numbered})

    def merged(module: str) -> AnyDelta:
        items = [item[module] for item in loaded]
        shape = (items[0].b_OR.shape[0], items[0].a_RI.shape[1])
        return merged_update(items, shares, recipe, inputs.method_inputs(recipe, module, shape, past, previous))

    with apply.threads() as pool:
        return dict(zip(modules, pool.map(merged, modules), strict=True))


def _local(out: str | Path) -> Path:
    if is_url(str(out)):
        raise InputError(f"{out} is a URL; give a folder on this machine and copy it from there")
    return Path(out)


def read_update(folder: Path) -> dict[str, AnyDelta]:
    """Returns module -> update of a folder, which holds a delta or one PEFT adapter."""
    if (folder / base_chain.DELTA).is_file():
        return base_chain.read_delta(folder)
    return {module: concatenated([factors], [1.0]) for module, factors in peft_folder.read_factors(folder).items()}


def merge(base: str | Path, update: str | Path, out: str | Path, *, revision: str | None = None, dtype: str = "auto") -> Path:
    """Merges an update into a model: cast(float64(base) + delta), float64 sums. Writes the complete checkpoint `out`.

    Args:
        base: Model folder, or name of a model on the Hugging Face Hub.
        update: Folder of a delta (from `average`, or RUN/round-NNNN/delta), or a PEFT LoRA folder.
        out: The new folder; it must not exist.
        revision: Revision of a model on the Hub.
        dtype: Data type of the result: float32, float16, bfloat16, or auto, which keeps that of the base.

    Returns:
        The folder `out`, which `WhisperForConditionalGeneration.from_pretrained` loads.

    Raises:
        InputError: The model does not exist, the update is for another model, `dtype` is unknown, or `out` exists.

    Example:
        >>> from wfc_dist import merge, open_run
        >>> merge(open_run("runs/demo").base(0).path, "runs/demo/round-0001/delta", "merged")
        PosixPath('merged')
    """
    if dtype != "auto" and dtype not in base_chain.DTYPES:
        raise InputError(f"dtype {dtype!r} is unknown; give auto, float32, float16 or bfloat16")
    delta = read_update(Path(update))
    pointed_to = layout.model_pointed_to(Path(base)) if Path(base).is_dir() else None  # base 0 of a run
    folder = checkpoint.resolve_root(str(pointed_to or base), revision, "merge")
    base_chain.check_fits(folder, {name: item.shape for name, item in delta.items()})
    with durable.new_folder(_local(out)) as staged, caller.put_back():
        _write_merged(folder, [], delta, staged, dtype)
    return Path(out)


def _write_merged(root: Path, past: Sequence[Path], delta: Mapping[str, AnyDelta], out: Path, dtype: str) -> None:
    """Writes root + past deltas + delta as one complete checkpoint. Only a few tensors are in memory at a time."""
    torch.set_num_threads(1)  # as in a round, so that the bytes are the same
    names = write_order(apply.merged_specs(root, delta, dtype))
    ordered = {module: delta[module] for module in (name.removesuffix(".weight") for name in names)}
    merged = apply.merged_modules(root, past, ordered, dtype)
    changed = ((f"{module}.weight", item.tensor) for module, item in merged)
    base_chain.write_standalone(root, out, dtype, changed, frozenset(names))


def require_rebuilt(run: Run, base: int) -> None:
    """Computes a base again from the root and the deltas, in memory, a few tensors at a time.

    Raises:
        IntegrityError: The result differs from the committed base.
    """
    torch.set_num_threads(1)  # as in a round, so that the bytes are the same
    facts, before = run.base(base).facts, run.base(base - 1).facts
    *past, last = [run.paths.delta(index) for index in range(1, base + 1)]
    root = run.base(0).facts
    sources = Sources(Path(root["root"]), Path(root["model_path"]), tuple(past), run.config.base.dtype)
    recomputed = rebuilt_hashes(sources, base_chain.read_delta(last))
    if different := differing({**before["tensors"], **recomputed}, facts["tensors"]):
        raise IntegrityError(
            f"base {base} computed again from root and deltas differs from the committed one (first: {different[0]}); restore "
            f"the deltas of {run.path} if they were changed, or use the libraries that made the run"
        )


def _restore_root(run: Run, out: Path) -> None:
    """Writes the root model of a run, which is not on this machine, from the first base that shares its files."""
    root = run.base(0).facts
    sharing = next((base for base in run.bases[1:] if base.facts.get("links")), None)
    if sharing is None or root["root_tensors"] != root["tensors"]:
        why = "no base shares its files" if sharing is None else "its bases share the files of a cast copy"
        raise InputError(f"{run.path}: the root model {root['root']} is not on this machine, and {why}; copy the model there")
    base_chain.restore_root(run.paths.base(sharing.index), sharing.facts["links"], out)
    base_chain.verify_root(out, root["root_tensors"])


def rebuild(run: str | Path, base: int, out: str | Path) -> Base:
    """Computes a base again from the root and the deltas, bit for bit. Writes the complete checkpoint `out`.

    Args:
        run: A run directory or its URL.
        base: Index of the base.
        out: The new folder; it must not exist.

    Returns:
        The base in `out`, with the sha256 that the run committed.

    Raises:
        InputError: The run or the base does not exist, or `out` exists.
        IntegrityError: The result differs from the committed base; `out` is not written.

    Example:
        >>> from wfc_dist import open_run, rebuild
        >>> rebuild("runs/demo", 1, "rebuilt").sha256 == open_run("runs/demo").base(1).sha256
        True
    """
    opened = open_run(run, with_weights=True)
    if not isinstance(base, int):
        raise InputError(f"base {base!r} is not an index of a base; give 0, 1, ...")
    wanted, root = opened.base(base), Path(opened.base(0).facts["root"])
    if base == 0 and not root.is_dir():
        with durable.new_folder(_local(out)) as staged:
            _restore_root(opened, staged)
        return Base(0, str(out), wanted.sha256)
    checkpoint.check(root, "merge")
    deltas = [opened.paths.delta(index) for index in range(1, base + 1)]  # bases in between may have been removed
    with durable.new_folder(_local(out)) as staged, caller.put_back():
        delta = base_chain.read_delta(deltas[-1]) if deltas else {}
        _write_merged(root, deltas[:-1], delta, staged, opened.config.base.dtype)
        found = content_sha256(base_chain.hash_tensors(staged))
        if found != wanted.sha256:
            raise IntegrityError(
                f"base {base} rebuilt from root and deltas has sha256 {found[:12]}, the run committed {wanted.sha256[:12]}; "
                f"restore the deltas of {opened.path} if they were changed, or use the libraries that made the run"
            )
    return Base(base, str(out), wanted.sha256)
