"""Reads audio through PyAV (FFmpeg): m4a, aac, webm, amr, wma, video, and streams of which libsndfile reads a part only.

PyAV is the extra `av`. The length comes from decoding, not from the container's header.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from wfc_dist.data.audio_facts import AudioFacts, BrokenAudio


def _av(why: str) -> Any:
    try:
        import av
    except ImportError as error:
        raise BrokenAudio(f"{why or 'libsndfile cannot read it'} (pip install 'wfc-dist[av]' to read more formats)") from error
    return av


def facts_of(source: Any, why: str = "") -> AudioFacts:
    """Returns the facts of a path or of a file in memory; decodes all of it.

    Raises:
        BrokenAudio: PyAV is not installed or cannot read the audio; the reason, and `why` libsndfile does not read it.
    """
    frames = 0
    with AvStream(source, why) as stream:
        for block in stream.blocks(0, None):
            frames += len(block)
        if not frames:
            raise BrokenAudio(f"{why}; FFmpeg finds no samples in it" if why else "there are no samples in it")
        return AudioFacts(frames, stream.rate_hz, stream.channels, stream.codec)


class AvStream:
    """The first audio stream of a container, open. See `audio_facts.Stream`."""

    def __init__(self, source: Any, why: str = "") -> None:
        av = _av(why)
        self._errors, self._resampler = (av.FFmpegError, ValueError, OSError), av.AudioResampler
        self._why = why
        self._closed = contextlib.ExitStack()
        try:
            if isinstance(source, str):
                source = self._closed.enter_context(open(source, "rb"))  # noqa: SIM115 - the stack closes it
            # Without a protocol FFmpeg opens nothing else, whatever a playlist in the place of audio names.
            self._container = self._closed.enter_context(av.open(source, options={"protocol_whitelist": "none"}))
        except self._errors as error:
            self._closed.close()
            raise self._broken(error) from error
        # A stream of a codec that FFmpeg lacks has no context, and none of its other attributes can be asked for.
        streams = [stream for stream in self._container.streams.audio if stream.codec_context is not None]
        if not streams or not streams[0].rate:
            self._closed.close()
            raise BrokenAudio(f"{why}; FFmpeg finds no audio in it" if why else "there is no audio in it")
        self._stream = streams[0]
        self.rate_hz, self.channels = int(self._stream.rate), int(self._stream.channels)
        self.codec = f"{self._container.format.name} {self._stream.codec_context.name}"

    def __enter__(self) -> "AvStream":
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.close()

    def _broken(self, error: Exception) -> BrokenAudio:
        reason = f"FFmpeg says: {getattr(error, 'strerror', None) or error}"
        return BrokenAudio(f"{self._why}; {reason}" if self._why else reason)

    def blocks(self, first_frame: int, num_frames: int | None) -> Iterator[np.ndarray]:
        """Yields float32 samples (frames, channels) from `first_frame`; everything before it is decoded, too."""
        skip, left = first_frame, num_frames
        for block in self._all_blocks():
            if skip >= len(block):
                skip -= len(block)
                continue
            part = block[skip:] if left is None else block[skip : skip + left]
            skip = 0
            yield part
            if left is not None:
                left -= len(part)
                if not left:
                    return

    def _all_blocks(self) -> Iterator[np.ndarray]:
        resampler = self._resampler(format="fltp", layout=self._stream.layout, rate=self.rate_hz)
        try:
            for frame in self._container.decode(self._stream):
                for plain in resampler.resample(frame):
                    yield np.ascontiguousarray(plain.to_ndarray().T)
            for plain in resampler.resample(None):
                yield np.ascontiguousarray(plain.to_ndarray().T)
        except self._errors as error:
            raise self._broken(error) from error
