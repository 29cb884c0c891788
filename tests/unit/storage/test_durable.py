"""The commit protocol: whole or not there."""

import os
import threading
from pathlib import Path

import pytest

from wfc_dist.errors import IntegrityError
from wfc_dist.storage import durable


def committed(tmp_path: Path) -> Path:
    final = tmp_path / "x"
    staged = durable.staging_path(final, 1)
    (staged / "sub").mkdir()
    (staged / "a").write_bytes(b"a" * 10)
    (staged / "sub" / "b").write_bytes(b"b")
    durable.commit_folder(staged, final, {"fact": 1})
    return final


def test_commit_makes_a_folder_that_verifies(tmp_path: Path) -> None:
    final = committed(tmp_path)
    assert durable.verify_folder(final)["fact"] == 1
    assert set(durable.verify_folder(final)["files"]) == {"a", "sub/b"}
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_commit_replaces_what_was_there(tmp_path: Path) -> None:
    final = committed(tmp_path)
    staged = durable.staging_path(final, 2)
    (staged / "c").write_bytes(b"c")
    durable.commit_folder(staged, final, {})
    assert set(durable.verify_folder(final)["files"]) == {"c"} and not (final / "a").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda x: (x / "a").write_bytes(b"b" * 10), "sha256"),
        (lambda x: (x / "a").write_bytes(b"a" * 9), "9 bytes"),
        (lambda x: (x / "a").unlink(), "missing"),
        (lambda x: (x / "manifest.json").unlink(), "never committed"),
        (lambda x: (x / "manifest.json").write_text("{"), "not JSON"),
        (lambda x: (x / "manifest.json").write_text('{"schema": 99}'), "schema 99"),
    ],
)
def test_damage_is_found_and_named(tmp_path: Path, damage, message: str) -> None:
    final = committed(tmp_path)
    damage(final)
    with pytest.raises(IntegrityError, match=message):
        durable.verify_folder(final)


def test_append_only_lines_survive_a_torn_end(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    assert durable.read_lines(path) == []
    durable.append_line(path, "one")
    durable.append_line(path, "two")
    with open(path, "ab") as file:
        file.write(b"thr")
    assert durable.read_lines(path) == ["one", "two"]
    durable.read_lines(path, repair=True)
    durable.append_line(path, "three")
    assert path.read_text() == "one\ntwo\nthree\n"


def test_a_link_whose_hash_is_known_is_not_read_again(tmp_path: Path) -> None:
    staged = durable.staging_path(tmp_path / "y", 1)
    (staged / "big").write_bytes(b"x")
    assert durable.commit_folder(staged, tmp_path / "y", {}, known={"big": "k"})["files"]["big"]["sha256"] == "k"
    durable.verify_folder(tmp_path / "y", skip=frozenset({"big"}))


def test_files_of_another_node_are_waited_for(tmp_path: Path) -> None:
    later = threading.Timer(0.3, lambda: (tmp_path / "weights").write_text("x"))
    later.start()
    durable.await_files(tmp_path, ["weights"], timeout_s=30)
    assert (tmp_path / "weights").exists()
    with pytest.raises(IntegrityError, match="config did not appear"):
        durable.await_files(tmp_path, ["weights", "config"], timeout_s=0)


def test_the_mode_of_a_file_of_lines_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        durable.append_line(tmp_path / "lines", "a")
    finally:
        os.umask(before)
    assert (tmp_path / "lines").stat().st_mode & 0o777 == 0o664
