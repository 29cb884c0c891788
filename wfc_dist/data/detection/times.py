"""What the numbers of a corpus mean: seconds or milliseconds, of the recording or of another one. The audio decides."""

from collections.abc import Mapping, Sequence
from typing import Any

from wfc_dist.config.datasets import Column
from wfc_dist.data.audio_files import AudioRef, audio_facts
from wfc_dist.data.detection.columns import Record, is_read_by_itself, number_of, time_columns
from wfc_dist.data.rows import AGREE_S
from wfc_dist.errors import InputError

NUM_LISTENED = 12
"""Recordings whose true length is looked at."""
_TOLERANCE_S = 0.1
_UNIT_S = {"s": 1.0, "ms": 0.001}


def time_keys(records: Sequence[Record], lengths_s: Sequence[float], *, is_table: bool, is_cut: bool) -> dict[str, Any]:
    """Returns the keys `time_unit` and `columns` under which the times of some rows fit their recordings.

    Args:
        records: Rows as written.
        lengths_s: The true length of each row's recording in seconds.
        is_table: Whether numbers are texts.
        is_cut: Whether a reader takes start and end only where `columns` says so.
    """
    found = time_columns(records, is_table=is_table)
    if not found:
        return {}
    stated = {unit for _, unit in found.values() if unit}
    rows = [
        ({key: number_of(record, name, is_table=is_table) for key, (name, _) in found.items()}, length_s)
        for record, length_s in zip(records, lengths_s, strict=True)
    ]
    units = [unit for unit in ("s", "ms") if not stated or unit in stated]
    for unit in units:
        for kept in _subsets(found):
            if all(_fits({key: times[key] * _UNIT_S[unit] for key in kept}, length_s) for times, length_s in rows):
                return _keys(found, kept, unit, is_cut=is_cut, is_default=unit == "s")
    return _keys(found, (), "s", is_cut=is_cut, is_default=True)


def _subsets(found: Mapping[Column, Any]) -> list[tuple[Column, ...]]:
    """Returns what may count, the most telling first: all, a pair that cuts a stretch, the length alone."""
    every: list[tuple[Column, ...]] = [
        tuple(found),
        ("offset", "duration"),
        ("start", "duration"),
        ("start", "end"),
        ("duration",),
    ]
    return list(dict.fromkeys(kept for kept in every if kept and all(key in found for key in kept)))


def _fits(times: Mapping[Column, float], length_s: float) -> bool:
    """Says whether the times of a row, in seconds, agree and lie within its recording."""
    offset, start, end = times.get("offset"), times.get("start"), times.get("end")
    if offset is not None and start is not None and abs(offset - start) > AGREE_S:
        return False
    first = (start if offset is None else offset) or 0.0
    length = times.get("duration")
    if end is not None:
        if end <= first or (length is not None and abs(length - (end - first)) > AGREE_S):
            return False
        length = end - first
    return first >= 0 and (length is None or (length > 0 and first + length <= length_s + _TOLERANCE_S))


def _keys(
    found: Mapping[Column, tuple[str, str]], kept: Sequence[Column], unit: str, *, is_cut: bool, is_default: bool
) -> dict[str, Any]:
    columns: dict[str, str | None] = {}
    for key, (name, _) in found.items():
        needs_word = is_cut and key in ("start", "end")
        if key in kept and (needs_word or not is_read_by_itself(key, name)):
            columns[key] = name
        elif key not in kept and is_read_by_itself(key, name):
            columns[key] = None
    return ({} if is_default or not kept else {"time_unit": unit}) | ({"columns": columns} if columns else {})


def length_of(audio: AudioRef) -> float | None:
    """Returns the true length in seconds of a whole recording; None where it cannot be read."""
    try:
        facts = audio_facts(audio)
    except InputError:
        return None
    return facts.frames / facts.rate_hz
