"""`wfc plan` refuses what `wfc run` refuses: the same message, exit code 2, and no run directory."""

import importlib.util
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import yaml
from typer.testing import CliRunner

from wfc_dist.cli.commands import app
from wfc_dist.config.loading import load_config
from wfc_dist.coordinator import room
from wfc_dist.coordinator.checks import CHECKS, check_start
from wfc_dist.errors import Interrupted, WfcError
from wfc_dist.runs.opening import opened_for_writing

Change = Callable[[Path], list[str]]
"""Spoils what lies below a folder, and returns the overrides that the configuration then gets."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    tiny.make_config(folder, rounds=(("a",), ("b",)))
    return folder


@pytest.fixture
def root(sound: Path, tmp_path: Path) -> Path:
    """A copy of a configuration that runs, with its model and data."""
    copy = shutil.copytree(sound, tmp_path / "tiny")
    path = copy / "config.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace(str(sound), str(copy)), encoding="utf-8")
    return copy


def answer(*words: str) -> tuple[int, str]:
    """Returns the exit code and the message of an error, as the entry point makes them."""
    done = CliRunner().invoke(app, list(words))
    if isinstance(done.exception, WfcError):
        return done.exception.exit_code, done.exception.message
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def without_model_type(root: Path) -> list[str]:
    path = root / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"model_type": "bart"}), encoding="utf-8")
    return []


def without_weights(root: Path) -> list[str]:
    (root / "model" / "model.safetensors").unlink()
    return []


def emptied(split: str) -> Change:
    def change(root: Path) -> list[str]:
        (root / "a" / f"{split}.jsonl").write_text("", encoding="utf-8")
        return []

    return change


def rows_in(language: str) -> Change:
    def change(root: Path) -> list[str]:
        path = root / "b" / "test.jsonl"
        rows = [json.loads(line) | {"lang": language} for line in path.read_text(encoding="utf-8").splitlines()]
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        return []

    return change


def without_token(language: str) -> Change:
    def change(root: Path) -> list[str]:
        for path in (root / "model").glob("*.json"):
            text = path.read_text(encoding="utf-8").replace(f"<|{language}|>", "<|none|>")
            path.write_text(text, encoding="utf-8")
        return []

    return change


def in_the_way(name: str) -> Change:
    def change(root: Path) -> list[str]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x", encoding="utf-8")
        return []

    return change


def renamed(old: str, new: str) -> Change:
    def change(root: Path) -> list[str]:
        path = root / "config.yaml"
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        tree["datasets"] = {new if name == old else name: data for name, data in tree["datasets"].items()}
        tree["rounds"] = [[new if name == old else name for name in names] for names in tree["rounds"]]
        path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
        return []

    return change


def overrides(*words: str) -> Change:
    return lambda root: [word.replace("ROOT", str(root)) for word in words]


def nobodys_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


PROTECTED = "evaluate.protected={en: {source: ROOT/gone, language: en, splits: {test: test.jsonl}}}"
FAULTS: dict[str, tuple[Change, str]] = {
    "the model is no folder and no id": (overrides("base.model=ROOT/no/model"), "is no folder and the hub did not give it"),
    "a hub id offline": (overrides("base.model=nobody/whisper-none"), "'nobody/whisper-none' is no folder and the hub"),
    "a folder without a model": (overrides("base.model=ROOT/a"), "holds neither model.safetensors nor"),
    "a folder of another model": (without_model_type, "model_type is 'bart'; only Whisper models are adapted"),
    "a folder without weights": (without_weights, "model.safetensors"),
    "target modules that match nothing": (overrides("lora.target_modules=[qkv]"), "lora.target_modules ['qkv'] does not fit"),
    "a target that is no linear layer": (overrides("lora.target_modules=[layer_norm]"), "lora.target_modules"),
    "an empty training split": (emptied("train"), "a/train: no clips in"),
    "an empty dev split": (emptied("dev"), "a/dev: no clips in"),
    "an empty test split": (emptied("test"), "a/test: no clips in"),
    "rows in no language": (rows_in("klingon"), "is no language of Whisper"),
    "rows in a language without a token": (without_token("es"), "<|es|>"),
    "a protected set that is gone": (overrides(PROTECTED), "ROOT/gone"),
    "a name of the run directory": (renamed("b", "base-0002"), "data set 'base-0002': the run directory uses such names itself"),
    "a name like unfinished work": (renamed("b", "b.tmp-1"), "data set 'b.tmp-1': the run directory uses"),
    "names that differ in case alone": (renamed("b", "A"), "data sets 'a' and 'A' differ in case alone"),
    "fp16 without GPUs": (overrides("train.precision=fp16"), "fp16 needs GPUs"),
    "a notifier that is not there": (overrides("run.notify=no-such-program"), "there is no program 'no-such-program' here"),
    "a tracker that is not installed": (overrides("run.track=[wandb]"), "run.track: wandb is not installed here"),
    "no Ray at the address": (
        overrides("cluster.backend=ray", f"cluster.address=127.0.0.1:{nobodys_port()}"), "no Ray cluster answers",
    ),
    "Ray Client": (overrides("cluster.backend=ray", "cluster.address=ray://h:1"), "Ray Client connections are not supported"),
    "more cores than there are": (overrides("cluster.backend=ray", "cluster.cpus_per_worker=9999"), "no trainer fits: one needs"),
    "GPUs that are not there": (
        overrides("cluster.backend=ray", "cluster.gpus_per_worker=1", "cluster.workers_per_trainer=99"), "99 x (1 CPU, 1 GPU)",
    ),
    "Slurm that is not there": (overrides("cluster.backend=slurm"), "cluster.backend=ray"),
    "object storage without its package": (overrides("run.dir=gs://bucket/runs"), "needs gcsfs"),
    "a file in the way": (in_the_way("runs"), "runs is no folder; choose another run.dir"),
    "a folder that is no run": (in_the_way("runs/tiny/notes.txt"), "is not empty and not a run"),
}  # fmt: skip


@pytest.mark.process
@pytest.mark.parametrize("fault", FAULTS)
def test_plan_and_run_refuse_with_one_message(fault: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("PATH", "/nowhere")  # no program of Slurm
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("wandb", "gcsfs") else find_spec(name))
    change, message = FAULTS[fault]
    words = [str(root / "config.yaml"), *change(root)]
    before = sorted((root / "runs").rglob("*"))
    planned, done = answer("plan", *words), answer("run", *words, "--plain")
    assert planned == done
    assert done[0] == 2
    assert message.replace("ROOT", str(root)) in done[1]
    assert sorted((root / "runs").rglob("*")) == before


@pytest.mark.parametrize(
    ("what", "value", "message"),
    [("free", 10, "run.dir: 2 bases and 2 adapters take"), ("memory", 1000, "a trainer holds"), ("slurm", 0.00001, "mem_gb")],
)
def test_too_little_room_is_refused(
    what: str, value: float, message: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    words = [str(root / "config.yaml")]
    if what == "free":
        usage = shutil.disk_usage(root)
        monkeypatch.setattr(room.shutil, "disk_usage", lambda folder: usage._replace(free=value))
    elif what == "memory":
        monkeypatch.setattr(room, "memory_bytes", lambda: value)
    else:
        words += ["cluster.backend=slurm", f"cluster.slurm.mem_gb={value}"]
        monkeypatch.setattr("wfc_dist.backends.slurm.backend.check", lambda config: None)
    planned, done = answer("plan", *words), answer("run", *words, "--plain")
    assert planned == done
    assert done[0] == 2
    assert message in done[1]
    assert not (root / "runs").exists()


def test_a_run_that_has_begun_waits_for_a_full_disk(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(root / "config.yaml")
    with opened_for_writing(config, {}):
        pass
    usage = shutil.disk_usage(root)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda folder: usage._replace(free=10))
    with pytest.raises(Interrupted, match="free space there, and the same command goes on"):
        room.check_room(config, root / "model")


@pytest.mark.process
def test_a_changed_configuration_is_refused_by_the_plan_too(root: Path) -> None:
    words = [str(root / "config.yaml"), "train.max_steps=1", "train.warmup_steps=0", "rounds=[[a]]"]
    assert answer("run", *words, "--plain")[0] == 0
    planned, done = answer("plan", *words, "train.lr=0.5"), answer("run", *words, "train.lr=0.5", "--plain")
    assert planned == done == (2, done[1])
    assert "was started with another configuration; changed: train.lr" in done[1]
    assert answer("plan", *words)[0] == 0
    path = root / "a" / "train.jsonl"
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[1:]), encoding="utf-8")
    planned, done = answer("plan", *words), answer("run", *words, "--plain")
    assert planned == done
    assert "the data has changed since the run began: a/train" in done[1]


@pytest.mark.parametrize(
    ("words", "warning"),
    [
        (["lora.r=33"], "lora.r is 33, but no update of"),
        (["lora.r=32"], ""),
        (["datasets.a.splits={train: train.jsonl}", "datasets.b.splits={train: train.jsonl}"], "no data set has a test split"),
    ],
)
def test_what_a_run_bears_is_said(words: list[str], warning: str, root: Path) -> None:
    warnings = check_start(load_config(root / "config.yaml", words)).warnings
    assert len(warnings) == bool(warning)
    assert warning in "".join(warnings)
    output = CliRunner().invoke(app, ["plan", str(root / "config.yaml"), *words]).output
    assert ("warning: " in output) == bool(warning)


def test_more_trainers_than_memory_holds_are_warned_of(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(root / "config.yaml", ["cluster.backend=ray", "rounds=[[a, b]]", "cluster.cpus_per_worker=0.01"])
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(room, "memory_bytes", lambda: 10**6)
    (warning,) = check_start(config).warnings
    assert "2 trainers at a time hold" in warning
    assert "lower cluster.max_trainers" in warning


def test_a_check_is_named_for_what_it_looks_at() -> None:
    assert len({check.__name__ for check in CHECKS}) == len(CHECKS) >= 5
