"""Rows of a table of the library `datasets`: audio stays encoded in its cells. What the library raises becomes an InputError."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data.audio_files import AudioCell, AudioFile, AudioRef
from wfc_dist.data.rows import Columns, SourceRow, audio_paths
from wfc_dist.errors import InputError

if TYPE_CHECKING:
    import datasets


MAX_RATE_HZ = 1_000_000


@contextlib.contextmanager
def told(what: str, todo: str) -> Iterator[None]:
    """Turns what `datasets` and pyarrow raise into "cannot WHAT: reason; TODO"."""
    import datasets
    import pyarrow as pa
    import yaml

    kinds = (OSError, ValueError, RuntimeError, TypeError, LookupError, AttributeError, ImportError)
    library = (*kinds, pa.ArrowException, yaml.YAMLError, datasets.exceptions.DatasetsError)
    try:
        yield
    except InputError:
        raise
    except library as error:
        reason = first_reason(error)
        if "scripts are no longer supported" in reason:
            todo = (
                "a loading script is a program, which is not run. Take a copy in parquet: revision: refs/convert/parquet with "
                "data_dir: CONFIGURATION, or download that folder and set format: parquet"
            )
        elif "torchcodec" in reason:
            todo = "set streaming: true, which reads such files as they are"
        elif "BuilderConfig" in reason:
            todo = "correct subset; where a configuration is a folder of files, name it: data_dir: FOLDER instead of subset"
        raise InputError(f"cannot {what}: {reason}; {todo}") from error


def first_reason(error: BaseException) -> str:
    """Returns the first line of what caused an error in the first place."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300].rstrip(".")


def cell_rows(table: "datasets.Dataset", dataset: DatasetConfig, split_name: str) -> Iterator[SourceRow]:
    """Yields the rows of a table.

    Raises:
        InputError: A column is missing or is no audio, or a row has neither audio nor a path.
    """
    check_columns(table.column_names, dataset, split_name)
    with told(f"read {dataset.source} ({split_name})", "fetch or save the data set again"):
        yield from _rows_of(table, dataset, split_name)


def _rows_of(table: "datasets.Dataset", dataset: DatasetConfig, split_name: str) -> Iterator[SourceRow]:
    cells, has_arrays = _cells(table, dataset)
    light = table.remove_columns([dataset.audio_column, *media_columns(table.features, dataset)])
    columns, path_of = Columns(dataset, is_cut=True), audio_paths(dataset, Path(dataset.source))
    facts = _array_facts(cells) if has_arrays else _cell_facts(cells)
    for index, (row, (path, size_bytes)) in enumerate(zip(light, facts, strict=True)):
        where = f"{dataset.source} ({split_name}) row {index}"
        if not size_bytes and not path:
            what = "no samples with a rate in whole Hz" if has_arrays else "neither audio bytes nor a path"
            raise InputError(f"{where}: {what} under {dataset.audio_column!r}; take the row out")
        name = path or f"{index:06d}"
        audio: Callable[..., AudioRef]
        if size_bytes:
            audio = partial(AudioCell, cells, dataset.audio_column, index, f"{where} ({name})", size_bytes)
        else:
            audio = partial(AudioFile, path_of(name))  # an absolute path stays as it is
        yield columns.row(row, where, name=Path(name).name, audio=audio)


def check_columns(names: list[str], dataset: DatasetConfig, split_name: str) -> None:
    """Raises InputError if the text or the audio column is missing."""
    for option, column in (("text_column", dataset.text_column), ("audio_column", dataset.audio_column)):
        if column not in names:
            raise InputError(
                f"{dataset.source} ({split_name}) has no column {column!r}; set {option} to one of: {', '.join(names)}"
            )


def media_columns(features: "dict[str, Any] | None", dataset: DatasetConfig) -> list[str]:
    """Returns the other columns with audio, images or the like, which reading a row would decode.

    Raises:
        InputError: The text column is one of them.
    """
    media = [name for name, feature in (features or {}).items() if hasattr(feature, "decode_example")]
    if dataset.text_column in (dataset.audio_column, *media):
        raise InputError(f"{dataset.source}: column {dataset.text_column!r} is audio or the like, not text; set text_column")
    return [name for name in media if name != dataset.audio_column]


def _cells(table: "datasets.Dataset", dataset: DatasetConfig) -> tuple["datasets.Dataset", bool]:
    """Returns the audio column alone, and whether its cells are samples (`array`, `sampling_rate`) instead of encoded audio."""
    import datasets

    cells = table.select_columns([dataset.audio_column])
    feature = table.features[dataset.audio_column]
    if isinstance(feature, dict) and {"array", "sampling_rate"} <= feature.keys() and feature.get("bytes") is None:
        if not str(getattr(getattr(feature["array"], "feature", None), "dtype", "")).startswith("float"):
            raise InputError(
                f"{dataset.source}: {dataset.audio_column!r} has an array that is no list of float samples of one channel; save "
                "the data set before decoding it, or write the audio to files"
            )
        return cells.with_format("numpy"), True
    try:
        return cells.cast_column(dataset.audio_column, datasets.Audio(decode=False)), False
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InputError(f"{dataset.source}: column {dataset.audio_column!r} is not audio ({error}); set audio_column") from error


def _cell_facts(cells: "datasets.Dataset") -> Iterator[tuple[str | None, int]]:
    """Yields (path, number of bytes) of every cell from Arrow's offsets, so that no audio is read from the disk."""
    import pyarrow.compute as pc

    for batch in cells.with_format("arrow").iter(1000):
        column = batch.column(0)
        paths = pc.struct_field(column, "path").to_pylist()
        sizes = pc.binary_length(pc.struct_field(column, "bytes")).to_pylist()
        yield from ((path, size or 0) for path, size in zip(paths, sizes, strict=True))


def is_rate(rate_hz: Any) -> bool:
    """Says whether a number of samples per second is one that a file can have: whole, and at most MAX_RATE_HZ."""
    return isinstance(rate_hz, int | float) and 0 < rate_hz <= MAX_RATE_HZ and float(rate_hz).is_integer()


def _array_facts(cells: "datasets.Dataset") -> Iterator[tuple[str | None, int]]:
    """Yields (None, bytes as float32) of every cell of samples."""
    import pyarrow.compute as pc

    for batch in cells.with_format("arrow").iter(1000):
        lengths = pc.list_value_length(pc.struct_field(batch.column(0), "array")).to_pylist()
        rates = pc.struct_field(batch.column(0), "sampling_rate").to_pylist()
        for length, rate in zip(lengths, rates, strict=True):
            yield None, 4 * length if length and is_rate(rate) else 0
