"""Reads audio folders: recordings with a metadata.csv or metadata.jsonl, or with a text file beside each."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data.audio_files import SUFFIXES
from wfc_dist.data.readers.manifests import json_lines
from wfc_dist.data.rows import Columns, SourceRow, file_audio, local_path
from wfc_dist.errors import InputError


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
                text = path.with_suffix(".txt").read_text(encoding="utf-8-sig")
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
    columns = Columns(dataset, text_column=None if has_metadata else "text", read=("file_name",), is_table=True)
    for where, row in _metadata(folder) if has_metadata else _sidecars(folder):
        name = row.get("file_name")
        if not isinstance(name, str) or not name:
            raise InputError(f"{where}: no file_name (there is: {', '.join(map(str, row))}); name the audio file there")
        yield columns.row(row, where, name=name, audio=file_audio(local_path(dataset, folder, name)))
