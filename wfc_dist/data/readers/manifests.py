"""Reads jsonl manifests (NeMo's keys), also gzip'ed ones."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data.rows import Columns, SourceRow, file_audio, local_path
from wfc_dist.errors import InputError


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields (number from 1, line) of a UTF-8 file; a byte order mark is left out, and .gz is unpacked.

    Raises:
        InputError: The file is missing, is no UTF-8, or ends before it should; names it.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8-sig") if path.suffix == ".gz" else open(path, encoding="utf-8-sig") as file:
            yield from enumerate(file, start=1)
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot read the manifest {path}: {reason}; check source and splits") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error}); convert it") from error


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields ("file:line", object) of every line that is not blank. Raises InputError naming file and line."""
    for number, line in text_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}:{number}: not JSON ({error}); one object a line is expected") from error
        if not isinstance(row, dict):
            raise InputError(f"{path}:{number}: not a JSON object; expected audio_filepath, text, ...")
        yield f"{path}:{number}", row


def manifest_path(dataset: DatasetConfig, file_name: str) -> Path:
    """Returns `source/file_name`, or `source` itself when that is a file."""
    source = Path(dataset.source)
    return source if source.is_file() else source / file_name


def jsonl_rows(dataset: DatasetConfig, file_name: str) -> Iterator[SourceRow]:
    """Yields the rows of a manifest; audio paths are relative to its folder."""
    manifest = manifest_path(dataset, file_name)
    column = "audio_filepath" if dataset.audio_column == "audio" else dataset.audio_column
    columns = Columns(dataset, read=(column,))
    for where, row in json_lines(manifest):
        name = row.get(column)
        if not isinstance(name, str) or not name:
            raise InputError(f"{where}: no audio path under {column!r} (there is: {', '.join(row)}); set audio_column")
        path = local_path(dataset, manifest.parent, name)
        yield columns.row(row, where, name=name, audio=file_audio(path))
