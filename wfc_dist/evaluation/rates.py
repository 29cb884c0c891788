"""Error rates of bases on test sets, each with its bootstrap draws, paired over all models that one reader reads.

Letters of shapes: S bootstrap samples. Rates are (1 + S,): the rate itself, then the rate on every resample of the set's clips.
All rates of a test set are of the same resamples, so that differences of rates are paired.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wfc_dist.config.schema import Config
from wfc_dist.errors import IntegrityError
from wfc_dist.evaluation.hypotheses import Hypothesis, count_hypotheses, read_hypotheses
from wfc_dist.evaluation.matrix import ScoredModel, ScoreMatrix
from wfc_dist.evaluation.metrics import Counts, bootstrap_rates
from wfc_dist.evaluation.normalize import spelling_table
from wfc_dist.runs.handle import Run

Rates = npt.NDArray[np.float64]
_SEED = 1


class OtherClipsError(IntegrityError):
    """Two models were scored on different clips of a test set."""


@dataclass(frozen=True)
class RunRates:
    """The error rates of the bases of one run.

    Attributes:
        rates: (base index, test set) -> (1 + S,).
        learned: Test set -> the last round that learned it.
        last: Index of the last scored base.
    """

    rates: Mapping[tuple[int, str], Rates]
    learned: Mapping[str, int]
    last: int


class RateReader:
    """Reads what models wrote; counts the errors of every text once, and draws the resamples of every model and set once.

    Args:
        config: Its `evaluate` block says how texts are scored. The place of a set among its test sets is the seed of the set:
            every model is resampled alike on a set, and every set on its own.
        num_samples: S; `evaluate.bootstrap_samples` by default.
    """

    def __init__(self, config: Config, num_samples: int | None = None) -> None:
        self._evaluate = config.evaluate
        self._num_samples = self._evaluate.bootstrap_samples if num_samples is None else num_samples
        self._seeds = {name: _SEED + place for place, name in enumerate(config.test_sets())}
        self._blocks = {name: config.evaluate.of(dataset) for name, dataset in config.test_sets().items()}
        self._spelling: dict[Path, dict[str, str]] = {}
        self._counts: dict[tuple[str, str], Counts] = {}
        self._rates: dict[tuple[str, str], Rates] = {}
        self._lengths: dict[str, npt.NDArray[np.int64]] = {}

    def run(self, matrix: ScoreMatrix) -> RunRates:
        """Returns the rates of all bases of a run on all sets that they were scored on.

        Raises:
            InputError, IntegrityError: As `rates`.
        """
        rates = {(index, name): self.rates(base, name) for index, base in matrix.bases.items() for name in base.scores}
        return RunRates(rates, matrix.learned, matrix.last)

    def rates(self, model: ScoredModel, name: str) -> Rates:
        """Returns the rate of a model on a test set and its draws, (1 + S,).

        Raises:
            InputError: There are no hypotheses, or they have no reference token.
            OtherClipsError: A model read before was scored on other clips of the set.
            IntegrityError: The hypotheses are damaged.
        """
        key, _, counts = self._read(model, name)
        if key not in self._rates:
            if not np.array_equal(self._lengths.setdefault(name, counts.lengths), counts.lengths):
                path = model.hypotheses(name)
                raise OtherClipsError(f"{path}: {name} has other clips than in the other runs; remove the run and compare again")
            seed = self._seeds.setdefault(name, _SEED + len(self._seeds))
            draws = bootstrap_rates([counts], self._num_samples, seed)[0]
            self._rates[key] = np.concatenate([[counts.rate], draws])
        return self._rates[key]

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
        key = (name, header["model_sha256"])
        if key not in self._counts:
            self._counts[key] = count_hypotheses(hypotheses, self._blocks.get(name, self._evaluate), self.spelling(model.run_dir))
        return key, hypotheses, self._counts[key]
