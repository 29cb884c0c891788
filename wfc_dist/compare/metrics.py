"""The figures of one system, from cells: what it learned, kept and passed on. Pure.

R[t][j] is the error of base t on test set j, t_j the round that learned j, T the last base, p a protected set. A system of
several runs (each data set alone on the root) is the mean over its runs. Letters of shapes: S bootstrap samples, see `cells`.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from wfc_dist.compare.cells import Cell, RunCells

FORMULAS = {
    "own": "mean_j R[t_j][j], right after the round that learned j",
    "new": "mean_j R[T][j] over the new sets",
    "protected": "mean_p R[T][p] over the protected sets",
    "new_relative": "mean_j (R[T][j] / R[0][j] - 1), negative is better",
    "protected_relative": "mean_p R[T][p] / mean_p R[0][p] - 1, negative is better (the paper's backward figure)",
    "bwt": "mean_j (R[t_j][j] - R[T][j]) over the new sets, positive is better",
    "fwt": "mean_j (R[0][j] - R[t_j - 1][j]) over sets learned after round 1, positive is better",
    "forgetting": "mean_j (R[T][j] - min_t R[t][j]) over new and protected sets, t over the bases scored on j; 0 is best",
}


def figures(runs: Sequence[RunCells], new: Sequence[str], protected: Sequence[str]) -> dict[str, Cell]:
    """Returns figure -> (1 + S,); a figure that does not exist, such as FWT after one round, is left out.

    Args:
        runs: Of one system and seed.
        new: The new sets, each learned by one of the runs.
        protected: The sets that nobody trains on.
    """
    found: dict[str, Cell] = {
        "own": _mean(run.cells[run.learned[name], name] for run in runs for name in new if name in run.learned),
        "new": _mean(run.cells[run.last, name] for run in runs for name in new),
        "new_relative": _mean(run.cells[run.last, name] / run.cells[0, name] - 1 for run in runs for name in new),
        "forgetting": _mean(_forgotten(run, name) for run in runs for name in [*new, *protected]),
    }
    found["bwt"] = found["own"] - found["new"]
    if protected:
        found["protected"] = _mean(run.cells[run.last, name] for run in runs for name in protected)
        found["protected_relative"] = found["protected"] / _mean(runs[0].cells[0, name] for name in protected) - 1
    later = [(run, name, index) for run in runs for name, index in run.learned.items() if name in new and index > 1]
    if later:
        found["fwt"] = _mean(run.cells[0, name] - run.cells[index - 1, name] for run, name, index in later)
    return found


def untouched(run: RunCells, new: Sequence[str], protected: Sequence[str]) -> dict[str, Cell]:
    """Returns the figures of the root, from any run."""
    found = {"own": _mean(run.cells[0, name] for name in new), "new": _mean(run.cells[0, name] for name in new)}
    if protected:
        found["protected"] = _mean(run.cells[0, name] for name in protected)
    zero = np.zeros_like(found["new"])
    return found | {"new_relative": zero, "bwt": zero, "forgetting": zero} | ({"protected_relative": zero} if protected else {})


def _forgotten(run: RunCells, name: str) -> Cell:
    seen = [cell for (_, scored), cell in run.cells.items() if scored == name]
    best = min(seen, key=lambda cell: cell[0])  # chosen by the rate itself: the least of every draw would be biased
    return run.cells[run.last, name] - best


def _mean(cells: Iterable[Cell]) -> Cell:
    with np.errstate(divide="ignore", invalid="ignore"):
        mean: Cell = np.mean(list(cells), axis=0)
    return mean


def over_seeds(of_seeds: Sequence[Mapping[str, Cell]]) -> dict[str, Cell]:
    """Returns figure -> mean over the seeds, for the figures that all seeds have."""
    names = [name for name in of_seeds[0] if all(name in one for one in of_seeds)]
    return {name: _mean([one[name] for one in of_seeds]) for name in names}


def spread(of_seeds: Sequence[Mapping[str, Cell]], name: str) -> float | None:
    """Returns the standard deviation over the seeds of a figure (n - 1), None with one seed."""
    values = [float(one[name][0]) for one in of_seeds if name in one]
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
