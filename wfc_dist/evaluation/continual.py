"""The figures of continual learning: what was learned, kept and passed on, each a function of error rates with its formula.

R[t][j] is the error of base t on test set j, t_j the round that learned j, T the last base, p a protected set. A system of
several runs (each data set alone on the root) is the mean over its runs. Letters of shapes: C columns, see `rates`.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wfc_dist.evaluation.intervals import TOO_FEW, Estimated, Scale, corrected, estimated, mark
from wfc_dist.evaluation.matrix import ScoreMatrix
from wfc_dist.evaluation.rates import OtherClipsError, RateReader, Rates, RunRates


@dataclass(frozen=True)
class SystemRates:
    """The error rates of one system with one seed.

    Attributes:
        runs: The runs of the system, one or several.
        new: The new sets, each learned by one of the runs.
        protected: The sets that nobody trains on.
    """

    runs: Sequence[RunRates]
    new: Sequence[str]
    protected: Sequence[str]

    def each(self, names: Sequence[str]) -> Iterator[tuple[RunRates, str]]:
        """Yields every run with every set."""
        return ((run, name) for run in self.runs for name in names)


@dataclass(frozen=True)
class Figure:
    """How a figure is computed.

    Attributes:
        formula: In the letters of the matrix R[base][set].
        of: Rates of a system -> (C,).
        higher_is_better: Else lower is.
        is_change: Whether the figure compares bases, so that the figure of the root is 0.
    """

    formula: str
    of: Callable[[SystemRates], Rates]
    higher_is_better: bool = False
    is_change: bool = True


class _NoSetError(Exception):
    """The figure does not exist: there is no set to average over."""


def _mean(rates: Iterable[Rates]) -> Rates:
    listed = list(rates)
    if not listed:
        raise _NoSetError
    mean: Rates = np.mean(listed, axis=0)
    return mean


def _own(system: SystemRates) -> Rates:
    learned = ((run, name) for run, name in system.each(system.new) if name in run.learned)
    return _mean(run.rates[run.learned[name], name] for run, name in learned)


def _new(system: SystemRates) -> Rates:
    return _mean(run.rates[run.last, name] for run, name in system.each(system.new))


def _protected(system: SystemRates) -> Rates:
    return _mean(run.rates[run.last, name] for run, name in system.each(system.protected))


def _relative(names: str) -> Callable[[SystemRates], Rates]:
    """Returns the ratio of means minus 1 over the sets of an attribute, `new` or `protected`: long and hard sets weigh more."""

    def of(system: SystemRates) -> Rates:
        sets = list(system.each(getattr(system, names)))
        return _mean(run.rates[run.last, name] for run, name in sets) / _mean(run.rates[0, name] for run, name in sets) - 1

    return of


def _relative_each(names: str) -> Callable[[SystemRates], Rates]:
    """Returns the mean of ratios minus 1: every set weighs the same, however small its error is."""
    return lambda system: _mean(
        run.rates[run.last, name] / run.rates[0, name] - 1 for run, name in system.each(getattr(system, names))
    )


def _learned_before_last(system: SystemRates) -> Iterator[tuple[RunRates, str, int]]:
    """Yields run, set and t_j of the sets that a later round could make worse."""
    learned = ((run, name, run.learned.get(name, run.last)) for run, name in system.each(system.new))
    return ((run, name, index) for run, name, index in learned if 0 < index < run.last)


def _backward_transfer(system: SystemRates) -> Rates:
    return _mean(run.rates[index, name] - run.rates[run.last, name] for run, name, index in _learned_before_last(system))


def _forward_transfer(system: SystemRates) -> Rates:
    learned = ((run, name, run.learned.get(name, 0)) for run, name in system.each(system.new))
    return _mean(run.rates[0, name] - run.rates[index - 1, name] for run, name, index in learned if index > 1)


def _forgotten(run: RunRates, name: str, first: int) -> Rates:
    """Returns the error of the last base less the least of the bases `first` to T - 1 that were scored on the set."""
    earlier = [rates for (index, of_set), rates in run.rates.items() if of_set == name and first <= index < run.last]
    if not earlier:
        raise _NoSetError
    best = min(earlier, key=lambda rates: rates[0])  # chosen by the rate itself: the least of every column would be biased
    return run.rates[run.last, name] - best


FIGURES: Mapping[str, Figure] = {
    "own": Figure("mean_j R[t_j][j], right after the round that learned j", _own, is_change=False),
    "new": Figure("mean_j R[T][j] over the new sets", _new, is_change=False),
    "protected": Figure("mean_p R[T][p] over the protected sets", _protected, is_change=False),
    "new_relative": Figure(
        "mean_j R[T][j] / mean_j R[0][j] - 1 over the new sets: a ratio of means, negative is better", _relative("new")
    ),
    "new_relative_each": Figure(
        "mean_j (R[T][j] / R[0][j] - 1) over the new sets: a mean of ratios, negative is better", _relative_each("new")
    ),
    "protected_relative": Figure(
        "mean_p R[T][p] / mean_p R[0][p] - 1 over the protected sets: a ratio of means, negative is better (the paper's backward "
        "figure)",
        _relative("protected"),
    ),
    "protected_relative_each": Figure(
        "mean_p (R[T][p] / R[0][p] - 1) over the protected sets: a mean of ratios, negative is better",
        _relative_each("protected"),
    ),
    "bwt": Figure(
        "mean_j (R[t_j][j] - R[T][j]) over the new sets learned before round T, positive is better (arXiv 1706.08840)",
        _backward_transfer, higher_is_better=True,
    ),
    "fwt": Figure(
        "mean_j (R[0][j] - R[t_j - 1][j]) over the new sets learned after round 1, positive is better (arXiv 1706.08840, "
        "the root in place of a random model)",
        _forward_transfer, higher_is_better=True,
    ),
    "forgetting": Figure(
        "mean_j (R[T][j] - min_t R[t][j]) over the new sets learned before round T, 0 < t < T over the bases scored on j; "
        "lower is better (arXiv 1801.10112)",
        lambda system: _mean(_forgotten(run, name, 1) for run, name, _ in _learned_before_last(system)),
    ),
    "forgetting_protected": Figure(
        "mean_p (R[T][p] - min_t R[t][p]) over the protected sets, 0 <= t < T over the bases scored on p; lower is better",
        lambda system: _mean(_forgotten(run, name, 0) for run, name in system.each(system.protected)),
    ),
}  # fmt: skip

OF_A_RUN = ("new_relative", "new_relative_each", "protected_relative", "protected_relative_each", "bwt")
"""The figures of a single run so far."""
_BWT = "backward transfer"  # no name of a set: it has a space


def scale_of(name: str) -> Scale:
    """Returns on which scale a figure has its interval."""
    return "rate" if not FIGURES[name].is_change else "change" if "_relative" in name else "difference"


@np.errstate(divide="ignore", invalid="ignore")  # a relative change of a rate of zero
def figures(system: SystemRates, names: Iterable[str] = FIGURES) -> dict[str, Rates]:
    """Returns figure -> (C,); a figure that does not exist is left out: FWT after one round, what needs a base not scored."""
    made = {}
    for name in names:
        with contextlib.suppress(_NoSetError, KeyError):  # no rate of a base in between
            made[name] = FIGURES[name].of(system)
    return made


def untouched(run: RunRates, new: Sequence[str], protected: Sequence[str]) -> dict[str, Rates]:
    """Returns the figures of the root, from any run."""
    rates = {(index, name): rates for (index, name), rates in run.rates.items() if index == 0}
    root = SystemRates([RunRates(rates, dict.fromkeys(new, 0), 0)], new, protected)
    return {name: np.zeros_like(made) if FIGURES[name].is_change else made for name, made in figures(root).items()}


@dataclass(frozen=True)
class Estimate:
    """A figure of one run.

    Attributes:
        name: One of FIGURES.
        value: The figure; None when there is nothing to compute it from, or it is no number.
        low, high: Its interval; None without hypotheses on disk, or where there is none (see `intervals.limits`).
        over: The sets that the figure is computed from, or what is missing.
        num_units: Units of all these sets; 0 without an interval.
        mark: See `intervals.mark`; of backward transfer only, else "".
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    over: str
    num_units: int = 0
    mark: str = ""


@dataclass(frozen=True)
class Change:
    """One test set, base 0 against base T.

    Attributes:
        name: Of the set.
        protected: Whether nobody trains on it.
        before, after: The rates.
        difference: after - before; its interval and p are None without hypotheses on disk.
        p_holm: p, corrected for all marks of the page; None without p, and with few units.
        num_units: Units of the set; None without hypotheses on disk.
        verdict: improved, worse or unchanged (beyond chance or not), `too few to say`; unknown without an interval.
    """

    name: str
    protected: bool
    before: float
    after: float
    difference: Estimated
    p_holm: float | None
    num_units: int | None
    verdict: str


@dataclass(frozen=True)
class Summary:
    """What a run learned and forgot so far.

    Attributes:
        last: T, the index of the last scored base.
        estimates: New sets, protected sets, BWT; each with its interval.
        changes: Every learned and every protected set, base 0 against base T.
        num_marks: Comparisons that Holm's correction counts: the changes, and backward transfer.
    """

    last: int
    estimates: list[Estimate]
    changes: list[Change]
    num_marks: int

    @property
    def sentence(self) -> str:
        """Returns one sentence: how many sets improved or got worse, counted only if they did so beyond chance."""
        if not self.changes:
            return "No round has been scored yet."
        parts = []
        for label, protected in (("learned", False), ("protected", True)):
            verdicts = [change.verdict for change in self.changes if change.protected == protected]
            words = [word for word in ("improved", "worse", "unchanged", TOO_FEW, "unknown") if word in verdicts]
            counted = [f"{verdicts.count(word)} {word}" for word in words]
            if verdicts:
                parts.append(f"of {len(verdicts)} {label} set{'s' * (len(verdicts) > 1)}, {', '.join(counted)}")
        return f"From base 0 to base {self.last}: " + "; ".join(parts) + "."


def summarize(matrix: ScoreMatrix, reader: RateReader | None = None) -> Summary:
    """Returns estimates and changes of a run so far; `reader`, a new one by default, reads the hypotheses for the intervals."""
    return _Summarizer(matrix, reader or RateReader(matrix.config)).summary()


class _Summarizer:
    def __init__(self, matrix: ScoreMatrix, reader: RateReader) -> None:
        self._matrix, self._reader, self._confidence = matrix, reader, matrix.config.evaluate.confidence
        self._new = [name for name, index in matrix.learned.items() if self._are_scored(name, {0, index, matrix.last})]
        self._protected = [name for name in matrix.protected if matrix.last and self._are_scored(name, {0, matrix.last})]
        needed = {(index, name) for name in self._new for index in (0, matrix.learned[name], matrix.last)}
        needed |= {(index, name) for name in self._protected for index in (0, matrix.last)}
        self._rates = RunRates({key: self._read(*key) for key in sorted(needed)}, matrix.learned, matrix.last)

    def _are_scored(self, name: str, indices: set[int]) -> bool:
        return all(index in self._matrix.bases and name in self._matrix.bases[index].scores for index in indices)

    def _read(self, index: int, name: str) -> Rates:
        """Returns the rate that was scored, with its columns; they are no numbers where there are none of the same clips."""
        base = self._matrix.bases[index]
        if base.hypotheses(name).is_file():
            with contextlib.suppress(OtherClipsError):
                return self._reader.rates(base, name)
        return self._reader.unknown(base.scores[name].rate)

    def summary(self) -> Summary:
        made = figures(SystemRates([self._rates], self._new, self._protected), OF_A_RUN)
        found = {name: estimated(self._change(name), self._confidence, "difference") for name in [*self._new, *self._protected]}
        transfer = {_BWT: estimated(made["bwt"], self._confidence, "difference")} if "bwt" in made else {}
        chances = corrected(found | transfer)
        estimates = [self._estimate(name, made.get(name), chances.get(_BWT)) for name in OF_A_RUN]
        changes = [self._judged(name, each, chances.get(name)) for name, each in found.items()]
        return Summary(self._matrix.last, estimates, changes, len(chances))

    def _estimate(self, name: str, rates: Rates | None, p: float | None) -> Estimate:
        last, learned = self._matrix.last, self._matrix.learned
        if name == "bwt":
            names = [found for found in self._new if learned[found] < last]
            over = f"T = {last}; {', '.join(names)}; t_j: the round that learned j"
            missing = f"no set was learned before round {last}, the last that is scored"
        else:
            names = self._protected if name.startswith("protected") else self._new
            over, missing = f"T = {last}; {', '.join(names)}", "no such set has been scored after a round"
        if rates is None:
            return Estimate(name, None, None, None, missing)
        metric = self._matrix.config.metric_record(names)
        if isinstance(metric, dict):
            over += f"; a mean of error rates, {' and '.join(sorted(map(str.upper, set(metric.values()))))}"
        found = estimated(rates, self._confidence, scale_of(name))
        value = found.value if np.isfinite(found.value) else None
        judged = mark(found, p, self._confidence) if name == "bwt" and found.p is not None else ""
        return Estimate(name, value, found.low, found.high, over, found.num_units, judged)

    def _change(self, name: str) -> Rates:
        difference: Rates = self._rates.rates[self._matrix.last, name] - self._rates.rates[0, name]
        return difference

    def _judged(self, name: str, found: Estimated, p: float | None) -> Change:
        before, after = (float(self._rates.rates[index, name][0]) for index in (0, self._matrix.last))
        num_units = self._reader.num_units.get(name) if found.num_units else None
        marked = mark(found, p, self._confidence)
        verdict = {"lower": "improved", "higher": "worse", "same": "unchanged" if p is not None else "unknown"}.get(
            marked, marked
        )
        return Change(
            name, name in self._protected, before, after, found, p, num_units, verdict if num_units is not None else "unknown"
        )
