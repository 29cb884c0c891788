import gzip
from pathlib import Path

import pytest

from wfc_dist.data.readers.lines import json_lines, text_lines
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
