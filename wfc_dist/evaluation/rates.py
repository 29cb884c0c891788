"""Error rates of bases on test sets, each with its columns (see `intervals`), paired over all models that one reader reads.

Letters of shapes: C columns. Rates are (C,): the rate itself, then the rate without each unit of each test set. All rates of a
test set leave out the same units, so that differences of rates are paired.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wfc_dist.config.schema import Config
from wfc_dist.errors import IntegrityError
from wfc_dist.evaluation.hypotheses import Hypothesis, count_hypotheses, read_hypotheses
from wfc_dist.evaluation.intervals import WIDTH, Columns
from wfc_dist.evaluation.matrix import ScoredModel, ScoreMatrix
from wfc_dist.evaluation.metrics import Counts
from wfc_dist.evaluation.normalize import spelling_table
from wfc_dist.runs.handle import Run

Rates = Columns


class OtherClipsError(IntegrityError):
    """Two models were scored on different clips of a test set."""


@dataclass(frozen=True)
class RunRates:
    """The error rates of the bases of one run.

    Attributes:
        rates: (base index, test set) -> (C,).
        learned: Test set -> the last round that learned it.
        last: Index of the last scored base.
    """

    rates: Mapping[tuple[int, str], Rates]
    learned: Mapping[str, int]
    last: int


class RateReader:
    """Reads what models wrote, and counts the errors of every text once.

    Args:
        config: Its `evaluate` block says how texts are scored; each of its test sets has a block of columns, in their order.
        intervals: Whether rates have columns for intervals; as `evaluate.intervals` says by default.
    """

    def __init__(self, config: Config, *, intervals: bool | None = None) -> None:
        self._evaluate = config.evaluate
        self._intervals = self._evaluate.intervals if intervals is None else intervals
        self._places = {name: place for place, name in enumerate(config.test_sets())}
        self._blocks = {name: config.evaluate.of(dataset) for name, dataset in config.test_sets().items()}
        self._spelling: dict[Path, dict[str, str]] = {}
        self._counts: dict[tuple[str, str], Counts] = {}
        self._rates: dict[tuple[str, str], Rates] = {}
        self._first: dict[str, Counts] = {}
        self._precision: tuple[str, Path] | None = None

    @property
    def num_units(self) -> dict[str, int]:
        """Returns test set -> its units, for the sets whose rates were read."""
        return {name: counts.num_units for name, counts in self._first.items()}

    def run(self, matrix: ScoreMatrix) -> RunRates:
        """Returns the rates of all bases of a run on all sets that they were scored on.

        Raises:
            InputError, IntegrityError: As `rates`.
        """
        rates = {
            (index, name): self.rates(base, name)
            for index, base in matrix.bases.items()
            for name in base.scores
            if name in self._places
        }
        return RunRates(rates, matrix.learned, matrix.last)

    def rates(self, model: ScoredModel, name: str) -> Rates:
        """Returns the rate of a model on a test set of the configuration, with its columns, (C,).

        Raises:
            InputError: There are no hypotheses, or they have no reference token.
            OtherClipsError: A model read before was scored on other clips of the set, or in other windows.
            IntegrityError: The hypotheses are damaged, or were decoded in another precision than those read before.
        """
        key, _, counts = self._read(model, name)
        if key not in self._rates:
            first = self._first.setdefault(name, counts)
            if not all(np.array_equal(getattr(first, part), getattr(counts, part)) for part in ("lengths", "units")):
                path = model.hypotheses(name)
                raise OtherClipsError(f"{path}: {name} has other clips than in the other runs; remove the run and compare again")
            self._rates[key] = self._with_columns(counts, self._places[name])
        return self._rates[key]

    def unknown(self, rate: float) -> Rates:
        """Returns a rate whose texts are not there, (C,): what is computed from it has no interval."""
        return np.concatenate([[rate], np.full(self._num_columns, np.nan)])

    @property
    def _num_columns(self) -> int:
        return len(self._places) * WIDTH if self._intervals else 0

    def _with_columns(self, counts: Counts, place: int) -> Rates:
        rates = np.full(1 + self._num_columns, counts.rate)
        if self._intervals:
            rates[1 + place * WIDTH :][:WIDTH] = counts.columns()[1:]
        return rates

    def texts(self, model: ScoredModel, name: str) -> tuple[list[Hypothesis], Counts]:
        """Returns what a model wrote for a test set, and the errors of every clip. Raises InputError, IntegrityError."""
        return self._read(model, name)[1:]

    def spelling(self, run_dir: Path) -> dict[str, str]:
        """Returns the spelling table that the scores of a run were made with: that of its root; empty without base 0."""
        if run_dir not in self._spelling:
            root = Run(run_dir).find_base(0)
            self._spelling[run_dir] = spelling_table(root.path) if root is not None else {}
        return self._spelling[run_dir]

    def _read(self, model: ScoredModel, name: str) -> tuple[tuple[str, str], list[Hypothesis], Counts]:
        header, hypotheses = read_hypotheses(model.hypotheses(name))
        self._require_precision(header, model.hypotheses(name))
        key = (name, header["model_sha256"])
        if key not in self._counts:
            self._counts[key] = count_hypotheses(hypotheses, self._blocks.get(name, self._evaluate), self.spelling(model.run_dir))
        return key, hypotheses, self._counts[key]

    def _require_precision(self, header: Mapping[str, Any], path: Path) -> None:
        precision = header.get("decoding", {}).get("precision", "fp32")
        first, where = self._precision = self._precision or (precision, path)
        if precision != first:
            raise IntegrityError(
                f"{path} was decoded in {precision}, {where} in {first}: their errors differ by the precision, too; set "
                "evaluate.precision to one of them for all runs, and score anew what has the other"
            )
