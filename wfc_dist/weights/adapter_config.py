"""adapter_config.json: which adapters are `base + scaling * B @ A`, and with which ranks and scalings.

Every key of PEFT's `LoraConfig` (0.21) stands in one of the lists below. What stands in none is refused, unless it is off.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from wfc_dist.errors import InputError
from wfc_dist.storage import durable
from wfc_dist.weights.json_files import number, read_object, whole_number

CONFIG = "adapter_config.json"
MAX_BYTES, MAX_R, MAX_ALPHA = 4 << 20, 1 << 16, 1e6
MAX_NAMES, MAX_PATTERNS = 1000, 16
"""Entries of rank_pattern or alpha_pattern: names of modules (whisper-large-v3 has 512 linear layers), and other patterns."""

_CHECKED = frozenset({"peft_type", "bias", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "init_lora_weights"})
_SAYS_NOTHING_OF_THE_UPDATE = frozenset({
    "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",  # where it comes from
    "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",  # the names of the factors say what is adapted
    "lora_dropout",  # acts in training only
    "loftq_config", "eva_config", "corda_config", "lora_ga_config",  # details of an initialization, which is checked itself
    "megatron_core", "qalora_group_size",  # acts only with megatron_config or use_qalora, which are refused
    "runtime_config",  # PEFT itself passes it over
    "merge_weights",  # early releases: whether the model in memory was merged for evaluation
})  # fmt: skip
_OTHER_MODEL = {
    "use_dora": "DoRA also trains the length of every row",
    "modules_to_save": "whole modules are trained beside the factors",
    "fan_in_fan_out": "the weights are stored transposed",
    "lora_bias": "a bias is trained beside the factors",
    "trainable_token_indices": "rows of the embedding are trained beside the factors",
    "alora_invocation_tokens": "aLoRA acts only after an invocation text",
    "layer_replication": "the model has more layers than its base",
    "target_parameters": "parameters that are no linear layers are adapted",
    "use_qalora": "QALoRA pools the inputs",
    "use_bdlora": "BD-LoRA stores blocks of a factor",
    "velora_config": "VeLoRA stores more than the factors",
    "monteclora_config": "MonteCLoRA samples its factors",
    "arrow_config": "Arrow chooses between adapters for every token",
    "kasa_config": "KaSA cuts the base's weights and trains a diagonal between the factors",
    "megatron_config": "the layers are Megatron's parallel ones",
    "ensure_weight_tying": "layers share their factors",
}
_VARIANTS = frozenset({"use_bdlora", "velora_config", "monteclora_config", "arrow_config", "kasa_config"})  # {} switches them on
_SAFE_INITIALIZATIONS = frozenset({"gaussian", "orthogonal", "eva", "mica"})
_CONVERTIBLE = ("pissa", "olora", "corda", "lora_ga")

_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
_REPEAT, _ITEM = r"(?:\.|\\[dw]|\[0-9\])[*+]", r"[A-Za-z0-9_.-]|\\[.dw]|\[0-9\]"
_GROUP = r"\((?:\?:)?[A-Za-z0-9_.]+(?:\|[A-Za-z0-9_.]+)*\)"
_PATTERN = re.compile(rf"\^?(?:{_REPEAT}|{_ITEM}|{_GROUP})+\$?")
MAX_NAME_LENGTH = 128


def read_config(folder: Path) -> dict[str, Any]:
    """Returns the adapter_config.json of a PEFT LoRA folder.

    Raises:
        InputError: No such file, or anything in it by which the adapter would not be `base + scaling * B @ A`.
    """
    try:
        config = read_object(folder / CONFIG, "copy the adapter again, or give the folder of one", MAX_BYTES)
    except InputError as error:
        raise InputError(f"{folder} is not a PEFT adapter: {error}") from error
    if config.get("peft_type") != "LORA":
        raise InputError(f"{folder}: peft_type is {_shown(config.get('peft_type'))}, only LORA can be averaged")
    if config.get("bias", "none") != "none":
        raise InputError(f"{folder}: trains biases (bias={_shown(config['bias'])}); train with bias='none'")
    _check_keys(folder, config)
    _check_initialization(folder, config.get("init_lora_weights", True))
    _check_numbers(folder, config)
    return config


def name_base(folder: Path, base: str, revision: str | None) -> None:
    """Sets what adapter_config.json says of the base: a hub id and its revision, or a path relative to the folder."""
    config = read_object(folder / CONFIG, "copy the adapter again", MAX_BYTES)
    config |= {"base_model_name_or_path": base, "revision": revision}
    durable.write_text(folder / CONFIG, text(config))  # a new file: the old one may be a link that a pool shares


def text(config: Mapping[str, Any]) -> str:
    """Returns the content of adapter_config.json."""
    return json.dumps(config, indent=1, sort_keys=True) + "\n"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _is_off(key: str, value: object) -> bool:
    return value is None or value is False or (value in ("", [], {}) and not (value == {} and key in _VARIANTS))


def _check_keys(folder: Path, config: Mapping[str, Any]) -> None:
    others = sorted(config.keys() - _CHECKED - _SAYS_NOTHING_OF_THE_UPDATE)
    used = [key for key in others if not _is_off(key, config[key])]
    if not used:
        return
    if known := [key for key in used if key in _OTHER_MODEL]:
        raise InputError(
            f"{folder}: {', '.join(known)} is set in {CONFIG} ({_OTHER_MODEL[known[0]]}); such an adapter is not "
            "scaling * B @ A and is refused; train a plain LoRA adapter"
        )
    raise InputError(
        f"{folder}: {CONFIG} sets {_shown(used[0])} to {_shown(config[used[0]])}, which is not known to leave the adapter "
        "scaling * B @ A; train without it, or take the key out if it says nothing of the update"
    )


def _check_initialization(folder: Path, value: object) -> None:
    """Raises InputError for an initialization of which PEFT takes a part out of the base's weights, and for unknown ones."""
    name = value.lower() if isinstance(value, str) else value
    if name is None or isinstance(name, bool) or (isinstance(name, str) and name in _SAFE_INITIALIZATIONS):
        return
    said = f"{folder}: init_lora_weights is {_shown(value)}"
    if isinstance(name, str) and name.startswith(_CONVERTIBLE):
        raise InputError(
            f"{said}, which trains on other base weights: the adapter belongs to no base on the disk; save it with PEFT's "
            "save_pretrained(..., path_initial_model_for_weight_conversion=...), which makes it an adapter of the unchanged base"
        )
    if name == "loftq":
        raise InputError(
            f"{said}, which trains on a quantized base: the adapter belongs to no base on the disk, and PEFT cannot convert it; "
            "train with init_lora_weights=True"
        )
    raise InputError(f"{said}, which is not known to leave the base as it is; train with init_lora_weights=True")


def _check_numbers(folder: Path, config: Mapping[str, Any]) -> None:
    if not isinstance(config.get("use_rslora", False), bool):
        raise InputError(f"{folder}: use_rslora is {_shown(config['use_rslora'])} in {CONFIG}; write true or false")
    for key, pattern_key in (("r", "rank_pattern"), ("lora_alpha", "alpha_pattern")):
        if key not in config:
            raise InputError(f"{folder}: {CONFIG} has no {key}; copy the adapter again")
        patterns = config.get(pattern_key) or {}
        if not isinstance(patterns, dict):
            raise InputError(f"{folder}: {pattern_key} is {_shown(patterns)} in {CONFIG}; an object is expected")
        _check_patterns(folder, pattern_key, patterns)
        for name, value in {key: config[key], **{f"{pattern_key}.{item}": value for item, value in patterns.items()}}.items():
            if key == "r" and not whole_number(value, 1, MAX_R):
                raise InputError(f"{folder}: {name} is {_shown(value)} in {CONFIG}; an integer from 1 to {MAX_R} is expected")
            if not number(value, MAX_ALPHA):
                raise InputError(f"{folder}: {name} is {_shown(value)} in {CONFIG}; a number above 0, up to 1e6, is expected")


def _check_patterns(folder: Path, key: str, patterns: Iterable[str]) -> None:
    """Refuses regular expressions that could take for ever, and more of them than a model has layers."""
    others = [pattern for pattern in patterns if not _NAME.fullmatch(pattern)]
    for pattern in patterns:
        if len(pattern) > MAX_NAME_LENGTH:
            raise InputError(f"{folder}: {key} has a pattern of {len(pattern)} characters; name the modules instead")
    for pattern in others:
        if not _PATTERN.fullmatch(pattern) or len(re.findall(r"[*+(]", pattern)) > 2:
            raise InputError(
                f"{folder}: the pattern {_shown(pattern)} of {key} is none of those that are read (names, ^, $, \\d, \\w and at "
                "most two of .*, \\d+, \\w+, (a|b)); name the modules instead"
            )
    if len(others) > MAX_PATTERNS or len(list(patterns)) > MAX_NAMES:
        raise InputError(
            f"{folder}: {key} has {len(list(patterns))} entries, {len(others)} of them no names; at most {MAX_NAMES} names and "
            f"{MAX_PATTERNS} other patterns are read"
        )


def check_module_name(folder: Path, name: str) -> None:
    """Raises InputError for what is no name of a module: the patterns above end in time for such names only."""
    if len(name) > MAX_NAME_LENGTH or not _NAME.fullmatch(name):
        raise InputError(f"{folder}: {_shown(name)} is no name of a module")


def by_module(config: Mapping[str, Any], key: str, pattern_key: str, modules: Iterable[str]) -> dict[str, Any]:
    """Returns a setting for every module by PEFT's rule: that of the first pattern that the end of the module's name matches."""
    patterns = [(re.compile(rf"(.*\.)?({pattern})$"), value) for pattern, value in (config.get(pattern_key) or {}).items()]
    return {module: next((value for found, value in patterns if found.match(module)), config[key]) for module in modules}
