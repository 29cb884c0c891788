"""Reads audio folders: recordings with a metadata.csv, .tsv or .jsonl, or with a text file beside each."""

import logging
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data.audio_files import SUFFIXES
from wfc_dist.data.readers.lines import check_plain, files_below, json_lines
from wfc_dist.data.readers.tables import table_rows
from wfc_dist.data.rows import Columns, SourceRow, audio_paths, file_audio
from wfc_dist.errors import InputError

_log = logging.getLogger(__name__)
_METADATA = tuple(f"metadata.{suffix}" for suffix in ("csv", "tsv", "jsonl", "csv.gz", "tsv.gz", "jsonl.gz"))


def _metadata_of(folder: Path) -> Path | None:
    found = [folder / name for name in _METADATA if (folder / name).is_file()]
    if len(found) > 1:
        raise InputError(f"{folder} has {found[0].name} and {found[1].name}; take one of them away")
    return found[0] if found else None


def _sidecars(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the recordings below a folder with the texts beside them."""
    paths = [path for path in files_below(folder) if path.suffix.lower() in (*SUFFIXES, ".txt")]
    texts = {path.with_suffix("") for path in paths if path.suffix.lower() == ".txt"}
    recordings: dict[Path, Path] = {}
    for path in paths:
        if path.suffix.lower() == ".txt":
            continue
        other = recordings.setdefault(path.with_suffix(""), path)
        if other != path:
            raise InputError(f"{other} and {path} have one text, {path.stem}.txt; take one of them away")
        try:
            check_plain(path.with_suffix(".txt"))
            text = path.with_suffix(".txt").read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"{path} has no readable transcript {path.with_suffix('.txt').name} ({error}); write it, or a metadata.csv "
                f"in {folder} with the columns file_name,text"
            ) from error
        yield str(path), {"file_name": path.relative_to(folder).as_posix(), "text": text}
    if alone := sorted(texts - recordings.keys()):
        _log.warning("%s.txt: %d texts have no recording beside them, and are not read", alone[0], len(alone))


def _rows_of_split(
    rows: Iterator[tuple[str, dict[str, Any]]], column: str, split: str, splits: Collection[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the rows whose audio is in the folder of a split, from a metadata file that is beside the folders of all splits."""
    nowhere = []
    for where, row in rows:
        name = str(row.get(column) or "").removeprefix("./")
        if name.startswith(f"{split.strip('/')}/"):
            yield where, row
        elif not any(name.startswith(f"{other.strip('/')}/") for other in splits):
            nowhere.append(where)
    if nowhere:
        _log.warning("%s: %d rows have no audio in the folder of a split, and are not read", nowhere[0], len(nowhere))


def folder_rows(dataset: DatasetConfig, sub_folder: str) -> Iterator[SourceRow]:
    """Yields the rows of an audio folder: those of its metadata.csv, .tsv or .jsonl, else X.txt beside every X.flac.

    A metadata file in `source` itself counts too: its rows whose audio is in the sub-folder.

    Raises:
        InputError: A file cannot be read, or a row has no file_name or text; names file and line.
    """
    folder = Path(dataset.source) / sub_folder
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; check source and splits")
    column = "file_name" if dataset.audio_column == "audio" else dataset.audio_column
    metadata, beside = _metadata_of(folder), None
    if metadata is None:
        metadata = beside = _metadata_of(Path(dataset.source))
    if metadata is None:
        records, columns = _sidecars(folder), Columns(dataset, text_column="text", read=("file_name",))
    else:
        is_table = ".jsonl" not in metadata.suffixes
        records = table_rows(metadata, dataset.quoting) if is_table else json_lines(metadata)
        columns = Columns(dataset, read=("file_name",), is_table=is_table)
    if beside:
        records = _rows_of_split(records, column, sub_folder, dataset.splits.values())
    path_of = audio_paths(dataset, beside.parent if beside else folder)
    for where, row in records:
        name = row.get(column)
        if not isinstance(name, str) or not name.strip():
            there = ", ".join(map(str, row))
            raise InputError(f"{where}: no {column} (there is: {there}); name the audio file there, or set audio_column")
        yield columns.row(row, where, name=name.strip(), audio=file_audio(path_of(name.strip())))
