"""Opens a split of a data set as clips, whatever its format on disk. Audio is decoded on demand."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from wfc_dist import activity
from wfc_dist.config.datasets import DatasetConfig, SplitName
from wfc_dist.data.audio_files import AudioRef, decode, remaining_s
from wfc_dist.data.languages import language_code
from wfc_dist.data.readers import folders, hub, kaldi, lhotse, manifests, parquet, stm, tables, webdataset
from wfc_dist.data.recordings import Recordings
from wfc_dist.data.rows import SourceRow
from wfc_dist.errors import InputError

CHUNK_ROWS = 4096
READERS: dict[str, Callable[[DatasetConfig, str], Iterator[SourceRow]]] = {
    "jsonl": manifests.jsonl_rows,
    "csv": tables.csv_rows,
    "folder": folders.folder_rows,
    "kaldi": kaldi.kaldi_rows,
    "stm": stm.stm_rows,
    "parquet": parquet.parquet_rows,
    "webdataset": webdataset.webdataset_rows,
    "lhotse": lhotse.lhotse_rows,
    "hub": hub.hub_rows,
    "saved": hub.saved_rows,
}
_ONE_FILE_A_SPLIT = ("jsonl", "csv", "stm", "lhotse", "parquet", "webdataset")


@dataclass(frozen=True, slots=True)
class Clip:
    """One utterance.

    Attributes:
        id: Unique within its split.
        text: The transcript.
        language: Whisper's code, such as "en".
        duration_s: From the manifest, otherwise from the audio's header.
        word_languages: One language a word of the text, or () where the source has none.
        group: The speaker or the recording whose clips are not independent of each other; "" where the source has none.
    """

    id: str
    text: str
    language: str
    duration_s: float
    word_languages: tuple[str, ...] = ()
    group: str = ""


class Split:
    """The clips of one split of one data set, in the order of the source. Picklable; holds no audio.

    Attributes:
        name: The data set's name in the configuration.
        split: train, dev or test.
        clips: The clips; ids are unique.
    """

    def __init__(self, name: str, split: str, clips: Sequence[Clip], audio: Sequence[AudioRef]) -> None:
        self.name, self.split = name, split
        self.clips = list(clips)
        self._audio = list(audio)

    def __len__(self) -> int:
        return len(self.clips)

    def audio(self, index: int) -> np.ndarray:
        """Returns the samples of clip `index`: float32, mono, 16 kHz, decoded now.

        Raises:
            InputError: The audio is missing or unreadable; names the data set and the file.
        """
        try:
            return decode(self._audio[index])
        except InputError as error:
            raise InputError(f"{self.name}/{self.split}: {error}") from error

    def part(self, clips: slice) -> "Split":
        """Returns the split of these clips only."""
        return Split(self.name, self.split, self.clips[clips], self._audio[clips])

    @cached_property
    def fingerprint(self) -> str:
        """The identity of the data; see `Fingerprint`."""
        fingerprint = Fingerprint()
        for clip, audio in zip(self.clips, self._audio, strict=True):
            fingerprint.add(clip, audio.size_bytes(), audio.channel)
        return fingerprint.hexdigest()


def clip_language(dataset: DatasetConfig, row: SourceRow) -> str:
    """Returns the Whisper code of a row: the data set's `language` if given, else the row's own.

    Raises:
        InputError: Neither of them names a language that Whisper knows.
    """
    value = dataset.language or row.language
    if not value:
        raise InputError(f"{row.where}: no language; set language: for the data set, or lang in every row")
    code = language_code(value)
    if code is None:
        raise InputError(f"{row.where}: {value!r} is no language of Whisper; use a code such as en or es")
    return code


def iter_rows(name: str, dataset: DatasetConfig, split: SplitName) -> Iterator[SourceRow]:
    """Yields the rows of a split as written: the share `share`, at most `max_clips`. Checks neither audio nor languages.

    A share needs the number of all rows, so that they are read twice.

    Raises:
        InputError: The split is not configured, or its files cannot be read; names the data set.
    """
    if split not in dataset.splits:
        raise InputError(f"{name}: no {split} split; set datasets.{name}.splits.{split}")
    rows = _all_rows(name, dataset, split)
    if dataset.share < 1:
        num_rows = sum(1 for _ in _all_rows(name, dataset, split))
        kept = max(1, round(dataset.share * num_rows)) if num_rows else 0
        numbers = (number * num_rows // kept for number in range(kept))
        rows = _at(rows, numbers)
    return islice(rows, dataset.max_clips)


def expected_rows(dataset: DatasetConfig, split: SplitName) -> int | None:
    """Returns about how many rows a split has, for a progress bar; None where its source is no plain text of one row a line."""
    path = Path(dataset.source)
    path = path / dataset.splits.get(split, "") if path.is_dir() else path
    if dataset.format not in ("jsonl", "csv", "stm") or path.suffix == ".gz" or not path.is_file():
        return None
    with open(path, "rb") as file:
        num_lines = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    return min(max(1, round(num_lines * dataset.share)), dataset.max_clips or num_lines)


def _at(rows: Iterator[SourceRow], numbers: Iterator[int]) -> Iterator[SourceRow]:
    """Yields the rows at the given, rising places."""
    place = -1
    for number in numbers:
        yield next(islice(rows, number - place - 1, None))
        place = number


def _all_rows(name: str, dataset: DatasetConfig, split: SplitName) -> Iterator[SourceRow]:
    """Yields all rows; of a mix those of all parts that have the split, each with its part's language and name."""
    if dataset.format != "mix":
        yield from _source_rows(name, dataset, split)
    for part, inner in dataset.parts.items():
        if split in inner.splits:
            for row in iter_rows(f"{name}.{part}", inner, split):
                yield replace(row, id=f"{part}/{row.id}", language=inner.language or row.language)


def _source_rows(name: str, dataset: DatasetConfig, split: SplitName) -> Iterator[SourceRow]:
    source = Path(dataset.source)
    if dataset.format in ("folder", "saved") and not source.is_dir():
        raise InputError(f"{name}: {dataset.source} is no folder; check datasets.{name}.source")
    if dataset.format in _ONE_FILE_A_SPLIT and source.is_file() and len(dataset.splits) > 1:
        raise InputError(
            f"{name}: source is one file, but splits names {len(dataset.splits)}; make source the folder of the files"
        )
    try:
        with activity.reading(f"{dataset.source} ({split})"):
            for row in READERS[dataset.format](dataset, dataset.splits[split]):
                activity.moved()
                yield row
    except InputError as error:
        raise InputError(f"{name}/{split}: {error}") from error
    except OSError as error:
        place = error.filename or dataset.source
        todo = "check source and splits, and whether the folders can be read"
        raise InputError(f"{name}/{split}: cannot read {place}: {error.strerror or error}; {todo}") from error


class UniqueIds:
    """Makes the ids of a split unique: the second "a" becomes "a#2"."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def __call__(self, row: SourceRow) -> str:
        """Returns the id of the next row."""
        self._seen[row.id] += 1
        return row.id if self._seen[row.id] == 1 else f"{row.id}#{self._seen[row.id]}"


class Fingerprint:
    """The hex sha256 over id, text, language, duration, size in bytes, and channel and group (if any) of every clip, in order."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, clip: Clip, size_bytes: int, channel: int | None) -> None:
        """Adds the next clip."""
        row = [clip.id, clip.text, clip.language, round(clip.duration_s, 6), size_bytes]
        row += [] if channel is None else [channel]
        row += [{"group": clip.group}] if clip.group else []
        self._digest.update(json.dumps(row).encode() + b"\n")

    def hexdigest(self) -> str:
        """Returns the fingerprint of the clips so far."""
        return self._digest.hexdigest()


def open_split(name: str, dataset: DatasetConfig, split: SplitName) -> Split:
    """Opens one split without decoding audio. Headers are read where the source lacks durations.

    Args:
        name: The data set's name in the configuration, for messages.
        dataset: Its block of the configuration.
        split: Name of the split.

    Raises:
        InputError: The source cannot be read, a row lacks text, audio or language, or there is no row. Names the data set, the
            file and the line.
    """
    unique_id, clips, audio = UniqueIds(), [], []
    with Recordings() as recordings:
        recordings.use_cache_of(dataset.local_folder())
        for row, duration_s in _with_durations(iter_rows(name, dataset, split), recordings):
            try:
                if isinstance(duration_s, InputError):
                    raise duration_s
                clips.append(
                    Clip(unique_id(row), row.text, clip_language(dataset, row), duration_s, row.word_languages, row.group)
                )
                audio.append(row.audio)
            except InputError as error:
                raise InputError(f"{name}/{split}: {error}") from error
    if not clips:
        raise InputError(f"{name}/{split}: no clips in {dataset.where()}; check source and splits")
    return Split(name, split, clips, audio)


def _with_durations(rows: Iterator[SourceRow], recordings: Recordings) -> Iterator[tuple[SourceRow, float | InputError]]:
    """Yields rows with their durations in seconds. Those that the source lacks are read from the audio, many at a time."""
    while chunk := list(islice(rows, CHUNK_ROWS)):
        without = [row for row in chunk if row.duration_s is None]
        found = iter(recordings.of([row.audio for row in without]))
        for row in chunk:
            if row.duration_s is not None:
                yield row, row.duration_s
            else:
                recording = next(found)
                yield row, recording if isinstance(recording, InputError) else remaining_s(row.audio, recording.facts)
