"""Reads rows of JSONL manifests (NeMo's keys) and of audio folders. Rows are what the files say; nothing is checked."""

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wfc_dist.config.schema import DatasetConfig
from wfc_dist.data.audio_files import SUFFIXES, AudioFile, AudioRef
from wfc_dist.errors import InputError

LANGUAGE_COLUMNS = ("lang", "language")


@dataclass(frozen=True)
class SourceRow:
    """One row as written. `language` and `duration_s` are None, and `word_languages` is empty, where the row lacks them.

    `where` names file and line in messages.
    """

    id: str
    text: str
    language: str | None
    audio: AudioRef
    duration_s: float | None
    where: str
    word_languages: tuple[str, ...] = ()


def row_language(row: dict[str, Any]) -> str | None:
    """Returns the first language column that is not empty."""
    return next((str(row[key]) for key in LANGUAGE_COLUMNS if row.get(key)), None)


def row_text(row: dict[str, Any], column: str, where: str) -> str:
    """Returns the stripped transcript. Raises InputError if the column is absent or is no text."""
    text = row.get(column)
    if not isinstance(text, str):
        raise InputError(f"{where}: no text under {column!r} (there is: {', '.join(map(str, row))}); set text_column")
    return text.strip()


def row_word_languages(row: dict[str, Any], text: str, where: str) -> tuple[str, ...]:
    """Returns the languages of the words of `text`, split at spaces; () if absent. Raises InputError if the numbers differ."""
    value = row.get("word_langs")
    if not value:
        return ()
    if isinstance(value, str):  # a cell of a CSV file
        value = value.split()
    num_words = len(text.split())
    if not isinstance(value, list) or len(value) != num_words or not all(isinstance(name, str) for name in value):
        raise InputError(
            f"{where}: word_langs is {value!r}, expected a list of {num_words} language codes, one a word of the text"
        )
    return tuple(value)


def row_seconds(row: dict[str, Any], key: str, where: str) -> float | None:
    """Returns a non-negative number of seconds, or None if absent. Raises InputError for anything else."""
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise InputError(f"{where}: {key} is {value!r}, expected seconds (0 or more); correct it or leave it out")
    return float(value)


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields ("file:line", object) of every line that is not blank. Raises InputError naming file and line."""
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise InputError(f"{path}:{number}: not JSON ({error}); one object a line is expected") from error
                if not isinstance(row, dict):
                    raise InputError(f"{path}:{number}: not a JSON object; expected audio_filepath, text, ...")
                yield f"{path}:{number}", row
    except OSError as error:
        raise InputError(f"cannot read the manifest {path}: {error.strerror}; check source and splits") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error}); convert it") from error


def jsonl_rows(dataset: DatasetConfig, file_name: str) -> Iterator[SourceRow]:
    """Yields the rows of `source/file_name`, or of `source` itself when that is a file; paths are relative to the manifest."""
    source = Path(dataset.source)
    manifest = source if source.is_file() else source / file_name
    column = "audio_filepath" if dataset.audio_column == "audio" else dataset.audio_column
    for where, row in json_lines(manifest):
        if not isinstance(row.get(column), str):
            raise InputError(f"{where}: no audio path under {column!r} (there is: {', '.join(row)}); set audio_column")
        offset_s, duration_s = row_seconds(row, "offset", where) or 0.0, row_seconds(row, "duration", where)
        audio = AudioFile(str(manifest.parent / row[column]), offset_s, duration_s)
        name = row[column] + (f"@{offset_s:g}" if offset_s else "")
        text = row_text(row, dataset.text_column, where)
        marks = row_word_languages(row, text, where)
        yield SourceRow(str(row.get("id", name)), text, row_language(row), audio, duration_s, where, marks)


def _metadata(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if (folder / "metadata.jsonl").is_file():
        yield from json_lines(folder / "metadata.jsonl")
        return
    path = folder / "metadata.csv"
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            for row in reader:
                yield f"{path}:{reader.line_num}", row
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error}); convert it") from error


def _sidecars(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES:
            try:
                text = path.with_suffix(".txt").read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(
                    f"{path} has no readable transcript {path.with_suffix('.txt').name} ({error}); write it, or a metadata.csv "
                    f"in {folder} with the columns file_name,text"
                ) from error
            yield str(path), {"file_name": path.relative_to(folder).as_posix(), "text": text}


def folder_rows(dataset: DatasetConfig, sub_folder: str) -> Iterator[SourceRow]:
    """Yields the rows of an audio folder: metadata.jsonl or metadata.csv (file_name, text), else X.txt beside every X.flac."""
    folder = Path(dataset.source) / sub_folder
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; check source and splits")
    has_metadata = any((folder / name).is_file() for name in ("metadata.csv", "metadata.jsonl"))
    column = dataset.text_column if has_metadata else "text"
    for where, row in _metadata(folder) if has_metadata else _sidecars(folder):
        name = row.get("file_name")
        if not isinstance(name, str) or not name:
            raise InputError(f"{where}: no file_name (there is: {', '.join(map(str, row))}); name the audio file there")
        text = row_text(row, column, where)
        marks = row_word_languages(row, text, where)
        yield SourceRow(name, text, row_language(row), AudioFile(str(folder / name)), None, where, marks)
