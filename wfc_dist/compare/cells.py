"""Error rates of all bases of all runs of a comparison, each with its bootstrap draws, paired over everything that is compared.

Letters of shapes: S bootstrap samples. A cell is (1 + S,): the rate itself, then the rate on every resample of the set's clips;
all cells of a test set are resampled alike, so that differences of cells are paired.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wfc_dist.config.schema import EvaluateConfig
from wfc_dist.errors import IntegrityError
from wfc_dist.evaluation.hypotheses import count_hypotheses, read_hypotheses
from wfc_dist.evaluation.matrix import read_matrix
from wfc_dist.evaluation.metrics import Counts, bootstrap_rates
from wfc_dist.evaluation.normalize import spelling_table
from wfc_dist.runs.layout import read_base

Cell = npt.NDArray[np.float64]
_SEED = 1


@dataclass(frozen=True)
class RunCells:
    """What one run was scored on.

    Attributes:
        cells: (base index, test set) -> cell.
        learned: Test set -> round that learned it, as the run's rounds say; a set made of parts teaches itself and every part.
        last: Index of the last base.
    """

    cells: Mapping[tuple[int, str], Cell]
    learned: Mapping[str, int]
    last: int


class CellReader:
    """Reads runs; counts every file of texts once, and draws every test set's resamples once.

    Args:
        evaluate: How texts are scored, the same for all runs.
    """

    def __init__(self, evaluate: EvaluateConfig) -> None:
        self._evaluate = evaluate
        self._cells: dict[tuple[str, str], Cell] = {}
        self._clips: dict[str, npt.NDArray[np.int64]] = {}

    def read(self, run_dir: Path) -> RunCells:
        """Returns the cells of a finished run.

        Raises:
            IntegrityError: Runs that were scored on different clips of a set.
        """
        matrix = read_matrix(run_dir)
        entry = read_base(run_dir, 0)
        assert entry is not None, "a finished run has base 0"
        spelling = spelling_table(Path(entry[0].path))
        cells = {}
        for index, column in matrix.bases.items():
            for name in column.scores:
                cells[index, name] = self._cell(column.folder / f"{name}.jsonl", name, spelling)
        return RunCells(cells, matrix.learned, matrix.last)

    def _cell(self, path: Path, name: str, spelling: Mapping[str, str]) -> Cell:
        header, hypotheses = read_hypotheses(path)
        key = (name, header["model_sha256"])
        if key not in self._cells:
            counts = count_hypotheses(hypotheses, self._evaluate, spelling)
            if not np.array_equal(self._clips.setdefault(name, counts.lengths), counts.lengths):
                raise IntegrityError(f"{path}: {name} has other clips than in the other runs; remove the run and compare again")
            self._cells[key] = self._drawn(counts, name)
        return self._cells[key]

    def _drawn(self, counts: Counts, name: str) -> Cell:
        seed = _SEED + list(self._clips).index(name)  # the same picks for every system; other picks for every set
        draws = bootstrap_rates([counts], self._evaluate.bootstrap_samples, seed)[0]
        return np.concatenate([[counts.rate], draws])
