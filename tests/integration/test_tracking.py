"""`run.track` with real trackers: a run that is killed and resumed, read back number for number."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import tiny
from mlflow.tracking import MlflowClient
from processes import kill_tree, wait_for, wfc
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from wfc_dist.backends.net import free_port
from wfc_dist.runs.handle import Run
from wfc_dist.runs.layout import RunPaths

ROUNDS = (("a", "b"), ("c",))
STEPS, SAVED = 5, 4  # the last step that a checkpoint holds: a training that is killed later repeats step 5
TRAIN = {"max_steps": STEPS, "checkpoint_every": 2, "eval_every": 2, "early_stopping": {"metric": "error", "patience": 9}}
TIMES = ("train/step_s", "train/data_wait_s")
OFTEN = "from wfc_dist.tracking import follower; follower.POLL_S = 0.05; from wfc_dist.cli import main; main()"

Curves = dict[str, list[tuple[int, float]]]


def logged(run: Run, round_index: int, dataset: str) -> Curves:
    """Returns what the metrics log of a training holds, by the names of the curves."""
    curves: Curves = {}
    for row in run.curve(round_index, dataset):
        for key, value in row.items():
            if key != "step":
                name = f"dev/{key[4:]}" if key.startswith("dev_") else f"train/{key}"
                curves.setdefault(name, []).append((row["step"], value))
    return curves


def scored(run: Run) -> Curves:
    """Returns the error rates of the bases, by the names of the curves."""
    curves: Curves = {}
    for scores in run.scores():
        for name, score in scores.sets.items() if scores.base_index is not None else ():
            curves.setdefault(f"{name}/{score['metric']}", []).append((scores.base_index, score["rate"]))
    return {key: sorted(points) for key, points in curves.items()}


def in_tensorboard(paths: RunPaths, name: str) -> Curves:
    events = EventAccumulator(str(paths.tracked("tensorboard") / name), size_guidance={"scalars": 0})
    events.Reload()
    return {key: [(event.step, event.value) for event in events.Scalars(key)] for key in events.Tags()["scalars"]}


def in_mlflow(paths: RunPaths) -> dict[str, tuple[Mapping[str, str], str, Curves]]:
    """Returns group/name -> (parameters, status, curves)."""
    client = MlflowClient(tracking_uri=paths.tracked("mlflow").as_uri())
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    found = {}
    for run in client.search_runs([experiment.experiment_id]):
        curves = {
            key: [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, key)]
            for key in run.data.metrics
        }
        name = f"{run.data.tags['group']}/{run.info.run_name}"
        assert name not in found, "two runs for one training"
        found[name] = (run.data.params, run.info.status, curves)
    return found


def rounded(curves: Curves) -> Curves:
    """Returns curves as TensorBoard keeps them, in float32."""
    return {key: [(step, float(np.float32(value))) for step, value in points] for key, points in curves.items()}


def without_repeated_times(curves: Curves) -> Curves:
    """Leaves out the times of step 5: the tracker has those of the first attempt, the log has those of the second."""
    return {key: [(step, value) for step, value in points if key not in TIMES or step <= SAVED] for key, points in curves.items()}


def hashes(run: Run) -> dict[str, str]:
    adapters = {f"{adapter.round_index} {adapter.dataset}": adapter.sha256 for adapter in run.adapters()}
    return adapters | {f"base {base.index}": base.sha256 for base in run.bases}


@pytest.fixture(scope="module")
def killed_and_resumed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run, Curves]:
    """Returns a configuration, the run, and what TensorBoard had of the first adapter when everything was killed."""
    root = tmp_path_factory.mktemp("tracked")
    config = tiny.make_config(root, ROUNDS, train=TRAIN)
    arguments = ["run", str(config), "run.track=[tensorboard, mlflow]", "--plain"]
    paths, held = RunPaths(root / "runs" / "tiny"), root / "held"
    first = f"{paths.round(1).name}/a"
    environment = {**os.environ, "WFC_HOLD_AT": f"commit_adapter={held}", "MLFLOW_ALLOW_FILE_STORE": "true"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    with open(root / "log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", OFTEN, *arguments], stdout=log, stderr=log, env=environment, start_new_session=True
        )
        assert wait_for(held, process), (root / "log").read_text()
    end = time.monotonic() + 120
    while time.monotonic() < end:  # the thread of the trackers goes on while the training is held
        before = in_tensorboard(paths, first) if (paths.tracked("tensorboard") / first).is_dir() else {}
        if before.get("train/data_wait_s", [(0, 0.0)])[-1][0] == STEPS and "dev/error" in before:
            break
        time.sleep(0.2)
    kill_tree(process)
    done = wfc(*arguments)
    assert "warning" not in done.stderr
    return config, Run(paths.run_dir), before


def test_a_training_that_was_killed_had_been_tracked_while_it_ran(killed_and_resumed: tuple[Path, Run, Curves]) -> None:
    _, _, before = killed_and_resumed
    assert [step for step, _ in before["train/loss"]] == [1, 2, 3, 4, 5]


def test_tensorboard_holds_the_metrics_logs_and_the_scores(killed_and_resumed: tuple[Path, Run, Curves]) -> None:
    _, run, before = killed_and_resumed
    for index, names in enumerate(ROUNDS, start=1):
        for name in names:
            there, log = in_tensorboard(run.paths, f"{run.paths.round(index).name}/{name}"), rounded(logged(run, index, name))
            assert {"train/loss", "train/lr", "train/grad_norm", "dev/error"} <= log.keys()
            if (index, name) == (1, "a"):
                assert there[TIMES[0]][-1] == before[TIMES[0]][-1]
                there, log = without_repeated_times(there), without_repeated_times(log)
            assert there == log
    assert len(scored(run)) == 3
    assert in_tensorboard(run.paths, "bases") == rounded(scored(run))


def test_mlflow_holds_the_metrics_logs_and_the_scores(
    killed_and_resumed: tuple[Path, Run, Curves], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    _, run, _ = killed_and_resumed
    found = in_mlflow(run.paths)
    logs = {f"{run.paths.round(index).name}/{name}": logged(run, index, name)
            for index, names in enumerate(ROUNDS, start=1) for name in names}  # fmt: skip
    first = f"{run.paths.round(1).name}/a"
    for name, expected in {**logs, "bases/bases": scored(run)}.items():
        params, status, curves = found.pop(name)
        assert status == "FINISHED"
        assert params["lora.r"] == "4" and params["train.early_stopping.metric"] == "error"
        same = without_repeated_times if name == first else dict
        assert same(curves) == same(expected), name
    assert not found


def test_nothing_of_the_machine_is_told_to_a_tracker(killed_and_resumed: tuple[Path, Run, Curves]) -> None:
    config, run, _ = killed_and_resumed
    for path in run.paths.tracking.rglob("*"):
        if path.is_file() and path.name != "meta.yaml":  # where MLflow says in which folder its files are
            assert str(config.parent).encode() not in path.read_bytes(), path


def test_trackers_change_no_byte_fail_with_one_warning_each_and_may_come_late(
    killed_and_resumed: tuple[Path, Run, Curves], tmp_path: Path
) -> None:
    config, tracked, _ = killed_and_resumed
    command = ("run", config, f"run.dir={tmp_path}", "--plain")
    done = wfc(*command, "run.track=[mlflow]", MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port('127.0.0.1')}")
    assert done.stderr.count("warning: run.track: mlflow failed (MlflowException") == 1
    run = Run(tmp_path / "tiny")
    assert hashes(run) == hashes(tracked)
    assert not run.paths.tracking.exists()

    wfc(*command)
    assert not run.paths.tracking.exists()

    run.paths.tracking.touch()
    done = wfc(*command, "run.track=[tensorboard]")
    assert done.stderr.count("warning: run.track: tensorboard failed (NotADirectoryError") == 1

    run.paths.tracking.unlink()
    assert "warning" not in wfc(*command, "run.track=[tensorboard]").stderr
    assert in_tensorboard(run.paths, f"{run.paths.round(1).name}/a") == rounded(logged(run, 1, "a"))
    assert in_tensorboard(run.paths, "bases") == rounded(scored(run))
    assert hashes(run) == hashes(tracked)
