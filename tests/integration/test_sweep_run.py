"""`wfc sweep` as a user runs it, under real Ray Tune, on real trainings of a tiny model: killed, stopped, gone on with, told."""

import json
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
import tiny
import yaml
from processes import kill_tree, start_wfc, wait_for, wfc

POINTS = ["every-1_r-2", "every-1_r-4", "every-2_r-2", "every-2_r-4"]


def make(folder: Path, **keys: Any) -> Path:
    path = tiny.make_config(folder, rounds=[["a", "b"]])
    tree = yaml.safe_load(path.read_text())
    del tree["rounds"]
    protected = {"source": str(tiny.make_dataset(folder / "p", seed=9, test=2)), "splits": {"test": "test.jsonl"}}
    tree["evaluate"]["protected"] = {"p": protected}
    tree["sweep"] = {"over": {"every": [1, 2], "lora.r": [2, 4]}, "reference": {"every": 2}, **keys}
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path


def attempts(out: Path) -> dict[str, int]:
    ledgers = {name: (out / "runs" / f"{name}-seed1" / "ledger.jsonl").read_text() for name in POINTS}
    return {name: text.count('"event": "attempt"') for name, text in ledgers.items()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that was stopped in its second run and gone on with, two runs at a time, to its end; returns its folder."""
    folder = tmp_path_factory.mktemp("sweep")
    config, out = make(folder), folder / "runs" / "tiny"
    second = out / "runs" / f"{POINTS[1]}-seed1"
    process = start_wfc("sweep", config, "--plain", log=folder / "log")
    assert wait_for(second / "base-0000" / "manifest.json", process)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 75, (folder / "log").read_text()
    assert psutil.wait_procs(children, timeout=60)[1] == []
    assert json.loads((second / "status.json").read_text())["state"] == "interrupted"
    assert "the same command goes on" in (folder / "log").read_text()

    done = wfc("sweep", config, "sweep.concurrent=2", "--plain")
    assert "tiny: 1 of 4 runs are done" in done.stderr
    assert done.stdout.strip() == str(out / "index.html")
    return out


def test_every_point_is_in_the_results_and_was_made_once(finished: Path) -> None:
    tree = json.loads((finished / "compare.json").read_text())
    assert {row["system"] for row in tree["rows"]} == {"untouched", *POINTS}
    assert (tree["reference"], tree["failures"]) == ("every-2_r-2", {})
    assert tree["points"]["every-1_r-4"] == {"every": 1, "lora.r": 4}
    assert tree["front"] and set(tree["front"]) <= set(POINTS)
    assert [row["system"] for row in tree["rows"]][1 : 1 + len(tree["front"])] == tree["front"]
    assert attempts(finished) == {"every-1_r-2": 1, "every-1_r-4": 2, "every-2_r-2": 1, "every-2_r-4": 1}


def test_the_page_has_a_plot_for_the_keys_and_marks_the_front(finished: Path) -> None:
    page, front = (finished / "index.html").read_text(), json.loads((finished / "compare.json").read_text())["front"]
    assert page.count("<svg") == 3
    assert all(f"{name} *" in page for name in front)


def test_ray_tune_knows_the_figures_of_every_point(finished: Path) -> None:
    experiment = finished / "tune" / "experiment"
    tree = json.loads((finished / "compare.json").read_text())
    rows = {row["system"]: row["values"] for row in tree["rows"]}
    for name in POINTS:
        (line,) = (experiment / f"{name}-seed1" / "result.json").read_text().splitlines()
        assert json.loads(line)["new_relative"] == pytest.approx(rows[name]["new_relative"]["value"], rel=1e-12)
        assert json.loads(line)["config"]["point"]["system"] == name


def test_a_finished_sweep_starts_nothing(finished: Path) -> None:
    config = finished.parents[1] / "config.yaml"
    before = attempts(finished)
    done = wfc("sweep", config, "--plain")
    assert "4 of 4 runs are done" in done.stderr and attempts(finished) == before


@pytest.mark.slow
def test_on_a_shared_ray_cluster_killed_and_with_a_point_that_fails(tmp_path: Path) -> None:
    config = make(tmp_path, over={"every": [2], "train.lr": [1e-2, 1e12]}, reference={}, concurrent=2)
    command = ("sweep", config, "cluster.backend=ray", "cluster.max_trainers=1", "--plain")
    folder = tmp_path / "runs" / "tiny"
    good, bad = "every-2_lr-0.01", "every-2_lr-1e.12"
    process = start_wfc(*command, log=tmp_path / "log")
    assert wait_for(folder / "runs" / f"{good}-seed1" / "base-0000" / "manifest.json", process)
    assert kill_tree(process) > 5, "Ray's processes were not among the killed"

    done = wfc(*command, check=False)

    assert done.returncode == 1, done.stderr
    tree = json.loads((folder / "compare.json").read_text())
    assert [row["system"] for row in tree["rows"]] == ["untouched", good]
    assert "lower train.lr" in tree["failures"][f"{bad}-seed1"]
    assert json.loads((folder / "runs" / f"{good}-seed1" / "status.json").read_text())["state"] == "done"


def test_mistakes_end_a_sweep_before_anything_starts(tmp_path: Path) -> None:
    done = wfc("sweep", make(tmp_path, over={"every": [1], "train.lrr": [1]}, reference={}), check=False)
    assert done.returncode == 2 and "did you mean 'lr'" in done.stderr
    assert not (tmp_path / "runs").exists()
