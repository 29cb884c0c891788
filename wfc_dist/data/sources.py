"""Opens a split of a data set as clips, whatever its format on disk. Audio is decoded on demand."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from wfc_dist.config.datasets import DatasetConfig, SplitName
from wfc_dist.data.audio_files import AudioRef, decode, true_duration_s
from wfc_dist.data.readers import folders, hub, manifests
from wfc_dist.data.rows import SourceRow, moved
from wfc_dist.errors import InputError

READERS: dict[str, Callable[[DatasetConfig, str], Iterator[SourceRow]]] = {
    "jsonl": manifests.jsonl_rows,
    "folder": folders.folder_rows,
    "hub": hub.hub_rows,
    "saved": hub.saved_rows,
}


@dataclass(frozen=True)
class Clip:
    """One utterance.

    Attributes:
        id: Unique within its split.
        text: The transcript.
        language: Whisper's code, such as "en".
        duration_s: From the manifest, otherwise from the audio's header.
        word_languages: One language a word of the text, or () where the source has none.
    """

    id: str
    text: str
    language: str
    duration_s: float
    word_languages: tuple[str, ...] = ()


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
        """The hex sha256 over id, text, language, duration, size in bytes, and channel (if any) of every clip, in order."""
        digest = hashlib.sha256()
        for clip, audio in zip(self.clips, self._audio, strict=True):
            row = [clip.id, clip.text, clip.language, round(clip.duration_s, 6), audio.size_bytes()]
            row += [] if audio.channel is None else [audio.channel]
            digest.update(json.dumps(row).encode() + b"\n")
        return digest.hexdigest()


def language_code(value: str) -> str | None:
    """Returns Whisper's code for "en", "en-US", "English" or "<|en|>"; None when Whisper does not know the language."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

    name = value.strip().removeprefix("<|").removesuffix("|>").lower()
    for candidate in (name, name.replace("_", "-").split("-")[0]):
        if candidate in LANGUAGES:
            return candidate
        if candidate in TO_LANGUAGE_CODE:
            return str(TO_LANGUAGE_CODE[candidate])
    return None


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


def read_rows(name: str, dataset: DatasetConfig, split: SplitName) -> list[SourceRow]:
    """Returns the rows of a split as written: the share `share`, at most `max_clips`. Checks neither audio nor languages.

    Raises:
        InputError: The split is not configured, or its files cannot be read; names the data set.
    """
    if split not in dataset.splits:
        raise InputError(f"{name}: no {split} split; set datasets.{name}.splits.{split}")
    if dataset.format == "mix":
        rows = list(_mixed_rows(name, dataset, split))
    else:
        # a share needs all rows; without one, only the rows that stay are read
        rows = list(islice(_source_rows(name, dataset, split), None if dataset.share < 1 else dataset.max_clips))
    if dataset.share < 1 and rows:
        kept = max(1, round(dataset.share * len(rows)))
        rows = [rows[number * len(rows) // kept] for number in range(kept)]
    return rows[: dataset.max_clips]


def _mixed_rows(name: str, dataset: DatasetConfig, split: SplitName) -> Iterator[SourceRow]:
    """Yields the rows of all parts that have the split. Each row keeps the language of its part; its id begins with the part."""
    for part, inner in dataset.parts.items():
        if split in inner.splits:
            for row in read_rows(f"{name}.{part}", inner, split):
                yield moved(row, part, inner.language)


def _source_rows(name: str, dataset: DatasetConfig, split: SplitName) -> Iterator[SourceRow]:
    source = Path(dataset.source)
    if dataset.format in ("folder", "saved") and not source.is_dir():
        raise InputError(f"{name}: {dataset.source} is no folder; check datasets.{name}.source")
    if dataset.format == "jsonl" and source.is_file() and len(dataset.splits) > 1:
        raise InputError(
            f"{name}: source is one file, but splits names {len(dataset.splits)}; make source the folder of the files"
        )
    try:
        yield from READERS[dataset.format](dataset, dataset.splits[split])
    except InputError as error:
        raise InputError(f"{name}/{split}: {error}") from error


def unique_ids(rows: Sequence[SourceRow]) -> list[str]:
    """Returns the ids of rows in order; the second "a" becomes "a#2"."""
    seen: Counter[str] = Counter()
    ids = []
    for row in rows:
        seen[row.id] += 1
        ids.append(row.id if seen[row.id] == 1 else f"{row.id}#{seen[row.id]}")
    return ids


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
    rows = read_rows(name, dataset, split)
    if not rows:
        raise InputError(f"{name}/{split}: no clips in {dataset.where()}; check source and splits")
    clips = []
    for row, row_id in zip(rows, unique_ids(rows), strict=True):
        try:
            duration_s = true_duration_s(row.audio) if row.duration_s is None else row.duration_s
            language = clip_language(dataset, row)
            clips.append(Clip(row_id, row.text, language, max(duration_s, 0.0), row.word_languages))
        except InputError as error:
            raise InputError(f"{name}/{split}: {error}") from error
    return Split(name, split, clips, [row.audio for row in rows])
