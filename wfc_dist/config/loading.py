"""YAML in, a checked configuration out; what may change between the attempts of a run. Loads neither torch nor ray.

Unknown keys are refused with the nearest valid name.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wfc_dist.config.messages import explain
from wfc_dist.config.schema import Config
from wfc_dist.config.training import leaves
from wfc_dist.config.yaml_text import read_yaml, read_yaml_file
from wfc_dist.errors import ConfigError
from wfc_dist.storage import durable


def _override(tree: dict[str, Any], assignment: str) -> None:
    key, separator, text = assignment.partition("=")
    if not separator or not key:
        raise ConfigError(f"override {assignment!r} is not key.path=value, such as train.lr=1e-4")
    assign(tree, key, read_yaml(text, f"override {key}"))


def assign(tree: dict[str, Any], key: str, value: Any) -> None:
    """Sets `key.path` of a nested dictionary, in place. Raises ConfigError where the path goes through a value."""
    *parents, last = key.split(".")
    node: Any = tree
    for part in parents:
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict):
            raise ConfigError(f"override {key}: {part!r} is a value, not a block")
    node[last] = value


def parse(tree: Any, where: str = "configuration") -> Config:
    """Checks a nested dictionary. Raises ConfigError naming every wrong key."""
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: expected blocks such as run:, base:, datasets:, rounds:")
    try:
        config = Config.model_validate(tree)
        return config.model_copy(update={"rounds": config.round_list()})  # resolved once, by the file's order of data sets
    except ValidationError as error:
        raise ConfigError(explain(error, where, tree, Config)) from error


def read_tree(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Reads a YAML file and applies `key.path=value` overrides; nothing is checked yet.

    Raises:
        ConfigError: Missing file, no YAML, no blocks.
    """
    tree = read_yaml_file(path)
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected blocks such as run:, base:, datasets:, rounds:")
    for assignment in overrides:
        _override(tree, assignment)
    return tree


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a YAML file, applies `key.path=value` overrides and checks the result.

    Args:
        path: The file. Relative paths in it are relative to the working directory.
        overrides: Such as ["train.lr=1e-4", "run.name=second"].

    Returns:
        The configuration with every default; it does not change.

    Raises:
        ConfigError: Missing file, no YAML, unknown key, wrong value; names all of them.

    Example:
        >>> from wfc_dist import load_config
        >>> load_config("missing.yaml")
        Traceback (most recent call last):
            ...
        wfc_dist.errors.ConfigError: cannot read the configuration missing.yaml: No such file or directory
    """
    return parse(read_tree(path, overrides), str(path))


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{prefix}{key}.").items()}
    return {prefix[:-1]: value}


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns the keys whose values differ between two dumped configurations, without those a resume may change."""
    before, after = _flat(dict(old)), _flat(dict(new))
    keys = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    return [key for key in keys if not leaves("resume", key, Config)]


def config_hash(config: Config) -> str:
    """Returns the hex sha256 of the resolved configuration."""
    return durable.sha256_json(config.model_dump(mode="json"))
