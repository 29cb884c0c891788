import glob
import gzip
import os
from pathlib import Path

import pytest
from recordings import opened, write_long

from wfc_dist.data.readers import lines
from wfc_dist.data.readers.lines import files_below, json_lines, matching, text_lines
from wfc_dist.errors import InputError


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "content",
    [b"one\ntwo\n", b"one\ntwo", b"one\r\ntwo\r\n", b"\xef\xbb\xbfone\ntwo\n", gzip.compress(b"\xef\xbb\xbfone\r\ntwo", mtime=0)],
)
def test_lines_are_numbered(tmp_path, content):
    path = write(tmp_path / ("a.gz" if content.startswith(b"\x1f") else "a"), content)
    assert list(text_lines(path)) == [(1, "one"), (2, "two")]


@pytest.mark.parametrize("letter", ["\u2028", "\x0b", "\x85", "\x1e"])
def test_only_a_line_feed_ends_a_line(tmp_path, letter):
    assert [line for _, line in text_lines(write(tmp_path / "a", f"one{letter}two\n".encode()))] == [f"one{letter}two"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n{"a": 1, "a": 2}\n', r"a\.jsonl:2: not JSON \(the key 'a' comes twice\)"),
        (b'{"a": {"b": 1, "b": 2}}\n', r"a\.jsonl:1: not JSON \(the key 'b' comes twice\)"),
        (b'{"a": 1}\r{"a": 2}\r', r"a\.jsonl:1: not JSON"),
        (b"\n\n3\n", r"a\.jsonl:3: not a JSON object"),
        (b'{"a": 1}\n{"a": "\xe9"}\n', r"a\.jsonl:2: not UTF-8"),
        ('{"a": 1}\n'.encode("utf-16"), r"a\.jsonl:1: not UTF-8 \(it is UTF-16\)"),
        (b"[" * 100_000, r"a\.jsonl:1: not JSON"),
    ],
)
def test_what_is_no_object_is_named_with_its_line(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        list(json_lines(write(tmp_path / "a.jsonl", content)))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_line_is_read_no_further_than_a_row_may_be(tmp_path, monkeypatch, name):
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 1 << 20)
    content = b"{}\n" + b"x" * (3 << 20)
    path = write(tmp_path / name, gzip.compress(content, mtime=0) if name.endswith("gz") else content)
    with pytest.raises(InputError, match=rf"{name}:2: the line is longer than 1 MiB"):
        list(text_lines(path))


@pytest.mark.process
@pytest.mark.parametrize(
    ("pipe", "format"),
    [
        ("train", "jsonl"),
        ("train.csv", "csv"),
        ("train.tar", "webdataset"),
        ("train.stm", "stm"),
        ("train/text", "kaldi"),
        ("train/long.txt", "folder"),
    ],
)
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path, pipe, format):
    write_long(tmp_path / "train" / "long.wav") if "/" in pipe else None
    os.mkfifo(tmp_path / pipe)
    with pytest.raises(InputError, match=r"^set/train: .*it is a pipe or a device, not a file"):
        opened(tmp_path, pipe.split("/")[0], format=format)


def test_links_to_folders_are_followed_once(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "far").mkdir()
    write(tmp_path / "far" / "b.wav", b"")
    write(tmp_path / "a" / "a.wav", b"")
    (tmp_path / "a" / "dir.wav").mkdir()
    (tmp_path / "a" / "link").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "back").symlink_to(tmp_path / "a")
    assert [str(path.relative_to(tmp_path)) for path in files_below(tmp_path / "a")] == ["a/a.wav", "a/link/b.wav"]


def test_a_pattern_may_be_absolute_and_a_folder_may_have_its_letters(tmp_path):
    (tmp_path / "[a]*").mkdir()
    there = write(tmp_path / "[a]*" / "1.tar", b"")
    assert matching(tmp_path / "[a]*", "?.tar") == [there]
    assert matching(tmp_path, f"{glob.escape(str(tmp_path / '[a]*'))}/*.tar") == [there]
    assert matching(tmp_path, "a**b*") == []
