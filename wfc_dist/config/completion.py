"""What a shell may put in place of a `key.path=value` that a user has begun to type."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from wfc_dist.config import reference
from wfc_dist.config.reference import NAME, Key
from wfc_dist.config.yaml_text import read_yaml_file
from wfc_dist.errors import ConfigError


def completions(typed: str, before: Sequence[str] = (), config: Path | None = None) -> list[tuple[str, str]]:
    """Returns words that begin with what is typed, each with its meaning.

    Keys come one level at a time: `train.`, then `train.lr=`. A key that is the only one comes with its values, so that shells
    put no space behind the `=`.

    Args:
        typed: The word so far.
        before: The overrides before it. bash hands `train.lr=1` over as three words; values are then returned without their key.
        config: The configuration file, whose data sets are offered by name. Nothing is said of a file that cannot be read.
    """
    key, equals, value = typed.partition("=")
    if equals:
        return [(f"{key}={word}", meaning) for word, meaning in _values(key) if word.startswith(value)]
    *_, key, sign = ["", "", *before]
    cut = _values(key if sign == "=" else sign)
    if cut:
        return [(word, meaning) for word, meaning in cut if word.startswith(typed)]
    return _keys(typed, _tree(config))


def _keys(typed: str, tree: Any) -> list[tuple[str, str]]:
    found = dict(_children(typed, tree))
    if len(found) > 1:
        return list(found.items())
    for word, meaning in found.items():
        if word.endswith("."):
            return _keys(word, tree)
        values = [(f"{word}{value}", about) for value, about in _values(word[:-1])]
        return values if len(values) > 1 else [(word, meaning), *values]
    return []


def _children(typed: str, tree: Any) -> Iterator[tuple[str, str]]:
    """Yields what begins with `typed`, down to the level behind its last dot: `block.` and `key=`, with their meanings."""
    above = typed.split(".")[:-1]
    parents = {key.path.rpartition(".")[0] for key in _all_keys()}
    seen = set()
    for key in _all_keys():
        parts = key.path.split(".")
        if len(parts) <= len(above) or not _fits(above, parts):
            continue
        is_block = len(parts) > len(above) + 1 or key.path in parents or f"{key.path}.{NAME}" in parents
        for name in _names(tree, above) if parts[len(above)] == NAME else [parts[len(above)]]:
            word = ".".join([*above, name]) + ("." if is_block else "=")
            if word.startswith(typed) and word not in seen:
                seen.add(word)
                yield word, _said(key) if len(parts) == len(above) + 1 else name


def _values(path: str) -> list[tuple[str, str]]:
    """Returns the values that a key takes by name, or its default where it takes a number; none of other texts and of blocks."""
    parts = path.split(".")
    key = next((key for key in _all_keys() if key.path.count(".") + 1 == len(parts) and _fits(parts, key.path.split("."))), None)
    if key is None or key.takes.startswith(("block", "list")):
        return []
    words = re.findall("`([^`]+)`", key.takes) + ["true", "false"] * ("true or false" in key.takes)
    if not words and "number" in key.takes and key.default not in (None, "null"):
        words = [str(key.default)]
    return [(word, "the default" if word == key.default else "") for word in words]


def _said(key: Key) -> str:
    default = f" Default: {key.default}." if key.default not in (None, reference.DEFAULTS) else ""
    return " ".join(key.meaning.split()) + default


def _all_keys() -> Iterator[Key]:
    return (key for block in reference.blocks() for key in block.keys)


def _fits(above: Sequence[str], parts: Sequence[str]) -> bool:
    return all(part in (word, NAME) for word, part in zip(above, parts, strict=False))


def _names(tree: Any, above: Sequence[str]) -> list[str]:
    for part in above:
        tree = tree.get(part) if isinstance(tree, dict) else None
    return [str(name) for name in tree] if isinstance(tree, dict) else []


def _tree(config: Path | None) -> Any:
    try:
        return None if config is None else read_yaml_file(config)
    except ConfigError:
        return None
