"""Reads NIST's STM files: `file channel speaker begin end <labels> text`, one segment a line."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data.audio_files import SUFFIXES, AudioFile
from wfc_dist.data.readers.channels import Recordings, channel_number
from wfc_dist.data.readers.lines import files_below, manifest_path, text_lines
from wfc_dist.data.rows import Columns, SourceRow, audio_paths, file_audio, plain_number
from wfc_dist.errors import InputError

_log = logging.getLogger(__name__)
_LABELS = re.compile(r"^<(o|[^<>\s]*,[^<>\s]*|[Ff]\d_[A-Za-z]+)>(\s|$)")
_NOT_SCORED = "ignore_time_segment_in_scoring"
_GAPS = frozenset({"inter_segment_gap", "excluded_region"})


def stm_rows(dataset: DatasetConfig, name: str) -> Iterator[SourceRow]:
    """Yields the segments of an STM file, or of all *.stm of a folder; audio is found by its name without suffix.

    Segments without words (`ignore_time_segment_in_scoring`, inter-segment gaps) are left out, and their number is logged.

    Raises:
        InputError: A file is missing, a line is no segment, or audio is not there or there twice; names file and line.
    """
    path = manifest_path(dataset, name)
    files = sorted(path.glob("*.stm")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path} has no .stm file; check source and splits")
    audio = _AudioByName(Path(audio_paths(dataset, path if path.is_dir() else path.parent)("")))
    recordings, columns = Recordings(), Columns(dataset, text_column="text")
    for file in files:
        left_out = []
        for where, words in _segments(file):
            recording, channel, speaker, begin, end, text = words
            if speaker.lower() in _GAPS or text.lower() == _NOT_SCORED:
                left_out.append(where)
                continue
            found = audio.find(recording, where)
            record = {
                "text": _plain(dataset, where, text),
                "start": _seconds(begin, where),
                "end": _seconds(end, where),
                "channel": _channel(where, recordings, found, channel),
                "speaker": speaker,
                "recording": recording,
            }
            yield columns.row(record, where, name=Path(recording).name, audio=file_audio(found))
        if left_out:
            _log.info("%s: %d segments without words are left out, first: %s", file, len(left_out), left_out[0])


def _segments(path: Path) -> Iterator[tuple[str, tuple[str, str, str, str, str, str]]]:
    """Yields ("file:line", (file, channel, speaker, begin, end, text without labels)) of every segment."""
    for number, line in text_lines(path):
        if not line.strip() or line.lstrip().startswith(";;"):
            continue
        words = line.split(maxsplit=5)
        where = f"{path}:{number}"
        if len(words) < 5:
            raise InputError(f"{where}: {line[:60]!r}, expected `file channel speaker begin end <labels> text`; correct the line")
        text = words[5].strip() if len(words) == 6 else ""
        yield where, (words[0], words[1], words[2], words[3], words[4], _LABELS.sub("", text).strip())


def _plain(dataset: DatasetConfig, where: str, text: str) -> str:
    """Returns the text. Raises InputError if it has alternatives such as { um / uh }, unless the configuration deletes them."""
    if re.search(r"\{.*/.*\}", text) and not {"curly", "curly_marks"} & {*dataset.text.strip_markup}:
        raise InputError(
            f"{where}: the text has alternatives ({text[:60]!r}); write one of them, or text: {{strip_markup: [curly]}}"
        )
    return text


def _seconds(word: str, where: str) -> float:
    seconds = plain_number(word)
    if seconds is None:
        raise InputError(f"{where}: {word!r} stands where seconds are expected; correct the line")
    return seconds


def _channel(where: str, recordings: Recordings, path: str, name: str) -> int | None:
    channel = channel_number(name)
    if channel is None:
        raise InputError(f"{where}: channel {name!r}, expected A, B, 1, 2, ...; correct the line")
    try:
        return recordings.channel(AudioFile(path), channel)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


class _AudioByName:
    """Finds audio files below a folder by their names, with or without suffix. The folder is listed once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths: dict[str, list[Path]] = {}
        for path in (path for path in files_below(folder) if path.suffix.lower() in SUFFIXES):
            self._paths.setdefault(path.stem, []).append(path)

    def find(self, name: str, where: str) -> str:
        wanted = Path(name)
        stem = wanted.stem if wanted.suffix.lower() in SUFFIXES else wanted.name
        found = self._paths.get(stem, [])
        if len(found) > 1 and wanted.name != stem:
            found = [path for path in found if path.name == wanted.name]
        if not found:
            raise InputError(f"{where}: no audio file {stem}.* in {self._folder} or below; put it there, or set audio_dir")
        if len(found) > 1:
            raise InputError(f"{where}: {found[0]} and {found[1]} may both be {name}; take one of them away, or set audio_dir")
        return str(found[0])
