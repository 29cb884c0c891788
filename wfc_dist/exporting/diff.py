"""What differs between two models: which tensors moved, by how much, and the error by test set where it was scored."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from wfc_dist.runs import layout
from wfc_dist.runs.handle import Run, open_run
from wfc_dist.runs.interim import newest_servable
from wfc_dist.runs.root import bring_base
from wfc_dist.storage.objects import is_url
from wfc_dist.weights import base_chain, checkpoint


@dataclass(frozen=True)
class Moved:
    """A tensor that is not the same in both models.

    Attributes:
        name: Of the tensor.
        relative: ||b - a|| / ||a|| (Frobenius, float64); infinite where a is zero; None where only one has it or shapes differ.
        largest: The largest |b - a| of one element; None likewise.
        why: "" for other values, else `only in A`, `only in B`, or both shapes.
    """

    name: str
    relative: float | None
    largest: float | None
    why: str = ""


@dataclass(frozen=True)
class Difference:
    """What differs between models A and B.

    Attributes:
        a, b: Their folders.
        num_tensors: Names in either.
        moved: Those that differ, the largest relative change first, what cannot be compared before it.
        relative: ||b - a|| / ||a|| over all tensors that both have in one shape.
        scores: Test set -> [score of A, score of B], the fields of `Score` and the precision that decoded it; None for a model
            that was not scored on it.
    """

    a: Path
    b: Path
    num_tensors: int
    moved: tuple[Moved, ...]
    relative: float
    scores: Mapping[str, list[Mapping[str, Any] | None]]

    def as_json(self) -> dict[str, Any]:
        """Returns the same as JSON, which has no infinite numbers: they are null."""
        moved = [{key: _finite(value) for key, value in asdict(item).items()} for item in self.moved]
        places = {"a": str(self.a), "b": str(self.b)}
        return asdict(self) | {**places, "moved": moved, "relative": _finite(self.relative)}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def diff(a: str | Path, b: str | Path) -> Difference:
    """Compares two models tensor by tensor; two tensors are in memory at a time.

    Args:
        a, b: A run directory or the URL of one (its newest base), a base's folder, any checkpoint folder, or a hub model.

    Raises:
        InputError: One of them is no model.
    """
    folders, scored = zip(*(_resolve(str(model)) for model in (a, b)), strict=True)
    where_a, where_b = (base_chain.weight_map(folder) for folder in folders)
    moved, difference, norm = [], 0.0, 0.0
    for name in sorted(where_a.keys() | where_b.keys()):
        if name not in where_a or name not in where_b:
            moved.append(Moved(name, None, None, "only in A" if name in where_a else "only in B"))
            continue
        left, right = (base_chain.read_tensor(where[name], name) for where in (where_a, where_b))
        if left.shape != right.shape:
            moved.append(Moved(name, None, None, f"{list(left.shape)} in A, {list(right.shape)} in B"))
            continue
        squared, own, largest = _distance(left, right)
        difference, norm = difference + squared, norm + own
        if largest > 0 or math.isnan(largest):
            moved.append(Moved(name, _ratio(squared, own), largest))
    moved.sort(key=lambda item: (item.relative is not None, -(item.relative or 0.0), item.name))
    sets = sorted(scored[0].keys() | scored[1].keys())
    scores = {name: [found.get(name) for found in scored] for name in sets}
    total = len(where_a.keys() | where_b.keys())
    return Difference(folders[0], folders[1], total, tuple(moved), _ratio(difference, norm), scores)


def _distance(left: torch.Tensor, right: torch.Tensor) -> tuple[float, float, float]:
    """Returns ||right - left||^2, ||left||^2 and the largest |right - left|, in float64."""
    if not left.numel():
        return 0.0, 0.0, 0.0
    own, gap = left.double(), right.double() - left.double()
    return float(gap.square().sum()), float(own.square().sum()), float(gap.abs().max())


def _ratio(squared: float, own: float) -> float:
    return math.sqrt(squared / own) if own else (math.inf if squared else 0.0)


def _resolve(model: str) -> tuple[Path, Mapping[str, Mapping[str, Any]]]:
    """Returns a model's checkpoint folder, and its scores where it is a base of a run."""
    if is_url(model):
        opened = open_run(model)
        newest = opened.base()
        bring_base(opened.mirror, newest.index)
        return newest.path, _scores(opened, newest.index)
    folder = Path(model)
    if layout.is_run(folder):
        servable = newest_servable(folder)
        return Path(servable.path), _scores(Run(folder), servable.index, servable.num_pending)
    index = layout.base_index(folder.name)
    if index is not None and layout.is_run(folder.parent):
        return Run(folder.parent).base(index).path, _scores(Run(folder.parent), index)
    return checkpoint.resolve_root(model, use="decode"), {}


def _scores(run: Run, index: int, num_pending: int = 0) -> Mapping[str, Mapping[str, Any]]:
    found = run.scores_of(index, num_pending)
    precision = run.config.evaluate.precision
    return {name: {**score, "precision": precision} for name, score in found.sets.items()} if found else {}
