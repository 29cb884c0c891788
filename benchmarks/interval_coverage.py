"""How often the 95 % interval of a figure holds the true value, by simulation, beside the percentile bootstrap over clips.

    python benchmarks/interval_coverage.py [--trials 4000]

A trial is a test set that two models decode. A clip has 1 + NB(mean 6, shape 2.5) words, and Poisson errors around words x rate x
difficulty. The rates are 20 and 16 %. The difficulty is a Gamma(3) of the clip, which both models share, times a Gamma(5) of clip
and model, each with mean 1. Packed, six clips share a window, a Gamma(3) difficulty, and a chance of 4 % (3 % for the second
model) that nothing is written from one of its clips on. With loops one clip in fifty, drawn for each model by itself, has 5 to 30
times its words as errors in place of its own.

That is like the six test sets of the demo as whisper-base writes them: there the variance of a clip's errors is 0.7 to 2.8 times
their mean (here 2.2), and windows have 1.0 to 4.1 times the variance that independent clips would have (here 2.0). Loops are as
long as in the study (438 words for a clip of 4.9 s), and not as rare (there 25 of 3147 windows).

Of the sets of 100 clips, one in seven has no loop of the first model. Nothing in such a set tells of loops, so that no interval
holds a rate that they are a part of; `rate, with a loop` counts the other sets.
"""

import argparse
import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from measuring import write_rows

from wfc_dist.evaluation.intervals import WIDTH, Scale, columns_without_each, limits, spread, units_of

CONFIDENCE = 0.95
RATES, LOST = (0.20, 0.16), (0.04, 0.03)
CLIPS_A_WINDOW = 6
LOOPS, LOOPED = 0.02, (5.0, 30.0)
SETS = 4  # of the mean over sets
SAMPLES = 1000  # of the percentile bootstrap
SIZES = (25, 100, 300)

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """How the test sets of a simulation are."""

    num_clips: int
    packed: bool
    loops: bool

    def windows(self) -> list[int]:
        """Returns how many clips each window has."""
        if not self.packed:
            return [1] * self.num_clips
        full, rest = divmod(self.num_clips, CLIPS_A_WINDOW)
        return [CLIPS_A_WINDOW] * full + [rest] * (rest > 0)


class Sets(NamedTuple):
    """Many test sets: words and errors of two models, each (T, N), and whether a clip of the first model loops."""

    words: npt.NDArray[np.int64]
    errors: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
    has_loop: npt.NDArray[np.bool_]


def draw(case: Case, trials: int, seed: int) -> Sets:
    """Returns T test sets of a case, as the head of this file says."""
    rng = np.random.default_rng(seed)
    shape, sizes = (trials, case.num_clips), case.windows()
    window, place = units_of(sizes), np.concatenate([np.arange(size) for size in sizes])
    words = 1 + rng.negative_binomial(2.5, 2.5 / (2.5 + 6), size=shape)
    difficulty = rng.gamma(3, 1 / 3, size=shape)
    if case.packed:
        difficulty = difficulty * rng.gamma(3, 1 / 3, size=(trials, len(sizes)))[:, window]
    errors, has_loop = [], np.zeros(trials, dtype=bool)
    for number, (rate, lost) in enumerate(zip(RATES, LOST, strict=True)):
        written = rng.poisson(words * rate * difficulty * rng.gamma(5, 1 / 5, size=shape))
        if case.packed:
            is_lost = rng.random((trials, len(sizes))) < lost
            begins = rng.integers(CLIPS_A_WINDOW, size=is_lost.shape)
            written = np.where(is_lost[:, window] & (place >= begins[:, window]), np.maximum(written, words), written)
        if case.loops:
            loops = rng.random(shape) < LOOPS
            written = np.where(loops, np.rint(words * rng.uniform(*LOOPED, size=shape)).astype(int), written)
            has_loop |= loops.any(axis=1) if number == 0 else False
        errors.append(written)
    return Sets(words, (errors[0], errors[1]), has_loop)


@functools.cache
def _rates_without_loops(packed: bool) -> tuple[float, float]:
    """Returns the rates of both models on two million clips."""
    sets = draw(Case(600, packed, loops=False), 3500, seed=1)
    first, second = (float(errors.sum() / sets.words.sum()) for errors in sets.errors)
    return first, second


def true_rates(case: Case) -> tuple[float, float]:
    """Returns the true rates of both models; the part of the loops is exact."""
    first, second = _rates_without_loops(case.packed)
    share, size = (LOOPS, sum(LOOPED) / 2) if case.loops else (0.0, 0.0)
    return (1 - share) * first + share * size, (1 - share) * second + share * size


class Figure(NamedTuple):
    """A figure of two rates, and the scale of its interval; `num_sets` for a mean over sets."""

    name: str
    of: Callable[[Numbers, Numbers], Numbers]
    scale: Scale
    num_sets: int = 1


FIGURES = (
    Figure("rate", lambda first, _: first, "rate"),
    Figure("difference", lambda first, second: second - first, "difference"),
    Figure("relative change", lambda first, second: second / first - 1, "change"),
    Figure(f"mean of {SETS} relative changes", lambda first, second: second / first - 1, "change", SETS),
)  # fmt: skip


def columns(case: Case, sets: Sets) -> tuple[Numbers, Numbers]:
    """Returns the rates of both models with their columns, each (T, 1 + WIDTH)."""
    units = units_of(case.windows())
    made = []
    for errors in sets.errors:
        rates = errors.sum(axis=1) / sets.words.sum(axis=1)
        without = [columns_without_each(*each, units) for each in zip(errors, sets.words, strict=True)]
        made.append(np.concatenate([rates[:, None], without], axis=1))
    return made[0], made[1]


def over_sets(figures: Numbers, num_sets: int) -> Numbers:
    """Returns means over groups of sets, each with a block of its own: (T, 1 + WIDTH) -> (T / sets, 1 + sets WIDTH)."""
    grouped = figures[: len(figures) // num_sets * num_sets].reshape(-1, num_sets, 1 + WIDTH)
    values = grouped[:, :, :1]
    means = values.mean(axis=1, keepdims=True)
    blocks = means + (grouped[:, :, 1:] - values) / num_sets
    return np.concatenate([means[:, 0], blocks.reshape(len(grouped), -1)], axis=1)


def held(figure: Figure, rates: tuple[Numbers, Numbers], truth: float) -> npt.NDArray[np.bool_]:
    """Returns for every trial whether this project's interval holds the true value; one without an interval does not."""
    with np.errstate(divide="ignore", invalid="ignore"):  # a set without an error has no relative change
        figures = over_sets(figure.of(*rates), figure.num_sets)
        errors, freedoms = spread(figures, figure.scale)
    found = []
    for value, error, freedom in zip(figures[:, 0], errors, freedoms, strict=True):
        interval = limits(float(value), float(error), float(freedom), CONFIDENCE, figure.scale)
        found.append(interval is not None and interval[0] <= truth <= interval[1])
    return np.array(found)


def held_before(figure: Figure, sets: Sets, truth: float, seed: int = 1) -> npt.NDArray[np.bool_]:
    """Returns the same of the percentile bootstrap over clips."""
    num_clips = sets.words.shape[1]
    picks = np.random.default_rng(seed).integers(num_clips, size=(SAMPLES, num_clips))
    weights = np.stack([np.bincount(row, minlength=num_clips) for row in picks]).T.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = figure.of(*(errors @ weights / (sets.words @ weights) for errors in sets.errors))
    if figure.num_sets > 1:  # every set is resampled by itself
        rng = np.random.default_rng(seed)
        whole = draws[: len(draws) // figure.num_sets * figure.num_sets].reshape(-1, figure.num_sets, SAMPLES)
        draws = np.mean([whole[:, number, rng.permutation(SAMPLES)] for number in range(figure.num_sets)], axis=0)
    low, high = np.nanquantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=1)
    return (low <= truth) & (truth <= high)


def truth_of(figure: Figure, rates: tuple[float, float]) -> float:
    """Returns the true value of a figure."""
    return float(figure.of(np.array(rates[0]), np.array(rates[1])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=4000)
    options = parser.parse_args()
    rows = []
    for case in (Case(size, packed, loops) for loops in (False, True) for packed in (False, True) for size in SIZES):
        sets, true = draw(case, options.trials, seed=case.num_clips), true_rates(case)
        rates = columns(case, sets)
        name = f"{case.num_clips} {'packed' if case.packed else 'alone'}{', rare loops' if case.loops else ''}"
        row: dict[str, object] = {"clips": name, "units": len(case.windows())}
        for figure in FIGURES:
            truth = truth_of(figure, true)
            now = held(figure, rates, truth)
            row[figure.name] = f"{now.mean():.3f} ({held_before(figure, sets, truth).mean():.3f})"
            if figure.name == "rate":
                row["rate, with a loop"] = f"{now[sets.has_loop].mean():.3f}" if case.loops else "-"
        print(row, file=sys.stderr)
        rows.append(row)
    question = (
        "coverage: how often a 95 % interval holds the true value, and in brackets that of the percentile bootstrap over clips"
    )
    command = " ".join(["python", "benchmarks/interval_coverage.py", *sys.argv[1:]])
    print(f"wrote {write_rows('interval-coverage', question, rows, command=command, trials=options.trials)}")


if __name__ == "__main__":
    main()
