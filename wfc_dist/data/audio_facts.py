"""What is known of encoded audio, and what an open one offers."""

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class BrokenAudio(Exception):
    """Encoded audio cannot be read; the text is the reason."""


def require_regular(mode: int) -> None:
    """Raises BrokenAudio for a pipe, a socket or a device, by `st_mode`: opening or reading one may wait for ever."""
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise BrokenAudio("it is a pipe, a socket or a device")


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
