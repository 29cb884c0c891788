"""What is known of encoded audio, and what an open one offers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class BrokenAudio(Exception):
    """Encoded audio cannot be read; the text is the reason."""


@dataclass(frozen=True, slots=True)
class AudioFacts:
    """A recording: frames that are there, rate in Hz, channels, codec as libsndfile or FFmpeg names it, and doubts in words."""

    frames: int
    rate_hz: int
    channels: int
    codec: str
    doubt: str = ""


class Stream(Protocol):
    """Open audio: rate in Hz, channels, and its samples in blocks."""

    rate_hz: int
    channels: int

    def blocks(self, first_frame: int, num_frames: int | None) -> Iterator[np.ndarray]:
        """Yields float32 samples (frames, channels) from `first_frame`; with None to the end."""
        ...
