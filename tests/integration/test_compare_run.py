"""`wfc compare` as a user runs it, on real trainings of a tiny model: interrupted, gone on with, shared, and told."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import tiny
import yaml
from processes import kill_tree, start_wfc, wait_for, wfc

from wfc_dist.compare import settings
from wfc_dist.compare.counts import COUNTS, read_counts
from wfc_dist.compare.results import _finite, is_done, system_rows
from wfc_dist.compare.systems import PRESETS
from wfc_dist.reports.as_json import schema_of

SYSTEMS: dict[str, Any] = {
    "untouched": {},
    "individual": {},
    "sequential": {},
    "full": {},
    "fta": {},
    "running_average": {},
    "lwf": {},
    "ewc": {},
    "bayesian": {},
    "replay": {"set": {"train.replay": 0.5}},
    "joint": {},
    "mean-2": {"every": 2},
    "factor-mean-2": {"every": 2, "set": {"centralize.method": "factor_mean"}},
    "ties-2": {"every": 2, "set": {"centralize.method": "ties", "centralize.norm": "mean"}},
    "ihr-2": {"every": 2, "set": {"centralize.method": "ihr", "train.curvature": "kronecker"}},
}


def make(folder: Path) -> Path:
    path = tiny.make_config(folder, rounds=[["a", "b"], ["c", "d"]])
    tree = yaml.safe_load(path.read_text())
    del tree["rounds"]
    protected = {"source": str(tiny.make_dataset(folder / "p", seed=9, test=2)), "splits": {"test": "test.jsonl"}}
    tree["evaluate"]["protected"] = {"p": protected}
    tree["compare"] = {"seeds": [1], "reference": "mean-2", "systems": SYSTEMS}
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path


def ledger(folder: Path, run: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "runs" / run / "ledger.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison whose process was killed in the middle, and gone on with to its end; returns its folder."""
    folder = tmp_path_factory.mktemp("compare")
    config, out = make(folder), folder / "runs" / "tiny"
    process = start_wfc("compare", config, "--plain", log=folder / "log")
    assert wait_for(out / "runs" / "sequential-seed1" / "base-0001" / "manifest.json", process)
    kill_tree(process)
    done = wfc("compare", config, "--plain")
    assert "tiny: 4 of 17 runs are done" in done.stderr  # each data set alone
    assert done.stdout.strip() == str(out / "index.html")
    return out


def test_every_system_has_its_row(compared: Path) -> None:
    tree = json.loads((compared / "compare.json").read_text())
    jsonschema.validate(tree, schema_of("compare"))
    rows = {row["system"]: row for row in tree["rows"]}
    assert set(rows) == set(SYSTEMS)
    assert all(row["seeds"] == [1] for row in rows.values())
    assert {"own", "new", "protected", "bwt", "fwt", "forgetting"} <= rows["sequential"]["values"].keys()
    norms = {name: row["norm"] for name, row in rows.items()}
    assert norms.pop("untouched") == 0 and min(norms.values()) > 0.05 * norms["mean-2"], "a system does not move"
    assert rows["mean-2"]["values"]["new"]["difference"] is None
    assert rows["sequential"]["values"]["new"]["difference"] is not None
    assert tree["failures"] == {}


def test_counts_give_every_figure_again_without_the_runs(compared: Path, tmp_path: Path) -> None:
    copied = tmp_path / COUNTS
    copied.write_bytes((compared / COUNTS).read_bytes())
    rows = json.loads((compared / "compare.json").read_text())["rows"]
    again = [asdict(row) | {"values": {name: _finite(asdict(value)) for name, value in row.values.items()}}
             for row in system_rows(read_counts(copied))]  # fmt: skip
    assert again == rows


def test_a_run_of_another_configuration_is_not_done(compared: Path) -> None:
    (config,) = compared.parents[1].glob("*.yaml")
    assert all(map(is_done, settings.load(config).runs))
    assert not is_done(*settings.load(config, ["train.weight_decay=0.123"]).runs_of("mean-2", 1))
    found = wfc("compare", config, "--plain", "--only", "mean-2", "train.weight_decay=0.123", check=False)
    assert found.returncode == 1
    assert "mean-2-seed1 failed" in found.stderr and "changed: train.weight_decay" in found.stderr
    assert "mean-2" not in [row["system"] for row in json.loads((compared / "compare.json").read_text())["rows"]]
    wfc("compare", config, "--plain")  # nothing is lost


def test_every_preset_is_compared() -> None:
    assert set(PRESETS) - {"centralize"} <= set(SYSTEMS)  # centralize goes by other names


def test_no_two_systems_are_one(compared: Path) -> None:
    last = [json.loads((compared / "runs" / f"{name}-seed1" / "status.json").read_text())["base_sha256"]
            for name in SYSTEMS if name not in {"untouched", "individual"}]  # fmt: skip
    assert len(set(last)) == len(last)


def test_work_that_systems_share_is_done_once(compared: Path) -> None:
    shared = [line for line in ledger(compared, "mean-2-seed1") if line["event"] == "adapter" and line.get("from_pool")]
    assert [(line["round"], line["dataset"]) for line in shared] == [(1, "a"), (1, "b")]  # `individual` has trained them
    both = [
        {line["dataset"]: line["sha256"] for line in ledger(compared, f"{name}-seed1") if line["event"] == "adapter"}
        for name in ("mean-2", "factor-mean-2")
    ]
    assert both[0]["a"] == both[1]["a"] and both[0]["c"] != both[1]["c"]
    (first,) = [line for line in ledger(compared, "replay-seed1") if line["event"] == "adapter" and line["round"] == 1]
    assert first["from_pool"]  # nothing is replayed in the first round


def test_interim_bases_are_scored_on_what_their_figures_need(compared: Path) -> None:
    folder = compared / "runs" / "sequential-seed1"
    scored = {index: set(json.loads((folder / f"round-{max(index, 1):04d}" / "evaluation" / f"base-{index:04d}" / "scores.json")
              .read_text())["sets"]) for index in range(5)}  # fmt: skip
    assert scored == {0: set("abcdp"), 1: set("ab"), 2: set("bc"), 3: set("cd"), 4: set("abcdp")}


def test_the_page_shows_table_and_plots(compared: Path) -> None:
    page = (compared / "index.html").read_text()
    assert page.count("<svg") == 3
    assert all(name in page for name in SYSTEMS)


def test_a_system_that_fails_leaves_the_others_alone(tmp_path: Path) -> None:
    config = make(tmp_path)
    tree = yaml.safe_load(config.read_text())
    diverging = {"train.lr": 1e12, "train.schedule": "constant", "train.warmup_steps": 0}
    tree["compare"]["systems"] = {"broken": {"every": 4, "set": diverging}, "mean-2": {"every": 4}}
    config.write_text(yaml.safe_dump(tree, sort_keys=False))
    done = wfc("compare", config, "--plain", check=False)
    assert done.returncode == 1
    found = json.loads((tmp_path / "runs" / "tiny" / "compare.json").read_text())
    assert [row["system"] for row in found["rows"]] == ["untouched", "mean-2"]
    assert "lower train.lr" in found["failures"]["broken-seed1"] and "broken-seed1 failed" in done.stderr


def test_only_known_systems_can_be_asked_for(tmp_path: Path) -> None:
    done = wfc("compare", make(tmp_path), "--only", "sequentiel", check=False)
    assert done.returncode == 2
    assert "did you mean 'sequential'" in done.stderr
