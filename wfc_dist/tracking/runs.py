"""What a tracker gets: tracker runs, their settings, and points of their curves. Plain data."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from wfc_dist.config.schema import Config
from wfc_dist.config.training import marked

BASES = "bases"
_DEV = "dev_"
_SETTINGS = ("lora", "train", "centralize")
"""Blocks without paths, addresses and commands: a tracker's server gets nothing else of a configuration."""


@dataclass(frozen=True)
class TrackedRun:
    """One tracker run: the training of an adapter, or the scores of all bases.

    Attributes:
        project: Name of the run, `run.name`.
        group: `round-NNNN`; "" for the bases.
        name: Data set of the adapter; `bases` for the bases.
        settings: `lora.r` -> 4 and so on, what a tracker calls parameters or configuration; see `settings_of`.
        id: Tells tracker runs apart on a server that several run directories share.
    """

    project: str
    group: str
    name: str
    settings: Mapping[str, Any] = field(hash=False)
    id: str


@dataclass(frozen=True)
class Point:
    """One value of a curve.

    Attributes:
        key: Name of the curve, such as train/loss or fisher/wer.
        step: Optimizer step of the training, or index of the base.
        value: The value, as the metrics log or the scores file has it.
    """

    key: str
    step: int
    value: float


class Tracker(Protocol):
    """Where tracker runs go. One thread calls it; every call may raise any exception."""

    def is_complete(self, run: TrackedRun) -> bool:
        """Says whether `finish` was called for this run, by this attempt or by an earlier one."""

    def last_steps(self, run: TrackedRun) -> dict[str, int]:
        """Returns the last step of every curve that the tracker holds of this run."""

    def write(self, run: TrackedRun, points: Sequence[Point]) -> None:
        """Writes points, with steps that rise along each curve. The first call makes the run."""

    def finish(self, run: TrackedRun) -> None:
        """Marks a run that has points as complete."""

    def close(self) -> None:
        """Ends the use of the tracker by this attempt."""


def tracked_run(config: Config, place: str, group: str, name: str) -> TrackedRun:
    """Returns the tracker run of an adapter or of the bases; `place` is the run directory or its URL."""
    digest = hashlib.sha256(f"{place}/{group}/{name}".encode()).hexdigest()
    return TrackedRun(config.run.name, group, name, settings_of(config), digest[:16])


def settings_of(config: Config) -> dict[str, Any]:
    """Returns key path -> number, word or truth value of the blocks that a tracker may know.

    Keys that a later attempt may change are left out, since a tracker keeps settings as they were first written.
    """
    leaves = dict(_leaves({block: getattr(config, block).model_dump(mode="json") for block in _SETTINGS}))
    return {key: value for key, value in leaves.items() if key not in marked(Config, "resume")}


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            found += _leaves(value, f"{prefix}{key}.")
        elif isinstance(value, (bool, int, float, str)):
            found.append((f"{prefix}{key}", value))
        elif value:
            found.append((f"{prefix}{key}", " ".join(map(str, value))))
    return found


def training_points(row: Mapping[str, Any]) -> list[Point]:
    """Returns the points of one row of a metrics log: train/loss, train/lr, ..., or dev/loss, dev/error."""
    return [
        Point(f"dev/{key.removeprefix(_DEV)}" if key.startswith(_DEV) else f"train/{key}", row["step"], value)
        for key, value in row.items() if key != "step"
    ]  # fmt: skip


def base_points(index: int, sets: Mapping[str, Mapping[str, Any]]) -> list[Point]:
    """Returns the points of one base's scores: the error rate of every test set, as `<test set>/<metric>`."""
    return [Point(f"{name}/{score['metric']}", index, score["rate"]) for name, score in sets.items()]
