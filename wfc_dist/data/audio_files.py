"""References to audio, and decoding: mono samples at 16 kHz of a file, a stretch of it, or one of its channels."""

import io
import math
import os
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wfc_dist import activity
from wfc_dist.data import audio_streams
from wfc_dist.data.audio_facts import AudioFacts, BrokenAudio, require_regular
from wfc_dist.data.audio_pipes import AudioPipe
from wfc_dist.errors import InputError

if TYPE_CHECKING:
    import datasets

RATE_HZ = 16_000
"""Whisper's sampling rate."""
SUFFIXES = frozenset(
    f".{name}"
    for names in ("wav flac ogg opus mp3 sph au aiff aif w64 caf rf64", "m4a aac mp4 m4b mov webm mkv mka amr 3gp wma asf avi")
    for name in names.split()
)
"""Endings that an audio folder is searched for: what libsndfile reads, and what PyAV reads."""


@dataclass(frozen=True, slots=True)
class AudioFile:
    """Audio in a file, or a stretch of it: one channel (from 0; None: the mean of all) of `length_s` seconds from `offset_s`.

    `first_byte` and `num_bytes` (None: to the end) tell where the encoded audio lies in an archive.
    """

    path: str
    offset_s: float = 0.0
    length_s: float | None = None
    channel: int | None = None
    first_byte: int = 0
    num_bytes: int | None = None

    @property
    def name(self) -> str:
        """The name in messages."""
        return self.path if self.is_whole_file else f"at byte {self.first_byte} of {self.path}"

    @property
    def recording(self) -> Hashable:
        """The identity of the recording, whatever stretch of it this is: equal for two roads to the same file."""
        return os.path.realpath(self.path), self.first_byte

    @property
    def is_whole_file(self) -> bool:
        """Says whether the file holds this recording and nothing else."""
        return not self.first_byte and self.num_bytes is None

    def size_bytes(self) -> int:
        """Returns the size of the encoded audio. Raises InputError if the file is missing."""
        try:
            with activity.reading(self.path):
                return self.num_bytes if self.num_bytes is not None else os.stat(self.path).st_size - self.first_byte
        except (OSError, ValueError) as error:  # a path with NUL is a ValueError
            raise unreadable(self, error) from error

    def open(self) -> Any:
        """Returns a path, or a file in memory."""
        return self.path if self.is_whole_file else io.BytesIO(self.encoded())

    def encoded(self) -> bytes:
        """Returns the encoded audio. Raises InputError if the file is missing."""
        try:
            with activity.reading(self.path):
                require_regular(os.stat(self.path).st_mode)
            with activity.reading(self.path), open(self.path, "rb") as file:
                file.seek(self.first_byte)
                return file.read(-1 if self.num_bytes is None else self.num_bytes)
        except (OSError, ValueError, BrokenAudio) as error:
            raise unreadable(self, error) from error


@dataclass(frozen=True, eq=False, slots=True)
class AudioCell:
    """Encoded audio in a cell of a Hugging Face data set. The table is memory-mapped: pickling it copies no audio."""

    table: "datasets.Dataset"
    column: str
    index: int
    name: str
    encoded_bytes: int
    offset_s: float = 0.0
    length_s: float | None = None
    channel: int | None = None

    @property
    def recording(self) -> Hashable:
        """The identity of the recording, whatever stretch of it this is."""
        return self.table._fingerprint, self.index

    def size_bytes(self) -> int:
        """Returns the size of the encoded audio."""
        return self.encoded_bytes

    def open(self) -> Any:
        """Returns a file in memory."""
        return io.BytesIO(self.encoded())

    def encoded(self) -> bytes:
        """Returns the encoded audio; of a cell of samples a wav of floats."""
        cell = self.table[self.index][self.column]
        return bytes(cell["bytes"]) if "bytes" in cell else float_wav(cell["array"], cell["sampling_rate"])


def float_wav(samples: Any, rate_hz: int) -> bytes:
    """Returns a wav file of float samples of one channel."""
    import soundfile as sf

    file = io.BytesIO()
    sf.write(file, np.asarray(samples, np.float32), int(rate_hz), format="WAV", subtype="FLOAT")
    return file.getvalue()


AudioRef = AudioFile | AudioCell | AudioPipe


def unreadable(audio: AudioRef, error: Exception) -> InputError:
    """Returns the error that names the audio, the reason and what to do."""
    if isinstance(audio, AudioFile) and not os.path.isfile(audio.path):
        what = "is no file, but a folder, a pipe, a socket or a device" if os.path.exists(audio.path) else "is missing"
        return InputError(f"audio file {audio.path} {what}; put it there or take its row out")
    reason = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error) or type(error).__name__
    return InputError(f"cannot read audio {audio.name}: {reason}; replace it or take its row out")


def audio_facts(audio: AudioRef) -> AudioFacts:
    """Returns the true length, the rate and the channels of the whole recording, whatever stretch of it `audio` is.

    Raises:
        InputError: The audio is missing or unreadable; names the file.
    """
    try:
        with activity.reading(audio.name):
            return audio_streams.facts_of(audio.open())
    except BrokenAudio as error:
        raise unreadable(audio, error) from error


def remaining_s(audio: AudioRef, facts: AudioFacts) -> float:
    """Returns the seconds from `audio.offset_s` to the end of the recording; at least 0."""
    return max(float(facts.frames / facts.rate_hz - audio.offset_s), 0.0)


def true_duration_s(audio: AudioRef) -> float:
    """Returns the seconds that decoding yields: to the end of the recording, or to the end of the stretch.

    Raises:
        InputError: The audio is missing or unreadable; names the file.
    """
    return remaining_s(audio, audio_facts(audio))


def blocks(audio: AudioRef) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (rate in Hz, float32 samples (frames, channels)) of the stretch, block by block, all channels.

    Raises:
        InputError: The audio is missing, unreadable, or has no such channel; names the file.
    """
    try:
        with activity.reading(audio.name), audio_streams.opened(audio.open()) as stream:
            if audio.channel is not None and audio.channel >= stream.channels:
                raise InputError(
                    f"audio {audio.name} has {stream.channels} channels, so no channel {audio.channel} (counted from 0); "
                    "correct the row's channel"
                )
            num_frames = None if audio.length_s is None else round(audio.length_s * stream.rate_hz)
            for block in stream.blocks(round(audio.offset_s * stream.rate_hz), num_frames):
                yield stream.rate_hz, block
    except BrokenAudio as error:
        raise unreadable(audio, error) from error


def decode(audio: AudioRef) -> np.ndarray:
    """Returns float32 samples at 16 kHz (resampled by soxr): one channel, or the mean of all.

    Raises:
        InputError: The audio is missing, unreadable, empty or not finite, or has no such channel; names the file.
    """
    rate_hz, parts = RATE_HZ, []
    for rate_hz, block in blocks(audio):  # noqa: B007 - the last rate is the rate
        parts.append(block.mean(axis=1, dtype=np.float32) if audio.channel is None else block[:, audio.channel])
    mono = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if not len(mono) or not np.isfinite(mono).all():
        raise InputError(f"audio {audio.name} is empty or not finite at {audio.offset_s:g} s; replace it or take its row out")
    if rate_hz == RATE_HZ:
        return mono
    import soxr

    return np.asarray(soxr.resample(mono, rate_hz, RATE_HZ), dtype=np.float32)


def samples_in(duration_s: float) -> int:
    """Returns how many samples a clip takes at 16 kHz, rounded up: resampling never yields more."""
    return math.ceil(duration_s * RATE_HZ - 1e-6)
