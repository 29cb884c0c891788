"""Which column of a corpus holds what: names that are usual, and values that look right."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from wfc_dist.config.datasets import Column
from wfc_dist.data.detection.roles import split_of
from wfc_dist.data.detection.units import is_audio_name
from wfc_dist.data.languages import language_code
from wfc_dist.data.rows import plain_number
from wfc_dist.errors import InputError

Record = Mapping[str, Any]
_TEXTS = (
    "text", "sentence", "transcription", "transcript", "transcripts", "wrd", "words", "normalized_text", "normalised_text",
    "raw_transcription", "raw_text", "utterance", "utt_text", "caption", "label", "target", "target_text", "reference", "content",
)  # fmt: skip
_LANGUAGES = ("lang", "language", "locale", "lang_id", "langid", "language_id", "lang_code", "language_code", "lid")
_IDS = ("id", "uid", "utt_id", "uttid", "utterance_id", "segment_id", "utt")
_TIMES: dict[Column, tuple[str, ...]] = {
    "offset": ("offset", "audio_offset"),
    "duration": ("duration", "dur", "length", "audio_duration", "audio_length", "clip_duration"),
    "start": ("start", "begin", "start_time", "begin_time", "starttime", "segment_start", "onset", "tstart", "from"),
    "end": ("end", "stop", "until", "end_time", "stop_time", "endtime", "segment_end", "tend", "to"),
}
_MOST_SPLITS = 8
_UNITS = {"_ms": "ms", "_msec": "ms", "_millis": "ms", "_s": "s", "_sec": "s", "_secs": "s", "_seconds": "s", "": ""}
_READ = {"language": ("lang", "language"), "id": ("id",)}
"""The names under which a reader looks for a column by itself."""


def audio_column(records: Sequence[Record], usual: Sequence[str]) -> str | None:
    """Returns the column with names of audio files: the first usual one that has them, else the only other one."""
    names = [name for name in records[0] if _share(records, name, is_audio_name) > 0.5]
    first = next((name for name in usual if name in names), None)
    return first or next(iter(names), None)


def text_column(records: Sequence[Record], where: str, but: Iterable[str] = ()) -> str:
    """Returns the column with the transcripts.

    Raises:
        InputError: No column has a usual name or looks like sentences, or several do; names them.
    """
    left_out = set(but)
    by_name = {name.lower(): name for name in reversed([*records[0]]) if name not in left_out}
    for usual in _TEXTS:
        if usual in by_name and _share(records, by_name[usual], _is_text) > 0.5:
            return by_name[usual]
    sentences = [name for name in records[0] if name not in left_out and _share(records, name, _is_sentence) > 0.5]
    if len(sentences) == 1:
        return sentences[0]
    there = ", ".join(map(str, records[0]))
    what = f"several columns may be the transcript ({', '.join(sentences)})" if sentences else "no column looks like transcripts"
    raise InputError(f"{where}: {what}; there is: {there}; call the column with the transcripts text, and try again")


def language_column(records: Sequence[Record]) -> str | None:
    """Returns the column whose every value names a language of Whisper; those that are read by themselves come first."""
    by_name = {name.lower(): name for name in reversed([*records[0]])}
    for usual in _LANGUAGES:
        name = by_name.get(usual)
        if name is not None and all(isinstance(row.get(name), str) and language_code(row[name]) for row in records):
            return name
    return None


def id_column(records: Sequence[Record]) -> str | None:
    """Returns the column whose values name the rows, each another one."""
    by_name = {name.lower(): name for name in reversed([*records[0]])}
    for usual in _IDS:
        name = by_name.get(usual)
        if name is not None and len({row.get(name) for row in records if row.get(name)}) == len(records):
            return name
    return None


def split_column(records: Sequence[Record]) -> str | None:
    """Returns the column whose every value names a split, such as train or test, where several are named."""
    for name in records[0]:
        found = {split_of(row[name])[0] if isinstance(row.get(name), str) else None for row in records}
        if len(found) > 1 and None not in found and len({row[name] for row in records}) <= _MOST_SPLITS:
            return name
    return None


def time_columns(records: Sequence[Record], *, is_table: bool) -> dict[Column, tuple[str, str]]:
    """Returns what looks like times: offset, duration, start, end -> (name of the column, unit that the name states, or "")."""
    found: dict[Column, tuple[str, str]] = {}
    for key, usual in _TIMES.items():
        choices = ((name + end, unit) for name in usual for end, unit in _UNITS.items())
        for name, unit in sorted(choices, key=lambda choice: choice[0] not in usual):
            if name not in found and _share(records, name, lambda value: _number(value, is_table) is not None) == 1:
                found[key] = (name, unit)
                break
    return found


def number_of(record: Record, name: str, *, is_table: bool) -> float:
    """Returns the number in a column that `time_columns` has found."""
    value = _number(record[name], is_table)
    assert value is not None
    return value


def is_read_by_itself(key: str, name: str) -> bool:
    """Says whether a reader finds a column without being told."""
    return name in _READ.get(key, (key,))


def _number(value: object, is_table: bool) -> float | None:
    if isinstance(value, str):
        return plain_number(value) if is_table else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_sentence(value: object) -> bool:
    return isinstance(value, str) and len(value.split()) > 1 and any(map(str.isalpha, value)) and not is_audio_name(value)


def _share(records: Sequence[Record], name: str, holds: Callable[[object], bool]) -> float:
    return sum(holds(row.get(name)) for row in records) / len(records)
