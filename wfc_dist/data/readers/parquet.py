"""Finds the parquet files of a split in the layouts that are usual, and reads their rows."""

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data.readers.cells import cell_rows, told
from wfc_dist.data.readers.lines import files_below, matching
from wfc_dist.data.readers.streams import stream_rows
from wfc_dist.data.rows import SourceRow
from wfc_dist.errors import InputError

_NUMBERED = re.compile(r"^(.*)-(\d+)-of-(\d+)\.parquet$")


def has_parquet(folder: Path) -> bool:
    """Says whether a folder, or one below it, has a parquet file."""
    return folder.is_dir() and any(path.suffix == ".parquet" for path in files_below(folder))


def parquet_rows(dataset: DatasetConfig, name: str) -> Iterator[SourceRow]:
    """Yields the rows of the parquet files of a split; see `parquet_files`.

    Raises:
        InputError: There is no such file, a numbered one is missing, or one cannot be read.
    """
    files = parquet_files(dataset, name)
    if dataset.streaming:
        yield from stream_rows(dataset, name, lambda: _load(files, streaming=True), files)
    else:
        yield from cell_rows(_load(files, streaming=False), dataset, name)


def _load(files: Sequence[Path], *, streaming: bool) -> Any:
    import datasets

    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    with told(f"read {files[0]}{more}", "fetch the files again, or check that all have the same columns"):
        return datasets.load_dataset("parquet", data_files=[str(file) for file in files], split="train", streaming=streaming)


def parquet_files(dataset: DatasetConfig, name: str) -> list[Path]:
    """Returns the files of a split: `source` itself if that is a file, else what `name` means in `source` or `source/subset`.

    `name` is a file, a folder, a pattern (*), or a split whose files are train.parquet or train-00000-of-00002.parquet, also in
    data/.

    Raises:
        InputError: There is no such file, or one of several numbered ones is missing.
    """
    source = Path(dataset.source)
    if source.is_file():
        return [source]
    folder = source / dataset.subset if dataset.subset else source
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; check source and subset")
    if "*" in name or "?" in name:
        found = matching(folder, name)
    elif (folder / name).is_dir():
        found = [path for path in files_below(folder / name) if path.suffix == ".parquet"]
    elif (folder / name).is_file():
        found = [folder / name]
    else:
        patterns = (f"{place}{name}{end}.parquet" for place in ("", "data/") for end in ("", "-*-of-*"))
        found = sorted(path for pattern in patterns for path in folder.glob(pattern))
    if not found:
        partial = folder / f"partial-{name}"
        hint = f" ({partial} has only a part of the rows; name it if that is wanted)" if partial.is_dir() else ""
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:8])
        raise InputError(f"no parquet file of {name!r} in {folder}{hint}; it has: {there}; check splits and subset")
    _check_complete(found)
    return found


def _check_complete(files: list[Path]) -> None:
    """Raises InputError for train-00000-of-00002.parquet without train-00001-of-00002.parquet."""
    seen: dict[tuple[Path, str, int], set[int]] = {}
    for file in files:
        match = _NUMBERED.match(file.name)
        if match:
            seen.setdefault((file.parent, match[1], int(match[3])), set()).add(int(match[2]))
    for (folder, start, total), numbers in seen.items():
        missing = next(number for number in itertools.count() if number not in numbers)
        if missing < total:
            raise InputError(f"{folder}: {start}-{missing:05d}-of-{total:05d}.parquet is missing; fetch it, or name the files")
