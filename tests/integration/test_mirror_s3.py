"""Publish and fetch over a real S3 API, with a fault in every kind of request they send."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import BUCKET, S3, s3_server

from wfc_dist.errors import InputError, IntegrityError, StorageError
from wfc_dist.storage import durable, lock, objects
from wfc_dist.storage.lock import ObjectLock
from wfc_dist.storage.mirror import Mirror
from wfc_dist.storage.objects import Objects


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3")) as s3:
        yield s3


@pytest.fixture
def s3(server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("s3fs.S3FileSystem.default_block_size", 5 << 20)  # parts, without files of 100 MB
    server.fail()
    return server


def test_every_server_of_a_process_is_the_one_that_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        (folder := tmp_path / str(number)).mkdir()
        with s3_server(folder) as one, monkeypatch.context() as patch:
            for name, value in one.environment.items():
                patch.setenv(name, value)
            patch.setattr(objects, "RETRY_FOR_S", 1.0)
            Objects(f"s3://{BUCKET}").write("name", b"x")
            assert Objects(f"s3://{BUCKET}").list() == {"name": 1}, "written to another server, or to none"


def commit(folder: Path, **contents: bytes) -> Path:
    staged = durable.staging_path(folder, 1)
    for name, content in contents.items():
        (staged / name).write_bytes(content)
    durable.commit_folder(staged, folder, {"sha256": "x"})
    return folder


FAULTS = {
    "put": ["500", "503", "reset", "lost"], "create_multipart": ["500", "reset"], "part": ["503", "reset", "500"],
    "complete_multipart": ["500", "lost"], "abort_multipart": ["500"], "get": ["500", "cut", "reset"],
    "ranged_get": ["500", "cut", "corrupt"], "head": ["500", "reset"], "list": ["503", "cut", "reset"],
    "delete": ["500", "lost"], "conditional_put": ["503", "lost"],
}  # fmt: skip


def test_a_fault_in_every_kind_of_request_changes_nothing(s3: S3, tmp_path: Path) -> None:
    remote = Objects(f"s3://{BUCKET}/faults")
    one, two = (Mirror(tmp_path / name, remote, "r") for name in ("one", "two"))
    s3.fail(**FAULTS)

    ObjectLock(remote).take(lambda text: None)
    one.publish(commit(one.folder / "delta", tensors=b"old", gone=b"x"))
    commit(one.folder / "delta", tensors=os.urandom(12 << 20), config=b"{}")
    one.publish(one.folder / "delta")
    assert two.fetch(two.folder / "delta")
    assert not two.fetch(two.folder / "nothing")

    fired = {(kind, fault) for kind, fault, _ in s3.fired()}
    assert fired == {(kind.replace("_", " "), fault) for kind, faults in FAULTS.items() for fault in faults}
    assert s3.seen().keys() == {kind.replace("_", " ") for kind in FAULTS}, "a kind of request without a fault"
    durable.verify_folder(two.folder / "delta")
    assert (one.folder / "delta" / "tensors").read_bytes() == (two.folder / "delta" / "tensors").read_bytes()
    assert set(remote.list("delta")) == {"delta/tensors", "delta/config", "delta/manifest.json"}


def test_damage_that_stays_is_not_taken(s3: S3, tmp_path: Path) -> None:
    remote = Objects(f"s3://{BUCKET}/damage")
    one, two = (Mirror(tmp_path / name, remote, "r") for name in ("one", "two"))
    one.publish(commit(one.folder / "delta", tensors=b"123"))
    remote.write("delta/tensors", b"124")
    with pytest.raises(IntegrityError, match=f"s3://{BUCKET}/damage/delta/tensors does not have the sha256"):
        two.fetch(two.folder / "delta")


def test_what_cannot_pass_is_not_tried_again(s3: S3) -> None:
    for request in (lambda: Objects("s3://nobody-has-it/run").write("x", b""), lambda: Objects("s3://nobody-has-it/run").list()):
        with pytest.raises(InputError, match=r"s3://nobody-has-it/run/.* was refused \(NoSuchBucket"):
            request()
    assert s3.seen() == {"put": 1, "list": 1}
    remote = Objects(f"s3://{BUCKET}/refused")
    s3.fail(put=["403"], head=["403"], list=["403"], delete=["403"], conditional_put=["403"])
    verbs = (remote.read, remote.list, remote.remove, lambda name: remote.write(name, b""), lambda name: remote.create(name, b""))
    for verb in verbs:
        with pytest.raises(InputError, match=r"refused.* was refused \(.*check that the bucket is there"):
            verb("x")
    assert len(s3.fired()) == sum(s3.seen().values()) == 5


def test_an_outage_ends_with_an_error_that_names_what_was_tried(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "RETRY_FOR_S", 1.0)
    s3.fail(put=["500"] * 100)
    with pytest.raises(StorageError, match=f"writing s3://{BUCKET}/out/x failed for 1 s .*the same command goes on"):
        Objects(f"s3://{BUCKET}/out").write("x", b"1")
    assert 3 <= len(s3.fired()) < 20


def test_of_two_who_take_the_lock_at_once_one_gets_it(s3: S3) -> None:
    remote = Objects(f"s3://{BUCKET}/race")
    assert [remote.create("control/lock-1", data) for data in (b"a", b"b")] == [True, False]
    assert lock.STOP not in remote.list()
