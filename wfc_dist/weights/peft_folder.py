"""PEFT folders <-> factors. Reads safetensors only."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from wfc_dist.errors import InputError
from wfc_dist.merging.curvature import FIELDS, Curvature, shape_of
from wfc_dist.merging.factors import Factors, concatenated
from wfc_dist.weights.hashing import content_sha256, tensor_sha256

FILES = WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
STATISTICS = "curvature.safetensors"
PREFIX = "base_model.model."
"""What PEFT puts before the name of a module in the base."""
_REFUSED = ("use_dora", "modules_to_save", "fan_in_fan_out", "lora_bias")


def read_config(folder: Path) -> dict[str, Any]:
    """Returns the adapter_config.json of a PEFT LoRA folder. Raises InputError for variants whose average would be wrong."""
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} is not a PEFT adapter: cannot read {CONFIG} ({error})") from error
    if config.get("peft_type") != "LORA":
        raise InputError(f"{folder}: peft_type is {config.get('peft_type')}, only LORA can be averaged")
    if used := [key for key in _REFUSED if config.get(key)]:
        raise InputError(f"{folder}: {', '.join(used)} is set; such an adapter is not scaling * B @ A and is refused")
    if config.get("bias", "none") != "none":
        raise InputError(f"{folder}: trains biases (bias={config['bias']}); train with bias='none'")
    return config


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
    config = read_config(folder)
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder}: cannot read {WEIGHTS} ({error}); pickled adapters are not read") from error
    pairs = _pair(folder, tensors)
    lora_r, alpha = (_by_module(config, *keys, pairs) for keys in (("r", "rank_pattern"), ("lora_alpha", "alpha_pattern")))
    for module, (a_RI, b_OR) in pairs.items():
        if a_RI.shape[0] != lora_r[module] or b_OR.shape[1] != lora_r[module]:
            raise InputError(f"{folder}: the factors of {module} do not fit together with r = {lora_r[module]}")
    scaling = {module: alpha[module] / (r**0.5 if config.get("use_rslora") else r) for module, r in lora_r.items()}
    return {module: Factors(*pair, float(scaling[module])) for module, pair in pairs.items()}


def _by_module(config: Mapping[str, Any], key: str, pattern_key: str, modules: Iterable[str]) -> dict[str, Any]:
    """Returns a setting for every module by PEFT's rule: of the first pattern that the end of the module's name matches."""
    patterns = [(re.compile(rf"(.*\.)?({pattern})$"), value) for pattern, value in (config.get(pattern_key) or {}).items()]
    return {module: next((value for found, value in patterns if found.match(module)), config[key]) for module in modules}


def _pair(folder: Path, tensors: Mapping[str, torch.Tensor]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Returns module -> (lora_A, lora_B), float32, in name order."""
    sides: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        module, _, side = key.removeprefix(PREFIX).removesuffix(".weight").rpartition(".")
        if side not in ("lora_A", "lora_B") or tensor.dim() != 2:
            raise InputError(f"{folder}: {key} is no LoRA factor of a linear layer")
        if not torch.isfinite(tensor).all():
            raise InputError(f"{folder}: {key} has a number that is not finite; the adapter diverged, train it again")
        sides.setdefault(module, {})[side] = tensor.float()
    for module, pair in sides.items():
        if len(pair) != 2:
            raise InputError(
                f"{folder}: {module} has one factor of two; the file is not whole, copy it again or train the adapter again"
            )
    if not sides:
        raise InputError(f"{folder}: {WEIGHTS} holds no LoRA factors")
    return {module: (pair["lora_A"], pair["lora_B"]) for module, pair in sorted(sides.items())}


def read_with_curvature(folder: Path, kinds: Sequence[str]) -> dict[str, Factors]:
    """Returns what `read_factors` does, with `kinds` of the modules' curvature. Raises InputError as `read_curvature` does."""
    factors = read_factors(folder)
    if not kinds:
        return factors
    shapes = {module: (item.b_OR.shape[0], item.a_RI.shape[1]) for module, item in factors.items()}
    found = read_curvature(folder, shapes, kinds)
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
        with safe_open(folder / STATISTICS, framework="pt") as file:
            names = set(file.keys())
            wanted = {f"{module}.{kind}" for module in shapes for kind in kinds}
            if missing := sorted(wanted - names):
                raise InputError(
                    f"{folder / STATISTICS} has no {missing[0]}, which the merge method needs; train with train.curvature"
                )
            tensors = {name: file.get_tensor(name).float() for name in sorted(wanted)}
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
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
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
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        return adapter_sha256({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 - not a dict
