"""Finds members of tar archives, and expands the numbered names of NeMo and WebDataset: a_{0..7}.tar, a__OP_0..7_CL_.tar."""

import math
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from wfc_dist.data.audio_files import AudioFile
from wfc_dist.data.readers.lines import check_plain
from wfc_dist.errors import InputError

_RANGE = re.compile(r"(?:_OP_|\{)(\d{1,99})\.\.(\d{1,99})(?:_CL_|\})")
_MAX_NAMES = 100_000
_BLOCK_BYTES = 512
_READ_BEHIND_BYTES = 65_536
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7z": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive, and where its bytes lie."""

    name: str
    archive: Path
    first_byte: int
    num_bytes: int

    def read(self) -> bytes:
        """Returns its bytes."""
        with open(self.archive, "rb") as file:
            file.seek(self.first_byte)
            return file.read(self.num_bytes)

    def audio(self, offset_s: float, length_s: float | None, channel: int | None) -> AudioFile:
        """Returns a reference to a stretch of it."""
        return AudioFile(str(self.archive), offset_s, length_s, channel, self.first_byte, self.num_bytes)


def numbered(pattern: str) -> dict[int, str]:
    """Returns number -> name of a pattern with ranges such as {0..7} or _OP_0..7_CL_; without a range its only name is number 0.

    With one range the numbers are those of the range; with several they count the names.

    Raises:
        InputError: A range runs backwards, or the ranges name too many files.
    """
    parts: list[list[str]] = []
    ranges: list[range] = []
    at = 0
    for match in _RANGE.finditer(pattern):
        first, last = int(match[1]), int(match[2])
        if last < first:
            raise InputError(f"{pattern!r}: the range {match[0]} runs backwards; correct it")
        if math.prod(len(one) for one in ranges) * (last - first + 1) > _MAX_NAMES:
            raise InputError(f"{pattern!r} names more than {_MAX_NAMES} files; correct the ranges")
        width = len(match[1]) if match[1].startswith("0") else 0
        parts.append([pattern[at : match.start()] + f"{number:0{width}d}" for number in range(first, last + 1)])
        ranges.append(range(first, last + 1))
        at = match.end()
    names = ["".join(name) + pattern[at:] for name in product(*parts)]
    return dict(zip(ranges[0], names, strict=True)) if len(ranges) == 1 else dict(enumerate(names))


def members(archive: Path) -> Iterator[Member]:
    """Yields the files of an uncompressed tar archive in their order; only headers are read.

    Raises:
        InputError: The archive is missing, compressed, cut off, or no tar archive; names it.
    """
    try:
        check_plain(archive)
        with open(archive, "rb") as file:
            head = file.read(6)
            size_bytes = file.seek(0, 2)
        for magic, packing in _PACKED.items():
            if head.startswith(magic):
                raise InputError(
                    f"{archive} is packed by {packing}, so that a clip can only be read after all before it; unpack it to .tar"
                )
        end = 0
        with tarfile.open(archive, "r:") as tar:
            for info in tar:
                end = info.offset_data + -(-info.size // _BLOCK_BYTES) * _BLOCK_BYTES
                if not info.isfile() or info.issparse():
                    continue
                if info.offset_data + info.size > size_bytes:
                    raise InputError(f"{archive} is cut off within {info.name}; fetch it again")
                yield Member(info.name.removeprefix("./"), archive, info.offset_data, info.size)
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every header otherwise
        _check_end(archive, end)
    except (OSError, tarfile.TarError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"cannot read the archive {archive}: {reason}; fetch it again, or correct the name") from error


def _check_end(archive: Path, end: int) -> None:
    """Raises InputError if no empty block ends an archive, which was cut off then, or if another archive follows."""
    with open(archive, "rb") as file:
        file.seek(end)
        rest = file.read(_READ_BEHIND_BYTES)
    if len(rest) < _BLOCK_BYTES:
        raise InputError(f"{archive} is cut off: it has no end mark; fetch it again")
    if rest.strip(b"\0"):
        raise InputError(f"{archive} goes on behind its end mark, as archives do that were joined by cat; take them apart")
