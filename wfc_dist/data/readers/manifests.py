"""Reads jsonl manifests (NeMo's keys), also gzip'ed ones."""

from collections.abc import Iterator

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data.readers.lines import json_lines, manifest_path
from wfc_dist.data.rows import Columns, SourceRow, audio_column_of, audio_paths, file_audio
from wfc_dist.errors import InputError


def jsonl_rows(dataset: DatasetConfig, file_name: str) -> Iterator[SourceRow]:
    """Yields the rows of a manifest; audio paths are relative to its folder."""
    manifest = manifest_path(dataset, file_name)
    path_of = audio_paths(dataset, manifest.parent)
    column, columns = "", Columns(dataset)
    for where, row in json_lines(manifest):
        if not column:
            column = audio_column_of(dataset, row, where, first="audio_filepath")
            columns = Columns(dataset, read=(column,))
        name = row.get(column)
        if not isinstance(name, str) or not name:
            raise InputError(f"{where}: no audio path under {column!r} (there is: {', '.join(row)}); set audio_column")
        yield columns.row(row, where, name=name, audio=file_audio(path_of(name)))
