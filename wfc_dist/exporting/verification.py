"""The same clips through the model before and after an export: the same text, or the difference."""

from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import NamedTuple

from wfc_dist.config.schema import Config
from wfc_dist.data.audio_files import RATE_HZ, AudioFile, decode
from wfc_dist.data.sources import Split, open_split
from wfc_dist.errors import InputError
from wfc_dist.evaluation.windows import Audio
from wfc_dist.exporting.formats import Reader

MAX_S = 30.0
"""Longer audio is cut by every program in its own way, which says nothing about the model."""


class Sample(NamedTuple):
    """A clip to transcribe: its name, (samples,) float32 at 16 kHz, and its language (None: detected)."""

    name: str
    audio: Audio
    language: str | None


class Compared(NamedTuple):
    """What the model before and the one after an export wrote for a clip."""

    clip: str
    before: str
    after: str

    @property
    def is_same(self) -> bool:
        """Says whether the texts are the same but for white space."""
        return self.before.split() == self.after.split()


def samples_of_files(paths: Sequence[Path], language: str | None) -> list[Sample]:
    """Returns the clips in audio files. Raises InputError for a file that is missing, no audio, empty, or longer than 30 s."""
    found = []
    for path in paths:
        if not path.is_file():
            raise InputError(f"no such audio file: {path}")
        audio = decode(AudioFile(str(path)))
        if not len(audio):
            raise InputError(f"{path} holds no sample; name another clip")
        if len(audio) > MAX_S * RATE_HZ:
            raise InputError(f"{path} is {len(audio) / RATE_HZ:.1f} s long; name clips of at most {MAX_S:g} s")
        found.append(Sample(path.name, audio, language))
    return found


def samples_of_run(config: Config, count: int) -> list[Sample]:
    """Returns the first clips of a run's test sets, one of each set in turn, `count` in all.

    Raises:
        InputError: The sets cannot be read here, or have no clip of at most 30 s; says what to do.
    """
    try:
        splits = [open_split(name, data, "test") for name, data in config.test_sets().items()]
        turns = chain.from_iterable(zip_longest(*([(split, index) for index in _short(split)] for split in splits)))
        chosen = [place for place in turns if place is not None][:count]
        found = [
            Sample(f"{split.name}/{split.clips[index].id}", split.audio(index), split.clips[index].language)
            for split, index in chosen
        ]
    except InputError as error:
        raise InputError(
            f"the run's test sets cannot be read here ({error}); name clips with --clip, or add --no-verify"
        ) from error
    if not found:
        raise InputError("the run has no test clip of at most 30 s to verify with; name clips with --clip, or add --no-verify")
    return found


def _short(split: Split) -> list[int]:
    return [index for index, clip in enumerate(split.clips) if 0 < clip.duration_s <= MAX_S]


def compare(samples: Sequence[Sample], before: Reader, after: Reader) -> list[Compared]:
    """Returns what both write for every clip."""
    return [Compared(name, before(audio, language), after(audio, language)) for name, audio, language in samples]
