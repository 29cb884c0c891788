"""Reads audio: headers without decoding, and mono samples at 16 kHz. Uses libsndfile (wav, flac, ogg, opus, mp3), not FFmpeg."""

import io
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wfc_dist.errors import InputError

if TYPE_CHECKING:
    import datasets

RATE_HZ = 16_000
"""Whisper's sampling rate."""
SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3"})


@dataclass(frozen=True)
class AudioFile:
    """A file, or its part that starts at `offset_s` and lasts `length_s` (None: to the end)."""

    path: str
    offset_s: float = 0.0
    length_s: float | None = None

    @property
    def name(self) -> str:
        """The name in messages."""
        return self.path

    @property
    def key(self) -> tuple[str, float]:
        """The identity of the audio: equal for two references to the same."""
        return os.path.normpath(self.path), self.offset_s

    def size_bytes(self) -> int:
        """Returns the size of the file. Raises InputError if it is missing."""
        try:
            return os.stat(self.path).st_size
        except OSError as error:
            raise _unreadable(self, error) from error

    def open(self) -> Any:
        """Returns what soundfile opens."""
        return self.path


@dataclass(frozen=True, eq=False)
class AudioCell:
    """Encoded audio in a cell of a Hugging Face data set. The table is memory-mapped: pickling it copies no audio."""

    table: "datasets.Dataset"
    column: str
    index: int
    name: str
    encoded_bytes: int
    offset_s: float = 0.0
    length_s: float | None = None

    @property
    def key(self) -> tuple[str, float]:
        """The identity of the audio: equal for two references to the same."""
        return f"{self.table._fingerprint}:{self.index}", 0.0

    def size_bytes(self) -> int:
        """Returns the size of the encoded audio."""
        return self.encoded_bytes

    def open(self) -> Any:
        """Returns what soundfile opens."""
        return io.BytesIO(self.table[self.index][self.column]["bytes"])


AudioRef = AudioFile | AudioCell


def _unreadable(audio: AudioRef, error: Exception) -> InputError:
    if isinstance(audio, AudioFile) and not Path(audio.path).is_file():
        return InputError(f"audio file {audio.path} is missing; put it there or take its row out")
    reason = getattr(error, "error_string", None) or str(error)
    return InputError(f"cannot read audio {audio.name}: {reason}; replace it or take its row out")


def header_duration_s(audio: AudioRef) -> float:
    """Returns the seconds from `offset_s` to the end of the file, from its header alone.

    Raises:
        InputError: The audio is missing or unreadable; names the file.
    """
    import soundfile as sf

    try:
        info = sf.info(audio.open())
    except (sf.SoundFileError, OSError) as error:
        raise _unreadable(audio, error) from error
    return float(info.frames / info.samplerate - audio.offset_s)


def decode(audio: AudioRef) -> np.ndarray:
    """Returns float32 samples, mono (mean of the channels), at 16 kHz (resampled by soxr).

    Raises:
        InputError: The audio is missing, unreadable, empty or not finite; names the file.
    """
    import soundfile as sf

    try:
        with sf.SoundFile(audio.open()) as file:
            rate = file.samplerate
            file.seek(min(round(audio.offset_s * rate), file.frames))
            frames = -1 if audio.length_s is None else round(audio.length_s * rate)
            samples = file.read(frames, dtype="float32", always_2d=True)
    except (sf.SoundFileError, OSError) as error:
        raise _unreadable(audio, error) from error
    if not len(samples) or not np.isfinite(samples).all():
        raise InputError(f"audio {audio.name} is empty or not finite at {audio.offset_s:g} s; replace it or take its row out")
    mono = samples.mean(axis=1, dtype=np.float32)
    if rate == RATE_HZ:
        return mono
    import soxr

    return np.asarray(soxr.resample(mono, rate, RATE_HZ), dtype=np.float32)


def samples_in(duration_s: float) -> int:
    """Returns how many samples a clip takes at 16 kHz, rounded up: resampling never yields more."""
    return math.ceil(duration_s * RATE_HZ - 1e-6)
