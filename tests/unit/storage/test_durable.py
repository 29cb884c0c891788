"""The commit protocol: whole or not there."""

import errno
import json
import os
import resource
import socket
import threading
from pathlib import Path

import pytest

from wfc_dist.errors import InputError, IntegrityError
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


@pytest.mark.parametrize("facts", [{}, {"a": [1, 2.5, None], "b": {"c": "ü\u2028"}}, {1: (2, 3)}, {"x": float("inf")}])
def test_what_is_sealed_is_read_again(tmp_path: Path, facts) -> None:
    durable.write_sealed(tmp_path / "x.json", facts)
    assert durable.read_sealed(tmp_path / "x.json", "") == json.loads(json.dumps(facts))


def test_every_changed_bit_of_a_sealed_file_is_noticed(tmp_path: Path) -> None:
    path, facts = tmp_path / "x.json", {"state": "done", "attempt": 12, "exit_code": None, "rate": 0.25}
    durable.write_sealed(path, facts)
    whole = path.read_bytes()
    for place in range(8 * len(whole)):
        data = bytearray(whole)
        data[place // 8] ^= 1 << place % 8
        path.write_bytes(data)
        try:
            assert durable.read_sealed(path, "do this") == facts, "a change of white space is none of the content"
        except IntegrityError as error:
            assert "do this" in error.message or "use the version of wfc_dist" in error.message


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "is not JSON"), ("[1]", "holds no JSON object"), ("\xff", "is not JSON"), ('{"schema": 9}', "has schema 9"),
     ('{"checksum": "0"}', "does not have its checksum"), ('{"schema": 2, "a": 1}', "does not have its checksum")],
)  # fmt: skip
def test_what_is_not_sealed_is_refused_with_the_remedy(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(IntegrityError, match=message):
        durable.read_sealed(tmp_path / "x.json", "do this")


def test_files_of_before_are_read_unchecked(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"state": "done"}')
    assert durable.read_sealed(tmp_path / "x.json", "") == {"state": "done"}


def test_damaged_json_lines_are_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "x.jsonl").write_bytes('{"a": 1}\n{"a"\n[2]\n\xff\n{"a": 3}\n{"a": 4'.encode("latin-1"))
    assert durable.read_json_lines(tmp_path / "x.jsonl") == [{"a": 1}, {"a": 3}]
    assert "x.jsonl: 3 of 5 lines are damaged and left out" in caplog.text


def test_damaged_sealed_lines_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "x.jsonl"
    for number in range(3):
        durable.append_line(path, json.dumps(durable.seal({"rate": number})))
    path.write_text(path.read_text().replace('"rate": 1', '"rate": 7') + '{"rate": 3}\n')
    assert durable.read_json_lines(path, sealed=True) == [{"rate": 0}, {"rate": 2}, {"rate": 3}]
    assert "1 of 4 lines are damaged" in caplog.text


def test_a_new_file_is_written_once_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    durable.write_new_text(tmp_path / "a", "größe")
    with pytest.raises(FileExistsError):
        durable.write_new_text(tmp_path / "a", "other")
    assert (tmp_path / "a").read_bytes() == "größe".encode()
    with pytest.raises(FileNotFoundError):
        durable.write_new_text(tmp_path / "gone" / "a", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_is_told_with_the_file_and_leaves_no_part_of_a_line(tmp_path: Path) -> None:
    (full := tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        durable.append_line(full, "x")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(full))
    ledger, limits = tmp_path / "ledger", resource.getrlimit(resource.RLIMIT_FSIZE)
    durable.append_line(ledger, "one")
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))  # like a disk with room for a part of the next line
    try:
        for write in (durable.append_line, durable.write_text, durable.write_new_text):
            with pytest.raises(OSError, match="File too large") as caught:
                write(ledger if write == durable.append_line else tmp_path / "new", "two" * 10)
            assert caught.value.filename is not None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    durable.append_line(ledger, "three")
    assert ledger.read_text() == "one\nthree\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "ledger"]


def pipe(path: Path) -> None:
    os.mkfifo(path)


def hole(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(200 << 30)


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def bound_socket(path: Path) -> None:
    socket.socket(socket.AF_UNIX).bind(os.path.relpath(path))


@pytest.mark.parametrize("put", [pipe, hole, loop, bound_socket, Path.mkdir])
def test_what_is_no_record_is_told_and_not_waited_for(tmp_path: Path, put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "status.json")
    with pytest.raises(IntegrityError, match=r"status.json .*; write it anew"):
        durable.read_sealed(tmp_path / "status.json", "write it anew")
    with pytest.raises(IntegrityError, match=r"move status.json away"):
        durable.read_lines(tmp_path / "status.json")
    if put != hole:
        with pytest.raises(OSError, match=r"no file|Is a directory|symbolic links|No such device"):
            durable.sha256_file(tmp_path / "status.json")


@pytest.mark.parametrize("put", [pipe, hole, loop, bound_socket, Path.mkdir, lambda path: path.symlink_to("/nowhere/at/all")])
def test_a_commit_replaces_whatever_is_in_its_place(tmp_path: Path, put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "x")
    assert durable.verify_folder(committed(tmp_path))["fact"] == 1
    (tmp_path / "x" / durable.MANIFEST).unlink()
    put(tmp_path / "x" / durable.MANIFEST)
    assert durable.verify_folder(committed(tmp_path))["fact"] == 1


def test_a_commit_leaves_what_a_link_in_its_place_points_to(tmp_path: Path) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (elsewhere / "mine").touch()
    (tmp_path / "x").symlink_to(elsewhere)
    assert not committed(tmp_path).is_symlink() and (elsewhere / "mine").exists()


def test_a_folder_in_the_place_of_a_file_is_told_and_stays(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(InputError, match=r"config.json is a folder, and a file belongs there; move it away"):
        durable.write_sealed(tmp_path / "config.json", {})
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_half_a_surrogate_pair_is_written_as_json_writes_it(tmp_path: Path) -> None:
    durable.write_sealed(tmp_path / "x.json", {"text": "\ud800"})
    assert durable.read_sealed(tmp_path / "x.json", "") == {"text": "\ud800"}
