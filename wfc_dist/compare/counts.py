"""The errors of every clip that the runs of a comparison decoded: all that its figures and their intervals are computed from.

`counts.json.gz` is small enough to keep beside a paper, holds no text, and gives every figure again without the runs.
"""

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import TypedDict

from wfc_dist.errors import InputError, IntegrityError
from wfc_dist.evaluation.intervals import WIDTH, columns_without_each
from wfc_dist.evaluation.rates import Rates, RunRates
from wfc_dist.storage import durable
from wfc_dist.storage.shapes import STRICT, Shape

COUNTS = "counts.json.gz"
"""Its name in the folder of a comparison."""
SCHEMA_VERSION = 1
MOST_BYTES = 1 << 28  # unpacked: a file that a stranger sends is not a way to fill the memory

Numbers = npt.NDArray[np.int64]


class _Set(TypedDict):
    __pydantic_config__ = STRICT  # type: ignore[misc]
    lengths: list[int]
    units: list[int]


class _Run(TypedDict):
    __pydantic_config__ = STRICT  # type: ignore[misc]
    system: str
    seed: int
    part: str
    norm: float
    learned: dict[str, int]
    last: int
    errors: dict[str, dict[str, list[int]]]


class _Counts(TypedDict):
    __pydantic_config__ = STRICT  # type: ignore[misc]
    schema: int
    name: str
    reference: str
    seeds: list[int]
    systems: dict[str, str]
    new: list[str]
    protected: list[str]
    confidence: float
    intervals: bool
    sets: dict[str, _Set]
    runs: list[_Run]
    num_runs: dict[str, int]


_COUNTS = Shape(_Counts)


@dataclass(frozen=True)
class CountedSet:
    """The reference of a test set.

    Attributes:
        lengths: Reference tokens of every clip, (N,).
        units: Unit of every clip, (N,), see `intervals`.
    """

    lengths: Numbers
    units: Numbers


@dataclass(frozen=True)
class CountedRun:
    """One run of a system.

    Attributes:
        system, seed: Which one.
        part: The data set of a run that trains one alone, else empty.
        norm: ||theta_T - theta_0||, Frobenius.
        learned: Test set -> the last round that learned it.
        last: Index of the last scored base.
        errors: (base index, test set) -> errors of every clip, (N,).
    """

    system: str
    seed: int
    part: str
    norm: float
    learned: Mapping[str, int]
    last: int
    errors: Mapping[tuple[int, str], Numbers]


@dataclass(frozen=True)
class Counted:
    """A comparison, as its figures need it.

    Attributes:
        name: Its name.
        reference: The system that all others are tested against.
        seeds: The planned seeds.
        systems: System -> what it is, in the order of the page.
        new, protected: Test sets.
        confidence: The share of intervals that hold the true value.
        intervals: Whether figures have intervals.
        sets: Test set -> its reference; each has a block of columns, in their order.
        runs: The runs that are done.
        num_runs: System -> how many runs it has with each seed.
    """

    name: str
    reference: str
    seeds: Sequence[int]
    systems: Mapping[str, str]
    new: Sequence[str]
    protected: Sequence[str]
    confidence: float
    intervals: bool
    sets: Mapping[str, CountedSet]
    runs: Sequence[CountedRun]
    num_runs: Mapping[str, int]

    def rates(self, run: CountedRun) -> RunRates:
        """Returns the error rates of the bases of a run, with their columns."""
        found = {key: self._with_columns(errors, key[1]) for key, errors in run.errors.items()}
        return RunRates(found, run.learned, run.last)

    def _with_columns(self, errors: Numbers, name: str) -> Rates:
        reference, place = self.sets[name], list(self.sets).index(name)
        num_columns = len(self.sets) * WIDTH if self.intervals else 0
        rates = np.full(1 + num_columns, float(errors.sum() / reference.lengths.sum()))
        if self.intervals:
            rates[1 + place * WIDTH :][:WIDTH] = columns_without_each(errors, reference.lengths, reference.units)
        return rates


def write_counts(path: Path, counted: Counted) -> None:
    """Writes `counts.json.gz`; the same counts give the same bytes."""
    runs = []
    for run in counted.runs:
        errors: dict[str, dict[str, list[int]]] = {}
        for (index, name), numbers in sorted(run.errors.items()):
            errors.setdefault(str(index), {})[name] = numbers.tolist()
        runs.append(
            {"system": run.system, "seed": run.seed, "part": run.part, "norm": run.norm, "learned": dict(run.learned),
             "last": run.last, "errors": errors}
        )  # fmt: skip
    tree = {
        "schema": SCHEMA_VERSION, "name": counted.name, "reference": counted.reference, "seeds": list(counted.seeds),
        "systems": dict(counted.systems), "new": list(counted.new), "protected": list(counted.protected),
        "confidence": counted.confidence, "intervals": counted.intervals,
        "sets": {name: {"lengths": each.lengths.tolist(), "units": each.units.tolist()} for name, each in counted.sets.items()},
        "runs": runs, "num_runs": dict(counted.num_runs),
    }  # fmt: skip
    durable.write_bytes(path, gzip.compress(json.dumps(tree, separators=(",", ":")).encode(), mtime=0))


def read_counts(path: Path) -> Counted:
    """Reads `counts.json.gz`.

    Raises:
        InputError: The file is not there.
        IntegrityError: It is damaged, or its numbers do not fit together.
    """
    try:
        with gzip.open(path) as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise ValueError(f"it unpacks to more than {MOST_BYTES >> 20} MiB")
        tree = json.loads(data)
        if fault := _COUNTS.fault(tree):
            raise ValueError(fault)
        return _counted(tree)
    except FileNotFoundError as error:
        raise InputError(f"{path} is not there; wfc compare writes it when a comparison is done") from error
    except (OSError, EOFError, ValueError, OverflowError, RecursionError, zlib.error) as error:
        raise IntegrityError(f"{path} is no file of counts ({error}); run wfc compare again, which writes it anew") from error


def _counted(tree: Any) -> Counted:
    if tree["schema"] != SCHEMA_VERSION:
        raise ValueError(f"it has schema {tree['schema']}, this version reads {SCHEMA_VERSION}")
    sets = {name: CountedSet(np.array(each["lengths"], np.int64), np.array(each["units"], np.int64))
            for name, each in tree["sets"].items()}  # fmt: skip
    for name, each in sets.items():
        if each.lengths.size == 0 or each.lengths.shape != each.units.shape or each.lengths.sum() <= 0 or each.units.min() < 0:
            raise ValueError(f"the lengths and units of {name} do not fit")
        if sorted(set(each.units.tolist())) != list(range(int(each.units.max()) + 1)):
            raise ValueError(f"the units of {name} are not numbered from 0")
    if unknown := [name for name in tree["systems"] if name not in tree["num_runs"]]:
        raise ValueError(f"num_runs says nothing of {unknown[0]}")
    for key in ("new", "protected"):
        if unknown := [name for name in tree[key] if name not in sets]:
            raise ValueError(f"{key} names {unknown[0]}, which has no counts")
    runs = []
    for run in tree["runs"]:
        errors = {(int(index), name): np.array(numbers, np.int64)
                  for index, of_sets in run["errors"].items() for name, numbers in of_sets.items()}  # fmt: skip
        for (index, name), numbers in errors.items():
            if name not in sets or numbers.shape != sets[name].lengths.shape or numbers.min() < 0:
                raise ValueError(f"the errors of {run['system']}, base {index}, on {name} do not fit")
        runs.append(CountedRun(run["system"], run["seed"], run["part"], run["norm"], run["learned"], run["last"], errors))
    return Counted(
        tree["name"], tree["reference"], tree["seeds"], tree["systems"], tree["new"], tree["protected"], tree["confidence"],
        tree["intervals"], sets, runs, tree["num_runs"],
    )  # fmt: skip
