"""The configuration of a sweep: that of a comparison, with a block `sweep` whose grid of values becomes the systems."""

import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from wfc_dist.compare.settings import CompareSettings, Comparison, SystemConfig, checked, plan
from wfc_dist.config import loading
from wfc_dist.config.training import Strict
from wfc_dist.errors import ConfigError, nearest
from wfc_dist.storage import durable

KEPT, LEARNED = "protected_relative", "new_relative"  # figures that span the plane of a sweep
_LAYOUT = ("every", "order")
_BLOCKS = ("lora", "train", "centralize")  # what else differs would be another task, not another point
_LONGEST_WORD, _LONGEST_NAME = 16, 80
_YAML_TEXT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")  # YAML 1.1 reads 1e-3 as text

Point = Mapping[str, Any]


class SweepSettings(Strict):
    """The block `sweep`."""

    seeds: list[int] = Field([1], min_length=1)
    system: SystemConfig = SystemConfig()
    """What all points have in common: a preset (centralize by default), `every`, `order`, `set`."""
    over: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(min_length=1)
    """`every`, `order` or `key.path` of lora, train, centralize -> values."""
    reference: dict[str, Any] = Field(default_factory=dict)
    """Key -> value of the point that the others are tested against; a key's first value by default."""
    samples: int | None = Field(None, ge=1)
    """So many random points of the grid, the reference among them; the whole grid by default."""
    sample_seed: int = 1
    concurrent: int = Field(1, ge=1)
    """Runs at the same time."""


@dataclass(frozen=True)
class Sweep:
    """A sweep: its points, each a system of a comparison.

    Attributes:
        comparison: Its systems are the points.
        points: System -> key -> value.
        concurrent: Runs at the same time.
    """

    comparison: Comparison
    points: Mapping[str, Point]
    concurrent: int


def load(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Reads a sweep's YAML and makes every run's configuration of it.

    Raises:
        ConfigError: A missing file, an unknown key or name, a wrong value; names the key or the point.
    """
    tree = loading.read_tree(path, overrides)
    settings = checked(SweepSettings, tree.pop("sweep", None) or {}, path, "sweep")
    over = {key: [_read(value) for value in values] for key, values in settings.over.items()}
    _check_keys(over, path)
    reference = name_of(_reference(over, settings.reference, path))
    grid = (dict(zip(over, values, strict=True)) for values in itertools.product(*over.values()))
    points: dict[str, Point] = {name_of(point): point for point in grid}
    if settings.samples is not None:
        chosen = sorted(points, key=lambda name: (name != reference, _drawn(settings.sample_seed, name)))[: settings.samples]
        points = {name: point for name, point in points.items() if name in chosen}
    systems = {name: _system(settings.system, point, path) for name, point in points.items()}
    compare = CompareSettings(seeds=settings.seeds, reference=reference, systems=systems)
    comparison = plan(tree, compare, path, "sweep")
    about = dict(comparison.about) | {name: describe(point) for name, point in points.items()}
    return Sweep(replace(comparison, about=about), points, settings.concurrent)


def describe(point: Point) -> str:
    """Returns the values of a point for people: `every 3, train.lr 0.001`."""
    return ", ".join(f"{key} {text_of(value)}" for key, value in point.items())


def text_of(value: Any) -> str:
    """Returns a value for people: a list as its items, a number with at most 12 digits."""
    if isinstance(value, list):
        return " ".join(map(text_of, value))
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def name_of(point: Point) -> str:
    """Returns the name of a point, which depends on its own values alone, so that a grid may grow: `every-3_lr-0.001`.

    Long values, and names that would be too long for a folder, end in a part of their sha256.
    """
    last = [key.rpartition(".")[2] for key in point]
    short = {key: end if last.count(end) == 1 else key for key, end in zip(point, last, strict=True)}
    name = "_".join(f"{short[key]}-{_word(value)}" for key, value in point.items())
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 9]}-{_digest(point)}"


def _word(value: Any) -> str:
    word = re.sub(r"[^A-Za-z0-9.-]+", ".", text_of(value)).strip(".")
    return word if 0 < len(word) <= _LONGEST_WORD and not isinstance(value, dict) else _digest(value)


def _digest(value: Any) -> str:
    return durable.sha256_json(value)[:8]


def _drawn(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()  # more samples keep those drawn before


def _read(value: Any) -> Any:
    return float(value) if isinstance(value, str) and _YAML_TEXT.fullmatch(value) else value


def _check_keys(over: Mapping[str, Sequence[Any]], path: Path) -> None:
    for key, values in over.items():
        block, _, setting = key.partition(".")
        if key not in _LAYOUT and (block not in _BLOCKS or not setting):
            raise ConfigError(
                f"{path}: sweep.over: {key!r} cannot be swept; a sweep varies "
                f"{', '.join(_LAYOUT)}, {', '.join(f'{name}.KEY' for name in _BLOCKS)}"
            )
        if len({_word(value) for value in values}) < len(values):
            raise ConfigError(f"{path}: sweep.over.{key}: a value is listed twice: {', '.join(map(text_of, values))}")


def _reference(over: Mapping[str, Sequence[Any]], wanted: Point, path: Path) -> Point:
    point = {key: values[0] for key, values in over.items()}
    for key, value in wanted.items():
        if key not in over:
            raise ConfigError(f"{path}: sweep.reference: {key!r} is not swept{nearest(key, over)}")
        if _read(value) not in over[key]:
            known = "; ".join(map(text_of, over[key]))
            raise ConfigError(f"{path}: sweep.reference.{key}: {text_of(value)} is not one of its values: {known}")
        point[key] = _read(value)
    return point


def _system(common: SystemConfig, point: Point, path: Path) -> SystemConfig:
    layout = {key: value for key, value in point.items() if key in _LAYOUT}
    changed = dict(common.set) | {key: value for key, value in point.items() if key not in _LAYOUT}
    return checked(SystemConfig, common.model_dump() | layout | {"set": changed}, path, "sweep.over")
