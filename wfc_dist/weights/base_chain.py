"""root + deltas -> base: `base_t = cast(float64(root) + sum of deltas 1..t)`, and how bases lie in safetensors files.

Rounding never accumulates: every base is made from the root, so any of them can be rebuilt bit for bit.
A base folder holds one file of the tensors that changed; the rest are hard links (or symbolic links across file
systems) to the root's own files. `model.safetensors.index.json` says which tensor is read from where. The changed
file sorts last, because Transformers reads shards in name order and keeps the last tensor of a name.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError

from wfc_dist.errors import InputError, IntegrityError
from wfc_dist.merging.factors import AnyDelta, DenseDelta, ModuleDelta, squared_sum
from wfc_dist.storage import durable
from wfc_dist.weights.companions import copy_companions
from wfc_dist.weights.hashing import tensor_sha256
from wfc_dist.weights.json_files import read_object
from wfc_dist.weights.tensor_files import TensorFile, TensorFileWriter, TensorSpec, open_tensors, read_header, write_order

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
CHANGED, DELTA = "model-update.safetensors", "delta.safetensors"
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
TIED = "proj_out.weight"
"""The output layer, which is the embedding of the tokens: a checkpoint may leave it out."""
_SHARD = re.compile(r"[\w.-]+\.safetensors")  # no path: nothing outside the folder is read


def has_weights(folder: Path) -> bool:
    """Says whether a folder holds the weights of a model in safetensors."""
    return any((folder / name).is_file() for name in (SINGLE, INDEX))


def weight_map(folder: Path) -> dict[str, Path]:
    """Returns tensor name -> file of a checkpoint folder. Raises InputError when it has no safetensors."""
    if (folder / INDEX).is_file():
        index = read_object(folder / INDEX, "download it again").get("weight_map")
        if not isinstance(index, dict) or not all(isinstance(file, str) and _SHARD.fullmatch(file) for file in index.values()):
            raise InputError(f"{folder / INDEX}: weight_map does not say which file holds which tensor; download it again")
        return {name: folder / file for name, file in sorted(index.items())}
    if not folder.is_dir():
        raise InputError(
            f"the model folder {folder} does not exist; restore it there, or see docs/run-directory.md if it is the root of a run"
        )
    if not (folder / SINGLE).is_file():
        raise InputError(
            f"{folder} holds neither {SINGLE} nor {INDEX}; pickled weights are not read, convert them first: load a model that "
            "you trust with Transformers, and save it with save_pretrained"
        )
    with open_tensors(folder / SINGLE) as file:
        return dict.fromkeys(sorted(file.names()), folder / SINGLE)


def read_tensors(folder: Path, names: Iterable[str] | None = None) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields (name, tensor) of a checkpoint folder in name order, one in memory at a time; only `names`, all by default.

    Raises InputError for a name the checkpoint does not have.
    """
    where = weight_map(folder)
    wanted = sorted(where if names is None else names)
    if unknown := [name for name in wanted if name not in where]:
        raise InputError(f"{folder} has no tensor {unknown[0]}; the adapter was made for another model")
    opened: dict[Path, TensorFile] = {}
    for name in wanted:
        path = where[name]
        if path not in opened:
            opened[path] = open_tensors(path)
        yield name, opened[path].read(name)


def read_tensor(path: Path, name: str) -> torch.Tensor:
    """Returns one tensor of a safetensors file; nothing of the file stays mapped but the tensor."""
    with open_tensors(path) as file:
        return file.read(name)


def past_updates(folders: Sequence[Path], module: str) -> Iterator[AnyDelta]:
    """Yields the update of one module in each delta folder that has it, one in memory at a time."""
    for folder in folders:
        yield from read_delta(folder, [module]).values()


def hash_tensors(folder: Path) -> dict[str, str]:
    """Returns tensor name -> sha256 for every tensor of a checkpoint folder."""
    return {name: tensor_sha256(tensor) for name, tensor in read_tensors(folder)}


def write_overlay(
    root: Path, specs: Mapping[str, TensorSpec], changed: Iterable[tuple[str, torch.Tensor]], out: Path
) -> tuple[dict[str, str], str]:
    """Writes a base that shares all unchanged tensors with `root`. `CHANGED` is on the disk when it returns.

    Args:
        root: The folder whose files are shared.
        specs: Tensor name -> what it becomes, for those that change.
        changed: (name, new value) of each, in name order; one is in memory at a time.
        out: An existing, empty folder.

    Returns:
        Name of each link in `out` -> path of the root's file, for hashes that are already known; and the sha256 of `CHANGED`.
    """
    copy_companions(root, out)
    where, links = weight_map(root), {}
    for number, path in enumerate(sorted(set(where.values())), start=1):
        link = f"model-root-{number:05d}.safetensors"
        durable.link(path, out / link)
        links[link] = str(path)
    writer = TensorFileWriter(out / CHANGED, specs)
    for name, tensor in changed:
        writer.write(name, tensor)
    sha256 = writer.close()
    names = {path: name for name, path in links.items()}
    index = {name: CHANGED if name in specs else names[str(path)] for name, path in where.items()}
    sizes = sum((out / file).stat().st_size for file in set(index.values()))
    text = json.dumps({"metadata": {"total_size": sizes}, "weight_map": index}, indent=1, sort_keys=True)
    (out / INDEX).write_text(text + "\n", encoding="utf-8")
    return links, sha256


def restore_root(base: Path, links: Mapping[str, str], out: Path) -> None:
    """Writes the checkpoint of the root from a base that shares its files, as links to them where that is possible.

    Args:
        base: A base's folder, made by `write_overlay`.
        links: Name of each of the root's files in `base` -> its name in the root.
        out: An existing, empty folder.
    """
    copy_companions(base, out)
    where: dict[str, str] = {}
    for link, name in sorted(links.items()):
        durable.link(base / link, out / name)
        with open_tensors(out / name) as file:
            where |= dict.fromkeys(file.names(), name)
    if set(where.values()) != {SINGLE}:
        text = json.dumps({"metadata": {}, "weight_map": dict(sorted(where.items()))}, indent=1)
        (out / INDEX).write_text(text + "\n", encoding="utf-8")


def write_standalone(
    source: Path,
    out: Path,
    dtype: str = "auto",
    changed: Iterable[tuple[str, torch.Tensor]] = (),
    changed_names: Collection[str] = (),
) -> None:
    """Writes a checkpoint of its own, one file, sharing nothing: to hand on, or to change the data type.

    Args:
        source: The folder every tensor not in `changed` is taken from.
        out: An existing, empty folder.
        dtype: Data type of the floating-point tensors written; `auto` keeps each tensor's.
        changed: (name, new value) of each of `changed_names`, in `write_order`; one is in memory at a time.
        changed_names: Known beforehand.
    """
    copy_companions(source, out)
    where, specs = weight_map(source), tensor_specs(source)
    if dtype != "auto":
        wanted = DTYPES[dtype]
        specs = {name: TensorSpec(wanted, spec.shape) if spec.dtype.is_floating_point else spec for name, spec in specs.items()}
    writer, values = TensorFileWriter(out / SINGLE, specs), iter(changed)
    for name in write_order(specs):
        if name in changed_names:
            given, value = next(values)
            assert given == name, f"{given} came where {name} belongs"
        else:
            value = read_tensor(where[name], name).to(specs[name].dtype)
        writer.write(name, value)
    writer.close()
    if dtype != "auto":
        config = json.loads((out / "config.json").read_text(encoding="utf-8"))
        config.pop("torch_dtype", None)
        (out / "config.json").write_text(json.dumps(config | {"dtype": dtype}, indent=1) + "\n", encoding="utf-8")


def delta_tensors(module: str, item: AnyDelta) -> dict[str, torch.Tensor]:
    """Returns one module's update as named tensors.

    `<module>.lora_A`, `.lora_B` (float32), `.coefficients` (R, float64); or `.delta` (float32), `.coefficients` (1, float64).
    """
    if isinstance(item, DenseDelta):
        coefficient = torch.tensor([item.coefficient], dtype=torch.float64)
        return {f"{module}.delta": item.dense_OI.contiguous(), f"{module}.coefficients": coefficient}
    parts = {"lora_A": item.a_RI, "lora_B": item.b_OR, "coefficients": item.coefficients_R}
    return {f"{module}.{part}": tensor.contiguous() for part, tensor in parts.items()}


def delta_from(module: str, names: Collection[str], get: Callable[[str], torch.Tensor]) -> AnyDelta:
    """Returns the update that `delta_tensors` named, reading each tensor with `get`."""
    coefficients = get(f"{module}.coefficients")
    if f"{module}.delta" in names:
        return DenseDelta(get(f"{module}.delta"), float(coefficients))
    return ModuleDelta(get(f"{module}.lora_A"), get(f"{module}.lora_B"), coefficients)


def write_delta(out: Path, delta: Mapping[str, AnyDelta]) -> str:
    """Writes DIR/delta.safetensors, every module as `delta_tensors` names it, and returns the sha256 of the file.

    The file is on the disk when it returns.
    """
    tensors: dict[str, torch.Tensor] = {}
    for module, item in delta.items():
        tensors |= delta_tensors(module, item)
    specs = {name: TensorSpec(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    writer = TensorFileWriter(out / DELTA, specs)
    for name in write_order(specs):
        writer.write(name, tensors[name])
    return writer.close()


def read_delta(folder: str | Path, modules: Sequence[str] | None = None) -> dict[str, AnyDelta]:
    """Reads a delta folder.

    Args:
        folder: From `average`, or RUN/round-NNNN/delta.
        modules: Only these; all by default.

    Returns:
        Module name as in the base's checkpoint (without `.weight`) -> its update, (out, in); `.dense()` is the matrix in float64.

    Raises:
        InputError: The folder holds no delta.

    Example:
        >>> from wfc_dist import read_delta
        >>> read_delta("runs/demo/round-0001/delta")["model.encoder.layers.0.self_attn.q_proj"].dense().dtype
        torch.float64
    """
    folder = Path(folder)
    if not (folder / DELTA).is_file():
        raise InputError(f"{folder} is no delta: it holds no {DELTA}; make one with `wfc average`")
    try:
        with open_tensors(folder / DELTA) as file:
            names = set(file.names())
            found = sorted({name.rpartition(".")[0] for name in names})
            return {name: delta_from(name, names, file.read) for name in found if modules is None or name in modules}
    except SafetensorError as error:
        raise InputError(f"{folder / DELTA} is no delta: {error}; make one with `wfc average`") from error


def squared_norm_of(folder: Path, names: Iterable[str]) -> float:
    """Returns the sum of ||W||^2 (Frobenius, float64) over tensors of a checkpoint folder, one in memory at a time."""
    return sum(squared_sum(tensor.double()) for _, tensor in read_tensors(folder, names))


def tensor_specs(folder: Path) -> dict[str, TensorSpec]:
    """Returns tensor name -> data type and shape of a checkpoint folder, from the headers of its files."""
    where = weight_map(folder)
    headers = {path: read_header(path) for path in set(where.values())}
    if gone := [name for name, path in where.items() if name not in headers[path]]:
        raise InputError(f"{where[gone[0]]} has no tensor {gone[0]}, which {INDEX} names there; download it again")
    return {name: headers[path][name] for name, path in where.items()}


def check_fits(root: Path, shapes: Mapping[str, tuple[int, int]]) -> None:
    """Raises InputError unless every module of an update is a matrix of the root of the same (out, in) shape."""
    specs = tensor_specs(root)
    for module, shape in shapes.items():
        name = f"{module}.weight"
        if name not in specs:
            raise InputError(f"{root} has no tensor {name}; the adapter was made for another model")
        if specs[name].shape != shape:
            raise InputError(
                f"{name} is {list(specs[name].shape)} in {root}, the update is {list(shape)}; it was made for another model"
            )


def verify_root(folder: Path, recorded: Mapping[str, str]) -> None:
    """Raises IntegrityError when the root's tensors are no longer the ones the run began with."""
    found = hash_tensors(folder)
    if changed := sorted(name for name in recorded.keys() | found.keys() if recorded.get(name) != found.get(name)):
        raise IntegrityError(f"the root model {folder} has changed since the run began (first: {changed[0]}); restore it")
