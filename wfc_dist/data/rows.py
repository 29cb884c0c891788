"""Turns a record of any format, a mapping of column names to values, into a row: text, language, stretch of audio, channel.

All readers share it, so that `offset`, `end`, `channel` and the like mean the same in every format. Rows are what the files say:
neither audio nor languages are checked here.
"""

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from wfc_dist.config.datasets import Column, DatasetConfig
from wfc_dist.data.audio_files import AudioFile, AudioRef
from wfc_dist.data.text import inspect_text, marks_of_words, string_of
from wfc_dist.errors import InputError

_NAMES: dict[Column, tuple[str, ...]] = {
    "id": ("id",),
    "language": ("lang", "language"),
    "offset": ("offset",),
    "duration": ("duration",),
    "start": ("start",),
    "end": ("end",),
    "channel": ("channel",),
    "word_langs": ("word_langs",),
    "group": ("group",),
}
"""The names under which a column is looked for, unless `columns` says another."""
_LOOKS_MEANINGFUL = re.compile(
    r"(^|_)(start|begin|stop|end|offset|onset|time|times|dur|duration|channel|channels|lang|language|locale|segment|segments|"
    r"translation)(_|$)",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_MAX_SECONDS = 1e9
_MAX_CHANNELS = 1024  # of libsndfile
AGREE_S = 0.02
"""Two ways to state one time may differ by that many seconds of rounding."""


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row as written. `language` and `duration_s` are None, `word_languages` and `group` empty, where the row lacks them.

    `text` is clean, and `raw` is the text before. `kinds` names what the clean text has (of `text_kinds.KINDS`), or why there is
    no text; `mended` names what cleaning removed without being asked to.
    `where` names file and line in messages. `unread` are the columns that look as if they mattered and are not read.
    """

    id: str
    text: str
    language: str | None
    audio: AudioRef
    duration_s: float | None
    where: str
    word_languages: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    raw: str = ""
    kinds: tuple[str, ...] = ()
    mended: tuple[str, ...] = ()
    group: str = ""


class Columns:
    """Which column of a record means what, for one data set.

    Args:
        dataset: Its block of the configuration.
        text_column: Where the transcript is; by default the data set's.
        read: Further columns that the reader itself reads, so that they are not told as unread.
        is_table: Values are strings, as in a csv file; elsewhere a string is no number.
        is_cut: The audio of a row is a clip already, as in a Hugging Face data set. Then `start` and `end` may be times in the
            recording that it was cut from, so that only `columns` decides whether they are read.
    """

    def __init__(
        self,
        dataset: DatasetConfig,
        *,
        text_column: str | None = None,
        read: tuple[str, ...] = (),
        is_table: bool = False,
        is_cut: bool = False,
    ) -> None:
        self._dataset, self._is_table, self._is_cut = dataset, is_table, is_cut
        self.text = text_column or dataset.text_column
        self._names = {key: self._names_of(key) for key in _NAMES}
        self._not_read = {default for key, names in _NAMES.items() if self._is_off(key) for default in names}
        self._read = {self.text, dataset.audio_column, *read, *(name for names in self._names.values() for name in names)}
        self._unread: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._unit = 0.001 if dataset.time_unit == "ms" else 1.0

    def _is_off(self, key: Column) -> bool:
        return key in self._dataset.columns and self._dataset.columns[key] is None

    def _names_of(self, key: Column) -> tuple[str, ...]:
        if key not in self._dataset.columns:
            return _NAMES[key]
        name = self._dataset.columns[key]
        return () if name is None else (name,)

    def row(
        self, record: Mapping[str, Any], where: str, *, name: str, audio: Callable[[float, float | None, int | None], AudioRef]
    ) -> SourceRow:
        """Returns the row of a record.

        Args:
            record: Column -> value.
            where: File and line, for messages.
            name: Of the audio; with the offset and the channel the row's id, if the record has none.
            audio: Makes the reference from (offset in s, length in s or None, channel or None).

        Raises:
            InputError: A column is missing or has a value that it cannot have; names `where` and the column.
        """
        self._require_columns(record, where)
        offset_s, duration_s = self._stretch(record, where)
        channel = self._channel(record, where)
        row_id = self._value(record, "id")
        if row_id is None:
            at = f"@{offset_s:g}" if offset_s else ""
            row_id = name + at + ("" if channel is None else f":{channel}")
        if self.text not in record:
            raise InputError(f"{where}: no text under {self.text!r} (there is: {', '.join(map(str, record))}); set text_column")
        raw, fault = string_of(record[self.text])
        text, kinds, mended = inspect_text(raw, self._dataset.text)
        language, group = self._value(record, "language"), self._value(record, "group")
        return SourceRow(
            _writable(str(row_id)), text, None if language is None else str(language),
            audio(offset_s, duration_s, channel), duration_s, where,
            self._word_languages(record, raw, text, where), self._unread_of(record), raw,
            (fault,) if fault else kinds, mended, "" if group is None else _writable(str(group)),
        )  # fmt: skip

    def _require_columns(self, record: Mapping[str, Any], where: str) -> None:
        """Raises InputError for a column that `columns` names and the record lacks."""
        for key, name in self._dataset.columns.items():
            if name is not None and name not in record:
                there = ", ".join(map(str, record))
                raise InputError(f"{where}: no column {name!r}, which columns.{key} names (there is: {there}); correct columns")

    def _value(self, record: Mapping[str, Any], key: Column) -> Any:
        """Returns the first value that is not empty; None if there is none."""
        return next((record[name] for name in self._names[key] if record.get(name) not in (None, "")), None)

    def _stretch(self, record: Mapping[str, Any], where: str) -> tuple[float, float | None]:
        """Returns (offset, length or None) in seconds, from offset and duration or from start and end."""
        offset, length, start, end = (self._seconds(record, key, where) for key in ("offset", "duration", "start", "end"))
        if self._is_cut and (start is not None or end is not None) and not {"start", "end"} & self._dataset.columns.keys():
            raise InputError(
                f"{where}: start and end may be times in this row's audio, or in the recording that it was cut from; set "
                "columns: {start: start, end: end} in the first case, columns: {start: null, end: null} in the second"
            )
        if offset is not None and start is not None and abs(offset - start) > AGREE_S:
            raise InputError(
                f"{where}: offset is {offset:g} s, but start {start:g} s; take one of the columns out (columns: ...)"
            )
        first = start if offset is None else offset
        if end is not None:
            from_end = end - (first or 0.0)
            if from_end <= 0:
                raise InputError(f"{where}: end ({end:g} s) is not behind the start ({first or 0:g} s); correct the row")
            if length is not None and abs(length - from_end) > AGREE_S:
                raise InputError(
                    f"{where}: duration is {length:g} s, but start and end are {from_end:g} s apart; take duration out, or set "
                    "columns: {start: null, end: null}"
                )
            length = from_end if length is None else length
        return first or 0.0, length

    def _seconds(self, record: Mapping[str, Any], key: Column, where: str) -> float | None:
        value = self._value(record, key)
        if value is None:
            return None
        number = self._number(value)
        if number is None or not 0 <= number * self._unit <= _MAX_SECONDS:
            what = f"expected seconds (0 or more, at most {_MAX_SECONDS:g})"
            raise InputError(f"{where}: {key} is {_short(value)}, {what}; correct it or leave it out")
        return number * self._unit

    def _channel(self, record: Mapping[str, Any], where: str) -> int | None:
        value = self._value(record, "channel")
        if value is None:
            return None
        number = self._number(value)
        if number is None or not 0 <= number < _MAX_CHANNELS or number != int(number):
            todo = "correct it, or set columns: {channel: null}"
            raise InputError(f"{where}: channel is {_short(value)}, expected a number from 0 to {_MAX_CHANNELS - 1}; {todo}")
        return int(number)

    def _word_languages(self, record: Mapping[str, Any], raw: str, text: str, where: str) -> tuple[str, ...]:
        """Returns the languages of the words of `text`; () if absent. Raises InputError if the numbers differ."""
        value = self._value(record, "word_langs")
        if not value:
            return ()
        marks = value.split() if isinstance(value, str) else value  # a string is a cell of a table
        is_list = isinstance(marks, list) and all(isinstance(name, str) for name in marks)
        found = marks_of_words(raw, text, marks, self._dataset.text) if is_list else None
        if found is None or any(_writable(name) != name for name in found):
            num_words = len(raw.split())
            raise InputError(
                f"{where}: word_langs is {value!r}, expected a list of {num_words} language codes, one a word of the text"
            )
        return found

    def _number(self, value: Any) -> float | None:
        """Returns a finite number, in a table also that of a string; None for anything else."""
        if isinstance(value, str) and self._is_table:
            value = plain_number(value)
        if not isinstance(value, int | float) or isinstance(value, bool):
            return None
        try:
            return float(value) if math.isfinite(value) else None
        except OverflowError:  # an integer of hundreds of digits
            return None

    def _unread_of(self, record: Mapping[str, Any]) -> tuple[str, ...]:
        names = tuple(record)
        if names not in self._unread:
            unread = (str(name) for name in names if name not in self._read and str(name) not in self._not_read)
            self._unread[names] = tuple(name for name in unread if _LOOKS_MEANINGFUL.search(name))
        return self._unread[names]


def plain_number(text: str) -> float | None:
    """Returns the number that a text is, written with digits, a point and an exponent; None for anything else, such as 1_000."""
    text = text.strip()
    return float(text) if _NUMBER.fullmatch(text) else None


def _writable(name: str) -> str:
    r"""Returns a name with \udcff for half of a surrogate pair, as in a file name that is no UTF-8: no file takes it as it is."""
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode("utf-8")


def _short(value: object) -> str:
    return f"{value!r:.60}"


_AUDIO_COLUMNS = ("audio", "path", "wav", "file_name", "audio_filepath", "file")
_PLACEHOLDER = re.compile(r"^(\$\w+|\$?\{\w+\})[/\\]")


def audio_column_of(dataset: DatasetConfig, record: Mapping[str, Any], where: str, *, first: str = "audio") -> str:
    """Returns the column with the audio paths: `audio_column`, or by default the first usual name that a record has.

    Raises:
        InputError: The record has none; names `where` and its columns.
    """
    is_default = dataset.audio_column == "audio"
    names = (first, *_AUDIO_COLUMNS) if is_default else (dataset.audio_column,)
    column = next((name for name in names if name in record), None)
    if column is None:
        there = ", ".join(map(str, record))
        raise InputError(f"{where}: no audio path under {names[0]!r} (there is: {there}); set audio_column")
    return column


def audio_paths(dataset: DatasetConfig, folder: Path) -> Callable[[str], str]:
    """Returns what turns an audio path as written into one on this machine: `audio_dir` and `path_parts` are applied.

    Args:
        dataset: A relative `audio_dir` starts from its source. A placeholder in front, such as $data_root/, is left out.
        folder: What relative paths start from without `audio_dir`: the manifest's folder.

    Raises:
        InputError: `audio_dir` is no folder.
    """
    if dataset.audio_dir is not None:
        source = Path(dataset.source)
        folder = (source.parent if source.is_file() else source) / dataset.audio_dir
        if not folder.is_dir():
            raise InputError(f"{folder} is no folder; correct audio_dir (a relative one starts from source)")
    start = str(folder)

    def path_of(path: str) -> str:
        if dataset.path_parts is not None:
            path = str(PurePosixPath(*PurePosixPath(path.replace("\\", "/")).parts[-dataset.path_parts :]))
        return os.path.join(start, _PLACEHOLDER.sub("", path) if path[:1] in "${" else path)

    return path_of


def file_audio(path: str) -> Callable[[float, float | None, int | None], AudioRef]:
    """Returns what makes references to a file; see `Columns.row`."""
    return lambda offset_s, length_s, channel: AudioFile(path, offset_s, length_s, channel)
