"""Makes the rows of a comparison from its runs: figures of every system, intervals, and differences to the reference."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wfc_dist.compare.counts import Counted, CountedRun, CountedSet, Numbers
from wfc_dist.compare.settings import UNTOUCHED, Comparison, PlannedRun
from wfc_dist.evaluation.continual import FIGURES, SystemRates, figures, scale_of, untouched
from wfc_dist.evaluation.intervals import TOO_FEW, Estimated, corrected, estimated, mark
from wfc_dist.evaluation.matrix import read_matrix
from wfc_dist.evaluation.rates import RateReader, Rates
from wfc_dist.merging.factors import squared_sum
from wfc_dist.runs import layout, opening
from wfc_dist.runs.handle import Run
from wfc_dist.weights import base_chain


@dataclass(frozen=True)
class Value:
    """A figure of one system, the mean over its seeds.

    Attributes:
        value: A rate, or a difference or ratio of rates.
        low, high: Its interval over the units of the sets and, with several, over the seeds; None where there is none.
        seed_deviation: Standard deviation over the seeds; None with one.
        difference, difference_low, difference_high: Against the reference system, paired; None for the reference itself, and
            where it is no number; the interval is None where there is none.
        p, p_holm: Of the difference, and corrected for all differences of the comparison; None without an interval, p_holm also
            with few units.
        num_units: Units of all sets that the figure is computed from, at most 199 of each.
        verdict: `better` or `worse` than the reference if p_holm says so, else `same`, or `too few to say`.
    """

    value: float
    low: float | None
    high: float | None
    seed_deviation: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    p: float | None
    p_holm: float | None
    num_units: int
    verdict: str


@dataclass(frozen=True)
class SystemRow:
    """One system.

    Attributes:
        system: Its name.
        about: What the system is.
        seeds: The seeds with which all runs of the system are done.
        num_planned: How many seeds are planned.
        norm: ||theta_T - theta_0||, Frobenius, mean over its runs; 0 for the root.
        values: Figure -> value (see `continual.FIGURES`).
    """

    system: str
    about: str
    seeds: list[int]
    num_planned: int
    norm: float
    values: Mapping[str, Value]


def is_done(run: PlannedRun) -> bool:
    """Says whether a run of this very configuration has its last base and that base's scores."""
    if not layout.is_run(run.config.run_dir()):
        return False
    opened, last = Run(run.config.run_dir()), len(run.config.round_list())
    whole = opened.num_bases > last and opened.scores_of(last) is not None
    return whole and not opening.changed_since(opened.paths, run.config)[1]


def update_norm(run_dir: Path) -> float:
    """Returns ||sum of the deltas of all rounds||, Frobenius, module by module in float64."""
    folders = Run(run_dir).deltas()
    modules = sorted({module for folder in folders for module in base_chain.read_delta(folder)})
    squared = 0.0
    for module in modules:
        first, *rest = base_chain.past_updates(folders, module)
        total = first.dense()
        for delta in rest:
            total += delta.dense()
        squared += squared_sum(total)
    return float(squared**0.5)


def count(comparison: Comparison) -> Counted:
    """Returns the errors of every clip that the runs of a comparison decoded, of the runs that are done.

    Raises:
        IntegrityError: Runs that were scored on different clips.
    """
    config = comparison.runs[0].config
    reader, protected = RateReader(config), list(config.evaluate.protected)
    new = [name for name in comparison.datasets if name in config.test_sets()]
    sets: dict[str, CountedSet] = {}
    runs = []
    for planned in filter(is_done, comparison.runs):
        run_dir, errors = planned.config.run_dir(), dict[tuple[int, str], Numbers]()
        matrix = read_matrix(run_dir)
        for index, name in reader.run(matrix).rates:  # which refuses other clips than in the runs before
            counts = reader.texts(matrix.bases[index], name)[1]
            sets[name], errors[index, name] = CountedSet(counts.lengths, counts.units), counts.errors
        learned, norm = matrix.learned, update_norm(run_dir)
        runs.append(CountedRun(planned.system, planned.seed, planned.part, norm, learned, matrix.last, errors))
    ordered = {name: sets[name] for name in config.test_sets() if name in sets}
    num_runs = {system: len(comparison.runs_of(system, comparison.seeds[0])) for system in comparison.about}
    return Counted(
        comparison.name, comparison.reference, comparison.seeds, comparison.about, new, protected, config.evaluate.confidence,
        config.evaluate.intervals, ordered, runs, num_runs,
    )  # fmt: skip


def system_rows(counted: Counted) -> list[SystemRow]:
    """Returns a row for each system that has a seed whose runs are all done; the root's is first."""
    of_systems: dict[str, dict[int, dict[str, Rates]]] = {}
    norms: dict[str, list[float]] = {UNTOUCHED: [0.0]}
    for system in counted.systems:
        for seed in counted.seeds:
            runs = [run for run in counted.runs if (run.system, run.seed) == (system, seed)]
            if runs and len(runs) == counted.num_runs[system]:
                rates = [counted.rates(run) for run in runs]
                of_systems.setdefault(system, {})[seed] = figures(SystemRates(rates, counted.new, counted.protected))
                norms.setdefault(system, []).extend(run.norm for run in runs)
                of_systems.setdefault(UNTOUCHED, {}).setdefault(seed, untouched(rates[0], counted.new, counted.protected))
    reference, confidence = of_systems.get(counted.reference, {}), counted.confidence
    found = {system: _differences(of_systems[system], reference, confidence)
             for system in counted.systems if system in of_systems and system != counted.reference}  # fmt: skip
    chances = corrected({f"{system} {name}": each for system, of in found.items() for name, each in of.items()})
    return [
        SystemRow(
            system, counted.systems[system], list(of_systems[system]), len(counted.seeds), float(np.mean(norms[system])),
            {
                name: _value(name, value, found.get(system, {}).get(name), chances.get(f"{system} {name}"), confidence)
                for name, value in _values(of_systems[system], confidence).items()
            },
        )
        for system in counted.systems if system in of_systems
    ]  # fmt: skip


def num_marks(rows: Sequence[SystemRow]) -> int:
    """Returns how many differences Holm's correction counts: all systems, all figures that may get a mark."""
    return sum(value.p_holm is not None for row in rows for value in row.values.values())


def over_seeds(of_seeds: Sequence[Mapping[str, Rates]]) -> dict[str, Rates]:
    """Returns figure -> mean over the seeds, (1 + S,), for the figures that all seeds have."""
    names = [name for name in of_seeds[0] if all(name in one for one in of_seeds)]
    return {name: np.mean([one[name] for one in of_seeds], axis=0) for name in names}


def spread(of_seeds: Sequence[Mapping[str, Rates]], name: str) -> float | None:
    """Returns the standard deviation over the seeds of a figure (n - 1), None with one seed."""
    values = [float(one[name][0]) for one in of_seeds if name in one]
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


@dataclass(frozen=True)
class _Mean:
    """A figure over the seeds of a system, and its standard deviation."""

    found: Estimated
    seed_deviation: float | None


def _values(of_seeds: Mapping[int, Mapping[str, Rates]], confidence: float) -> dict[str, _Mean]:
    listed = list(of_seeds.values())
    return {
        name: _Mean(estimated(rates, confidence, scale_of(name), _of_each(listed, name)), spread(listed, name))
        for name, rates in over_seeds(listed).items()
    }


def _of_each(of_seeds: Sequence[Mapping[str, Rates]], name: str) -> list[float]:
    return [float(one[name][0]) for one in of_seeds]


@np.errstate(invalid="ignore")  # a relative figure is infinite for a set that the root makes no error on
def _differences(
    of_seeds: Mapping[int, Mapping[str, Rates]], reference: Mapping[int, Mapping[str, Rates]], confidence: float
) -> dict[str, Estimated]:
    """Returns figure -> ours - theirs over the seeds that both have, where it is a number."""
    both = [seed for seed in of_seeds if seed in reference]
    if not both:
        return {}
    pairs = [(of_seeds[seed], reference[seed]) for seed in both]
    less = [{name: ours[name] - theirs[name] for name in ours if name in theirs} for ours, theirs in pairs]
    means = over_seeds(less).items()
    found = {name: estimated(rates, confidence, "difference", _of_each(less, name)) for name, rates in means}
    return {name: each for name, each in found.items() if np.isfinite(each.value)}


def _value(name: str, mean: _Mean, difference: Estimated | None, p_holm: float | None, confidence: float) -> Value:
    own = mean.found
    if difference is None:
        return Value(own.value, own.low, own.high, mean.seed_deviation, None, None, None, None, None, own.num_units, "same")
    return Value(
        own.value, own.low, own.high, mean.seed_deviation, difference.value, difference.low, difference.high, difference.p,
        p_holm, own.num_units, _verdict(name, mark(difference, p_holm, confidence)),
    )  # fmt: skip


def _verdict(name: str, marked: str) -> str:
    if marked in ("same", TOO_FEW):
        return marked
    return "better" if (marked == "higher") == FIGURES[name].higher_is_better else "worse"


def as_json(comparison: Comparison, rows: Sequence[SystemRow]) -> dict[str, Any]:
    """Returns compare.json: all values that the table and the plots show."""
    config = comparison.runs[0].config
    if layout.is_run(config.run_dir()):
        config = config.with_precision(*Run(config.run_dir()).config.precisions)
    return {
        "name": comparison.name, "reference": comparison.reference, "seeds": comparison.seeds, "datasets": comparison.datasets,
        "protected": list(config.evaluate.protected), "metric": config.metric_record(), "decoding": config.evaluate.decoding(),
        "confidence": config.evaluate.confidence, "formulas": {name: figure.formula for name, figure in FIGURES.items()},
        "rows": [asdict(row) | {"values": {name: _finite(asdict(value)) for name, value in row.values.items()}} for row in rows],
    }  # fmt: skip


def _finite(value: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values with null, which JSON can hold, in place of infinity and NaN."""
    return {key: None if isinstance(number, float) and not np.isfinite(number) else number for key, number in value.items()}
