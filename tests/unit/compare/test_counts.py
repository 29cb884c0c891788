"""The counts of a comparison: written, read again, and refused where their numbers do not fit together."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wfc_dist.compare.counts import COUNTS, Counted, CountedRun, CountedSet, read_counts, write_counts
from wfc_dist.compare.results import system_rows
from wfc_dist.errors import InputError, IntegrityError
from wfc_dist.evaluation.intervals import TOO_FEW


def made(num_clips: int = 40) -> Counted:
    """Returns two systems with three seeds, of which `good` makes half the errors of `mean-1`."""
    rng = np.random.default_rng(2)
    sets = {name: CountedSet(rng.integers(5, 15, num_clips), np.arange(num_clips)) for name in "ap"}
    runs = []
    for seed in (1, 2, 3):
        for system, rate in (("mean-1", 0.4), ("good", 0.2)):
            errors = {(0, name): np.full(num_clips, 4) for name in "ap"}
            errors |= {(1, name): rng.poisson(sets[name].lengths * rate) for name in "ap"}
            runs.append(CountedRun(system, seed, "", 1.5, {"a": 1}, 1, errors))
    about = {"untouched": "the root", "mean-1": "", "good": ""}
    return Counted(
        "c", "mean-1", [1, 2, 3], about, ["a"], ["p"], 0.95, True, sets, runs, {"untouched": 0, "mean-1": 1, "good": 1}
    )


def test_what_is_read_gives_the_same_figures_and_the_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / COUNTS, tmp_path / "again.json.gz"
    write_counts(first, made())
    write_counts(second, read_counts(first))
    assert first.read_bytes() == second.read_bytes()
    rows = {row.system: row for row in system_rows(read_counts(first))}
    assert list(rows) == ["untouched", "mean-1", "good"]
    assert list(rows.values()) == system_rows(made())
    new = rows["good"].values["new"]
    rate = np.mean([run.errors[1, "a"].sum() for run in made().runs if run.system == "good"]) / made().sets["a"].lengths.sum()
    assert new.value == pytest.approx(rate) and new.verdict == "better" and rows["good"].seeds == [1, 2, 3]
    assert rows["untouched"].values["new"].seed_deviation == 0


def test_a_seed_that_lacks_a_run_does_not_count(tmp_path: Path) -> None:
    whole = made()
    rows = {row.system: row for row in system_rows(replace(whole, runs=whole.runs[:-1]))}
    assert rows["good"].seeds == [1, 2] and rows["mean-1"].seeds == [1, 2, 3]


def test_few_clips_decide_nothing() -> None:
    rows = {row.system: row for row in system_rows(made(num_clips=9))}
    assert rows["good"].values["new"].verdict == TOO_FEW


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("schema",), 2, "it has schema 2"),
        (("new",), ["b"], "new names b"),
        (("sets", "a", "units"), [0], "lengths and units of a"),
        (("sets", "a", "units"), [1] * 40, "not numbered from 0"),
        (("runs", 0, "errors", "1", "a"), [1], "errors of mean-1, base 1, on a"),
        (("runs", 0, "errors", "1", "a"), [-1] * 40, "errors of mean-1, base 1, on a"),
        (("runs", 0, "errors", "1", "z"), [1] * 40, "on z do not fit"),
        (("runs", 0, "errors", "one"), {"a": [1] * 40}, "invalid literal"),
        (("runs", 0, "norm"), "much", "norm"),
        (("num_runs",), {}, "num_runs"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(tmp_path: Path, place, value, said: str) -> None:
    path = tmp_path / COUNTS
    write_counts(path, made())
    tree = json.loads(gzip.decompress(path.read_bytes()))
    inner = tree
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path.write_bytes(gzip.compress(json.dumps(tree).encode()))
    with pytest.raises(IntegrityError, match=said):
        read_counts(path)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"\x1f\x8b\x08", gzip.compress(b"[]", mtime=0), gzip.compress(b"[" * 100_000, mtime=0)]
)
def test_what_is_no_file_of_counts_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / COUNTS
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match="no file of counts"):
        read_counts(path)
    with pytest.raises(InputError, match="is not there"):
        read_counts(tmp_path / "none")
