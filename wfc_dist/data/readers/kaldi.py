"""Reads Kaldi data directories: wav.scp and text, if there also segments, utt2lang, utt2spk and reco2file_and_channel."""

import logging
import os
import re
import struct
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data.audio_files import AudioFile, AudioRef
from wfc_dist.data.audio_pipes import AudioPipe, pipe_command
from wfc_dist.data.readers.channels import Recordings, channel_number
from wfc_dist.data.readers.lines import check_plain, text_lines
from wfc_dist.data.rows import Columns, SourceRow, audio_paths, plain_number
from wfc_dist.errors import InputError

_log = logging.getLogger(__name__)
_AT_OFFSET = re.compile(r"^(.*):(\d{1,18})$", re.ASCII)
_UNKNOWN_SIZES = (0, 0x7FFFFFFF, 0xFFFFFFFF)
_FIX = "utils/fix_data_dir.sh takes it out"


@dataclass(frozen=True, slots=True)
class _Entry:
    """One line of a file of a data directory: what stands behind the key, and file and line."""

    value: str
    where: str


def kaldi_rows(dataset: DatasetConfig, sub_folder: str) -> Iterator[SourceRow]:
    """Yields one row a line of `text` in the data directory `source/sub_folder`.

    Raises:
        InputError: A file is missing, a line is not what it should be, a key comes twice or has no audio, or a pipe is not
            allowed; names file and line.
    """
    folder = Path(dataset.source) / sub_folder
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder; check source and splits")
    texts, languages = _table(folder / "text", may_be_empty=True), _optional(folder / "utt2lang")
    speakers, stretches = _optional(folder / "utt2spk"), _Stretches(dataset, folder)
    columns = Columns(dataset, text_column="text")
    for key, text in texts.items():
        record, audio = stretches.of(key, text.where)
        language = languages.get(key)
        if languages and language is None:
            raise InputError(f"{text.where}: {key} is not in utt2lang; add it there")
        record |= {"id": key, "text": text.value, "language": language.value if language else None}
        record |= {"speaker": speakers[key].value} if key in speakers else {}
        yield columns.row(record, text.where, name=key, audio=audio)
    stretches.tell_unused(texts.keys())
    _tell_unused(folder / "utt2lang", languages, texts.keys())


def _optional(path: Path) -> dict[str, _Entry]:
    return _table(path) if path.is_file() else {}


def _table(path: Path, *, may_be_empty: bool = False) -> dict[str, _Entry]:
    """Returns key -> entry of a file `key value`. A key that comes twice is an error, keys out of order are told."""
    found: dict[str, _Entry] = {}
    before, is_sorted = b"", True
    for number, line in text_lines(path):
        if not line.strip():
            continue
        key, value = [*line.split(maxsplit=1), ""][:2]
        where = f"{path}:{number}"
        if key in found:
            raise InputError(f"{where}: {key} is there a second time, first in {found[key].where}; keep one of the lines")
        if not value and not may_be_empty:
            raise InputError(f"{where}: nothing stands behind {key}; complete the line")
        if is_sorted and key.encode() < before:
            is_sorted = False
            _log.warning("%s: the keys are not sorted, which Kaldi needs; they are read all the same", where)
        before = key.encode()
        found[key] = _Entry(value.strip(), where)
    return found


def _tell_unused(path: Path, table: dict[str, _Entry], used: Container[str]) -> None:
    unused = [entry for key, entry in table.items() if key not in used]
    if unused:
        _log.warning("%s: %d keys of %s are in no other file, and are not read", unused[0].where, len(unused), path.name)


class _Stretches:
    """The audio of utterances: whole recordings of wav.scp, or stretches of them by `segments`."""

    def __init__(self, dataset: DatasetConfig, folder: Path) -> None:
        self._dataset, self._folder = dataset, folder
        self._path_of = audio_paths(dataset, folder)
        self._recordings = _table(folder / "wav.scp")
        self._segments = _table(folder / "segments") if (folder / "segments").is_file() else None
        self._channels = _optional(folder / "reco2file_and_channel")
        self._facts, self._used = Recordings(), set[str]()
        self._audio: dict[str, AudioRef] = {}

    def of(self, key: str, where: str) -> tuple[dict[str, Any], Callable[..., AudioRef]]:
        """Returns what `segments` says of an utterance, as a record, and what makes references to its audio."""
        recording, record = key, dict[str, Any]()
        if self._segments is not None:
            segment = self._segments.get(key)
            if segment is None:
                raise InputError(f"{where}: {key} is not in segments; add it there, or take it out ({_FIX})")
            where = segment.where
            recording, record = _segment(segment)
        entry = self._recordings.get(recording)
        if entry is None:
            raise InputError(f"{where}: {recording} is not in wav.scp; add it there, or take it out ({_FIX})")
        self._used.add(recording)
        record["recording"] = recording
        if recording not in self._audio:
            self._audio[recording] = self._reference(entry)
        audio = self._audio[recording]
        channel = record.get("channel", self._channel(recording))
        try:
            record["channel"] = self._facts.channel(audio, channel)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        return record, lambda *stretch: replace(audio, **dict(zip(("offset_s", "length_s", "channel"), stretch, strict=True)))

    def tell_unused(self, used: Container[str]) -> None:
        """Logs the segments and recordings that no utterance of `text` has."""
        _tell_unused(self._folder / "segments", self._segments or {}, used)
        _tell_unused(self._folder / "wav.scp", self._recordings, self._used)

    def _channel(self, recording: str) -> int | None:
        entry = self._channels.get(recording)
        if entry is None:
            return None
        words = entry.value.split()
        channel = channel_number(words[-1])
        if len(words) != 2 or channel is None:
            raise InputError(f"{entry.where}: {entry.value!r} is no file and channel, such as `call A`; correct the line")
        return channel

    def _reference(self, entry: _Entry) -> AudioRef:
        """Returns the audio of a line of wav.scp: a path, a place in an archive, or a pipe."""
        if entry.value.endswith("|"):
            try:
                return AudioPipe(pipe_command(entry.value, self._dataset.allow_pipes))
            except InputError as error:
                raise InputError(f"{entry.where}: {error}") from error
        if entry.value.startswith("|") or entry.value == "-":
            raise InputError(f"{entry.where}: {entry.value!r} is no audio; write the path of the audio")
        path = self._path_of(entry.value)
        at_offset = _AT_OFFSET.match(path)
        if at_offset is None or os.path.exists(path):
            return AudioFile(path)
        first_byte, num_bytes = _place(entry.where, at_offset[1], int(at_offset[2]))
        return AudioFile(at_offset[1], first_byte=first_byte, num_bytes=num_bytes)


def _segment(entry: _Entry) -> tuple[str, dict[str, Any]]:
    """Returns (recording, record of start, end and channel) of a line `utterance recording start end [channel]`."""
    recording, *words = entry.value.split()
    try:
        start, end = plain_number(words[0]), plain_number(words[1])
        channel = int(words[2]) if len(words) == 3 else None
        if len(words) > 3 or start is None or end is None or start < 0:
            raise ValueError
    except (ValueError, IndexError) as error:
        line = "utterance recording start end [channel]"
        raise InputError(f"{entry.where}: {entry.value!r}, expected `{line}` with seconds; correct the line") from error
    record = {"start": start, "end": None if end == -1 else end}
    return recording, record if channel is None else record | {"channel": channel}


def _place(where: str, archive: str, offset: int) -> tuple[int, int]:
    """Returns (first byte, number of bytes) of the audio that lies in an archive at an offset.

    Kaldi's wav-copy writes a wav file there. ESPnet writes `AUDIO`, a byte with the number of bytes of the size, and the size, in
    front of a file of any format.
    """
    try:
        check_plain(Path(archive))
        with open(archive, "rb") as file:
            file.seek(offset)
            head = file.read(16)
            size_bytes = file.seek(0, os.SEEK_END)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{where}: cannot read {archive}: {reason}; put it there") from error
    first_byte, num_bytes = offset, 0
    if head.startswith(b"AUDIO") and len(head) > 6 and 0 < head[5] <= 8:
        first_byte, num_bytes = offset + 6 + head[5], int.from_bytes(head[6 : 6 + head[5]], "little")
    elif len(head) < 12 or head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        raise InputError(f"{where}: no wav file begins at byte {offset} of {archive}; write the archive again (wav-copy)")
    elif (size := int(struct.unpack("<I", head[4:8])[0])) in _UNKNOWN_SIZES:
        raise InputError(f"{where}: the wav file at byte {offset} of {archive} does not say its size; write it again")
    else:
        num_bytes = size + 8
    if first_byte + num_bytes > size_bytes:
        raise InputError(f"{where}: {archive} is cut off: the audio at byte {offset} ends behind its end; fetch it again")
    return first_byte, num_bytes
