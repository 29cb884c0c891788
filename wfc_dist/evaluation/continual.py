"""What was learned and what was forgotten: BWT, the paper's backward figure and the gain on new sets, with intervals."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wfc_dist.evaluation.hypotheses import count_hypotheses, read_hypotheses
from wfc_dist.evaluation.matrix import Column, Matrix
from wfc_dist.evaluation.metrics import Counts, Difference, bootstrap_rates, interval
from wfc_dist.evaluation.normalize import spelling_table

Rates = npt.NDArray[np.float64]  # (J,) or (J, S): test sets, bootstrap samples
VERDICTS = ("improved", "worse", "unchanged", "unknown")
_SEED = 1

BWT_FORMULA = "mean_j (R[j][j] - R[T][j]), j over the learned sets; positive is better"
BACKWARD_FORMULA = "mean_p R[T][p] / mean_p R[0][p] - 1, p over the protected sets; negative is better"
NEW_FORMULA = "mean_j (R[T][j] / R[0][j] - 1), j over the learned sets; negative is better"


@dataclass(frozen=True)
class Figure:
    """One number about a run.

    Attributes:
        name: What it is called.
        value: A difference of rates (BWT) or a relative change; None when there is nothing to compute it from.
        low, high: Bootstrap interval over the utterances of every set; None without hypotheses on disk or samples.
        unit: `points` of the metric's percent, or `%`.
        formula: In the letters of the matrix R[base][set]; R[j][j] is the error right after the round that learned j.
        over: The sets it is made of, or what is missing.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    unit: str
    formula: str
    over: str

    @property
    def text(self) -> str:
        """Returns `+1.2 points [0.3, 2.0]`, or `-` without a value."""
        if self.value is None:
            return "-"
        between = f" [{100 * self.low:+.1f}, {100 * self.high:+.1f}]" if self.low is not None and self.high is not None else ""
        return f"{100 * self.value:+.1f} {self.unit}{between}"


@dataclass(frozen=True)
class Change:
    """One test set, base 0 against base T; `difference` is None without hypotheses on disk or samples."""

    name: str
    protected: bool
    before: float
    after: float
    difference: Difference | None

    @property
    def verdict(self) -> str:
        """Returns improved, worse or unchanged (the interval includes zero); unknown without an interval."""
        if self.difference is None:
            return "unknown"
        return "improved" if self.difference.improved else "worse" if self.difference.worse else "unchanged"


def _bwt(before: Rates, after: Rates) -> Rates:
    return (before - after).mean(axis=0)


def _backward(before: Rates, after: Rates) -> Rates:
    return after.mean(axis=0) / before.mean(axis=0) - 1


def _new(before: Rates, after: Rates) -> Rates:
    return (after / before - 1).mean(axis=0)


Pairs = Mapping[str, tuple[Column, Column]]


def _both(matrix: Matrix, start: Mapping[str, int]) -> dict[str, tuple[Column, Column]]:
    """Returns set -> (base start[set], base T) where both have scored it; nothing before the first round is scored."""
    last = matrix.bases.get(matrix.last) if matrix.last else None
    pairs = {}
    for name, index in start.items():
        first = matrix.bases.get(index)
        if first is not None and last is not None and name in first.scores and name in last.scores:
            pairs[name] = (first, last)
    return pairs


def bwt_pairs(matrix: Matrix) -> dict[str, tuple[Column, Column]]:
    """Returns learned set -> (the base right after the round that learned it, base T)."""
    return _both(matrix, matrix.learned)


def _value(pairs: Pairs, formula: Callable[[Rates, Rates], Rates]) -> float | None:
    if not pairs:
        return None
    before = np.array([first.scores[name].rate for name, (first, _) in pairs.items()])
    after = np.array([last.scores[name].rate for name, (_, last) in pairs.items()])
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(formula(before, after))
    return value if np.isfinite(value) else None  # a relative change of a rate of zero


def bwt(matrix: Matrix) -> float | None:
    """Returns mean_j (R[j][j] - R[T][j]) over the learned sets, a difference of rates; None before the first round."""
    return _value(bwt_pairs(matrix), _bwt)


def backward_relative(matrix: Matrix) -> float | None:
    """Returns mean_p R[T][p] / mean_p R[0][p] - 1 over the protected sets (the paper's figure); None without any."""
    return _value(_both(matrix, dict.fromkeys(matrix.protected, 0)), _backward)


def new_relative(matrix: Matrix) -> float | None:
    """Returns mean_j (R[T][j] / R[0][j] - 1) over the learned sets; None before the first round."""
    return _value(_both(matrix, dict.fromkeys(matrix.learned, 0)), _new)


class _Draws:
    """Paired bootstrap rates from the hypotheses on disk; every set is resampled on its own."""

    def __init__(self, matrix: Matrix) -> None:
        self._evaluate = matrix.config.evaluate
        self._spelling: dict[str, str] | None = None
        self._counts: dict[Path, Counts] = {}
        self._seeds = {name: _SEED + number for number, name in enumerate(matrix.config.test_sets())}

    def _count(self, path: Path) -> Counts:
        if path not in self._counts:
            if self._spelling is None:
                self._spelling = spelling_beside(path)
            self._counts[path] = count_hypotheses(read_hypotheses(path)[1], self._evaluate, self._spelling)
        return self._counts[path]

    def pair(self, name: str, pair: tuple[Column, Column]) -> tuple[Rates, Rates] | None:
        """Returns rates of both on the same resamples, each (S,); None without hypotheses of the same two or more clips."""
        paths = [column.folder / f"{name}.jsonl" for column in pair]
        if not self._evaluate.bootstrap_samples or not all(path.is_file() for path in paths):
            return None
        counts = [self._count(path) for path in paths]
        if len(counts[0].lengths) != len(counts[1].lengths) or len(counts[0].lengths) < 2:
            return None
        before, after = bootstrap_rates(counts, self._evaluate.bootstrap_samples, self._seeds[name])
        return before, after

    def figure(self, pairs: Pairs, formula: Callable[[Rates, Rates], Rates], value: float | None) -> tuple[float, float] | None:
        """Returns the interval of a figure over several sets."""
        drawn = [self.pair(name, pair) for name, pair in pairs.items()]
        found = [item for item in drawn if item is not None]
        if value is None or len(found) < len(drawn):
            return None
        with np.errstate(divide="ignore", invalid="ignore"):
            draws = formula(np.stack([item[0] for item in found]), np.stack([item[1] for item in found]))
        return interval(draws, value, self._evaluate.confidence)


def spelling_beside(hypotheses_path: Path) -> dict[str, str]:
    """Returns the spelling table of the run these hypotheses lie in; scores were made with its root's."""
    from wfc_dist.runs.layout import read_base

    entry = read_base(hypotheses_path.parents[3], 0)
    return spelling_table(Path(entry[0].path)) if entry else {}


def _figures(matrix: Matrix, draws: _Draws) -> list[Figure]:
    learned, protected = dict.fromkeys(matrix.learned, 0), dict.fromkeys(matrix.protected, 0)
    made = []
    for name, starts, formula, unit, text in (
        ("new sets", learned, _new, "%", NEW_FORMULA),
        ("protected sets (backward, relative)", protected, _backward, "%", BACKWARD_FORMULA),
        ("backward transfer (BWT)", matrix.learned, _bwt, "points", BWT_FORMULA),
    ):
        pairs = _both(matrix, starts)
        value = _value(pairs, formula)
        low, high = draws.figure(pairs, formula, value) or (None, None)
        over = f"T = {matrix.last}; {', '.join(pairs)}" if pairs else "no such set has been scored after a round"
        if formula is _bwt and (zeros := sum(first.index == matrix.last for first, _ in pairs.values())):
            over += f"; {zeros} learned in round {matrix.last} itself count as 0"
        made.append(Figure(name, value, low, high, unit, text, over))
    return made


def _changes(matrix: Matrix, draws: _Draws) -> list[Change]:
    made, confidence = [], matrix.config.evaluate.confidence
    for name, pair in _both(matrix, dict.fromkeys([*matrix.learned, *matrix.protected], 0)).items():
        before, after = (column.scores[name].rate for column in pair)
        drawn = draws.pair(name, pair)
        difference = Difference(after - before, *interval(drawn[1] - drawn[0], after - before, confidence)) if drawn else None
        made.append(Change(name, name in matrix.protected, before, after, difference))
    return made


@dataclass(frozen=True)
class Summary:
    """What a run learned and forgot so far.

    Attributes:
        last: T, the index of the last scored base.
        figures: New sets, protected sets, BWT; each with its formula and interval.
        changes: Every learned and every protected set, base 0 against base T.
    """

    last: int
    figures: list[Figure]
    changes: list[Change]

    @property
    def sentence(self) -> str:
        """Returns one sentence: how many sets improved or got worse, counted only if the interval excludes zero."""
        if not self.changes:
            return "No round has been scored yet."
        parts = []
        for label, protected in (("learned", False), ("protected", True)):
            verdicts = [change.verdict for change in self.changes if change.protected == protected]
            said = [
                f"{verdicts.count(word)} {word}" for word in ("improved", "worse", "unchanged", "unknown") if word in verdicts
            ]
            if verdicts:
                parts.append(f"of {len(verdicts)} {label} set{'s' * (len(verdicts) > 1)}, {', '.join(said)}")
        return f"From base 0 to base {self.last}: " + "; ".join(parts) + "."


def summarize(matrix: Matrix) -> Summary:
    """Returns figures and changes; reads the hypotheses of the bases concerned once, for the intervals."""
    draws = _Draws(matrix)
    return Summary(matrix.last, _figures(matrix, draws), _changes(matrix, draws))
