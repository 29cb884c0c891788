"""What a tracker is told of a run, and what it is not."""

from pathlib import Path
from typing import Any

import pytest
import tiny

from wfc_dist.config import loading
from wfc_dist.errors import ConfigError
from wfc_dist.runs.layout import RunPaths
from wfc_dist.tracking.catalog import EXTRAS, make_trackers, require_trackers
from wfc_dist.tracking.mlflow_tracker import URI
from wfc_dist.tracking.runs import settings_of, tracked_run, training_points


def config_with(folder: Path, **run: Any) -> Any:
    tree = loading.read_tree(tiny.make_config(folder, [["a"]]))
    tree["run"] |= run
    tree["cluster"] = {"slurm": {"setup": ["export TOKEN=s3cret"]}}
    return loading.parse(tree)


def test_settings_hold_numbers_and_words_and_neither_paths_nor_commands(tmp_path: Path) -> None:
    settings = settings_of(config_with(tmp_path, notify="post s3cret"))
    assert settings["lora.r"] == 4
    assert settings["lora.target_modules"] == "q_proj v_proj"
    assert settings["centralize.method"] == "mean"
    assert settings["train.packing"] is True
    assert {key.partition(".")[0] for key in settings} == {"lora", "train", "centralize"}
    assert "train.loader_workers" not in settings  # a later attempt may change it
    assert "s3cret" not in str(settings) and str(tmp_path) not in str(settings)
    assert all(isinstance(value, (bool, int, float, str)) for value in settings.values())


def test_every_value_of_a_row_is_a_point() -> None:
    assert [(point.key, point.step, point.value) for point in training_points({"step": 3, "loss": 0.5, "lr": 1e-3})] == [
        ("train/loss", 3, 0.5), ("train/lr", 3, 1e-3),
    ]  # fmt: skip
    assert [(point.key, point.value) for point in training_points({"step": 3, "dev_error": 0.25})] == [("dev/error", 0.25)]


def test_run_directories_do_not_share_tracker_runs(tmp_path: Path) -> None:
    config = config_with(tmp_path)
    runs = [
        tracked_run(config, *place) for place in (("x", "round-0001", "a"), ("y", "round-0001", "a"), ("x", "round-0002", "a"))
    ]
    assert len({run.id for run in runs}) == 3


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_tracker_whose_package_is_missing_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_with(tmp_path, track=[name])
    require_trackers(config)
    assert list(make_trackers(config, RunPaths(tmp_path))) == [name]
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    extra = {"tensorboard": "track"}.get(name, name)
    with pytest.raises(ConfigError, match=rf"run\.track: {name} is not installed here; pip install 'wfc-dist\[{extra}\]'"):
        require_trackers(config)


def test_mlflow_needs_a_server_for_a_run_on_object_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_with(tmp_path, dir="memory://bucket/runs", track=["mlflow"])
    monkeypatch.delenv(URI, raising=False)
    with pytest.raises(ConfigError, match=f"mlflow cannot keep its files on object storage; set {URI}"):
        require_trackers(config)
    monkeypatch.setenv(URI, "http://127.0.0.1:1")
    require_trackers(config)


@pytest.mark.parametrize(
    ("track", "message"),
    [(["tensorboard", "tensorboard"], "a tracker is named twice"), (["comet"], "tensorboard"), ("tensorboard", "list")],
)
def test_a_list_of_trackers_that_cannot_be(track: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"run\.track.*{message}"):
        config_with(tmp_path, track=track)


def test_every_tracker_of_the_schema_has_an_extra() -> None:
    found = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert all(f"\n{extra} = [" in found for extra in EXTRAS.values())
