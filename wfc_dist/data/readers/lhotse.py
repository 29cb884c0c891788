"""Reads Lhotse's manifests: cuts, supervisions with their recordings, and Shar folders. One supervision is one clip.

The `lhotse` package is not needed. Cuts that change their audio (transforms, mixes) are refused: only audio as recorded is read.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data.audio_files import SUFFIXES, AudioFile, AudioRef
from wfc_dist.data.readers.archives import Member, members
from wfc_dist.data.readers.lines import json_lines, manifest_path
from wfc_dist.data.rows import AGREE_S, Columns, SourceRow, audio_paths
from wfc_dist.errors import InputError

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_AudioOf = Callable[[Mapping[str, Any], int, str], Callable[..., AudioRef]]
"""(recording or cut, channel, where) -> what makes references to its audio."""


def lhotse_rows(dataset: DatasetConfig, name: str) -> Iterator[SourceRow]:
    """Yields one row a supervision of a file of cuts, of a file of supervisions, or of a Shar folder.

    The recordings of X_supervisions_Y.jsonl are in X_recordings_Y.jsonl beside it.

    Raises:
        InputError: A file cannot be read, a line is no cut, or its audio is changed, mixed or elsewhere; names file and line.
    """
    path = manifest_path(dataset, name)
    if path.is_dir():
        yield from _shar_rows(dataset, path)
        return
    columns, audio_of = Columns(dataset, text_column="text"), _in_files(audio_paths(dataset, path.parent))
    recordings: dict[str, Mapping[str, Any]] | None = None
    without = []
    for where, line in json_lines(path):
        if "recording_id" in line and "type" not in line:
            recordings = _recordings_beside(path) if recordings is None else recordings
            recording = recordings.get(_get(line, "recording_id", str, where))
            if recording is None:
                raise InputError(f"{where}: no recording {line['recording_id']!r} in {_recordings_path(path)}; add it there")
            yield _row(columns, line, recording, 0.0, audio_of=audio_of, where=where)
            continue
        rows = list(_cut_rows(columns, line, audio_of, where))
        without += [] if rows else [where]
        yield from rows
    _tell_without(path, without)


def _shar_rows(dataset: DatasetConfig, folder: Path) -> Iterator[SourceRow]:
    """Yields the rows of a Shar folder: cuts.000000.jsonl.gz with recording.000000.tar, and so on."""
    columns = Columns(dataset, text_column="text")
    shards = sorted(folder.glob("cuts.*.jsonl*"))
    if not shards:
        raise InputError(f"{folder} is no Shar folder: it has no cuts.*.jsonl.gz; check source and splits")
    for shard in shards:
        number = shard.name.split(".")[1]
        audio_of, without = _in_archive(folder / f"recording.{number}.tar"), []
        for where, line in json_lines(shard):
            rows = list(_cut_rows(columns, line, audio_of, where))
            without += [] if rows else [where]
            yield from rows
        _tell_without(shard, without)


def _tell_without(path: Path, without: list[str]) -> None:
    if without:
        _log.info("%s: %d cuts without supervisions are left out, first: %s", path, len(without), without[0])


def _get(line: Mapping[str, Any], key: str, kind: type[_T] | tuple[type[_T], ...], where: str) -> _T:
    value = line.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{where}: {key} is {str(value)[:40]!r}, which no manifest of Lhotse has; write it again with lhotse")
    return value


def _seconds(line: Mapping[str, Any], key: str, where: str) -> float:
    try:
        return float(_get(line, key, (int, float), where))
    except OverflowError as error:
        raise InputError(f"{where}: {key} is {str(line[key])[:40]}...; write the manifest again with lhotse") from error


def _cut_rows(columns: Columns, cut: Mapping[str, Any], audio_of: _AudioOf, where: str) -> Iterator[SourceRow]:
    kind = cut.get("type")
    if kind not in ("MonoCut", "MultiCut"):
        todo = "expected MonoCut; cut the audio out and write it (CutSet.save_audios), or take the line out"
        raise InputError(f"{where}: a {kind or 'line without type'} is no stretch of one recording; {todo}")
    if not isinstance(cut.get("recording"), dict):
        raise InputError(f"{where}: the cut has no recording (features are not read); write the cuts with their recordings")
    start = _seconds(cut, "start", where)
    for supervision in _get(cut, "supervisions", list, where):
        if not isinstance(supervision, dict):
            raise InputError(
                f"{where}: a supervision is {str(supervision)[:40]!r}, not an object; write the cuts again with lhotse"
            )
        recording = cut | cut["recording"] | {"cut_id": cut.get("id")}
        yield _row(columns, supervision, recording, start, audio_of=audio_of, where=where)


def _row(
    columns: Columns,
    supervision: Mapping[str, Any],
    recording: Mapping[str, Any],
    start: float,
    *,
    audio_of: _AudioOf,
    where: str,
) -> SourceRow:
    """Returns the row of a supervision, whose `start` counts from that of its cut."""
    if recording.get("transforms"):
        raise InputError(
            f"{where}: the recording has transforms, which only lhotse applies; write the audio (CutSet.save_audios) and its cuts"
        )
    offset = start + _seconds(supervision, "start", where)
    if -AGREE_S < offset < 0:
        offset = 0.0
    channel = supervision.get("channel", 0)
    if isinstance(channel, list) and len(channel) == 1:
        channel = channel[0]
    if not isinstance(channel, int) or isinstance(channel, bool):
        raise InputError(f"{where}: the supervision is of the channels {channel!r}; one channel a supervision is read")
    record = {key: supervision.get(key) for key in ("id", "text", "language", "speaker")}
    record |= {
        "offset": offset,
        "duration": _seconds(supervision, "duration", where),
        "recording": supervision.get("recording_id"),
    }
    audio = audio_of(recording, channel, where)
    name = str(supervision.get("id") or recording.get("id"))
    return columns.row(record, where, name=name, audio=lambda offset_s, length_s, _: audio(offset_s, length_s))


def _in_files(path_of: Callable[[str], str]) -> _AudioOf:
    def audio_of(recording: Mapping[str, Any], channel: int, where: str) -> Callable[..., AudioRef]:
        source, index = _source_of(recording, channel, where)
        if source.get("type") != "file":
            todo = "write the audio to files (CutSet.save_audios) and its cuts"
            raise InputError(f"{where}: the audio is of type {source.get('type')!r}, only files are read; {todo}")
        path = path_of(_get(source, "source", str, where))
        return lambda offset_s, length_s: AudioFile(path, offset_s, length_s, index)

    return audio_of


def _in_archive(archive: Path) -> _AudioOf:
    by_stem: dict[str, Member] = {}

    def audio_of(recording: Mapping[str, Any], channel: int, where: str) -> Callable[..., AudioRef]:
        if not by_stem:
            found = (member for member in members(archive) if Path(member.name).suffix.lower() in SUFFIXES)
            by_stem.update({member.name.removesuffix(Path(member.name).suffix): member for member in found})
        _, index = _source_of(recording, channel, where)
        member = by_stem.get(str(recording.get("cut_id")))
        if member is None:
            raise InputError(f"{where}: no audio of {recording.get('cut_id')} in {archive}; write the Shar folder again")
        return lambda offset_s, length_s: member.audio(offset_s, length_s, index)

    return audio_of


def _source_of(recording: Mapping[str, Any], channel: int, where: str) -> tuple[Mapping[str, Any], int | None]:
    """Returns the source that has a channel, and the channel's place in it; None for the only one."""
    for source in _get(recording, "sources", list, where):
        channels = _get(source, "channels", list, where) if isinstance(source, dict) else []
        if channel in channels:
            return source, None if len(channels) == 1 else channels.index(channel)
    raise InputError(f"{where}: the recording has no channel {channel}; correct the supervision")


def _recordings_path(path: Path) -> Path:
    return path.with_name(path.name.replace("supervisions", "recordings"))


def _recordings_beside(path: Path) -> dict[str, Mapping[str, Any]]:
    """Returns id -> recording of the file beside a file of supervisions."""
    if "supervisions" not in path.name:
        raise InputError(f"{path}: supervisions, but no supervisions in the name; call it X_supervisions_Y with X_recordings_Y")
    found: dict[str, Mapping[str, Any]] = {}
    for where, line in json_lines(_recordings_path(path)):
        name = _get(line, "id", str, where)
        if name in found:
            raise InputError(f"{where}: the recording {name} is there a second time; keep one of them")
        found[name] = line
    return found
