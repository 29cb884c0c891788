"""Reads rows of Hugging Face data sets, from the hub or saved on disk. Audio stays encoded; no remote code runs."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data.audio_files import AudioCell, AudioFile, AudioRef
from wfc_dist.data.rows import Columns, SourceRow, audio_paths
from wfc_dist.errors import InputError

if TYPE_CHECKING:
    import datasets


def hub_rows(dataset: DatasetConfig, split_name: str) -> Iterator[SourceRow]:
    """Yields the rows of `datasets.load_dataset(source, subset, revision=revision, split=split_name)`.

    Raises:
        InputError: The hub cannot be reached, or has no such data set, subset or split.
    """
    import datasets

    try:
        table = datasets.load_dataset(dataset.source, name=dataset.subset, revision=dataset.revision, split=split_name)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"cannot load split {split_name!r} of {dataset.source!r} from the Hugging Face hub: {first_line}; check the name and "
            "`hf auth login`. Without network: load it where there is one, save_to_disk(FOLDER), copy the folder and set "
            "source: FOLDER, format: saved"
        ) from error
    yield from _rows(table, dataset, split_name)


def saved_rows(dataset: DatasetConfig, split_name: str) -> Iterator[SourceRow]:
    """Yields the rows of a folder written by `save_to_disk`: one split of a DatasetDict, or a single Dataset.

    Raises:
        InputError: The folder is missing, is no saved data set, or has no such split.
    """
    import datasets

    try:
        loaded = datasets.load_from_disk(dataset.source)
    except (OSError, ValueError) as error:
        raise InputError(f"{dataset.source} is no data set saved by save_to_disk ({error}); check source and format") from error
    if isinstance(loaded, datasets.DatasetDict):
        if split_name not in loaded:
            raise InputError(f"{dataset.source} has no split {split_name!r}; it has: {', '.join(loaded)}")
        loaded = loaded[split_name]
    elif len(dataset.splits) > 1:
        raise InputError(f"{dataset.source} holds one split, but splits names {len(dataset.splits)}; save a DatasetDict instead")
    yield from _rows(loaded, dataset, split_name)


def _rows(table: "datasets.Dataset", dataset: DatasetConfig, split_name: str) -> Iterator[SourceRow]:
    import datasets

    for option, column in (("text_column", dataset.text_column), ("audio_column", dataset.audio_column)):
        if column not in table.column_names:
            there = ", ".join(table.column_names)
            raise InputError(f"{dataset.source} ({split_name}) has no column {column!r}; set {option} to one of: {there}")
    try:
        table = table.cast_column(dataset.audio_column, datasets.Audio(decode=False))
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InputError(f"{dataset.source}: column {dataset.audio_column!r} is not audio ({error}); set audio_column") from error
    cells = table.select_columns([dataset.audio_column])
    light = table.remove_columns([dataset.audio_column])
    columns = Columns(dataset, is_cut=True)
    path_of = audio_paths(dataset, Path(dataset.source))
    for index, (row, (path, size_bytes)) in enumerate(zip(light, _cell_facts(cells), strict=True)):
        where = f"{dataset.source} ({split_name}) row {index}"
        if not size_bytes and not path:
            raise InputError(f"{where}: neither audio bytes nor a path under {dataset.audio_column!r}; take the row out")
        name = path or f"{index:06d}"
        audio: Callable[..., AudioRef]
        if size_bytes:
            audio = partial(AudioCell, cells, dataset.audio_column, index, f"{where} ({name})", size_bytes)
        else:
            audio = partial(AudioFile, path_of(name))  # an absolute path stays as it is
        yield columns.row(row, where, name=Path(name).name, audio=audio)


def _cell_facts(cells: "datasets.Dataset") -> Iterator[tuple[str | None, int]]:
    """Yields (path, number of bytes) of every cell from Arrow's offsets, so that no audio is read from the disk."""
    import pyarrow.compute as pc

    for batch in cells.with_format("arrow").iter(1000):
        column = batch.column(0)
        paths = pc.struct_field(column, "path").to_pylist()
        sizes = pc.binary_length(pc.struct_field(column, "bytes")).to_pylist()
        yield from ((path, size or 0) for path, size in zip(paths, sizes, strict=True))
