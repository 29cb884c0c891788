"""From what a user types to audio files: files, folders and patterns."""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from wfc_dist.data.audio_files import SUFFIXES
from wfc_dist.errors import InputError


class FoundAudio(NamedTuple):
    """An audio file, and the name under which what is made of it is kept: its path below the folder that was named."""

    path: Path
    name: Path


def find_audio(places: Sequence[str | Path]) -> list[FoundAudio]:
    """Returns the audio files that files, folders (searched through) and patterns (`*`, `?`, `**`) name, each once.

    Raises:
        InputError: A place names no file; names the place.
    """
    found: dict[Path, Path] = {}
    for place in places:
        here = _found_at(Path(place))
        if not here:
            raise InputError(
                f"no such audio file: {place}" if not Path(place).is_dir()
                else f"{place} has no audio file; known endings: {' '.join(sorted(SUFFIXES))}"
            )  # fmt: skip
        for path, name in here:
            found.setdefault(path, name)
    return [FoundAudio(path, name) for path, name in found.items()]


def _found_at(place: Path) -> list[FoundAudio]:
    if place.is_file():
        return [FoundAudio(place, Path(place.name))]
    if place.is_dir():
        return _in_folder(place)
    found: list[FoundAudio] = []
    for match in sorted(map(Path, glob.glob(str(place), recursive=True))):
        if match.is_file() and match.suffix.lower() in SUFFIXES:
            found.append(FoundAudio(match, Path(match.name)))
        elif match.is_dir() and "**" not in str(place):
            found += _in_folder(match)
    return found


def _in_folder(folder: Path) -> list[FoundAudio]:
    return [
        FoundAudio(path, path.relative_to(folder))
        for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES and path.is_file()
    ]  # fmt: skip


def output_names(found: Sequence[FoundAudio], suffix: str) -> list[Path]:
    """Returns the relative path of what is written for each file, `talks/a.wav` -> `talks/a.srt`.

    Raises:
        InputError: Two files would be written to one path; names both.
    """
    owners: dict[Path, Path] = {}
    for path, name in found:
        target = name.with_suffix(f".{suffix}")
        if target in owners:
            raise InputError(f"{owners[target]} and {path} would both be written to {target}; transcribe one of them at a time")
        owners[target] = path
    return list(owners)
