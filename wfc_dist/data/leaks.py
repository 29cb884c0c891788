"""Finds test audio that training hears: the same recording by another path or format, or a stretch that overlaps.

Two recordings are one if their files are one, if their encoded bytes are equal, or if their decoded samples are. Sizes and
numbers of frames are compared first, so that few files are read. A copy at another rate, or through a lossy codec, is not found.
"""

import hashlib
from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from wfc_dist.data.audio_files import AudioFile, AudioRef, blocks
from wfc_dist.data.recordings import Recording
from wfc_dist.errors import InputError

LEAST_OVERLAP_S = 0.1
"""Stretches that share less are neighbours: cuts are rounded, and have some air at their ends."""
_ANY_CHANNEL = -1
_PROBE_BYTES, _PROBE_S = 4096, 0.05  # read in the middle, before all of two files is compared


class Stretches:
    """The stretches of recordings that the clips of one split are, in order."""

    def __init__(self) -> None:
        self._recordings, self._channels = array("q"), array("h")
        self._starts, self._ends = array("d"), array("d")

    def add(self, recording: int, start_s: float, end_s: float, channel: int | None) -> None:
        """Adds the next clip; `recording` is -1 for one that cannot be read."""
        self._recordings.append(recording)
        self._starts.append(start_s)
        self._ends.append(end_s)
        self._channels.append(_ANY_CHANNEL if channel is None else channel)

    def table(self, content_of: np.ndarray) -> np.ndarray:
        """Returns one record a readable clip: clip, content, start, end, channel.

        Args:
            content_of: Number of a recording -> number of its content.
        """
        recordings = np.frombuffer(self._recordings, np.int64) if self._recordings else np.zeros(0, np.int64)
        rows = np.flatnonzero(recordings >= 0)
        table = np.zeros(len(rows), [("clip", "i8"), ("content", "i8"), ("start", "f8"), ("end", "f8"), ("channel", "i2")])
        table["clip"], table["content"] = rows, content_of[recordings[rows]]
        for name, values in (("start", self._starts), ("end", self._ends), ("channel", self._channels)):
            table[name] = np.asarray(values)[rows]
        return table

    def recordings(self) -> np.ndarray:
        """Returns the numbers of all recordings, each once."""
        found = np.unique(np.frombuffer(self._recordings, np.int64)) if self._recordings else np.zeros(0, np.int64)
        return found[found >= 0]


def repeats(table: np.ndarray) -> list[int]:
    """Returns the clips of a split that are the same stretch and channel of the same content as an earlier one."""
    keys = np.stack([table["content"], np.round(table["start"] * 1000).astype("i8"), np.round(table["end"] * 1000).astype("i8"),
                     table["channel"].astype("i8")], 1)  # fmt: skip
    _, first = np.unique(keys, axis=0, return_index=True) if len(keys) else (None, np.zeros(0, int))
    again = np.ones(len(keys), bool)
    again[first] = False
    return table["clip"][again].tolist()


def overlaps(train: np.ndarray, other: np.ndarray) -> list[int]:
    """Returns the clips of `other` of which a part is in a clip of `train`: the same content, at the same time and channel."""
    shared = np.intersect1d(train["content"], other["content"])
    train, other = (np.sort(part[np.isin(part["content"], shared)], order=["content", "start"]) for part in (train, other))
    found: list[int] = []
    bounds = [np.searchsorted(part["content"], shared, side) for part in (train, other) for side in ("left", "right")]
    for train_from, train_to, from_, to in zip(*bounds, strict=True):
        found += _overlaps_in_one(train[train_from:train_to], other[from_:to])
    return sorted(found)


def _overlaps_in_one(train: np.ndarray, other: np.ndarray) -> Iterator[int]:
    """Yields the clips of `other` that overlap one of `train`; both are of one content, in order of their start."""
    lengths = train["end"] - train["start"]
    for clip, _, start, end, channel in other.tolist():
        last = int(np.searchsorted(train["start"], end))
        near = train[:last]
        shared = np.minimum(near["end"], end) - np.maximum(near["start"], start)
        least = np.minimum(LEAST_OVERLAP_S, 0.5 * np.minimum(lengths[:last], end - start))
        same_channel = (near["channel"] == channel) | (near["channel"] == _ANY_CHANNEL) | (channel == _ANY_CHANNEL)
        if bool(((shared > least) & same_channel).any()):
            yield clip


def contents(recordings: Sequence[Recording], trained: Iterable[int], tested: Iterable[int]) -> np.ndarray:
    """Returns number of a recording -> number of its content, equal for two recordings whose samples are the same.

    Args:
        recordings: All, by number.
        trained: Numbers of those that a training or a dev split has.
        tested: Numbers of those that a dev or test split has. Only pairs of one and the other are compared.
    """
    content = np.arange(len(recordings), dtype=np.int64)
    in_train, in_test = set(trained), set(tested)

    def refined(groups: Iterable[Sequence[int]], key: Callable[[Recording], Hashable]) -> Iterator[list[int]]:
        """Splits groups by a key, and yields those that training and testing share, unless they are one content already."""
        for group in groups:
            parts: dict[Hashable, list[int]] = {}
            for number in group:
                parts.setdefault(key(recordings[number]), []).append(number)
            for part in parts.values():
                is_shared = not in_train.isdisjoint(part) and not in_test.isdisjoint(part)
                if is_shared and len(set(content[part].tolist())) > 1:
                    yield part

    used = sorted(in_train | in_test)
    for keys in ((_size, _middle_bytes, _all_bytes), (_shape, _middle_samples, _all_samples)):
        groups: Iterable[Sequence[int]] = [used]
        for key in keys:
            groups = refined(groups, key)
        joined = np.arange(len(recordings), dtype=np.int64)
        for group in groups:
            joined[content[group]] = content[group[0]]
        content = joined[content]
    return content


def _size(recording: Recording) -> Hashable:
    return recording.size_bytes


def _middle_bytes(recording: Recording) -> Hashable:
    audio, middle = recording.audio, recording.size_bytes // 2
    if isinstance(audio, AudioFile):
        return replace(audio, first_byte=audio.first_byte + middle, num_bytes=min(_PROBE_BYTES, middle)).encoded()
    return audio.encoded()[middle : middle + _PROBE_BYTES]


def _all_bytes(recording: Recording) -> Hashable:
    return hashlib.blake2b(recording.audio.encoded(), digest_size=16).digest()


def _shape(recording: Recording) -> Hashable:
    return recording.facts.frames, recording.facts.rate_hz, recording.facts.channels


def _middle_samples(recording: Recording) -> Hashable:
    middle_s = recording.facts.frames / recording.facts.rate_hz / 2
    return _samples(replace(recording.audio, offset_s=middle_s, length_s=_PROBE_S))


def _all_samples(recording: Recording) -> Hashable:
    return _samples(recording.audio)


def _samples(audio: AudioRef) -> Hashable:
    digest = hashlib.blake2b(digest_size=16)
    try:
        for _, block in blocks(audio):
            digest.update(np.ascontiguousarray(block).tobytes())
    except InputError:  # damaged behind an intact header: told by the deep check
        return audio.name
    return digest.digest()
