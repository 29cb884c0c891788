"""The real trackers: what one attempt writes, the next one finds and goes on with."""

import struct
import time
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from wfc_dist.tracking.mlflow_tracker import URI, MlflowTracker
from wfc_dist.tracking.runs import Point, TrackedRun
from wfc_dist.tracking.tensorboard_tracker import TensorBoardTracker
from wfc_dist.tracking.wandb_tracker import WandbTracker

RUNS = [TrackedRun("tiny", "round-0001", name, {"lora.r": 4, "train.packing": True}, f"0123{name}") for name in ("a", "b")]
FIRST = [Point("train/loss", 1, 0.5), Point("train/lr", 1, 1e-3), Point("train/loss", 2, 0.25), Point("train/lr", 2, 5e-4)]
KINDS = [TensorBoardTracker, MlflowTracker, WandbTracker]


@pytest.fixture(autouse=True)
def _on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (URI, "WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


@pytest.mark.process
@pytest.mark.parametrize("kind", KINDS)
def test_an_attempt_goes_on_where_the_last_one_ended(kind: type, tmp_path: Path) -> None:
    first = kind(tmp_path)
    for run in RUNS:  # two trainings at the same time
        assert first.last_steps(run) == {}
        first.write(run, FIRST)
    first.write(RUNS[0], [Point("dev/error", 2, 0.1)])
    assert first.last_steps(RUNS[0]) == {"train/loss": 2, "train/lr": 2, "dev/error": 2}
    first.finish(RUNS[0])
    first.close()

    later = kind(tmp_path)
    assert [later.is_complete(run) for run in RUNS] == [True, False]
    assert later.last_steps(RUNS[1]) == {"train/loss": 2, "train/lr": 2}
    later.write(RUNS[1], [Point("train/loss", 3, 0.125)])
    assert later.last_steps(RUNS[1]) == {"train/loss": 3, "train/lr": 2}
    later.finish(RUNS[1])
    later.close()
    assert kind(tmp_path).is_complete(RUNS[1])


def test_an_event_file_that_ends_in_the_middle_of_a_record_loses_that_record_only(tmp_path: Path) -> None:
    TensorBoardTracker(tmp_path).write(RUNS[0], FIRST)
    (path,) = tmp_path.glob("*/a/*tfevents*")
    path.write_bytes(path.read_bytes()[:-5])

    later = TensorBoardTracker(tmp_path)
    assert later.last_steps(RUNS[0]) == {"train/loss": 2, "train/lr": 1}
    later.write(RUNS[0], [Point("train/lr", 2, 5e-4)])
    assert later.last_steps(RUNS[0]) == {"train/loss": 2, "train/lr": 2}


def test_tensorboard_reads_the_attempts_in_their_order(tmp_path: Path) -> None:
    for step in range(1, 9):
        TensorBoardTracker(tmp_path).write(RUNS[0], [Point("train/loss", step, 0.5)])
    events = EventAccumulator(str(tmp_path / "round-0001" / "a")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_tensorboard_knows_the_settings(tmp_path: Path) -> None:
    TensorBoardTracker(tmp_path).write(RUNS[0], FIRST)
    events = EventAccumulator(str(tmp_path / "round-0001" / "a")).Reload()
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    assert b"lora.r" in content and b"train.packing" in content


def test_mlflow_knows_the_round_and_neither_user_nor_command(tmp_path: Path) -> None:
    MlflowTracker(tmp_path).write(RUNS[0], FIRST)
    client = MlflowClient(tracking_uri=tmp_path.as_uri())
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.tags == {
        "mlflow.runName": "a", "wfc.id": "0123a", "group": "round-0001", "kind": "adapter", "round": "1", "dataset": "a",
    }  # fmt: skip
    assert run.data.params == {"lora.r": "4", "train.packing": "True"}


def wandb_rows(path: Path) -> list[dict[str, str]]:
    """Returns the rows of an offline run: records of a log of LevelDB's kind, which hold protocol buffers."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, parts, rows = path.read_bytes(), 7, b"", []
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, size, kind = struct.unpack("<IHB", data[place : place + 7])
        parts += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # a whole record, or its last part
            record, parts = Record.FromString(parts), b""
            if record.WhichOneof("record_type") == "history":
                rows.append({item.key or ".".join(item.nested_key): item.value_json for item in record.history.item})
    return [{key: value for key, value in row.items() if not key.startswith("_")} for row in rows]


@pytest.mark.process
def test_wandb_writes_an_offline_run_without_the_machines_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "s3cret")
    tracker = WandbTracker(tmp_path)
    tracker.write(RUNS[0], FIRST)
    tracker.write(RUNS[0], [Point("dev/error", 2, 0.1)])
    tracker.close()
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    end = time.monotonic() + 60
    while len(wandb_rows(path)) < 3 and time.monotonic() < end:  # wandb's own process may write the file after `finish`
        time.sleep(0.05)
    assert wandb_rows(path) == [
        {"step": "1", "train/loss": "0.5", "train/lr": "0.001"},
        {"step": "2", "train/loss": "0.25", "train/lr": "0.0005"},
        {"step": "2", "dev/error": "0.1"},
    ]
    assert b"pytest" not in path.read_bytes()  # neither the command nor a folder
    assert all(b"s3cret" not in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
