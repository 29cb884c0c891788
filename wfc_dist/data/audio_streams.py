"""Opens encoded audio and finds its true length. libsndfile reads it where its header can be checked, PyAV what is left.

A header may lie: mp3 without a length, files that were joined or cut off, flac of unknown length. So its length is believed only
after a check against the bytes that are there. An mp3 whose header does not pass is scanned. PyAV, the extra `av`, decodes what
libsndfile would read in part only, or cannot read (m4a, webm, amr, ...).
"""

import contextlib
import io
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

import numpy as np

from wfc_dist.data import av_audio
from wfc_dist.data.audio_facts import AudioFacts, BrokenAudio, Stream, require_regular

BLOCK_FRAMES = 1 << 18
_SAMPLE_BYTES = {"PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8, "ULAW": 1, "ALAW": 1}
_SURPLUS_BYTES = 65_536  # more than a picture or a list of words takes behind the samples
_SHORT_HEADER_BYTES = 100  # a wav file that has no more than that besides its samples is not looked through
_MAX_CHUNKS = 1000
_MPEG1_KBITS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MPEG2_KBITS = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_WHOLE_BY_FFMPEG = ("flac stream of unknown length", "several flac streams in a row", "several Ogg streams in a row")
_PREROLL_FRAMES = 12 * 1152
_PIPED_BYTES = 0x7FFFF000  # from here on, a header only says that its writer could not go back
_ENDLESS = 2**63 - 1  # libsndfile's number for a length that is not known


def facts_of(source: Any) -> AudioFacts:
    """Returns what is known of a path or of a file in memory.

    Raises:
        BrokenAudio: It cannot be read to its end.
    """
    return _route(source)[1]


@contextlib.contextmanager
def opened(source: Any) -> Iterator[Stream]:
    """Opens a path or a file in memory.

    Raises:
        BrokenAudio: It cannot be read; also while its blocks are read.
    """
    import soundfile as sf

    how, _ = _route(source)
    try:
        if how == "av":
            with av_audio.AvStream(source) as stream:
                yield stream
        else:
            with _sound_file(source, how) as file:
                yield _SndStream(file, can_seek=file._info.seekable != 0)
    except (sf.SoundFileError, OSError) as error:
        raise BrokenAudio(getattr(error, "error_string", None) or str(error)) from error


@cache
def _forward() -> Any:
    """Returns a class of files that are read forward only.

    soundfile seeks after each read, and a seek within an mp3 harms what follows it.
    """
    import soundfile as sf

    class Forward(sf.SoundFile):
        def seekable(self) -> bool:
            return False

    return Forward


class _SndStream:
    def __init__(self, file: Any, can_seek: bool) -> None:
        self._file, self.rate_hz, self.channels = file, int(file.samplerate), int(file.channels)
        self._can_seek = can_seek

    def blocks(self, first_frame: int, num_frames: int | None) -> Iterator[np.ndarray]:
        file, skip = self._file, first_frame
        # Telephone codecs can be read from their start only, and an mp3 needs some frames before those that are to be right.
        start = max(min(first_frame, file.frames) - _PREROLL_FRAMES, 0) if self._can_seek else 0
        if start:
            skip -= file.seek(start)
        left = None if num_frames is None else skip + num_frames
        while left is None or left > 0:
            wanted = BLOCK_FRAMES if left is None else min(BLOCK_FRAMES, left)
            block = file.read(wanted, dtype="float32", always_2d=True)
            left = None if left is None else left - len(block)
            if len(block) > skip:
                yield block[skip:]
            skip = max(skip - len(block), 0)
            if len(block) < wanted:
                return


class _LengthUnknown:
    """A file whose length libsndfile cannot ask for, so that it scans an mp3 instead of guessing from the first rate."""

    def __init__(self, file: Any, first_byte: int) -> None:
        self._file, self._first_byte, self._at_end = file, first_byte, False
        self._size = file.seek(0, io.SEEK_END)
        file.seek(first_byte)

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at_end = whence == io.SEEK_END
        start = {io.SEEK_SET: self._first_byte, io.SEEK_CUR: self._file.tell(), io.SEEK_END: self._size}[whence]
        return int(self._file.seek(max(start + offset, self._first_byte))) - self._first_byte  # a damaged file may ask for less

    def tell(self) -> int:
        return _ENDLESS if self._at_end else int(self._file.tell()) - self._first_byte

    def read(self, size: int = -1) -> bytes:
        return bytes(self._file.read(size))

    def readinto(self, buffer: Any) -> int:
        return int(self._file.readinto(buffer))

    def write(self, _: bytes) -> int:
        raise OSError("open for reading")


@contextlib.contextmanager
def _sound_file(source: Any, how: str) -> Iterator[Any]:
    if how == "snd":
        with _forward()(os.fsencode(source) if isinstance(source, str) else source) as file:  # a name may be no UTF-8
            yield file
        return
    first_byte = int(how.removeprefix("scan"))
    with _bytes_of(source) as raw, _forward()(_LengthUnknown(raw, first_byte)) as file:
        yield file


def _bytes_of(source: Any) -> Any:
    """Returns a binary file in a context that closes it only if it was opened here."""
    return open(source, "rb") if isinstance(source, str) else contextlib.nullcontext(source)


def _route(source: Any) -> tuple[str, AudioFacts]:
    """Returns how to read ("snd", "scanN" from byte N, "av") and the facts. Paths are looked at once a process."""
    if not isinstance(source, str):
        source.seek(0)
        found = _find_route(source, len(source.getbuffer()))
        source.seek(0)
        return found
    try:
        stat = os.stat(source)
        require_regular(stat.st_mode)
    except (OSError, ValueError) as error:  # a path with NUL is a ValueError
        raise BrokenAudio(getattr(error, "strerror", None) or str(error)) from error
    return _route_of_file(source, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=65_536)
def _route_of_file(path: str, size_bytes: int, mtime_ns: int) -> tuple[str, AudioFacts]:
    return _find_route(path, size_bytes)


def _find_route(source: Any, size_bytes: int) -> tuple[str, AudioFacts]:
    import soundfile as sf

    if not size_bytes:
        raise BrokenAudio("the file has no bytes")
    try:
        first_byte, cut = _unchecked_mp3(source, size_bytes)
        how = "snd" if first_byte is None else f"scan{first_byte}"
        with _sound_file(source, how) as file:
            facts = AudioFacts(file.frames, file.samplerate, file.channels, f"{file.format} {file.subtype}")
            if not (why := _why_partly_read(source, file)):
                return how, replace(facts, doubt=cut or _doubt(source, facts, size_bytes, file.extra_info))
    except (sf.SoundFileError, OSError) as error:
        why = str(getattr(error, "error_string", None) or error).strip().rstrip(".")
    facts = av_audio.facts_of(source, why)
    if not why.startswith(("Format not recognised", *_WHOLE_BY_FFMPEG)):  # FFmpeg reads what it can of it, and does not say so
        facts = replace(facts, doubt=f"libsndfile says: {why}; FFmpeg reads {facts.frames / facts.rate_hz:.1f} s of it")
    return "av", facts


def _unchecked_mp3(source: Any, size_bytes: int) -> tuple[int | None, str]:
    """Returns from where to scan an mp3 whose header does not tell its bytes rightly, and a doubt if bytes are missing.

    For an mp3 whose header is right, and for another format, it returns None and an empty string.

    The Xing (or Info) frame has the number of frames and of bytes of the stream. Files that were joined or cut off have others.
    """
    with _bytes_of(source) as file:
        file.seek(0)
        head = file.read(10)
        first = 0
        if head[:3] == b"ID3" and len(head) == 10:  # its size has 7 bits a byte
            first = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        file.seek(first)
        frame = file.read(4096)
        file.seek(max(size_bytes - 128, 0))
        last = size_bytes - 128 if file.read(3) == b"TAG" else size_bytes
        file.seek(0)
    if not _is_mp3(frame):
        return None, ""
    place = max(frame.find(b"Xing", 0, 64), frame.find(b"Info", 0, 64))
    if place < 0 or len(frame) < place + 16:
        return first, ""
    flags, _, stated_bytes = struct.unpack(">III", frame[place + 4 : place + 16])
    if flags & 3 == 3 and last - first == stated_bytes:
        return None, ""
    is_cut = flags & 3 == 3 and stated_bytes > size_bytes - first
    doubt = f"it is cut off: its header states {stated_bytes} bytes of audio, {size_bytes - first} are there" if is_cut else ""
    return first + _mp3_frame_bytes(frame), doubt


def _is_mp3(frame: bytes) -> bool:
    """Says whether bytes begin with a frame of MPEG audio, layer III: sync word, version, layer, and valid rates."""
    if len(frame) < 4 or frame[0] != 0xFF or frame[1] & 0xE0 != 0xE0:
        return False
    return frame[1] & 0x18 != 0x08 and frame[1] & 0x06 == 0x02 and frame[2] & 0xF0 not in (0x00, 0xF0) and frame[2] & 0x0C != 0x0C


def _mp3_frame_bytes(frame: bytes) -> int:
    """Returns the length of the frame of MPEG audio, layer III, that `frame` begins with."""
    is_mpeg1 = frame[1] & 0x18 == 0x18
    kbits = (_MPEG1_KBITS if is_mpeg1 else _MPEG2_KBITS)[frame[2] >> 4]
    rate_hz = (44_100, 48_000, 32_000)[frame[2] >> 2 & 3] // {0x18: 1, 0x10: 2, 0x00: 4}[frame[1] & 0x18]
    return (144 if is_mpeg1 else 72) * 1000 * kbits // rate_hz + (frame[2] >> 1 & 1)


def _why_partly_read(source: Any, file: Any) -> str:
    """Returns why libsndfile would not read all of the audio, or an empty string."""
    if file.format == "FLAC":
        if not 0 < file.frames < _ENDLESS:
            return _WHOLE_BY_FFMPEG[0]
        if _occurs_again(source, b"fLaC\x00\x00\x00\x22"):
            return _WHOLE_BY_FFMPEG[1]
        file.seek(file.frames - 1)
        return "" if len(file.read(1)) else "the file ends before its header says"
    if file.format == "OGG" and _occurs_again(source, b"OggS\x00\x02"):
        return _WHOLE_BY_FFMPEG[2]
    return ""


def _occurs_again(source: Any, mark: bytes) -> bool:
    """Says whether a mark that begins a stream is in the file a second time."""
    import mmap

    if not isinstance(source, str):
        return bytes(source.getbuffer()).find(mark, 1) > 0
    with open(source, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return view.find(mark, 1) > 0


def _ends_in_chunks(source: Any, size_bytes: int) -> bool:
    """Says whether what follows the samples of a wav file are chunks, as it must be where the header states all samples."""
    with _bytes_of(source) as file:
        file.seek(0)
        head, at, is_behind = file.read(12), 12, False
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return True
        for _ in range(_MAX_CHUNKS):
            file.seek(at)
            chunk = file.read(8)
            if len(chunk) < 8 or not any(chunk):  # the end, or zeros to fill a block
                break
            name, size = struct.unpack("<4sI", chunk)
            if is_behind and (not all(0x20 <= letter < 0x7F for letter in name) or at + 8 + size > size_bytes):
                return False
            is_behind = is_behind or name == b"data"
            at += 8 + size + size % 2
        file.seek(0)
    return True


def _doubt(source: Any, facts: AudioFacts, size_bytes: int, log: str) -> str:
    """Returns what is odd about a header: it states less than the file has, or more, as one of a writer that was killed."""
    sample_bytes = _SAMPLE_BYTES.get(facts.codec.split()[1], 0)
    size = sample_bytes * facts.channels * facts.frames
    if sample_bytes and size_bytes - size > max(_SURPLUS_BYTES, size // 10):
        return f"its header states {size} bytes of audio, but the file has {size_bytes}"
    if sample_bytes and size_bytes - size > _SHORT_HEADER_BYTES and not _ends_in_chunks(source, size_bytes):
        return f"its header states {size} bytes of audio, but more samples follow them"
    cut = re.search(r"data : (\d+) \(should be (\d+)\)", log)
    if cut and int(cut[2]) < int(cut[1]) < _PIPED_BYTES:
        return f"it is cut off: its header states {cut[1]} bytes of audio, {cut[2]} are there"
    return ""
