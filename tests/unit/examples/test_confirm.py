"""The confirmatory study: rates chosen by dev error, verdicts by the rules of the plan, figures from counts alone."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

REPO = Path(__file__).parents[3]
sys.path.append(str(REPO / "examples" / "open-speech"))

import confirm  # noqa: E402

from wfc_dist.compare import settings  # noqa: E402
from wfc_dist.compare.counts import COUNTS, Counted, CountedRun, CountedSet, write_counts  # noqa: E402
from wfc_dist.compare.results import system_rows  # noqa: E402
from wfc_dist.errors import InputError  # noqa: E402

CONFIRM, TUNING = (REPO / "configs" / f"compare-confirm{part}.yaml" for part in ("", "-tuning"))
NEW, PROTECTED = ("es", "cs"), ("en",)
RATES = {"untouched": 0.4, "mean-3": 0.25, "sequential-slow": 0.25, "full-slow": 0.2, "mean-3-full-mid": 0.15, "lwf": 0.35,
         "ihr": 0.25, "fta": 0.15}  # fmt: skip


def counted(rates: dict[str, float], num_clips: int = 150) -> Counted:
    """Returns systems with these rates on the new sets, with noise; the protected set nearly keeps its rate of 0.2."""
    rng = np.random.default_rng(5)
    sets = {name: CountedSet(np.full(num_clips, 10), np.arange(num_clips)) for name in (*NEW, *PROTECTED)}
    root = {(0, name): rng.poisson(2 if name in PROTECTED else 4, num_clips) for name in sets}
    runs = []
    for seed in (11, 12, 13):
        for system, rate in rates.items():
            if system != "untouched":
                errors = root | {(2, name): rng.poisson(10 * rate, num_clips) for name in NEW}
                errors |= {(2, name): root[0, name] + (rng.random(num_clips) < 0.05) for name in PROTECTED}
                runs.append(CountedRun(system, seed, "", 1.0, dict.fromkeys(NEW, 1), 2, errors))
    num_runs = {system: int(system != "untouched") for system in rates}
    about = dict.fromkeys(["untouched", *rates], "")
    return Counted("c", "mean-3", [11, 12, 13], about, NEW, PROTECTED, 0.95, True, sets, runs, {"untouched": 0} | num_runs)


def test_verdicts_follow_the_rules_of_the_plan() -> None:
    said = dict(confirm.verdicts(confirm.rows_with_family(counted(RATES))))
    assert said["H1"] == "holds" and said["H2"] == "holds" and said["H3"] == "holds"
    assert said["H5"] == "holds" and said["H6 lwf"] == "holds" and said["H6 fta"] == "fails" and said["H6 ihr"] == "open"
    worse = dict(confirm.verdicts(confirm.rows_with_family(counted(RATES | {"mean-3": 0.5}))))
    assert worse["H1"] == "fails" and worse["H2"] == "fails" and worse["H4"] == "fails"


def test_the_family_of_the_plan_is_corrected_and_nothing_else() -> None:
    rows = confirm.rows_with_family(counted(RATES))
    assert sum(value.p_holm is not None for row in rows.values() for value in row.values.values()) == 14
    least = min((value.p for row in rows.values() for name, value in row.values.items() if value.p and name == "new"))
    assert min(value.p_holm for row in rows.values() for value in row.values.values() if value.p_holm) == pytest.approx(
        14 * least
    )


def test_the_table_is_made_of_counts_alone_and_of_those_that_are_there(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(confirm, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(confirm, "PAGE", tmp_path / "page.md")
    confirm.PAGE.write_text(f"# Title\n\n{confirm.BEGIN}\n{confirm.END}\n\nText.\n")
    write_counts(tmp_path / COUNTS, counted(RATES))
    monkeypatch.setattr(sys, "argv", ["confirm.py", "--take", str(tmp_path)])
    confirm.main()
    once = confirm.PAGE.read_text()
    monkeypatch.setattr(sys, "argv", ["confirm.py"])
    confirm.main()
    assert confirm.PAGE.read_text() == once and once.startswith("# Title") and once.endswith("Text.\n")
    assert "| mean-3-full-mid | " in once and "| H6 fta | fails |" in once
    partly = replace(counted(RATES), runs=counted(RATES).runs[:1])
    assert "H1" not in "".join(confirm.table(partly)), "no verdict before every system is done"


def test_the_rate_with_the_least_dev_error_is_put_into_the_configuration(tmp_path: Path) -> None:
    rates = {f"{system}-{word}": 0.3 for system in ("mean-3", "lwf") for word in confirm.CANDIDATES}
    rates |= {"mean-3-twice": 0.1, "lwf-half": 0.1}
    rows = {row.system: row for row in system_rows(counted({"untouched": 0.4, **rates}))}
    assert confirm.chosen(rows) == {"mean-3": "twice", "lwf": "half"}
    del rows["lwf-same"]
    with pytest.raises(InputError, match="lwf-same is not done"):
        confirm.chosen(rows)

    text = CONFIRM.read_text()
    for system, word in (("mean-3", "twice"), ("lwf", "half"), ("mean-3-full-mid", "twice"), ("full-slow", "same")):
        text = confirm.with_choice(text, system, word)
    changed = tmp_path / "config.yaml"
    changed.write_text(text)
    of = {run.system: run.config for run in settings.load(changed).runs}
    assert of["mean-3"].centralize.scale == 2.0 and of["lwf"].train.lr == 5.0e-4
    assert of["mean-3-full-mid"].train.lr == 1.0e-4 and of["full-slow"].train.lr == 3.0e-5
    assert of["ihr"].train.lr == 1.0e-3, "the other systems keep theirs"
    with pytest.raises(InputError, match=r"no train\.lr"):
        confirm.with_choice(text, "none", "half")


def test_the_candidates_are_the_systems_with_half_the_rate_and_twice_it() -> None:
    systems = {run.system: run.config for run in settings.load(CONFIRM).runs}
    candidates = {run.system: run.config for run in settings.load(TUNING).runs}
    assert {name.rpartition("-")[0] for name in candidates} == {*systems}
    unlike = {"run", "datasets", "evaluate"}
    for system, config in systems.items():
        same = candidates[f"{system}-same"].model_dump(exclude=unlike)
        if not (confirm.KEPT / confirm.TUNING).exists():
            assert same == config.model_dump(exclude=unlike), system
        for word, factor in (("half", 0.5), ("twice", 2.0)):
            other = candidates[f"{system}-{word}"].model_dump(exclude=unlike)
            block, key = confirm.KNOBS.get(system, "train.lr").split(".")
            assert other[block][key] == pytest.approx(factor * same[block][key])
            assert other[block] | {key: same[block][key]} == same[block]
    tests = [data for config in candidates.values() for data in config.datasets.values()]
    assert {data.splits["test"] for data in tests} == {"dev.jsonl"}
    assert not any(config.evaluate.protected for config in candidates.values())
