"""What is wrong with a configuration, in a user's words: key, what is expected there, what stands there, what to write."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from wfc_dist.errors import nearest

_OTHER_NAMES = {
    "rank": "r", "lora_r": "r", "lora_rank": "r", "lora_alpha": "alpha", "lora_dropout": "dropout", "modules": "target_modules",
    "learning_rate": "lr", "epochs": "max_steps", "num_epochs": "max_steps", "num_train_epochs": "max_steps",
    "steps": "max_steps", "per_device_train_batch_size": "batch_size", "warmup": "warmup_steps", "warmup_ratio": "warmup_steps",
    "scheduler": "schedule", "lr_scheduler": "schedule", "lr_scheduler_type": "schedule", "optim": "optimizer",
    "fp16": "precision", "bf16": "precision", "dtype": "precision", "dataloader_num_workers": "loader_workers",
    "gpus": "gpus_per_worker", "num_gpus": "gpus_per_worker", "cpus": "cpus_per_worker", "num_cpus": "cpus_per_worker",
    "threads": "threads_per_worker", "num_workers": "workers_per_trainer", "workers": "workers_per_trainer",
    "beams": "num_beams", "lang": "language", "validation": "dev", "valid": "dev", "val": "dev", "evaluation": "dev",
    "eval": "dev", "type": "format", "name": "model", "model_name": "model", "model_name_or_path": "model", "path": "model",
    "output_dir": "dir",
}  # fmt: skip
"""What other tools call a key -> ours. A name is suggested only in a block that has it."""
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
        path, place = _path(tree, item["loc"])
        groups.setdefault(place, []).append((path, item))
    lines = []
    for place, items in groups.items():
        for path, problems in _deepest(place, items).items():
            key = ".".join(str(part) for part in (*([block] if block else []), *path))
            text = _text(path, problems, tree, model)
            lines.append(f"{key}: {text}" if key else text)
    return f"{where}: " + "\n  ".join(dict.fromkeys(lines))


def _path(tree: Any, location: Sequence[str | int]) -> tuple[tuple[str | int, ...], tuple[str | int, ...]]:
    """Returns the keys of a location, and those before the first name of a type: pydantic names the parts of a union there."""
    path: list[str | int] = []
    place: tuple[str | int, ...] | None = None
    value = tree
    for number, part in enumerate(location):
        if part in (value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()):
            value = value[part]
        elif not (number == len(location) - 1 and isinstance(value, dict | list) and "[" not in str(part)):
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
    if first["loc"][-1] == "[key]" and first["type"] == "literal_error":
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
    near = difflib.get_close_matches(str(value), choices, n=1) if isinstance(value, str) else []
    return f"expected {expected}, not {_shown(value)}{f'; did you mean {near[0]!r}?' if near else ''}{hint}"


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
        tree = tree[part]
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
    if _OTHER_NAMES.get(word) not in names and not difflib.get_close_matches(word, names, n=1, cutoff=0.5):
        for block, field in model.model_fields.items():
            inside = _fields_at([block], model) if isinstance(field.annotation, type) else []  # no mapping
            if word in inside or _OTHER_NAMES.get(word) in inside:
                return f"; did you mean {block}.{word if word in inside else _OTHER_NAMES[word]}?"
    return _suggestion(word, names)


def _suggestion(word: str, names: Iterable[str]) -> str:
    other = _OTHER_NAMES.get(word)
    return f"; did you mean {other!r}?" if other in list(names) else nearest(word, names)
