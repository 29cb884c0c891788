"""Counts a corpus that was found: clips, hours, languages of each split."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data.audio_files import AudioFile
from wfc_dist.data.detection import samples, times
from wfc_dist.data.detection.hub import num_rows_of
from wfc_dist.data.detection.units import Unit
from wfc_dist.data.languages import language_code
from wfc_dist.data.readers.parquet import parquet_files
from wfc_dist.data.rows import SourceRow
from wfc_dist.errors import InputError

MOST_LISTENED = 1000
"""Where durations are not stated, that many recordings are opened; the others are taken to be as long."""


@dataclass
class SplitFacts:
    """What a split has.

    Attributes:
        num_clips: Rows; None where they are not counted.
        hours: Of speech; None where it is not known.
        is_about: Whether the hours are estimated from a part of the rows.
        mean_s: Seconds of a clip in the mean; None where no length is known.
        languages: Whisper's code -> rows.
        strange: Labels that are no language of Whisper, or "" for rows without one -> rows.
        num_missing: Rows whose audio file is not there, of those that were opened.
        first: Path, first byte and offset of the audio of the first rows, where it is in files.
    """

    num_clips: int | None = 0
    hours: float | None = 0.0
    is_about: bool = False
    mean_s: float | None = None
    languages: Counter[str] = field(default_factory=Counter)
    strange: Counter[str] = field(default_factory=Counter)
    num_missing: int = 0
    first: frozenset[tuple[str, int, float]] = frozenset()


def facts_of(unit: Unit, block: Mapping[str, Any]) -> SplitFacts:
    """Returns the facts of a split; of rows that hold their audio those of the first rows, taken for the others.

    Raises:
        InputError: A row cannot be read; names file and line.
    """
    if unit.kind in samples.IN_CELLS:
        rows = samples.first_rows(unit, block)
        return _counted(rows, _num_rows(unit))
    if samples.programs_of(unit):
        return _of_pipes(unit)
    rows = list(samples.rows_of(unit, block))
    return _counted(rows, len(rows))


def _num_rows(unit: Unit) -> int | None:
    import datasets
    import pyarrow.parquet as pq

    if unit.kind == "hub":
        return num_rows_of(unit)
    if unit.kind == "saved":
        loaded = datasets.load_from_disk(unit.base)
        return len(loaded[unit.value] if isinstance(loaded, datasets.DatasetDict) else loaded)
    files = parquet_files(DatasetConfig(source=str(unit.base), format="parquet"), unit.value)
    return sum(pq.ParquetFile(file).metadata.num_rows for file in files)


def _counted(rows: list[SourceRow], num_rows: int | None) -> SplitFacts:
    facts = SplitFacts(num_rows)
    files = [row.audio for row in rows[:20] if isinstance(row.audio, AudioFile)]
    facts.first = frozenset((str(Path(audio.path).resolve()), audio.first_byte, audio.offset_s) for audio in files)
    for row in rows:
        code = language_code(row.language) if row.language else None
        if code:
            facts.languages[code] += 1
        else:
            facts.strange[row.language or ""] += 1
    stated = [row.duration_s for row in rows if row.duration_s is not None]
    silent = [row for row in rows if row.duration_s is None]
    heard = silent[:: max(1, -(-len(silent) // MOST_LISTENED))]
    lengths = [None if (length := times.length_of(row.audio)) is None else max(length - row.audio.offset_s, 0.0) for row in heard]
    facts.num_missing = lengths.count(None)
    known = [length for length in lengths if length is not None]
    total_s = sum(stated) + (sum(known) / len(known) * len(silent) if known else 0.0)
    num_known = len(stated) + (len(silent) if known else 0)
    facts.mean_s = total_s / num_known if num_known else None
    facts.hours = None if num_rows is None or facts.mean_s is None else facts.mean_s * num_rows / 3600
    facts.is_about = len(heard) < len(silent) or len(rows) < (num_rows or 0)
    return facts


def _of_pipes(unit: Unit) -> SplitFacts:
    """Returns the facts of a Kaldi directory whose audio only programs read, which are not started."""
    from wfc_dist.data.readers.lines import text_lines

    def words(name: str) -> list[list[str]]:
        path = unit.path / name
        return [line.split() for _, line in text_lines(path) if line.strip()] if path.is_file() else []

    texts, segments, labels = words("text"), words("segments"), {line[0]: line[-1] for line in words("utt2lang")}
    facts = SplitFacts(len(texts), None)
    try:
        facts.hours = sum(float(line[3]) - float(line[2]) for line in segments) / 3600 if segments else None
    except (ValueError, IndexError) as error:
        raise InputError(
            f"{unit.path / 'segments'}: a line is not `utterance recording start end` ({error}); correct it"
        ) from error
    for line in texts:
        code = language_code(labels.get(line[0], ""))
        facts.languages.update([code] if code else [])
        facts.strange.update([] if code else [labels.get(line[0], "")])
    return facts
