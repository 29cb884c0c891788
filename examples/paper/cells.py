"""Audio in the cells of parquet files becomes files that manifests can name. Needs pyarrow, which `datasets` brings."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from manifests import LayoutError, write_atomically

MAGIC = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3",
         **dict.fromkeys((b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2"), ".mp3")}  # fmt: skip
"""How an audio file begins."""


def read_rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields ("file row number", cells by column) of a parquet file, a few rows in memory. Raises LayoutError naming the file."""
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        if absent := [column for column in needed if column not in file.schema_arrow.names]:
            raise LayoutError(f"{path}: no column {', '.join(absent)} (there is: {', '.join(file.schema_arrow.names)})")
        rows = chain.from_iterable(batch.to_pylist() for batch in file.iter_batches(batch_size=32))
        yield from ((f"{path} row {number}", row) for number, row in enumerate(rows, start=1))
    except (OSError, pyarrow.ArrowException) as error:
        raise LayoutError(f"{path} is no parquet file, or is damaged ({error}); fetch it again") from error


def save_audio(cell: Any, folder: Path, stem: str, where: str) -> Path | None:
    """Writes the bytes of an audio cell, as they are, to FOLDER/STEM with the suffix of their format; returns the path.

    Returns None for a cell without bytes.

    Raises:
        LayoutError: The cell is no audio cell, or the bytes are of an unknown format.
    """
    if not isinstance(cell, dict) or "bytes" not in cell:
        raise LayoutError(f"{where}: the audio is no cell with bytes and path but {type(cell).__name__}; fetch the original")
    if not cell["bytes"]:
        return None
    suffix = next((suffix for start, suffix in MAGIC.items() if cell["bytes"].startswith(start)), None)
    if suffix is None:
        raise LayoutError(f"{where}: the audio begins with {cell['bytes'][:4]!r}, expected wav, flac, ogg or mp3")
    path = folder / f"{Path(stem).name}{suffix}"
    write_atomically(path, cell["bytes"])
    return path
