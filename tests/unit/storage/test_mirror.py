"""A run on object storage and its mirrors, on fsspec's own file system: what is committed there is whole, or is not there."""

import dataclasses
import importlib.util
import json
import multiprocessing
import os
import socket
import threading
from pathlib import Path

import pytest

from wfc_dist.errors import ConfigError, InputError, IntegrityError, RunLockedError
from wfc_dist.storage import durable, lock
from wfc_dist.storage.lock import STOP, ObjectLock, held, process_identity
from wfc_dist.storage.mirror import Mirror, mirror_folder
from wfc_dist.storage.objects import Objects


@pytest.fixture
def remote(tmp_path: Path) -> Objects:
    return Objects(f"file://{tmp_path}/remote/run")


def node(tmp_path: Path, remote: Objects, name: str = "one", run_id: str = "r") -> Mirror:
    mirror = Mirror(tmp_path / name / "run", remote, run_id)
    mirror.adopt()
    return mirror


def commit(folder: Path, **texts: str) -> Path:
    staged = durable.staging_path(folder, 1)
    for name, text in texts.items():
        (staged / name).parent.mkdir(exist_ok=True)
        (staged / name).write_text(text)
    durable.commit_folder(staged, folder, {"sha256": "x"})
    return folder


def test_what_is_published_here_is_fetched_whole_elsewhere(tmp_path: Path, remote: Objects) -> None:
    one, two = node(tmp_path, remote, "one"), node(tmp_path, remote, "two")
    one.publish(commit(one.folder / "round-0001" / "adapters" / "a", weights="123", config="{}"))

    assert two.fetch(two.folder / "round-0001" / "adapters" / "a")
    durable.verify_folder(two.folder / "round-0001" / "adapters" / "a")
    assert two.folders(two.folder / "round-0001" / "adapters") == ["a"]
    assert not two.fetch(two.folder / "round-0001" / "adapters" / "b")


def test_files_go_first_and_the_manifest_last_and_a_replaced_one_loses_its_manifest_first(
    tmp_path: Path, remote: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = node(tmp_path, remote)
    order = []
    for verb in ("write", "upload", "remove"):
        real = getattr(Objects, verb)

        def noted(self: Objects, *arguments, real=real, verb=verb) -> None:  # type: ignore[no-untyped-def]
            order.append((verb, *(item for item in arguments if isinstance(item, str))))
            real(self, *arguments)

        monkeypatch.setattr(Objects, verb, noted)
    one.publish(commit(one.folder / "delta", tensors="1", gone="x"))
    order.clear()

    one.publish(commit(one.folder / "delta", tensors="22"))

    assert order == [
        ("remove", "delta/manifest.json"),
        ("upload", "delta/tensors"),
        ("remove", "delta/gone"),
        ("write", "delta/manifest.json"),
    ]
    order.clear()
    one.publish(one.folder / "delta")
    assert order == [], "what is there already is not written again"


def test_without_its_manifest_a_folder_is_not_committed(tmp_path: Path, remote: Objects) -> None:
    one, two = node(tmp_path, remote, "one"), node(tmp_path, remote, "two")
    one.publish(commit(one.folder / "delta", tensors="1"))
    remote.remove("delta/manifest.json")
    assert not two.fetch(two.folder / "delta")
    assert not (two.folder / "delta").exists()


@pytest.mark.parametrize("damage", ["2", "1+"])
def test_a_download_is_not_trusted(tmp_path: Path, remote: Objects, damage: str) -> None:
    one, two = node(tmp_path, remote, "one"), node(tmp_path, remote, "two")
    one.publish(commit(one.folder / "delta", tensors="1"))
    remote.write("delta/tensors", damage.encode())
    with pytest.raises(IntegrityError, match=r"remote/run/delta/tensors .*downloaded 3 times"):
        two.fetch(two.folder / "delta")
    assert not (two.folder / "delta").exists()


def test_a_folder_that_differs_is_replaced_and_one_with_a_missing_file_is_completed(tmp_path: Path, remote: Objects) -> None:
    one, two = node(tmp_path, remote, "one"), node(tmp_path, remote, "two")
    one.publish(commit(one.folder / "delta", tensors="1"))
    commit(two.folder / "delta", tensors="old", other="x")
    assert two.fetch(two.folder / "delta")
    assert sorted(path.name for path in (two.folder / "delta").iterdir()) == ["manifest.json", "tensors"]
    (two.folder / "delta" / "tensors").unlink()
    assert two.fetch(two.folder / "delta")
    assert (two.folder / "delta" / "tensors").read_text() == "1"


def _fetch(mirror: Mirror, name: str) -> None:
    for _ in range(20):
        assert mirror.fetch(mirror.folder / name)
        durable.verify_folder(mirror.folder / name)


@pytest.mark.process
def test_processes_of_a_node_fetch_the_same_folder_at_once(tmp_path: Path, remote: Objects) -> None:
    one, two = node(tmp_path, remote, "one"), node(tmp_path, remote, "two")
    one.publish(commit(one.folder / "base-0001", **{f"file-{index}": str(index) * 9999 for index in range(12)}))
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_fetch, args=(two, "base-0001")) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4


def test_links_are_made_again_from_the_root_here(tmp_path: Path, remote: Objects) -> None:
    one, two = node(tmp_path, remote, "one"), node(tmp_path, remote, "two")
    roots = [tmp_path / "root-one", tmp_path / "root-two"]
    for root in roots:
        root.mkdir()
        (root / "model.safetensors").write_text("root")
    staged = durable.staging_path(one.folder / "base-0001", 1)
    (staged / "update").write_text("u")
    durable.link(roots[0] / "model.safetensors", staged / "model-root-00001")
    links = {"model-root-00001": str(roots[0] / "model.safetensors")}
    durable.commit_folder(staged, one.folder / "base-0001", {"links": links})

    one.publish(one.folder / "base-0001")
    assert "base-0001/model-root-00001" not in remote.list()
    two.fetch(two.folder / "base-0001", shared=roots[1])
    assert (two.folder / "base-0001" / "model-root-00001").samefile(roots[1] / "model.safetensors")
    durable.verify_folder(two.folder / "base-0001")


def test_a_staged_folder_is_committed_by_another_node(tmp_path: Path, remote: Objects) -> None:
    one, two = node(tmp_path, remote, "one"), node(tmp_path, remote, "two")
    staged = one.folder / "a.tmp-1"
    staged.mkdir()
    (staged / "weights").write_text("1")
    one.publish_staged(staged)
    (staged / "weights").write_text("2")  # the gang was lost and the adapter trained again
    one.publish_staged(staged)

    assert two.fetch(two.folder / "a.tmp-1")
    assert (two.folder / "a.tmp-1" / "weights").read_text() == "2"


def test_the_mirror_of_another_run_is_set_aside(tmp_path: Path, remote: Objects) -> None:
    one = node(tmp_path, remote)
    commit(one.folder / "delta", tensors="1")
    dataclasses.replace(one, run_id="another").adopt()
    (aside,) = one.folder.parent.glob("run.aside-*")
    assert (aside / "delta" / "tensors").read_text() == "1"
    assert not (one.folder / "delta").exists()


def test_a_mirror_that_cannot_be_made_names_the_setting(tmp_path: Path, remote: Objects) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cluster\.cache_dir"):
        Mirror(tmp_path / "file" / "run", remote, "r").adopt()


def test_the_folder_of_a_url_does_not_depend_on_its_last_slash(tmp_path: Path) -> None:
    assert mirror_folder("s3://b/run/", str(tmp_path), "run") == mirror_folder("s3://b/run", str(tmp_path), "run")
    assert mirror_folder("s3://b/run", None, "run") != mirror_folder("s3://c/run", None, "run")


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gcsfs" else real(name))
    with pytest.raises(ConfigError, match=r"wfc-dist\[gcs\]"):
        Objects("gs://bucket/run").read("x")
    with pytest.raises(ConfigError, match="cannot be opened"):
        Objects("nonsense://bucket/run").read("x")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("LEASE_S", 1.0), ("RENEW_S", 0.2), ("LOOK_S", 0.05)):
        monkeypatch.setattr(lock, name, seconds)


def quiet(text: str) -> None:
    pass


def rewrite(remote: Objects, name: str, **facts: object) -> None:
    remote.write(name, json.dumps({**json.loads(remote.read(name) or b""), **facts}).encode())


@pytest.mark.usefixtures("quick")
def test_a_held_lock_refuses_and_a_released_one_does_not(remote: Objects) -> None:
    with held(remote, quiet, quiet), pytest.raises(RunLockedError, match=f"process {os.getpid()} on {socket.gethostname()}"):
        ObjectLock(remote).take(quiet)
    ObjectLock(remote).take(quiet)
    assert list(remote.list("control")) == ["control/lock-2"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("data", [b"", b"[]", b'{"released": 1}', b"\xff", b"[" * 100_000])
def test_a_lock_that_cannot_be_read_is_taken_over_after_its_time(remote: Objects, data: bytes) -> None:
    remote.write("control/lock-1", data)
    said: list[str] = []
    ObjectLock(remote).take(said.append)
    assert any("took" in line and "which is gone" in line for line in said)
    assert list(remote.list("control")) == ["control/lock-2"]


@pytest.mark.usefixtures("quick")
def test_a_lock_that_is_written_this_moment_is_held(remote: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    read, cut_off = Objects.read, iter([b"", None, b"", None, b"", None])

    def half_written(objects: Objects, name: str) -> bytes | None:
        now = next(cut_off, None)
        return read(objects, name) if now is None else now

    with held(remote, quiet, quiet):
        monkeypatch.setattr(Objects, "read", half_written)
        with pytest.raises(RunLockedError, match=f"process {os.getpid()} on {socket.gethostname()}"):
            ObjectLock(remote).take(quiet)
        monkeypatch.undo()


@pytest.mark.usefixtures("quick")
def test_a_lock_nobody_renews_is_taken_over_and_said_so(remote: Objects) -> None:
    lost = ObjectLock(remote)
    lost.take(quiet)
    rewrite(remote, "control/lock-1", process="another machine boot pid:[1] 1 1")
    said: list[str] = []
    with held(remote, quiet, said.append) as lock:
        lock.require()
        with pytest.raises(RunLockedError, match="taken over"):
            lost.require()
    assert [text.split()[0] for text in said] == [remote.url, "took"]


def test_a_holder_that_died_on_this_machine_is_not_waited_for(remote: Objects) -> None:
    ObjectLock(remote).take(quiet)
    here = process_identity(os.getpid())
    assert here is not None
    rewrite(remote, "control/lock-1", process=" ".join([*here.split()[:-1], "1"]))  # the pid was given to another process
    said: list[str] = []
    ObjectLock(remote).take(said.append)
    assert len(said) == 1 and said[0].startswith("took")


@pytest.mark.usefixtures("quick")
def test_a_stop_object_and_a_lost_lock_reach_the_holder(remote: Objects) -> None:
    reasons: list[str] = []
    came = threading.Event()

    def on_stop(reason: str) -> None:
        reasons.append(reason)
        came.set()

    remote.write(STOP, b"an old one")
    with held(remote, on_stop, quiet):
        assert not came.wait(0.3), "a stop from before this attempt is not for it"
        remote.write(STOP, b"enough")
        assert came.wait(10)
        remote.remove(STOP)
        remote.write("control/lock-2", b"{}")
        came.clear()
        assert came.wait(10)
    assert reasons[0] == "enough" and "took the run over" in reasons[-1]
