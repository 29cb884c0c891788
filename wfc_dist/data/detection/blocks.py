"""Makes the block of a data set from a corpus that was found: columns, times, places of audio, each tried with its reader."""

import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data.audio_files import audio_facts
from wfc_dist.data.detection import columns, samples, times
from wfc_dist.data.detection.groups import Group
from wfc_dist.data.detection.places import place_of_audio
from wfc_dist.data.detection.units import Unit, is_audio_name
from wfc_dist.data.readers.archives import members
from wfc_dist.data.readers.lines import text_lines
from wfc_dist.data.rows import SourceRow, audio_column_of
from wfc_dist.errors import InputError

_PROGRAMS = frozenset({"sph2pipe", "sox", "ffmpeg", "flac", "wav-copy", "cat", "opusdec", "mpg123"})
"""Programs that read audio and write it, which a configuration may allow; anything else its owner has to allow."""
_RECORDS = ("jsonl", "csv", "folder", *samples.IN_CELLS)
_USUAL_AUDIO = ("audio_filepath", "audio", "path", "wav", "file_name", "file")
_ALTERNATIVES = {"strip_markup": ["curly"]}


def block_of(group: Group) -> dict[str, Any]:
    """Returns the keys of a data set that read a corpus, without language. What is not in it has its default.

    Raises:
        InputError: No keys read its first rows; says what was found, and what to do.
    """
    unit = group.first
    block: dict[str, Any] = {"source": str(unit.base)} | ({} if unit.kind == "jsonl" else {"format": unit.kind})
    block |= dict(unit.options)
    if unit.kind in _RECORDS and not _has_texts_beside(unit):
        block |= _of_records(unit, block)
    elif unit.kind == "kaldi":
        block |= _of_kaldi(unit, block)
    elif unit.kind == "stm":
        block |= _of_stm(group, block)
    elif unit.kind == "lhotse" and not unit.path.is_dir():
        block |= _of_lhotse(unit, block)
    elif unit.kind == "webdataset":
        block |= _of_shards(unit, block)
    return block


def _has_texts_beside(unit: Unit) -> bool:
    return unit.kind == "folder" and not any(path.name.startswith("metadata.") for path in unit.path.iterdir())


def _of_records(unit: Unit, block: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"quoting": "none"} if _needs_no_quoting(unit) else {}
    records = samples.records_of(unit, found.get("quoting", "minimal"))
    where = str(unit.path)
    if not records:
        raise InputError(f"{where} has no rows; write them, or name another source")
    if unit.kind in samples.IN_CELLS:
        cells = samples.audio_cells(samples.cells_of(unit))
        audio = "audio" if "audio" in cells else next(iter(cells), None)
    else:
        audio = columns.audio_column(records, _USUAL_AUDIO)
    if audio is None:
        raise InputError(
            f"{where}: no column has audio; there is: {', '.join(records[0])}; name the audio files in a column audio"
        )
    found |= _audio_key(unit, audio, records[0])
    text = columns.text_column(records, where, [audio])
    found |= {} if text == "text" else {"text_column": text}
    if unit.kind in ("jsonl", "csv", "folder"):
        found |= _of_files(unit, block, [str(row[audio]) for row in records if is_audio_name(row.get(audio))], records)
    return found | _of_values(unit, dict(block) | found, records)


def _needs_no_quoting(unit: Unit) -> bool:
    """Says whether a quotation mark in a table is a letter: as in Common Voice, or since the table cannot be read otherwise."""
    if unit.kind != "csv":
        return False
    try:
        records = samples.records_of(unit)
    except InputError as error:
        try:
            samples.records_of(unit, "none")
        except InputError:
            raise error from None
        return True
    return bool(records) and {"client_id", "path", "sentence"} <= records[0].keys()


def _audio_key(unit: Unit, audio: str, record: columns.Record) -> dict[str, str]:
    """Returns `audio_column` where a reader would take another column, or none."""
    if unit.kind in samples.IN_CELLS:
        return {} if audio == "audio" else {"audio_column": audio}
    if unit.kind == "folder":
        return {} if audio == "file_name" else {"audio_column": audio}
    try:
        first = "audio_filepath" if unit.kind == "jsonl" else "audio"
        by_itself = audio_column_of(DatasetConfig(source="x"), record, "", first=first)
    except InputError:
        by_itself = ""
    return {} if by_itself == audio else {"audio_column": audio}


def _of_files(unit: Unit, block: Mapping[str, Any], names: Sequence[str], records: Sequence[columns.Record]) -> dict[str, Any]:
    """Returns the keys that lead to the audio files: `tar`, or `audio_dir` and `path_parts`."""
    if "shard_id" in records[0]:
        return {"tar": _archives(unit)}
    folder = unit.path if unit.kind == "folder" else unit.path.parent
    some = [*dict.fromkeys(names)][:: max(1, len(names) // 8)][:8]
    keys = place_of_audio(block, folder, some)
    if keys is not None:
        return keys
    keys = next(
        (found for name in some if (found := place_of_audio(block, folder, [name])) is not None), None
    )  # some are missing
    if keys is None and unit.kind == "jsonl" and _in_archives(unit, some[0]):
        return {"tar": _archives(unit)}
    if keys is None:
        raise InputError(
            f"{unit.path}: the audio is not there: {some[0]!r} is no file below {folder} or {unit.base}; put the audio there, or "
            "correct the paths"
        )
    return keys


def _in_archives(unit: Unit, name: str) -> bool:
    stem = Path(name).stem
    return any(Path(member.name).stem == stem for path in sorted(unit.path.parent.glob("*.tar")) for member in members(path))


def _archives(unit: Unit) -> str:
    """Returns the pattern of the archives beside a tarred manifest: names that differ in a running number."""
    names = sorted(path.name for path in unit.path.parent.glob("*.tar"))
    numbers = {int(match[0]): name for name in names if (match := re.search(r"\d+(?=\.tar$)", name))}
    if not numbers:
        if len(names) == 1:
            return names[0]
        raise InputError(f"{unit.path}: the audio is in archives, but {unit.path.parent} has no numbered .tar; fetch them")
    start = re.sub(r"\d+\.tar$", "", numbers[min(numbers)])
    return f"{start}_OP_{min(numbers)}..{max(numbers)}_CL_.tar"


def _of_values(unit: Unit, block: dict[str, Any], records: Sequence[columns.Record]) -> dict[str, Any]:
    """Returns the keys `columns`, `time_unit` and `text` that the values of the first rows ask for."""
    is_cut, is_table = unit.kind in samples.IN_CELLS, unit.kind == "csv" or (unit.kind == "folder" and _is_table(unit))
    named: dict[str, str | None] = {}
    language = columns.language_column(records)
    if language is not None and not columns.is_read_by_itself("language", language):
        named["language"] = language
    row_id = columns.id_column(records)
    if row_id is not None and not columns.is_read_by_itself("id", row_id):
        named["id"] = row_id
    nothing = dict.fromkeys(("offset", "duration", "start", "end", "channel"))
    rows = samples.first_rows(unit, {**block, "columns": nothing}, times.NUM_LISTENED)
    known = [
        (record, length_s)
        for record, row in zip(records, rows, strict=False)
        if (length_s := times.length_of(row.audio)) is not None
    ]
    found = (
        times.time_keys([one[0] for one in known], [one[1] for one in known], is_table=is_table, is_cut=is_cut) if known else {}
    )
    named |= found.pop("columns", {})
    named |= _channel(records, rows, is_table=is_table)
    if any("whisper_token" in row.kinds for row in rows):
        found["text"] = {"strip_markup": ["angle"]}
    return found | ({"columns": named} if named else {})


def _is_table(unit: Unit) -> bool:
    return any(re.match(r"metadata\.(csv|tsv)", path.name) for path in unit.path.iterdir())


def _channel(records: Sequence[columns.Record], rows: Sequence[SourceRow], *, is_table: bool) -> dict[str, None]:
    """Returns {"channel": None} where a column of that name does not count channels from 0."""
    if "channel" not in records[0]:
        return {}
    for record, row in zip(records, rows, strict=False):
        try:
            number = columns.number_of(record, "channel", is_table=is_table)
            if not number < audio_facts(row.audio).channels:
                return {"channel": None}
        except InputError:
            continue
        except (AssertionError, KeyError):
            return {"channel": None}
    return {}


def _of_kaldi(unit: Unit, block: Mapping[str, Any]) -> dict[str, Any]:
    places = [
        line.split(maxsplit=1) for _, line in islice(text_lines(unit.path / "wav.scp"), samples.NUM_RECORDS) if line.strip()
    ]
    names = [entry[1].strip() for entry in places if len(entry) == 2]
    if not names:
        raise InputError(f"{unit.path / 'wav.scp'} names no audio; write it, or name another source")
    if pipes := samples.programs_of(unit):
        return {"allow_pipes": pipes} if {*pipes} <= _PROGRAMS else {}
    files = [re.sub(r":\d+$", "", name) for name in names]
    some = [*dict.fromkeys(files)][:: max(1, len(files) // 8)][:8]
    keys = place_of_audio(block, unit.path, some)
    if keys is None:
        raise InputError(
            f"{unit.path / 'wav.scp'}: the audio is not there: {some[0]!r} is no file from {unit.path} or {unit.base}; put the "
            "audio there, or correct the paths"
        )
    return keys


def _of_stm(group: Group, block: dict[str, Any]) -> dict[str, Any]:
    unit = group.first
    places = [None, *(path.name for path in sorted(unit.base.iterdir()) if path.is_dir()), ".", ".."]
    error = None
    for place in places:
        for text in ({}, {"text": _ALTERNATIVES}):
            keys = ({} if place is None else {"audio_dir": place}) | text
            try:
                for one in group.splits.values():
                    samples.first_rows(one, {**block, **keys}, 20)
                return keys
            except InputError as raised:
                error = error or raised
    raise error or InputError(f"{unit.path} cannot be read")


def _of_lhotse(unit: Unit, block: Mapping[str, Any]) -> dict[str, Any]:
    rows = samples.first_rows(unit, block)
    names = [row.audio.path for row in rows if hasattr(row.audio, "path")]
    if not names:
        raise InputError(f"{unit.path} has no supervisions, so that there are no transcripts; write the cuts with them")
    some = [*dict.fromkeys(names)][:: max(1, len(names) // 8)][:8]
    start = str(unit.path.parent) + "/"
    keys = place_of_audio(block, unit.path.parent, [name.removeprefix(start) for name in some])
    if keys is None:
        raise InputError(f"{unit.path}: the audio is not there: no file {some[0]}; put it there, or correct the paths")
    return keys


def _of_shards(unit: Unit, block: Mapping[str, Any]) -> dict[str, Any]:
    try:
        row = next(iter(samples.rows_of(unit, block)), None)
    except InputError as error:
        match = re.search(r"no text under 'text' \(there is: ([^)]*)\)", str(error))
        if match is None:
            raise
        record = dict.fromkeys(match[1].split(", "), "some words")
        return {"text_column": columns.text_column([record], str(unit.path))}
    if row is None:
        raise InputError(f"{unit.path} has no clips; name another source")
    return {}
