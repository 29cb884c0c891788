"""The run directory: locked, unchanged, reconciled; damage is set aside and said."""

import errno
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from wfc_dist.config import loading
from wfc_dist.config.schema import Config
from wfc_dist.errors import ConfigError, InputError, IntegrityError, RunLockedError
from wfc_dist.rounds import Base
from wfc_dist.runs.handle import Run
from wfc_dist.runs.layout import RunPaths, has_trained, require_run
from wfc_dist.runs.opening import opened_for_writing
from wfc_dist.runs.root import ensure_root
from wfc_dist.runs.store import RunStore
from wfc_dist.storage import durable

DATA = {"a/train": "1"}


def make(tmp_path: Path, **blocks: dict) -> Config:
    return loading.parse(
        {
            "run": {"name": "r", "dir": str(tmp_path)},
            "base": {"model": str(tmp_path / "model")},
            "datasets": {name: {"source": name, "splits": {"train": "t"}} for name in "zya"},
            "rounds": {"centralize_every": 2},
            **blocks,
        }
    )


def add_adapter(store: RunStore, base: Base, dataset: str) -> Path:
    staged = store.stage_adapter(base, dataset)
    (staged / "adapter_model.safetensors").write_bytes(dataset.encode())
    store.commit_adapter(base, dataset, staged, {"sha256": dataset, "hours": 1.0, "steps": 3})
    return store.paths.adapter(base.index + 1, dataset)


BASE = Base(0, "root", "0")


def test_a_run_goes_on_with_what_was_committed(tmp_path: Path) -> None:
    with opened_for_writing(make(tmp_path), DATA) as store:
        add_adapter(store, BASE, "z")
        assert store.attempt == 1
    with opened_for_writing(make(tmp_path), DATA) as store:
        assert store.attempt == 2
        assert list(store.finished_adapters(BASE)) == ["z"]
        assert store.current_round() == 1
    assert Run(tmp_path / "r").config.round_list() == [["z", "y"], ["a"]]  # the file's order, not the alphabet's


@pytest.mark.process
def test_the_second_process_is_refused_and_told_of_the_first(tmp_path: Path) -> None:
    config = make(tmp_path)
    with opened_for_writing(config, DATA):
        script = (
            "from pathlib import Path; from wfc_dist.runs.opening import locked; from wfc_dist.runs.layout import RunPaths\n"
            f"with locked(RunPaths(Path({str(tmp_path / 'r')!r}))): pass"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert f"process {os.getpid()}" in done.stderr and "RunLockedError" in done.stderr
    with opened_for_writing(config, DATA):  # free again
        pass
    assert RunLockedError.exit_code == 75, "a crash may have left the lock for a moment"


def test_a_file_system_without_locks_is_not_taken_for_a_second_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        pytest.raises(ConfigError, match=r"cannot lock files \(Function not implemented\).*Lustre"),
        opened_for_writing(make(tmp_path), DATA),
    ):
        pass


def train_a_step(paths: RunPaths) -> None:
    paths.curve(1, "a").parent.mkdir(parents=True)
    paths.curve(1, "a").write_text('{"step": 1}\n')


@pytest.mark.parametrize(
    ("blocks", "data", "told"),
    [
        ({"train": {"lr": 0.5}}, DATA, "changed: train.lr"),
        ({"base": {"model": "other"}}, DATA, "changed: base.model"),
        ({}, {"a/train": "2"}, "changed: the data of a/train"),
    ],
)
def test_a_run_that_has_trained_nothing_begins_anew(tmp_path: Path, blocks: dict, data: dict, told: str) -> None:
    with opened_for_writing(make(tmp_path), DATA) as store:
        store.paths.base(0).mkdir()
        store.paths.curve(1, "a").parent.mkdir(parents=True)
        store.paths.curve(1, "a").touch()  # opened, but no step was done
        durable.staging_path(store.paths.adapter(1, "a"), 1)  # made, and left empty
    said: list[str] = []
    with opened_for_writing(make(tmp_path, **blocks), data, said.append) as store:
        recorded = json.loads(store.paths.config.read_text())
        assert (recorded["attempt"], recorded["data"], recorded["config"]["train"]["lr"]) == (2, data, store.config.train.lr)
        assert store.paths.base(0).is_dir() != ("base" in blocks), "base 0 is that of the configuration"
        anew = [line for line in durable.read_json_lines(store.paths.ledger) if line["event"] == "anew"]
        assert len(anew) == 1 and anew[0]["changed"][0] in told
    assert len(said) == 1 and "nothing was trained" in said[0] and told in said[0]


@pytest.mark.parametrize(
    "made",
    [
        "round-0001/training/a/step-2/x", "round-0001/delta/x", "round-0001/interim-1/x", "round-0001/fit/trials.jsonl",
        "round-0001/adapters/a/manifest.json", "base-0001/x", "slurm/round-0001/train-a/x",
    ],
)  # fmt: skip
def test_whatever_was_made_of_a_configuration_holds_it(tmp_path: Path, made: str) -> None:
    with opened_for_writing(make(tmp_path), DATA) as store:
        assert not has_trained(store.paths)
        (store.paths.run_dir / made).parent.mkdir(parents=True)
        (store.paths.run_dir / made).write_text("{}")
        assert has_trained(store.paths)


@pytest.mark.parametrize(
    ("blocks", "data", "message"),
    [
        ({"train": {"lr": 0.5}}, DATA, "changed: train.lr"),
        ({"run": {"seed": 2}}, DATA, "changed: run.seed"),
        ({}, {"a/train": "2"}, "data has changed .* a/train"),
    ],
)
def test_a_changed_configuration_or_changed_data_is_refused(tmp_path: Path, blocks: dict, data: dict, message: str) -> None:
    with opened_for_writing(make(tmp_path), DATA) as store:
        train_a_step(store.paths)
    before = (tmp_path / "r" / "config.json").read_bytes()
    if "run" in blocks:
        blocks = {"run": {"name": "r", "dir": str(tmp_path), **blocks["run"]}}
    with pytest.raises(ConfigError, match=message), opened_for_writing(make(tmp_path, **blocks), data):
        pass
    assert (tmp_path / "r" / "config.json").read_bytes() == before


def test_a_run_of_a_version_with_fewer_keys_goes_on_and_notices_their_use(tmp_path: Path) -> None:
    with opened_for_writing(make(tmp_path), DATA) as store:
        path = store.paths.config
        train_a_step(store.paths)
    tree = json.loads(path.read_text())
    for key in ("optimizer", "distillation", "curvature"):
        del tree["config"]["train"][key]
    path.write_text(json.dumps(tree))

    with (
        pytest.raises(ConfigError, match=r"changed: train.optimizer\."),
        opened_for_writing(make(tmp_path, train={"optimizer": "sgd"}), DATA),
    ):
        pass
    with opened_for_writing(make(tmp_path), DATA) as store:
        assert store.attempt == 2


def test_cluster_settings_may_change_between_attempts(tmp_path: Path) -> None:
    with opened_for_writing(make(tmp_path), DATA):
        pass
    with opened_for_writing(make(tmp_path, cluster={"backend": "in_process", "max_failures": 9}), DATA) as store:
        assert store.attempt == 2


def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError, match="not empty and not a run"), opened_for_writing(make(tmp_path), DATA):
        pass
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["thesis.tex"]
    with pytest.raises(InputError, match="not a run directory"):
        require_run(tmp_path)


def test_a_crash_between_manifest_and_ledger_is_made_good(tmp_path: Path) -> None:
    with opened_for_writing(make(tmp_path), DATA) as store:
        add_adapter(store, BASE, "z")
        ledger = store.paths.ledger
    ledger.write_text("")
    with opened_for_writing(make(tmp_path), DATA):
        pass
    with opened_for_writing(make(tmp_path), DATA):
        pass
    (line,) = map(json.loads, ledger.read_text().splitlines())
    assert line["event"] == "adapter" and line["dataset"] == "z" and line["recovered"] and line["attempt"] == 2


def test_a_damaged_adapter_is_set_aside_and_trained_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened_for_writing(make(tmp_path), DATA) as store:
        folder = add_adapter(store, BASE, "z")
        add_adapter(store, BASE, "y")
        (folder / "adapter_model.safetensors").write_bytes(b"Z")
        assert list(store.finished_adapters(BASE)) == ["y"]
    assert "the adapter z is damaged and moved to" in caplog.text and not folder.exists()
    assert list(folder.parent.glob("z.tmp-damaged-*")), "nothing is thrown away"
    with opened_for_writing(make(tmp_path), DATA) as store:
        add_adapter(store, BASE, "z")  # trained again
        assert list(store.finished_adapters(BASE)) == ["y", "z"]
    with opened_for_writing(make(tmp_path), DATA) as store:
        assert list(store.finished_adapters(BASE)) == ["y", "z"]
    (aside,) = folder.parent.glob("*.tmp-damaged-*")
    assert aside.name == "z.tmp-damaged-1"  # moved once
    recorded = [json.loads(line) for line in store.paths.ledger.read_text().splitlines()]
    assert {line["dataset"] for line in recorded if line["event"] == "adapter"} == {"y", "z"}


def test_an_uncommitted_adapter_does_not_count(tmp_path: Path) -> None:
    with opened_for_writing(make(tmp_path), DATA) as store:
        folder = add_adapter(store, BASE, "z")
        (folder / durable.MANIFEST).unlink()
        assert store.finished_adapters(BASE) == {}


def test_the_root_is_recorded_once_and_must_not_change(tmp_path: Path) -> None:
    tiny.make_whisper(tmp_path / "model")
    with opened_for_writing(make(tmp_path), DATA) as store:
        ensure_root(store)
        assert Run(store.paths.run_dir).base().index == 0
    other = tiny.make_whisper(tmp_path / "other", seed=1)
    os.replace(other / "model.safetensors", tmp_path / "model" / "model.safetensors")
    with (
        opened_for_writing(make(tmp_path), DATA) as store,
        pytest.raises(IntegrityError, match="has changed since the run began"),
    ):
        ensure_root(store)


def test_a_cast_base_loads_and_remembers_its_root(tmp_path: Path) -> None:
    import torch
    from transformers import WhisperForConditionalGeneration

    tiny.make_whisper(tmp_path / "model")
    with opened_for_writing(make(tmp_path, base={"model": str(tmp_path / "model"), "dtype": "bfloat16"}), DATA) as store:
        ensure_root(store)
        base = store.base(0)
        assert base is not None and store.manifest(0)["root"] == str(tmp_path / "model")
        assert WhisperForConditionalGeneration.from_pretrained(base.path, dtype="auto").dtype == torch.bfloat16


def test_latest_base_of_a_run_without_one_says_so(tmp_path: Path) -> None:
    with opened_for_writing(make(tmp_path), DATA):
        pass
    with pytest.raises(InputError, match="no committed base yet"):
        Run(RunPaths(tmp_path / "r").run_dir).base()


def test_an_adapter_whose_round_has_its_base_is_not_read_again(tmp_path: Path) -> None:
    with opened_for_writing(make(tmp_path), DATA) as store:
        folder = add_adapter(store, BASE, "z")
        staged = durable.staging_path(store.paths.base(1), 1)
        durable.commit_folder(staged, store.paths.base(1), {"sha256": "1"})
        (folder / "adapter_model.safetensors").write_bytes(b"Z")
        assert list(store.finished_adapters(BASE)) == ["z"], "who scores it verifies it"


def test_a_run_that_stops_by_itself_is_told_from_one_that_is_asked_to(tmp_path: Path) -> None:
    with opened_for_writing(make(tmp_path), DATA) as store:
        store.stop("no trainer is left", by_itself=True)
        store.stop("wfc stop")
        assert (store.stop_reason(), store.end_facts()) == ("no trainer is left", {"by_itself": True})
        store.status.write("interrupted", "no trainer is left", 75, **store.end_facts())
    assert '"by_itself": true' in RunPaths(tmp_path / "r").status.read_text(), "what slurm/*.sh look for"
    with opened_for_writing(make(tmp_path), DATA) as store:
        store.stop("wfc stop")
        store.stop("no trainer is left", by_itself=True)
        assert (store.stop_reason(), store.end_facts()) == ("wfc stop", {})
