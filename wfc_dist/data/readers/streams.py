"""Fetches the rows of a stream one by one into a spool on this machine, which goes on where it was interrupted.

A spool is a folder of its own for every source: audio.bin (encoded audio, one behind the other), rows.jsonl (everything else),
and state.json, which says how much of both counts and where the stream stands. Bytes behind that are of an interruption, and are
cut off. Several processes may read and fetch at the same time.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data.audio_files import AudioFile, float_wav
from wfc_dist.data.readers.cells import check_columns, is_rate, media_columns, told
from wfc_dist.data.rows import Columns, SourceRow, audio_paths
from wfc_dist.errors import InputError

_log = logging.getLogger(__name__)
CHUNK_ROWS = 100
CHUNK_BYTES = 32 << 20
"""A chunk of rows is fetched and written down at a time; an interruption loses less than that."""


def stream_rows(
    dataset: DatasetConfig, split_name: str, open_stream: Callable[[], Any], files: Sequence[Path] = ()
) -> Iterator[SourceRow]:
    """Yields the rows of a stream from its spool, fetching chunks of rows as they are asked for, at most `max_clips` rows.

    Args:
        dataset: Its block of the configuration.
        split_name: The value of `splits`.
        open_stream: Returns the `datasets.IterableDataset`.
        files: What is read, if that is on this machine: changed files are another source.

    Raises:
        InputError: The source cannot be read or the spool is damaged; says how many rows were fetched.
    """
    spool = _Spool(dataset, split_name, open_stream, _spool_folder(dataset, split_name, files))
    columns = Columns(dataset, is_cut=True)
    for index, line in enumerate(spool.lines(dataset.max_clips)):
        where = f"{dataset.source} ({split_name}) row {index}"
        place = {"first_byte": line["first_byte"], "num_bytes": line["num_bytes"]}
        audio = partial(AudioFile, str(spool.audio_path), **place)
        yield columns.row(line["record"], where, name=Path(line["name"] or f"{index:06d}").name, audio=audio)


def _spool_folder(dataset: DatasetConfig, split_name: str, files: Sequence[Path]) -> Path:
    source = Path(dataset.source)
    if source.is_dir() and not files:
        files = sorted(path for path in source.rglob("*") if path.is_file())
    if not files and dataset.revision is None:
        _log.warning("%s: the stream may change between two fetches; pin it with revision", dataset.source)
    keys = dataset.model_dump(include={"format", "subset", "revision", "data_dir", "data_files", "audio_column"})
    keys |= {"source": str(source.resolve()) if source.exists() else dataset.source, "split": split_name}
    keys["files"] = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    digest = hashlib.sha256(json.dumps(keys, sort_keys=True).encode()).hexdigest()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "wfc_dist" / "streams" / digest[:32]


class _Spool:
    def __init__(self, dataset: DatasetConfig, split_name: str, open_stream: Callable[[], Any], folder: Path) -> None:
        self._dataset, self._split_name, self._open_stream, self._folder = dataset, split_name, open_stream, folder
        self._path_of = audio_paths(dataset, Path(dataset.source))
        self._stream: Iterator[tuple[dict[str, Any], Callable[[], Any]]] | None = None
        self._stream_at = 0
        self.audio_path = folder / "audio.bin"

    def lines(self, wanted: int | None) -> Iterator[dict[str, Any]]:
        """Yields what was written down of every row, fetching as long as rows are wanted (None: all)."""
        num_rows, at_byte = 0, 0
        while wanted is None or num_rows < wanted:
            with self._locked():
                state = self._state()
                if state["num_rows"] == num_rows:
                    if state["is_complete"]:
                        return
                    room = CHUNK_ROWS if wanted is None else min(CHUNK_ROWS, wanted - num_rows)
                    state = self._fetch(state, room)
                with open(self._folder / "rows.jsonl", "rb") as file:
                    file.seek(at_byte)
                    new = file.read(state["rows_bytes"] - at_byte).splitlines()
                num_rows, at_byte = state["num_rows"], state["rows_bytes"]
            yield from map(json.loads, new)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with open(self._folder / "lock", "w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise InputError(
                f"cannot use the spool {self._folder}: {error.strerror or error}; make room, or set XDG_CACHE_HOME to a folder "
                "that can be written"
            ) from error

    def _state(self) -> dict[str, Any]:
        """Returns what counts, and cuts off what an interruption left behind it."""
        path = self._folder / "state.json"
        state: dict[str, Any] = {
            "num_rows": 0,
            "rows_bytes": 0,
            "audio_bytes": 0,
            "is_complete": False,
            "position": None,
            "version": "",
        }
        try:
            state = json.loads(path.read_bytes()) if path.exists() else state
            for name, key in (("rows.jsonl", "rows_bytes"), ("audio.bin", "audio_bytes")):
                with open(self._folder / name, "ab") as file:
                    if file.tell() < state[key]:
                        raise ValueError(f"{name} has {file.tell()} of {state[key]} bytes")
                    file.truncate(state[key])
        except (ValueError, LookupError, TypeError) as error:
            raise InputError(f"the spool {self._folder} is damaged ({error}); remove the folder, it is fetched again") from error
        return state

    def _fetch(self, state: dict[str, Any], num_rows: int) -> dict[str, Any]:
        """Fetches the next rows, at most `num_rows`, writes them down, and returns the new state."""
        told_by = f"fetch {self._dataset.source} ({self._split_name}) behind row {state['num_rows']}"
        rows: list[bytes] = []
        audio: list[bytes] = []
        first_byte, position, is_complete = state["audio_bytes"], None, False
        with told(told_by, "the same command goes on from there"):
            if self._stream is None or self._stream_at != state["num_rows"]:
                self._stream = self._opened(state)
            while len(rows) < num_rows and first_byte - state["audio_bytes"] < CHUNK_BYTES:
                record, position_of = next(self._stream, (None, None))
                if record is None:
                    is_complete = True
                    break
                name, encoded = self._audio_of(record.pop(self._dataset.audio_column), state["num_rows"] + len(rows))
                line = {"record": record, "name": name, "first_byte": first_byte, "num_bytes": len(encoded)}
                rows.append(json.dumps(line, default=str).encode() + b"\n")
                audio.append(encoded)
                first_byte += len(encoded)
                position = position_of
            new = {
                "num_rows": state["num_rows"] + len(rows), "rows_bytes": state["rows_bytes"] + sum(map(len, rows)),
                "audio_bytes": first_byte, "is_complete": is_complete,
                "position": position() if position else state["position"], "version": _version(),
            }  # fmt: skip
        self._stream_at = new["num_rows"]
        self._write(b"".join(audio), b"".join(rows), new)
        _log.info("%s (%s): %d rows fetched", self._dataset.source, self._split_name, new["num_rows"])
        return new

    def _write(self, audio: bytes, rows: bytes, state: dict[str, Any]) -> None:
        content = {"audio.bin": audio, "rows.jsonl": rows, "state.json.tmp": json.dumps(state).encode()}
        for name, data in content.items():
            with open(self._folder / name, "wb" if name.endswith(".tmp") else "ab") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        os.replace(self._folder / "state.json.tmp", self._folder / "state.json")

    def _opened(self, state: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Callable[[], Any]]]:
        """Returns an iterator over (record, function that returns the position behind it), from where a state stands.

        The position of another version of the library is not trusted: rows are counted then, which takes longer.
        Which cast of the audio column needs no decoder shows when the first row is read.
        """
        column = self._dataset.audio_column
        for kind in _kinds_without_decoder(self._open_stream().features, column):
            stream = self._open_stream()
            position = None
            if stream.column_names is not None:
                check_columns(stream.column_names, self._dataset, self._split_name)
            if media := media_columns(stream.features, self._dataset):
                stream = stream.remove_columns(media)
            if kind is not None:
                stream = stream.cast_column(column, kind)
            if state["position"] is not None and state["version"] == _version():
                stream.load_state_dict(state["position"])
            elif state["num_rows"]:
                stream, position = stream.skip(state["num_rows"]), lambda: None  # the position of a skipped stream is another
            rows = iter(stream)
            try:
                first = next(rows, None)
            except (ImportError, AttributeError):  # some builders' rows go through torchcodec, or are paths
                continue
            return _with_positions(first, rows, position or stream.state_dict)
        raise InputError(f"{self._dataset.source}: column {column!r} is not audio; set audio_column")

    def _audio_of(self, cell: Any, index: int) -> tuple[str | None, bytes]:
        """Returns (name, encoded audio) of a cell: encoded audio, a path, or samples."""
        path = cell
        if isinstance(cell, bytes):
            return None, cell
        if isinstance(cell, dict):
            path = cell.get("path")
            if cell.get("bytes"):
                return path, cell["bytes"]
            if cell.get("array") is not None and cell.get("sampling_rate"):
                return path, self._samples_wav(cell, index)
        if not isinstance(path, str) or not path:
            where = self._where(index)
            raise InputError(f"{where}: neither audio bytes nor a path under {self._dataset.audio_column!r}; take the row out")
        from datasets.utils.file_utils import xopen

        with xopen(path if "://" in path else self._path_of(path), "rb") as file:
            return path, file.read()

    def _where(self, index: int) -> str:
        return f"{self._dataset.source} ({self._split_name}) row {index}"

    def _samples_wav(self, cell: dict[str, Any], index: int) -> bytes:
        samples, rate_hz = np.asarray(cell["array"]), cell["sampling_rate"]
        if samples.ndim != 1 or samples.dtype.kind != "f" or not is_rate(rate_hz):
            raise InputError(
                f"{self._where(index)}: {self._dataset.audio_column!r} is no list of float samples of one channel with a rate in "
                "whole Hz; write the audio to files"
            )
        return float_wav(samples, rate_hz)


def _version() -> str:
    import datasets

    return str(datasets.__version__)


def _kinds_without_decoder(features: Any, column: str) -> list[Any]:
    """Returns the features that a column may be cast to; None: it stays as it is."""
    import datasets

    if not isinstance((features or {}).get(column), datasets.Audio):
        return [None]
    cell = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    return [datasets.Audio(decode=False), cell, datasets.Value("string")]


def _with_positions(
    first: Any, rows: Iterator[Any], position: Callable[[], Any]
) -> Iterator[tuple[dict[str, Any], Callable[[], Any]]]:
    """Yields (record, function that returns the stream's position), which counts until the next row is asked for."""
    if first is None:
        return
    yield dict(first), position
    for row in rows:
        yield dict(row), position
