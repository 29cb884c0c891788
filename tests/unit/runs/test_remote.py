"""A run on object storage, opened from machines that come and go (each has a mirror of its own)."""

import json
import shutil
import time
from pathlib import Path

import pytest

from wfc_dist.config import loading
from wfc_dist.config.schema import Config
from wfc_dist.errors import ConfigError, InputError, RunLockedError
from wfc_dist.rounds import Base
from wfc_dist.runs.handle import open_run
from wfc_dist.runs.opening import opened_for_writing
from wfc_dist.runs.remote import ask_to_stop, local_run
from wfc_dist.runs.store import RunStore
from wfc_dist.storage import durable, lock
from wfc_dist.storage.mirror import Mirror
from wfc_dist.storage.objects import Objects

DATA = {"a/train": "1"}
BASE = Base(0, "root", "0")


def make(tmp_path: Path, machine: str, **blocks: dict) -> Config:
    return loading.parse(
        {
            "run": {"name": "r", "dir": f"file://{tmp_path}/remote"},
            "base": {"model": "m"},
            "datasets": {name: {"source": name, "splits": {"train": "t"}} for name in "ab"},
            "rounds": {"centralize_every": 2},
            "cluster": {"cache_dir": str(tmp_path / machine)},
            **blocks,
        }
    )


@pytest.fixture
def remote(tmp_path: Path) -> Objects:
    return Objects(f"file://{tmp_path}/remote/r")


def train(store: RunStore, dataset: str, text: str = "weights") -> Path:
    """Does what a trainer on another node does, and commits it."""
    staged = store.stage_adapter(BASE, dataset)
    (staged / "adapter_model.safetensors").write_text(text)
    store.mirror.publish_staged(staged)
    shutil.rmtree(staged)
    store.commit_adapter(BASE, dataset, staged, {"sha256": dataset, "hours": 1.0, "steps": 3})
    return store.paths.adapter(1, dataset)


@pytest.mark.parametrize("kind", ["file://", "local://"])
def test_a_file_url_of_a_run_in_a_folder_is_the_folder(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "runs" / "r"
    config = make(tmp_path, "one", run={"name": "r", "dir": str(tmp_path / "runs")})
    with opened_for_writing(config, DATA) as store:
        store.status.write("interrupted")
    run = open_run(f"{kind}{folder}")
    assert (run.path, run.url, run.status().state) == (folder, None, "interrupted")
    ask_to_stop(f"{kind}{folder}", "enough")
    assert run.paths.stop_file.read_text().strip() == "enough"
    with pytest.raises(InputError, match="is not a run directory"):
        open_run(f"{kind}{tmp_path}/runs")


def test_a_run_copied_to_object_storage_by_hand_is_no_run_there(tmp_path: Path) -> None:
    config = make(tmp_path, "one", run={"name": "r", "dir": str(tmp_path / "runs")})
    with opened_for_writing(config, DATA):
        pass
    store = Objects("memory://copied/r")
    store.write("config.json", (tmp_path / "runs" / "r" / "config.json").read_bytes())
    with pytest.raises(InputError, match=r"memory://copied/r is a copy of a run directory.*; copy it to a folder"):
        open_run("memory://copied/r")


@pytest.mark.parametrize("kind", ["http", "https"])
def test_an_address_that_can_only_be_read_is_no_place_for_runs(kind: str) -> None:
    with pytest.raises(
        ConfigError, match=f"{kind}://host/r can only be read; a run needs a folder, or object storage such as s3"
    ):
        open_run(f"{kind}://host/r")


def test_another_machine_goes_on_with_what_was_published(tmp_path: Path, remote: Objects) -> None:
    with opened_for_writing(make(tmp_path, "one"), DATA) as store:
        train(store, "a")
        store.status.write("interrupted")
    with opened_for_writing(make(tmp_path, "two"), DATA) as store:
        found = store.finished_adapters(BASE)
        assert (store.attempt, list(found), store.status.last_state()) == (2, ["a"], "interrupted")
        assert (Path(found["a"].path) / "adapter_model.safetensors").read_text() == "weights"
        assert str(tmp_path / "two") in found["a"].path
    assert [json.loads(line)["event"] for line in (remote.read("ledger.jsonl") or b"").splitlines()] == ["adapter"]
    assert not [name for name in remote.list() if ".tmp-" in name]


def test_what_a_crash_left_unpublished_is_published_by_the_next_attempt_there(
    tmp_path: Path, remote: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(self: Mirror, folder: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), opened_for_writing(make(tmp_path, "one"), DATA) as store:
        staged = store.stage_adapter(BASE, "a")
        (staged / "adapter_model.safetensors").write_text("weights")
        store.mirror.publish_staged(staged)
        monkeypatch.setattr(Mirror, "publish", crash)
        store.commit_adapter(BASE, "a", staged, {"sha256": "a", "hours": 1.0, "steps": 3})
    monkeypatch.undo()
    assert any(".tmp-" in name for name in remote.list())

    with opened_for_writing(make(tmp_path, "one"), DATA) as store:
        assert list(store.finished_adapters(BASE)) == ["a"]
    assert "round-0001/adapters/a/manifest.json" in remote.list()
    assert not [name for name in remote.list() if ".tmp-" in name]
    assert [json.loads(line)["recovered"] for line in (remote.read("ledger.jsonl") or b"").splitlines()] == [True]


def test_checkpoints_go_with_their_round_also_if_a_crash_left_its_base_unpublished(tmp_path: Path, remote: Objects) -> None:
    config = make(tmp_path, "one")
    with opened_for_writing(config, DATA) as store:
        base = store.paths.base(1)
        staged = store.paths.run_dir / "staged"
        staged.mkdir()
        (staged / "model-update.safetensors").write_text("weights")
    for round_index in (1, 2):
        for file in ("state.safetensors", durable.MANIFEST):
            remote.write(f"round-000{round_index}/training/a/step-2/{file}", b"{}")
    durable.commit_folder(staged, base, {"index": 1, "sha256": "0"})

    with opened_for_writing(config, DATA):
        left = sorted(name for name in remote.list() if "/training/" in name)
        assert f"base-0001/{durable.MANIFEST}" in remote.list()

    assert left == [f"round-0002/training/a/step-2/{file}" for file in (durable.MANIFEST, "state.safetensors")]


@pytest.mark.parametrize(("late", "kept"), [("next_round", ["b"]), ("never", [])])
def test_checkpoints_of_a_data_set_that_is_awaited_stay(tmp_path: Path, remote: Objects, late: str, kept: list[str]) -> None:
    datasets = {name: {"source": name, "splits": {"train": "t"}} for name in "abc"}
    config = make(tmp_path, "one", datasets=datasets, rounds=[["a", "b"], ["c"]], centralize={"quorum": 1, "late": late})
    with opened_for_writing(config, DATA) as store:
        staged = store.paths.run_dir / "staged"
        staged.mkdir()
        (staged / "model-update.safetensors").write_text("weights")
        durable.commit_folder(
            staged, store.paths.base(1), {"index": 1, "sha256": "0", "adapters": {"a": "0"}, "missing": {"b": "slow"}}
        )
    for dataset in "ab":
        remote.write(f"round-0001/training/{dataset}/step-2/{durable.MANIFEST}", b"{}")

    with opened_for_writing(config, DATA):
        assert [name.split("/")[2] for name in remote.list() if "/training/" in name] == kept


def test_object_storage_is_right_where_a_mirror_says_otherwise(tmp_path: Path, remote: Objects) -> None:
    with opened_for_writing(make(tmp_path, "one"), DATA) as store:
        old = train(store, "a", "old-one")
    remote.write("round-0001/adapters/a/adapter_model.safetensors", b"OLD-ONE")  # damaged: the second machine trains it again
    with opened_for_writing(make(tmp_path, "two"), DATA) as store:
        assert store.finished_adapters(BASE) == {}
        train(store, "a", "another")
    with opened_for_writing(make(tmp_path, "one"), DATA) as store:
        store.finished_adapters(BASE)
        assert (old / "adapter_model.safetensors").read_text() == "another"


def test_a_damaged_copy_is_fetched_again_and_a_damaged_original_trained_again(tmp_path: Path, remote: Objects) -> None:
    with opened_for_writing(make(tmp_path, "one"), DATA) as store:
        folder = train(store, "a")
        (folder / "adapter_model.safetensors").write_text("WEIGHTS")
        assert list(store.finished_adapters(BASE)) == ["a"]
        assert (folder / "adapter_model.safetensors").read_text() == "weights"
    remote.write("round-0001/adapters/a/adapter_model.safetensors", b"WEIGHTS")
    with opened_for_writing(make(tmp_path, "two"), DATA) as store:
        assert store.finished_adapters(BASE) == {}
        train(store, "a")
        assert list(store.finished_adapters(BASE)) == ["a"]


def test_a_new_run_at_an_old_url_does_not_meet_the_old_mirror(tmp_path: Path, remote: Objects) -> None:
    with opened_for_writing(make(tmp_path, "one"), DATA) as store:
        train(store, "a")
    shutil.rmtree(tmp_path / "remote")
    with opened_for_writing(make(tmp_path, "one"), DATA) as store:
        assert store.attempt == 1 and store.finished_adapters(BASE) == {}
    assert [path.name.split(".")[1].split("-")[0] for path in (tmp_path / "one").glob("*.aside-*")] == ["aside"]


@pytest.mark.process
def test_a_second_process_is_refused_on_the_same_machine_and_on_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("RENEW_S", 0.2), ("LOOK_S", 0.05)):
        monkeypatch.setattr(lock, name, seconds)
    with opened_for_writing(make(tmp_path, "one"), DATA):
        for machine in ("one", "two"):
            with pytest.raises(RunLockedError, match="is in use by `wfc run`"), opened_for_writing(make(tmp_path, machine), DATA):
                pass


def test_a_holder_that_was_taken_over_commits_nothing_more(tmp_path: Path, remote: Objects) -> None:
    with opened_for_writing(make(tmp_path, "one"), DATA) as store:
        remote.write("control/lock-9", b"{}")
        with pytest.raises(RunLockedError, match="taken over"):
            train(store, "a")
    assert not [name for name in remote.list() if name.startswith("round-0001/adapters/a/")]


def test_the_stop_object_becomes_the_stop_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LOOK_S", 0.05)
    with opened_for_writing(make(tmp_path, "one"), DATA) as store:
        ask_to_stop(f"file://{tmp_path}/remote/r/", "enough")
        end = time.monotonic() + 10
        while store.stop_reason() is None and time.monotonic() < end:
            time.sleep(0.02)
        assert store.stop_reason() == "enough"
    with opened_for_writing(make(tmp_path, "one"), DATA) as store:
        assert store.stop_reason() is None


def test_wrong_urls_are_refused_in_words(tmp_path: Path, remote: Objects) -> None:
    remote.write("something.txt", b"else")
    with pytest.raises(ConfigError, match="not empty and not a run"), opened_for_writing(make(tmp_path, "one"), DATA):
        pass
    with pytest.raises(InputError, match="is not a run"):
        local_run(remote.url)
    with pytest.raises(InputError, match="is not a run"):
        ask_to_stop(remote.url, "enough")
    with pytest.raises(ConfigError, match=r"cluster\.backend slurm needs a folder"):
        make(tmp_path, "one", cluster={"backend": "slurm"})


def test_who_looks_does_not_disturb_who_works(tmp_path: Path, remote: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with opened_for_writing(make(tmp_path, "one"), DATA) as store:
        train(store, "a")
        durable.append_line(store.paths.ledger, "not yet published")
        folder, mirror = local_run(remote.url)
        assert mirror is not None and folder == store.paths.run_dir
        assert durable.read_lines(store.paths.ledger)[-1] == "not yet published"
    shutil.rmtree(tmp_path / "one")
    folder, _ = local_run(remote.url)
    assert folder.is_relative_to(tmp_path / "home"), "the cluster's cache folder is not on this machine"
    assert durable.read_manifest(folder / "round-0001" / "adapters" / "a") is not None
    assert not (folder / "round-0001" / "adapters" / "a" / "adapter_model.safetensors").exists(), "only what is small"


def test_logs_are_published_from_a_cache_that_is_a_link(tmp_path: Path, remote: Objects) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    with opened_for_writing(make(tmp_path, "link"), DATA) as store:
        path = store.log_dir() / "gang-0-rank-0.log"
        durable.write_text(path, "a line\n")
        store.mirror.publish_file(path)
    assert remote.read("round-0001/logs/attempt-1/gang-0-rank-0.log") == b"a line\n"
