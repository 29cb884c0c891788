"""PEFT folders <-> factors. Reads safetensors only."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from wfc_dist.errors import InputError
from wfc_dist.merging.curvature import FIELDS, Curvature, shape_of
from wfc_dist.merging.factors import Factors, concatenated, ratio_of_norms, squared_norm_of, squared_sum
from wfc_dist.weights import adapter_config
from wfc_dist.weights.hashing import content_sha256, tensor_sha256
from wfc_dist.weights.tensor_files import TensorFile, read_header, save_tensors

FILES = WEIGHTS, CONFIG = "adapter_model.safetensors", adapter_config.CONFIG
STATISTICS = "curvature.safetensors"
PREFIX = "base_model.model."
"""What PEFT puts before the name of a module in the base."""
WRAPPERS = frozenset({"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""What torch.compile, data-parallel training and checkpointing of activations put into the names of what they wrap."""
_SIDES = ("lora_A", "lora_B")
_DTYPES = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16})


def read_factors(folder: str | Path) -> dict[str, Factors]:
    """Reads a PEFT LoRA folder.

    Args:
        folder: Made by PEFT or by a run.

    Returns:
        Module name as in the base's checkpoint (without `.weight`) -> factors in float32.

    Raises:
        InputError: Not a LoRA folder, no safetensors, keys that are no LoRA factors, or a number that is not finite.

    Example:
        >>> from wfc_dist import read_factors
        >>> read_factors("runs/demo/round-0001/adapters/es")["model.encoder.layers.0.self_attn.q_proj"].a_RI.dtype
        torch.float32
    """
    folder = Path(folder)
    config = adapter_config.read_config(folder)
    try:
        read_header(folder / WEIGHTS)
        with TensorFile(folder / WEIGHTS) as file:
            tensors = {key: file.read(key) for key in file.names()}
    except (OSError, SafetensorError, InputError) as error:
        raise InputError(f"{folder}: cannot read {WEIGHTS} ({error}); pickled adapters are not read") from error
    pairs = _pair(folder, tensors)
    keys = ("r", "rank_pattern"), ("lora_alpha", "alpha_pattern")
    lora_r, alpha = (adapter_config.by_module(config, *names, pairs) for names in keys)
    for module, (a_RI, b_OR) in pairs.items():
        if a_RI.shape[0] != lora_r[module] or b_OR.shape[1] != lora_r[module]:
            raise InputError(f"{folder}: the factors of {module} do not fit together with r = {lora_r[module]}")
    scaling = {module: alpha[module] / (r**0.5 if config.get("use_rslora") else r) for module, r in lora_r.items()}
    return {module: Factors(*pair, float(scaling[module])) for module, pair in pairs.items()}


def _pair(folder: Path, tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Returns module -> (lora_A, lora_B), float32, in name order."""
    sides: dict[str, dict[str, torch.Tensor]] = {}
    keys: dict[tuple[str, str], str] = {}
    names: dict[str, str] = {}
    for key, tensor in tensors.items():
        module, side, name = _parse_key(folder, key)
        _check_factor(folder, key, tensor)
        if (other := keys.setdefault((module, side), key)) != key:
            raise InputError(f"{folder}: {other} and {key} are the same factor of {module}; save one adapter alone")
        names.setdefault(name, key)
        sides.setdefault(module, {})[side] = tensor.float()
    if len(names) > 1:
        raise InputError(f"{folder}: {' and '.join(sorted(names.values())[:2])} belong to two adapters; save one adapter alone")
    for module, pair in sides.items():
        if len(pair) != 2:
            raise InputError(
                f"{folder}: {module} has one factor of two; the file is not whole, copy it again or train the adapter again"
            )
    if not sides:
        raise InputError(f"{folder}: {WEIGHTS} holds no LoRA factors")
    return {module: (pair["lora_A"], pair["lora_B"]) for module, pair in sorted(sides.items())}


def _parse_key(folder: Path, key: str) -> tuple[str, str, str]:
    """Returns module, side and adapter's name ("" without one) of `base_model.model.MODULE.lora_A.NAME.weight`.

    `base_model.model`, NAME and `weight` may be missing; the names that wrappers put in are passed over.
    """
    parts = [part for part in key.split(".") if part not in WRAPPERS]
    if parts[:2] == PREFIX.split(".")[:2]:
        parts = parts[2:]
    if parts[-1:] == ["weight"]:
        parts.pop()
    name = parts.pop() if parts and parts[-1] not in _SIDES else ""
    if len(parts) < 2 or parts[-1] not in _SIDES:
        raise InputError(f"{folder}: {key} is no LoRA factor of a linear layer")
    module = ".".join(parts[:-1])
    adapter_config.check_module_name(folder, module)
    return module, parts[-1], name


def _check_factor(folder: Path, key: str, tensor: torch.Tensor) -> None:
    if not tensor.numel():
        raise InputError(
            f"{folder}: {key} is empty, {list(tensor.shape)}: it was saved under ZeRO-3 without being gathered; save it with "
            "Accelerate's get_state_dict"
        )
    if tensor.dim() != 2 or tensor.dtype not in _DTYPES:
        raise InputError(f"{folder}: {key} is no LoRA factor of a linear layer: {list(tensor.shape)}, {tensor.dtype}")
    if not torch.isfinite(tensor).all():
        raise InputError(f"{folder}: {key} has a number that is not finite; the adapter diverged, train it again")


def read_with_curvature(folder: Path, kinds: Sequence[str]) -> dict[str, Factors]:
    """Returns what `read_factors` does, with `kinds` of the modules' curvature. Raises InputError as `read_curvature` does.

    With "fisher", the curvature has the norm of the Fisher information of all modules, too.
    """
    factors = read_factors(folder)
    if not kinds:
        return factors
    shapes = {module: (item.b_OR.shape[0], item.a_RI.shape[1]) for module, item in factors.items()}
    found = read_curvature(folder, shapes, kinds)
    if "fisher" in kinds:
        squares = [squared_sum(item.fisher_OI.double()) for item in found.values() if item.fisher_OI is not None]
        norm = torch.tensor(math.sqrt(math.fsum(squares)), dtype=torch.float64)
        found = {module: replace(item, fishernorm_=norm) for module, item in found.items()}
    return {module: replace(item, curvature=found[module]) for module, item in factors.items()}


def read_curvature(folder: Path, shapes: Mapping[str, tuple[int, int]], kinds: Sequence[str]) -> dict[str, Curvature]:
    """Reads what an adapter's training told of the loss: `<module>.<kind>` of DIR/curvature.safetensors, float32.

    Args:
        folder: An adapter's.
        shapes: Module -> (out, in), of those to read.
        kinds: Of `merging.curvature.FIELDS`.

    Raises:
        InputError: No such file or tensor, another shape, or a number that is not finite.
    """
    try:
        with TensorFile(folder / STATISTICS) as file:
            names = set(file.names())
            wanted = {f"{module}.{kind}" for module in shapes for kind in kinds}
            if missing := sorted(wanted - names):
                raise InputError(
                    f"{folder / STATISTICS} has no {missing[0]}, which the merge method needs; train with train.curvature"
                )
            tensors = {name: file.read(name).float() for name in sorted(wanted)}
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{folder} has no {STATISTICS} that can be read, which the merge method needs; train with train.curvature ({error})"
        ) from error
    for module, (out_features, in_features) in shapes.items():
        for kind in kinds:
            tensor, expected = tensors[f"{module}.{kind}"], shape_of(kind, out_features, in_features)
            if tuple(tensor.shape) != expected or not torch.isfinite(tensor).all():
                raise InputError(
                    f"{folder / STATISTICS}: {module}.{kind} is {list(tensor.shape)}, expected {list(expected)}, all finite; "
                    "train the adapter again"
                )
    return {module: Curvature(**{FIELDS[kind]: tensors[f"{module}.{kind}"] for kind in kinds}) for module in shapes}


def write_peft(folder: Path, state: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> str:
    """Writes a PEFT folder and returns the sha256 of its tensors.

    Args:
        folder: An existing folder.
        state: PEFT keys (`base_model.model.<module>.lora_A.weight`, ...) -> tensors; written as contiguous float32.
        config: The content of adapter_config.json.
    """
    tensors = {key: tensor.detach().cpu().float().contiguous() for key, tensor in sorted(state.items())}
    save_tensors(folder / WEIGHTS, tensors, metadata={"format": "pt"})
    (folder / CONFIG).write_text(adapter_config.text(config), encoding="utf-8")
    return adapter_sha256(tensors)


def write_stacked(
    folder: Path, adapters: Sequence[Mapping[str, Factors]], coefficients: Sequence[float], like: Path
) -> str:  # fmt: skip
    """Writes sum_i coefficients_i * delta_i as one PEFT folder, whose factors are those of all adapters stacked.

    Args:
        folder: An existing folder.
        adapters: Module -> factors, of the same modules.
        coefficients: One each; they are multiplied into lora_B, which rounds to float32.
        like: A PEFT folder of one of them, whose configuration is taken but for rank and scaling.

    Returns:
        The sha256 of the tensors.
    """
    tensors, ranks = {}, {}
    for module in adapters[0]:
        stacked = concatenated([item[module] for item in adapters], coefficients)
        tensors[f"{PREFIX}{module}.lora_A.weight"] = stacked.a_RI
        tensors[f"{PREFIX}{module}.lora_B.weight"] = stacked.b_OR.double() * stacked.coefficients_R
        ranks[module] = len(stacked.a_RI)
    rank = max(ranks.values())
    pattern = {module: other for module, other in ranks.items() if other != rank}
    shape = {"r": rank, "lora_alpha": rank, "use_rslora": False, "rank_pattern": pattern, "alpha_pattern": pattern}
    return write_peft(folder, tensors, json.loads((like / CONFIG).read_text(encoding="utf-8")) | shape)


def adapter_sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """Returns the identity of an adapter: sha256 over its named tensors."""
    return content_sha256({key: tensor_sha256(tensor) for key, tensor in tensors.items()})


def folder_sha256(folder: Path) -> str:
    """Returns the identity of the adapter in a PEFT folder."""
    with TensorFile(folder / WEIGHTS) as file:
        return adapter_sha256({key: file.read(key) for key in file.names()})


def update_ratio(folder: Path, tensors: Mapping[str, torch.Tensor]) -> float:
    """Returns ||update|| / ||W|| (Frobenius, float64) over the modules of an adapter; `tensors` are those of its base by name."""
    updates = weights = 0.0
    for module, factors in read_factors(folder).items():
        updates += squared_norm_of(concatenated([factors], [1.0]))
        weights += squared_sum(tensors[f"{module}.weight"].double())
    return ratio_of_norms(updates, weights)
