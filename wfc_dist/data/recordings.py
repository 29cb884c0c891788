"""Facts of recordings: true length, channels, what is odd. They are read once a file, in threads, and cached."""

import os
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from wfc_dist import activity
from wfc_dist.data import signals
from wfc_dist.data.audio_facts import AudioFacts
from wfc_dist.data.audio_files import AudioFile, AudioRef, audio_facts
from wfc_dist.data.facts_cache import FactsCache, FileKey
from wfc_dist.errors import InputError

NUM_THREADS = 8
"""More than cores, since a header on a network file system is mostly waiting."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording: a number within one reading, its audio from start to end, its size, its facts, its `signals`."""

    number: int
    audio: AudioRef
    size_bytes: int
    facts: AudioFacts
    signs: frozenset[str]


class Recordings:
    """Reads the facts of many recordings, each once, whatever path leads to it. Its threads end with the block.

    Args:
        with_signs: Whether the first sound of each is looked at, too.
    """

    def __init__(self, *, with_signs: bool = False) -> None:
        self._with_signs = with_signs
        self._cache = FactsCache(None, with_signs=with_signs)
        self._known: dict[Hashable, Recording | InputError] = {}
        self._files: dict[tuple[str, int], tuple[Hashable, FileKey | None]] = {}
        self._num_readable = 0
        self._pool = ThreadPoolExecutor(NUM_THREADS)  # starts a thread only when there is something to read

    def __enter__(self) -> "Recordings":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def use_cache_of(self, folder: Path | None) -> None:
        """Writes what is new into the cache, and goes on with the cache of another folder (None: with none)."""
        self._cache.save()
        self._cache = FactsCache(folder, with_signs=self._with_signs)

    def of(self, audios: Sequence[AudioRef]) -> list[Recording | InputError]:
        """Returns the recording of every reference, or the error that reading it raises."""
        new = list({(audio.path, audio.first_byte) for audio in audios if isinstance(audio, AudioFile)} - self._files.keys())
        self._files.update(zip(new, self._pool.map(_identity, new), strict=True))
        keys = [self._key(audio) for audio in audios]
        unknown = {key: audio for key, audio in zip(keys, audios, strict=True) if key not in self._known}
        for key, found in zip(unknown, self._pool.map(self._read, unknown.values()), strict=True):
            if isinstance(found, InputError):
                self._known[key] = found
            else:
                self._known[key] = Recording(self._num_readable, *found)
                self._num_readable += 1
        return [self._known[key] for key in keys]

    def by_number(self) -> list[Recording]:
        """Returns every readable recording seen so far."""
        return [found for found in self._known.values() if isinstance(found, Recording)]

    def _key(self, audio: AudioRef) -> Hashable:
        return self._files[audio.path, audio.first_byte][0] if isinstance(audio, AudioFile) else audio.recording

    def _read(self, audio: AudioRef) -> tuple[AudioRef, int, AudioFacts, frozenset[str]] | InputError:
        whole = replace(audio, offset_s=0.0, length_s=None, channel=None)
        file = self._files[audio.path, audio.first_byte][1] if isinstance(audio, AudioFile) else None
        known = self._cache.get(file) if file else None
        try:
            size_bytes = whole.size_bytes()
            if known is None:
                known = audio_facts(whole), signals.first_sound(whole) if self._with_signs else frozenset()
                if file:
                    self._cache.put(file, known[0], known[1] if self._with_signs else None)
        except InputError as error:
            return error
        return whole, size_bytes, *known


def _identity(place: tuple[str, int]) -> tuple[Hashable, FileKey | None]:
    """Returns device and inode of a file, so that links and relative paths are one recording, and its state for the cache."""
    try:
        with activity.reading(place[0]):
            stat = os.stat(place[0])
    except (OSError, ValueError):  # a path with NUL is a ValueError
        return place, None
    can_be_kept = abs(stat.st_mtime_ns) < 2**63
    return (stat.st_dev, stat.st_ino, place[1]), (*place, stat.st_size, stat.st_mtime_ns) if can_be_kept else None
