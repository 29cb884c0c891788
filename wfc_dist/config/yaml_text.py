"""YAML that people write, read strictly: what YAML itself passes over in silence is refused with its place."""

import math
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, ScalarNode

from wfc_dist.errors import ConfigError
from wfc_dist.storage.objects import require_no_secret

_MAX_BYTES = 4 << 20
_MAX_VALUES = 100_000
"""Values in one file. Aliases of aliases can make a short text larger than any memory."""
_MAX_INTEGER = 2**63 - 1


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that a block has twice: YAML keeps the last one."""

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        node = super().compose_mapping_node(anchor)
        first: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in first:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r} stands in this block already, in line {first[key.value]}",
                                           problem_mark=key.start_mark)  # fmt: skip
            first[key.value] = key.start_mark.line + 1
        return node


def read_yaml_file(path: str | Path) -> Any:
    """Returns what a YAML file holds.

    Raises:
        ConfigError: The file cannot be read, is too large, is not UTF-8, or is no YAML that `read_yaml` takes.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)  # a device may have no end
        if len(data) > _MAX_BYTES:
            raise ConfigError(f"{path} has more than {_MAX_BYTES >> 20} MiB; a configuration has some kilobytes")
        text = data.decode()
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}, line {line}, is not UTF-8; save the file as UTF-8") from error
    return read_yaml(text, str(path))


def read_yaml(text: str, where: str) -> Any:
    """Returns what a YAML text holds. `where` names the text in messages.

    Raises:
        ConfigError: No YAML; a key twice in one block, or one that is no text; nested too deep, or more values than any
            configuration has; a number that is not finite or does not fit 64 bits; text that is no UTF-8; a URL with a password
            in it.
    """
    try:
        tree = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
        _check_values(tree, where)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not YAML: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{where} is nested too deep, or a block is part of itself; write it out flat") from error
    except ValueError as error:  # such as a date 2026-13-01
        raise ConfigError(f"{where} is not YAML: {error}; put quotes around the value") from error
    return tree


def _hint(name: object) -> str:
    return " (YAML reads no, off, yes and on as false and true)" if isinstance(name, bool) else ""


def _check_values(tree: Any, where: str) -> None:
    num_values = 0

    def check_text(text: str, key: str) -> None:
        if "\0" in text:
            raise ConfigError(f"{where}: {key or 'the value'} has a NUL character; take it out")
        if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise ConfigError(f"{where}: {key or 'the value'} has a character that is not UTF-8; write it in UTF-8")

    def check(value: Any, key: str) -> None:
        nonlocal num_values
        num_values += 1
        if num_values > _MAX_VALUES:
            raise ConfigError(
                f"{where} has more than {_MAX_VALUES} values, aliases written out; a configuration has a few hundred"
            )
        if isinstance(value, dict):
            for name, item in value.items():
                place = f"{key}.{name}" if key else str(name)
                if not isinstance(name, str):
                    raise ConfigError(
                        f"{where}: {place}: the key is read as {name!r}, not as a text; write it in quotes{_hint(name)}"
                    )
                check_text(name, place)
                check(item, place)
        elif isinstance(value, list):
            for number, item in enumerate(value):
                check(item, f"{key}[{number}]")
        elif isinstance(value, str):
            check_text(value, key)
            require_no_secret(value, f"{where}: {key or 'the value'}")
        elif isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{where}: {key or 'the value'} is {value}; give a finite number")
        elif isinstance(value, int) and abs(value) > _MAX_INTEGER:
            raise ConfigError(f"{where}: {key or 'the value'} has {len(str(abs(value)))} digits; give a number below 2^63")

    check(tree, "")
