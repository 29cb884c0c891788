"""What is wrong with a configuration, in a user's words: key, what is expected there, what stands there, what to write."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from wfc_dist.errors import closest, nearest

OTHER_NAMES = {
    "lora_r": "r", "lora_rank": "r", "rank": "r", "lora_alpha": "alpha", "lora_dropout": "dropout", "modules": "target_modules",
    "lora_target_modules": "target_modules", "use_rslora": "variant", "peft_type": "variant", "adapter": "variant",
    "learning_rate": "lr", "peak_lr": "lr", "epochs": "max_steps", "max_epochs": "max_steps", "num_epochs": "max_steps",
    "num_train_epochs": "max_steps", "num_steps": "max_steps", "steps": "max_steps", "iterations": "max_steps",
    "per_device_train_batch_size": "batch_size", "per_device_eval_batch_size": "batch_size", "micro_batch_size": "batch_size",
    "train_batch_size": "batch_size", "eval_batch_size": "batch_size", "batchsize": "batch_size",
    "accumulate_grad_batches": "gradient_accumulation", "grad_accum": "gradient_accumulation",
    "grad_clip": "max_grad_norm", "gradient_clip_val": "max_grad_norm", "clip_grad_norm": "max_grad_norm",
    "max_norm": "max_grad_norm", "warmup": "warmup_steps", "warmup_ratio": "warmup_steps",
    "scheduler": "schedule", "lr_scheduler": "schedule", "lr_scheduler_type": "schedule", "optim": "optimizer",
    "adam_beta1": "betas", "adam_beta2": "betas", "wd": "weight_decay", "l2": "weight_decay",
    "fp16": "precision", "bf16": "precision", "dtype": "precision", "amp": "precision", "mixed_precision": "precision",
    "deepspeed": "strategy", "zero_stage": "strategy", "fsdp": "strategy", "distributed_backend": "strategy",
    "save_steps": "checkpoint_every", "save_every": "checkpoint_every", "save_interval": "checkpoint_every",
    "eval_steps": "eval_every", "eval_interval": "eval_every", "val_check_interval": "eval_every",
    "early_stopping_patience": "patience", "specaugment": "spec_augment", "specaug": "spec_augment",
    "apply_spec_augment": "spec_augment", "kd": "distillation", "lwf": "distillation",
    "min_duration": "min_duration_s", "max_duration": "max_duration_s", "max_audio_length": "max_duration_s",
    "dataloader_num_workers": "loader_workers", "grad_checkpointing": "gradient_checkpointing",
    "gpus": "gpus_per_worker", "num_gpus": "gpus_per_worker", "cpus": "cpus_per_worker", "num_cpus": "cpus_per_worker",
    "threads": "threads_per_worker", "num_workers": "workers_per_trainer", "workers": "workers_per_trainer",
    "nproc_per_node": "workers_per_trainer", "num_nodes": "wait_for_nodes", "nodes": "wait_for_nodes",
    "ray_address": "address", "mem": "mem_gb", "time": "time_min", "queue": "partition", "constraint": "parameters",
    "beams": "num_beams", "beam_size": "num_beams", "metrics": "metric", "normalize": "normalizer", "lang": "language",
    "languages": "language", "validation": "dev", "valid": "dev", "val": "dev", "evaluation": "dev", "eval": "dev",
    "training": "train", "type": "format", "loader": "format", "ds_type": "format", "config_name": "subset",
    "transcript": "text_column", "transcription": "text_column", "sentence": "text_column", "text_key": "text_column",
    "audio_key": "audio_column", "max_samples": "max_clips", "limit": "max_clips", "fraction": "share",
    "base_model": "model", "model_name": "model", "model_name_or_path": "model", "name": "model", "path": "model",
    "output_dir": "dir", "out_dir": "dir", "run_dir": "dir", "work_dir": "dir", "exp_dir": "dir", "random_seed": "seed",
    "run_name": "name", "experiment": "name", "merge_method": "method", "merge": "method", "merging": "method",
    "merge_every": "centralize_every", "callback": "notify", "cache": "pool",
}  # fmt: skip
"""What other tools call a key -> ours. A name is suggested only in a block that has it."""
OTHER_VALUES = {
    "float32": "fp32", "float": "fp32", "bfloat16": "bf16", "float16": "fp16", "half": "fp16", "tsv": "csv", "json": "jsonl",
    "manifest": "jsonl", "nemo": "jsonl", "huggingface": "hub", "hf": "hub", "tar": "webdataset", "shar": "lhotse",
    "local": "in_process", "milliseconds": "ms", "seconds": "s", "sgdm": "sgd", "adam": "adamw", "deepspeed": "zero2",
}  # fmt: skip
"""What other tools call a value -> ours. A value is suggested only where it may stand."""
_EXPECTED = {
    "int": "a whole number", "float": "a number", "finite": "a finite number", "bool": "true or false", "string": "a text",
    "list": "a list such as [a, b]", "tuple": "a list such as [a, b]", "dict": "keys and values such as {a: 1}",
    "model": "a block of keys", "none": "null",
}  # fmt: skip
_LIMITS = {
    "greater_than_equal": ("ge", "at least"), "greater_than": ("gt", "more than"), "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"), "string_too_long": ("max_length", "at most this many characters:"),
}  # fmt: skip
_ROUNDS = "expected lists of data sets, a list for each round, such as [[es, it], [fr]], or {centralize_every: 2}"
_YAML_BOOLEANS = 'YAML reads no, off, yes and on as false and true: write the word in quotes, such as "no"'


def explain(error: ValidationError, where: str, tree: Any, model: type[BaseModel], block: str = "") -> str:
    """Returns all that is wrong, a line each.

    Args:
        error: What pydantic says.
        where: The file.
        tree: What was checked.
        model: What it was checked as.
        block: The path of the tree in the file.
    """
    groups: dict[tuple[str | int, ...], list[tuple[tuple[str | int, ...], Any]]] = {}
    for item in error.errors():
        path, place = _path(tree, item["loc"], is_missing=item["type"] == "missing")
        groups.setdefault(place, []).append((path, item))
    lines = []
    for place, items in groups.items():
        for path, problems in _deepest(place, items).items():
            key = ".".join(str(part) for part in (*([block] if block else []), *path))
            text = _text(path, problems, tree, model)
            lines.append(f"{key}: {text}" if key else text)
    return f"{where}: " + "\n  ".join(dict.fromkeys(lines))


def _path(tree: Any, location: Sequence[str | int], *, is_missing: bool) -> tuple[tuple[str | int, ...], tuple[str | int, ...]]:
    """Returns the keys of a location, and those before the first name of a type: pydantic names the parts of a union there."""
    path: list[str | int] = []
    place: tuple[str | int, ...] | None = None
    value = tree
    for number, part in enumerate(location):
        if part in (value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()):
            value = value[part]
        elif not (is_missing and number == len(location) - 1):
            place = tuple(path) if place is None and part != "[key]" else place
            continue
        path.append(part)
    return tuple(path), tuple(path) if place is None else place


def _deepest(
    place: tuple[str | int, ...], items: Sequence[tuple[tuple[str | int, ...], Any]]
) -> dict[tuple[str | int, ...], list[Any]]:  # fmt: skip
    """Returns path -> problems: of a union those of the alternative that fits best, or all where none fits at all."""
    if place == ("rounds",):
        return {place: [item for _, item in items]}
    most = max(len(path) for path, _ in items)
    found: dict[tuple[str | int, ...], list[Any]] = {}
    for path, item in items:
        if len(path) == most:
            found.setdefault(path, []).append(item)
    return found


def _text(path: Sequence[str | int], items: Sequence[Any], tree: Any, model: type[BaseModel]) -> str:
    first = items[0]
    if first["type"] == "value_error":
        return str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return unknown_key(path, model)
    if first["loc"][-1:] == ("[key]",) and first["type"] == "literal_error":
        return f"unknown key{_suggestion(str(path[-1]), _choices(first))}"
    if first["type"] == "missing":
        return "is missing" if isinstance(path[-1], str) else "the list is too short"
    hints = [_hint(item["input"]) for item in items if item["type"] == "string_type"]
    hint = next(filter(None, hints), "")
    value = _value_at(tree, path)
    if path == ("rounds",):
        return f"{_ROUNDS}; {_shown(value)} is neither{_rounds_meant(value)}{hint}"
    expected = " or ".join(dict.fromkeys(_expected(item) for item in items))
    choices = [choice for item in items if item["type"] == "literal_error" for choice in _choices(item)]
    other = OTHER_VALUES.get(value.lower()) if isinstance(value, str) else None
    near = other if other in choices else closest(value, choices, cutoff=0.6) if isinstance(value, str) else None
    return f"expected {expected}, not {_shown(value)}{f'; did you mean {near!r}?' if near else ''}{hint}"


def _expected(item: Any) -> str:
    kind = item["type"]
    if kind in _LIMITS:
        name, words = _LIMITS[kind]
        return f"{words} {item['ctx'][name]}"
    if kind == "literal_error":
        return f"one of {', '.join(_choices(item))}"
    if kind == "string_pattern_mismatch":
        return "a name of letters, digits, _, . and -, which begins with a letter or a digit"
    return _EXPECTED.get(kind.split("_")[0], str(item["msg"]).removeprefix("Input should be "))


def _choices(item: Any) -> list[str]:
    return [word.strip("'") for word in str(item["ctx"]["expected"]).replace(" or ", ", ").split(", ")]


def _hint(value: Any) -> str:
    if isinstance(value, bool):
        return f"; {_YAML_BOOLEANS}"
    return f'; write "{value}" in quotes' if isinstance(value, int | float) else ""


def _rounds_meant(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(name, str) for name in value):
        names = ", ".join(value)
        return f"; write [[{names}]] for one round, or [{', '.join(f'[{name}]' for name in value)}] for a round each"
    return ""


def _shown(value: Any) -> str:
    text = {True: "true", False: "false", None: "null"}[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _value_at(tree: Any, path: Sequence[str | int]) -> Any:
    for part in path:
        tree = tree[part] if not isinstance(tree, dict) else tree.get(part)
    return tree


def _blocks(annotation: Any) -> list[type[BaseModel]]:
    """Returns the blocks that a field can hold, by itself or as values of a mapping, such as {name: DatasetConfig}."""
    options = [annotation, *get_args(annotation)]
    return [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]


def _fields_at(location: Sequence[str | int], model: type[BaseModel]) -> list[str]:
    """Returns the valid keys of the block at a path such as ("datasets", "seame"); none where there is no block."""
    blocks = [model]
    for part in location:
        fields = {name: field for block in blocks for name, field in block.model_fields.items()}
        if part in fields:
            blocks = _blocks(fields[str(part)].annotation)
        # else `part` is the name of an entry of a mapping, whose values are the blocks
    return [name for block in blocks for name in block.model_fields]


def unknown_key(path: Sequence[str | int], model: type[BaseModel]) -> str:
    """Returns that a key is unknown, and the key that is meant, here or in another block."""
    return f"unknown key{_meant(path, model)}"


def _meant(path: Sequence[str | int], model: type[BaseModel]) -> str:
    word, names = str(path[-1]), _fields_at(path[:-1], model)
    if not names:
        return ""
    if "source" in names and word in ("path", "name", "model"):
        return "; did you mean 'source'?"
    if OTHER_NAMES.get(word) not in names and not closest(word, names, cutoff=0.8):
        ours = {word, OTHER_NAMES.get(word)}
        elsewhere = [found for found in _paths(model) if found.rpartition(".")[2] in ours]
        if len(path) == 1 and len(elsewhere) > 1:
            return f"; did you mean {' or '.join(found for found in elsewhere if not found.startswith('evaluate.protected.'))}?"
        if elsewhere:
            # The least deep one, if possible in the block where the word stands.
            return f"; did you mean {min(elsewhere, key=lambda found: (found.count('.'), found.split('.')[0] != path[0]))}?"
    return _suggestion(word, names)


def _paths(model: type[BaseModel], prefix: str = "", above: tuple[type[BaseModel], ...] = ()) -> Iterator[str]:
    """Yields the path of every key of a block and of those in it; NAME stands for a name that the user gives."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        is_named = "dict" in str(field.annotation)
        for inner in _blocks(field.annotation):
            if inner not in (*above, model):
                yield from _paths(inner, f"{prefix}{name}.{'NAME.' if is_named else ''}", (*above, model))


def _suggestion(word: str, names: Iterable[str]) -> str:
    other = OTHER_NAMES.get(word)
    return f"; did you mean {other!r}?" if other in list(names) else nearest(word, names)
