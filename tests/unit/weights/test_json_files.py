"""JSON from outside: what is no object is refused with the file's name, never with a traceback."""

import os
from pathlib import Path

import pytest

from wfc_dist.errors import InputError
from wfc_dist.weights.json_files import number, read_object, whole_number


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "Expecting value"),
        (b"[1, 2]", "holds a list where an object"),
        (b"null", "holds a NoneType"),
        (b'"text"', "holds a str"),
        (b'{"a": 1', "Expecting"),
        (b'{"a": "\xff\xfe"}', "utf-8"),
        (b'\xef\xbb\xbf{"a": 1}', "BOM"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply|Expecting value"),
        (b'{"a": ' + b"9" * 5000 + b"}", "digits"),
        (b'{"a": "' + b"x" * 2000 + b'"}', "more than the 1000 that are read"),
        (b"\0" * 10, "Expecting value"),
    ],
)
def test_what_is_no_object_is_refused_with_the_file_and_what_to_do(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"x\.json cannot be read: .*({message}).*; copy it again"):
        read_object(path, "copy it again", 1000 if b"xxx" in data else 1 << 20)


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path)])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, make) -> None:
    make(tmp_path / "x.json")
    with pytest.raises(InputError, match=r"x\.json cannot be read: .*; copy it again"):
        read_object(tmp_path / "x.json", "copy it again")


def test_an_object_is_returned(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": [1, {"b": null}]}')
    assert read_object(tmp_path / "x.json", "") == {"a": [1, {"b": None}]}


@pytest.mark.parametrize("value", [True, False, 1.0, "1", None, [1], 0, 9, 10**30, float("nan")])
def test_what_is_no_whole_number(value: object) -> None:
    assert not whole_number(value, 1, 8)


@pytest.mark.parametrize("value", [True, "1", None, 0, -1, 0.0, float("nan"), float("inf"), -float("inf"), 10**400, 8.5])
def test_what_is_no_number(value: object) -> None:
    assert not number(value, 8)


def test_numbers_are_numbers() -> None:
    assert whole_number(1, 1, 8) and whole_number(8, 1, 8) and number(8, 8) and number(1e-9, 8)
