"""The first rows of a split, as records and through the reader that will read them, without a copy of a large corpus."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data.detection.hub import sample_of
from wfc_dist.data.detection.units import Unit
from wfc_dist.data.readers.archives import numbered
from wfc_dist.data.readers.cells import cell_rows, told
from wfc_dist.data.readers.lines import json_lines, text_lines
from wfc_dist.data.readers.parquet import parquet_files
from wfc_dist.data.readers.tables import table_rows
from wfc_dist.data.rows import SourceRow
from wfc_dist.data.sources import iter_rows
from wfc_dist.errors import InputError

NUM_RECORDS = 200
IN_CELLS = ("parquet", "saved", "hub")
"""Formats whose rows hold their audio."""


def records_of(unit: Unit, quoting: str = "minimal") -> list[dict[str, Any]]:
    """Returns the first records of a table, of a manifest, or of rows with audio in cells, without their audio.

    Raises:
        InputError: The file cannot be read; names it.
    """
    if unit.kind in IN_CELLS:
        table = cells_of(unit)
        audio = [name for name, feature in table.features.items() if hasattr(feature, "decode_example") or _holds_audio(feature)]
        return [dict(row) for row in table.remove_columns(audio)]
    path = unit.base / next(iter(numbered(unit.value).values()))
    if unit.kind == "folder":
        path = next(path for path in sorted(path.iterdir()) if path.name.startswith("metadata."))
    is_table = ".jsonl" not in path.name and ".json" not in path.name
    rows = table_rows(path, "none" if quoting == "none" else "minimal") if is_table else json_lines(path)
    return [dict(row) for _, row in islice(rows, NUM_RECORDS)]


def _holds_audio(feature: Any) -> bool:
    return isinstance(feature, dict) and ({"bytes", "path"} <= feature.keys() or {"array", "sampling_rate"} <= feature.keys())


def audio_cells(table: Any) -> list[str]:
    """Returns the columns of a table of `datasets` that hold audio."""
    import datasets

    return [name for name, feature in table.features.items() if isinstance(feature, datasets.Audio) or _holds_audio(feature)]


@lru_cache(maxsize=32)
def cells_of(unit: Unit) -> Any:
    """Returns the first rows of parquet files, of a saved data set or of one on the hub as a `datasets.Dataset`.

    Raises:
        InputError: They cannot be read.
    """
    import datasets

    if unit.kind == "hub":
        return sample_of(unit)
    if unit.kind == "saved":
        with told(f"open {unit.base}", "it is no data set saved by save_to_disk, or a damaged one"):
            loaded = datasets.load_from_disk(unit.base)
            table = loaded[unit.value] if isinstance(loaded, datasets.DatasetDict) else loaded
        return table.select(range(min(NUM_RECORDS, len(table))))
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = parquet_files(DatasetConfig(source=str(unit.base), format="parquet"), unit.value)[0]
    with told(f"read {file}", "fetch the file again"):
        batch = next(pq.ParquetFile(file).iter_batches(NUM_RECORDS), None)
        if batch is None:
            raise InputError(f"{file} has no rows; fetch it again")
        return datasets.Dataset(datasets.table.InMemoryTable(pa.Table.from_batches([batch])))


def first_rows(unit: Unit, block: Mapping[str, Any], most: int = NUM_RECORDS) -> list[SourceRow]:
    """Returns the first rows of a split as a reader with the keys `block` sees them. Raises InputError."""
    if unit.kind in IN_CELLS:
        dataset = DatasetConfig(**block, splits={"train": unit.value})
        return list(islice(cell_rows(cells_of(unit), dataset, unit.value), most))
    return list(islice(rows_of(unit, block), most))


def rows_of(unit: Unit, block: Mapping[str, Any]) -> Iterator[SourceRow]:
    """Yields all rows of a split. Raises InputError."""
    dataset = DatasetConfig(**block, splits={"train": unit.value})
    return iter_rows(Path(block["source"]).name, dataset, "train")


def programs_of(unit: Unit) -> list[str]:
    """Returns the programs that the pipes of a Kaldi directory would start, by name."""
    if unit.kind != "kaldi":
        return []
    lines = islice(text_lines(unit.path / "wav.scp"), NUM_RECORDS)
    pipes = [line.split() for _, line in lines if line.rstrip().endswith("|")]
    return sorted({Path(words[1]).name for words in pipes if len(words) > 1})
