"""The configuration of a comparison: that of a run, without rounds, and a block `compare` with seeds and systems."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from wfc_dist.compare.systems import PRESETS, Preset, joint_settings, lay_out
from wfc_dist.config import loading
from wfc_dist.config.datasets import Name
from wfc_dist.config.messages import explain
from wfc_dist.config.schema import Config
from wfc_dist.config.training import Strict, marked
from wfc_dist.errors import ConfigError, nearest
from wfc_dist.storage.objects import is_url

UNTOUCHED = "untouched"


class SystemConfig(Strict):
    """One system: a preset, and what it changes."""

    preset: str | None = None
    """One of `systems.PRESETS`; by default the one of the system's name, else `centralize`."""
    every: int | None = Field(None, ge=1)
    """K of `centralize`: data sets a round."""
    order: list[str] | None = None
    """The data sets in another order."""
    set: dict[str, Any] = Field(default_factory=dict)
    """`key.path: value` of the run's configuration, such as centralize.method: ties."""


class CompareSettings(Strict):
    """The block `compare`."""

    seeds: list[int] = Field([1], min_length=1)
    reference: str
    """The system that all others are tested against."""
    systems: dict[Name, SystemConfig] = Field(min_length=1)


@dataclass(frozen=True)
class PlannedRun:
    """One run of a system: `part` is the data set of a run that trains one alone, else empty."""

    system: str
    seed: int
    part: str
    config: Config


@dataclass(frozen=True)
class Comparison:
    """A comparison, with the configuration of every run.

    Attributes:
        name: Name of the comparison.
        folder: Where its runs, its pool and its results are.
        datasets: The new sets, in the order of the file.
        reference: The system that all others are tested against.
        systems: All systems in the file's order, `untouched` first.
        runs: Every run, seed by seed.
        about: System -> what it is.
    """

    name: str
    folder: Path
    datasets: list[str]
    reference: str
    systems: list[str]
    runs: list[PlannedRun]
    about: Mapping[str, str]

    def runs_of(self, system: str, seed: int) -> list[PlannedRun]:
        """Returns the runs of a system with one seed."""
        return [run for run in self.runs if (run.system, run.seed) == (system, seed)]

    @property
    def seeds(self) -> list[int]:
        """Returns all seeds, in order."""
        return list(dict.fromkeys(run.seed for run in self.runs))


def load(path: Path, overrides: Sequence[str] = ()) -> Comparison:
    """Reads a comparison's YAML and makes every run's configuration of it.

    Raises:
        ConfigError: A missing file, an unknown key or name, a wrong value; names the system.
    """
    tree = loading.read_tree(path, overrides)
    settings = checked(CompareSettings, tree.pop("compare", None) or {}, path, "compare")
    if (word := settings.reference) not in settings.systems:
        raise ConfigError(f"{path}: compare.reference: {word!r} is not a system{nearest(word, settings.systems)}")
    return plan(tree, settings, path)


def plan(tree: Mapping[str, Any], settings: CompareSettings, path: Path, block: str = "compare.systems") -> Comparison:
    """Makes the configuration of every run of a comparison.

    Args:
        tree: The file, without its block `compare`; not checked yet.
        settings: That block, or what a sweep made in its place.
        path: The file, for messages.
        block: Where the systems stand in it, for messages.

    Raises:
        ConfigError: An unknown key or name, a wrong value; names the system.
    """
    folder = _folder(tree, path, block)
    presets = {name: _preset(name, system, block) for name, system in settings.systems.items()}
    runs: list[PlannedRun] = []
    for seed in settings.seeds:
        for name, system in settings.systems.items():
            runs += _runs(tree, folder, name, system, presets[name], seed=seed, block=block)
    if not runs:
        raise ConfigError(f"{path}: {block}: nothing is trained; name a system besides {UNTOUCHED}")
    _check_measures(runs, list(tree["datasets"]), path, block)
    root = PRESETS[UNTOUCHED]
    about = {UNTOUCHED: root.about} | {name: preset.about for name, preset in presets.items() if preset is not root}
    return Comparison(tree["run"]["name"], folder, list(tree["datasets"]), settings.reference, list(about), runs, about)


def _folder(tree: Mapping[str, Any], path: Path, block: str) -> Path:
    """Returns where the runs and the results are. Raises ConfigError for a file that is not that of a comparison."""
    if "rounds" in tree:
        raise ConfigError(
            f"{path}: rounds: a comparison has no rounds, since each system lays out the data sets itself; remove the key"
        )
    run = tree.get("run")
    if not isinstance(tree.get("datasets"), dict) or not isinstance(run, dict) or not isinstance(run.get("name"), str):
        raise ConfigError(f"{path}: expected blocks such as run: (with a name), base:, datasets:, {block.partition('.')[0]}:")
    if is_url(str(run.get("dir", ""))):
        raise ConfigError(
            f"{path}: run.dir: {run['dir']}: a comparison needs a folder, on a file system that all its runs see; name one"
        )
    if not isinstance(folder := run.get("dir", "runs"), str):
        raise ConfigError(f"{path}: run.dir: {folder!r} is no folder; name one")
    return Path(folder) / run["name"]


def _check_measures(runs: Sequence[PlannedRun], datasets: Sequence[str], path: Path, block: str) -> None:
    """Raises ConfigError where no data set is scored, or a system is scored otherwise than the first."""
    if not any(name in datasets for name in runs[0].config.test_sets()):
        raise ConfigError(
            f"{path}: no data set has a test split; a comparison measures what is learned of them; give one of them splits.test"
        )
    for planned in runs:
        own, first = (_measures(run.config) for run in (planned, runs[0]))
        if changed := [key for key in own if key not in marked(Config, "figures") and own[key] != first.get(key)]:
            raise ConfigError(
                f"{path}: {block}.{planned.system}: {', '.join(changed)}: systems are compared by the same measure on the same "
                "sets; set it for the whole file"
            )


_Block = TypeVar("_Block", bound=BaseModel)


def checked(model: type[_Block], tree: Any, path: Path, block: str) -> _Block:
    """Returns a block of a file as its model. Raises ConfigError, which names every key that is wrong."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(explain(error, str(path), tree, model, block)) from error


def _measures(config: Config) -> dict[str, Any]:
    """Returns `key.path` -> value of what decides how the test sets are scored."""
    own = {f"datasets.{name}.metric": data.metric for name, data in config.datasets.items() if "test" in data.splits}
    return {f"evaluate.{key}": value for key, value in config.evaluate} | own


def _preset(name: str, system: SystemConfig, block: str) -> Preset:
    preset = system.preset or (name if name in PRESETS else "centralize")
    if preset not in PRESETS:
        raise ConfigError(f"{block}.{name}.preset: {preset!r} is not known{nearest(preset, PRESETS)}")
    if (PRESETS[preset].layout == "every" and PRESETS[preset].every is None) != (system.every is not None):
        raise ConfigError(f"{block}.{name}.every: centralize needs it (data sets a round), the other presets have their own")
    return PRESETS[preset]


def _runs(
    tree: Mapping[str, Any], folder: Path, system: str, config: SystemConfig, preset: Preset, *, seed: int, block: str
) -> list[PlannedRun]:
    names = config.order or list(tree["datasets"])
    if sorted(names) != sorted(tree["datasets"]):
        datasets = ", ".join(tree["datasets"])
        raise ConfigError(f"{block}.{system}.order: it must name every data set once: {datasets}")
    settings = dict(preset.settings) | (joint_settings(tree, names) if preset.layout == "joint" else {})
    planned = []
    for suffix, rounds in lay_out(preset.layout, names, preset.every or config.every or 1):
        own = copy.deepcopy(dict(tree))
        name = f"{system}-seed{seed}{suffix}"
        own["run"] = {"pool": str(folder / "pool")} | own["run"] | {"name": name, "dir": str(folder / "runs"), "seed": seed}
        own["rounds"] = rounds
        own["evaluate"] = {"adapters": False, "interim": "learned"} | (own.get("evaluate") or {})
        for key, value in (settings | config.set).items():
            loading.assign(own, key, copy.deepcopy(value))  # assigning below it later must not change the preset
        planned.append(PlannedRun(system, seed, suffix.removeprefix("-"), loading.parse(own, f"{block}.{system}")))
    return planned
