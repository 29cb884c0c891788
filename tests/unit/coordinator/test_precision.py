"""`precision: auto` is decided by the first attempt that gets so far, recorded, and kept by every later one."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import scored_runs

from wfc_dist.config import loading
from wfc_dist.config.schema import Config
from wfc_dist.coordinator.precision import settle
from wfc_dist.errors import ConfigError
from wfc_dist.runs.handle import Run
from wfc_dist.runs.layout import RunPaths
from wfc_dist.runs.opening import opened_for_writing
from wfc_dist.runs.store import RunStore

NEW, OLD = {"new": True}, {"old": False}


def configuration(folder: Path, precision: str = "auto", **cluster: object) -> Config:
    tree = scored_runs.make_config(folder).model_dump(mode="json")
    tree["train"]["precision"] = precision
    tree["cluster"] |= cluster
    return loading.parse(tree)


def attempt(config: Config, found: Mapping[str, bool], *, trains: bool = False) -> list[str]:
    """Opens the run, settles, and returns what was said; `trains` leaves a checkpoint, so that nothing begins anew."""
    said: list[str] = []
    with opened_for_writing(config, {}, said.append) as store:
        settle(store, lambda: found, said.append)
        if trains:
            checkpoint = store.paths.checkpoints(1, config.round_list()[0][0]) / "step-1"
            checkpoint.mkdir(parents=True)
            (checkpoint / "state.json").write_text("{}")
    return said


def recorded(config: Config) -> str:
    return Run(config.run_dir()).config.train.precision


def test_the_first_attempt_decides_and_a_resume_on_another_processor_keeps_it(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    assert attempt(config, NEW, trains=True) == ["precision auto is bf16: every processor that trains has it"]
    assert recorded(config) == "bf16"
    lines = [json.loads(line) for line in RunPaths(config.run_dir()).ledger.read_text().splitlines()]
    assert [line["precision"] for line in lines if line["event"] == "precision"] == ["bf16"]

    (warning,) = attempt(config, OLD)

    assert recorded(config) == "bf16" and warning.startswith("warning: old has no bf16, in which this run calculates")
    assert attempt(config, NEW) == [] and recorded(config) == "bf16"
    with opened_for_writing(config, {}) as store:
        assert store.config.train.precision == "bf16", "trainers and the pool get what was decided"


def test_a_run_in_float32_stays_so_where_bf16_would_be_faster(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    (said,) = attempt(config, OLD, trains=True)
    assert "is fp32" in said
    assert attempt(config, NEW) == [] and recorded(config) == "fp32"


def test_the_decision_is_part_of_the_configuration(tmp_path: Path) -> None:
    attempt(configuration(tmp_path), NEW, trains=True)
    attempt(configuration(tmp_path, "bf16"), NEW)  # the same, spelled out
    with pytest.raises(ConfigError, match=r"changed: train\.precision"), opened_for_writing(configuration(tmp_path, "fp32"), {}):
        pass


def test_a_run_that_begins_anew_decides_anew(tmp_path: Path) -> None:
    attempt(configuration(tmp_path), NEW)
    changed = loading.parse(configuration(tmp_path).model_dump(mode="json") | {"lora": {"r": 2}})
    said = attempt(changed, OLD)
    assert "begins anew" in said[0] and "is fp32" in said[1] and recorded(changed) == "fp32"


def test_without_an_answer_nothing_is_decided(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    with pytest.raises(ConfigError, match=r"no node that could train has answered; set the key precision"):
        attempt(config, {})
    assert recorded(config) == "auto"


@pytest.mark.parametrize(("precision", "gpus"), [("fp32", 0), ("fp16", 1), ("bf16", 1)])
def test_nobody_is_asked_where_nothing_is_to_be_said(tmp_path: Path, precision: str, gpus: int) -> None:
    config = configuration(tmp_path, precision, gpus_per_worker=gpus)

    def find_out() -> Mapping[str, bool]:
        raise AssertionError("asked")

    with opened_for_writing(config, {}) as store:
        settle(store, find_out, print)
        assert isinstance(store, RunStore) and store.config.train.precision == precision
