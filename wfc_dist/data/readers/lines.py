"""Reads the lines of UTF-8 text files, also gzip'ed ones, and the objects of jsonl files."""

import errno
import glob
import gzip
import json
import os
import re
import stat
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.errors import InputError

MAX_LINE_BYTES = 64 << 20
"""A longer line is no row: a file that is damaged, or that unpacks to more than memory holds."""
_UTF8_MARK = b"\xef\xbb\xbf"
_OTHER_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields (number from 1, line without its end) of a UTF-8 file; a byte order mark is left out, and .gz is unpacked.

    Raises:
        InputError: The file is missing, a pipe, or no UTF-8, ends before it should, or has a line beyond MAX_LINE_BYTES; names
            the file and the line.
    """
    number, line = 0, b""
    try:
        with _opened(path) as file:
            for number, line in enumerate(iter(partial(file.readline, MAX_LINE_BYTES + 1), b""), start=1):
                if len(line) > MAX_LINE_BYTES:
                    raise InputError(f"{path}:{number}: the line is longer than {MAX_LINE_BYTES >> 20} MiB; write one row a line")
                yield number, _decoded(line.removeprefix(_UTF8_MARK) if number == 1 else line)
    except UnicodeDecodeError as error:
        encoding = next((name for mark, name in _OTHER_MARKS.items() if line.startswith(mark)), None)
        what = f"it is {encoding}" if number == 1 and encoding else str(error)
        raise InputError(f"{path}:{number}: not UTF-8 ({what}); convert the file") from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        behind = f" behind line {number}" if number else ""
        raise InputError(f"cannot read {path}{behind}: {reason}; check source and splits") from error


def check_plain(path: Path) -> None:
    """Raises OSError for a path that is missing, or that is a pipe or a device: opening one may wait for ever."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file")


def _opened(path: Path) -> IO[bytes]:
    check_plain(path)
    return gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")  # type: ignore[return-value]


def _decoded(line: bytes) -> str:
    return line.rstrip(b"\n").removesuffix(b"\r").decode("utf-8")


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields ("file:line", object) of every line that is not blank. Raises InputError naming file and line."""
    for number, line in text_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}:{number}: not JSON ({error}); one object a line is expected") from error
        if not isinstance(row, dict):
            raise InputError(f"{path}:{number}: not a JSON object; expected audio_filepath, text, ...")
        yield f"{path}:{number}", row


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns the object of key-value pairs. Raises ValueError for a key that comes twice, which json itself passes over."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} comes twice")
    return found


def files_below(folder: Path) -> list[Path]:
    """Returns all files in a folder and below it, sorted; links to folders are followed, each folder once."""
    found, seen = [], set[tuple[int, int]]()
    for place, folders, names in os.walk(folder, followlinks=True):
        stat_of = os.stat(place)
        if (stat_of.st_dev, stat_of.st_ino) in seen:
            folders.clear()
            continue
        seen.add((stat_of.st_dev, stat_of.st_ino))
        folders.sort()
        found += [Path(place, name) for name in names]
    return sorted(found)


def matching(folder: Path, pattern: str) -> list[Path]:
    """Returns the files that a pattern with * and ? names, sorted; a pattern may be absolute.

    Raises:
        InputError: The pattern is none.
    """
    try:
        found = glob.glob(str(Path(glob.escape(str(folder)), pattern)), recursive=True)
    except (ValueError, re.error) as error:
        raise InputError(f"{pattern!r} is no pattern ({error}); correct splits") from error
    return sorted(Path(path) for path in found if os.path.isfile(path))


def manifest_path(dataset: DatasetConfig, file_name: str) -> Path:
    """Returns `source/file_name`, or `source` itself when that is a file."""
    source = Path(dataset.source)
    return source if source.is_file() else source / file_name
