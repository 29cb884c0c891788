"""Keeps facts of audio files beside their manifest, so that the next reading opens none of them.

An entry holds as long as size and time of change of its file are those at which it was made. The cache lies in the folder of the
data set, or in the user's cache folder where that one cannot be written. A damaged cache is as none.
"""

import contextlib
import hashlib
import json
import os
import uuid
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from wfc_dist.data.audio_facts import AudioFacts

NAME = ".wfc-audio.npz"
_VERSION = 2
_COLUMNS = {"key": np.uint64, "size": np.int64, "mtime": np.int64, "frames": np.int64, "rate": np.int32, "channels": np.int16,
            "kind": np.int32}  # fmt: skip

FileKey = tuple[str, int, int, int]
"""Path, first byte, size and time of change in ns of encoded audio."""
Entry = tuple[AudioFacts, frozenset[str]]


class FactsCache:
    """The cache of one folder; None keeps nothing.

    Args:
        folder: The manifest's.
        with_signs: Whether entries without a look at the samples count as none.
    """

    def __init__(self, folder: Path | None, *, with_signs: bool) -> None:
        self._folder, self._with_signs = folder, with_signs
        self._arrays: dict[str, np.ndarray] = {name: np.zeros(0, dtype) for name, dtype in _COLUMNS.items()}
        self._kinds: list[tuple[str, str, frozenset[str] | None]] = []
        self._new: dict[int, tuple[int, ...]] = {}
        if folder is not None:
            for path in (folder / NAME, _own_path(folder)):
                if self._load(path):
                    break
        self._rows = dict(zip(self._arrays["key"].tolist(), range(len(self._arrays["key"])), strict=True))
        self._numbers = {kind: number for number, kind in enumerate(self._kinds)}

    def get(self, file: FileKey) -> Entry | None:
        """Returns what is known of a file as it is."""
        row = self._rows.get(_hash(file))
        if row is None or self._arrays["size"][row] != file[2] or self._arrays["mtime"][row] != file[3]:
            return None
        codec, doubt, signs = self._kinds[self._arrays["kind"][row]]
        if signs is None and self._with_signs:
            return None
        frames, rate_hz, channels = (int(self._arrays[name][row]) for name in ("frames", "rate", "channels"))
        return AudioFacts(frames, rate_hz, channels, codec, doubt), signs or frozenset()

    def put(self, file: FileKey, facts: AudioFacts, signs: frozenset[str] | None) -> None:
        """Keeps the facts of a file, and what was found odd in its samples (None: nobody looked)."""
        kind = (facts.codec, facts.doubt, signs)
        number = self._numbers.setdefault(kind, len(self._numbers))
        self._new[_hash(file)] = (*file[2:], facts.frames, facts.rate_hz, facts.channels, number)

    def save(self) -> None:
        """Writes the cache if anything is new. Where nothing can be written, nothing is kept."""
        if not self._new or self._folder is None:
            return
        old = ~np.isin(self._arrays["key"], np.fromiter(self._new, np.uint64, len(self._new)))
        fresh = [list(self._new), *zip(*self._new.values(), strict=True)]
        columns = zip(_COLUMNS.items(), fresh, strict=True)
        merged = {name: np.concatenate([self._arrays[name][old], np.array(new, dtype)]) for (name, dtype), new in columns}
        kinds = [[codec, doubt, None if signs is None else sorted(signs)] for codec, doubt, signs in self._numbers]
        merged["kinds"] = np.array(json.dumps([_VERSION, kinds]))
        for path in (self._folder / NAME, _own_path(self._folder)):
            if _written(path, merged):
                break
        self._new = {}

    def _load(self, path: Path) -> bool:
        try:
            if not path.is_file() or any(entry.compress_type for entry in zipfile.ZipFile(path).infolist()):
                return False  # a pipe would be waited for, and packed zeros may be more than memory holds
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name].astype(dtype, casting="same_kind") for name, dtype in _COLUMNS.items()}
                version, kinds = json.loads(str(file["kinds"]))
            kinds = [(str(codec), str(doubt), None if signs is None else frozenset(signs)) for codec, doubt, signs in kinds]
        except Exception:  # whatever is wrong with it: a cache can be made again
            return False
        lengths = {len(array) for array in arrays.values()}
        if version != _VERSION or len(lengths) != 1 or _out_of_range(arrays, len(kinds)):
            return False
        self._arrays, self._kinds = arrays, kinds
        return True


def _out_of_range(arrays: dict[str, np.ndarray], num_kinds: int) -> bool:
    if not len(arrays["key"]):
        return False
    numbers = arrays["frames"].min() < 0 or arrays["rate"].min() < 1 or arrays["channels"].min() < 1
    return bool(numbers or arrays["kind"].min() < 0 or arrays["kind"].max() >= num_kinds)


def _hash(file: FileKey) -> int:
    return int.from_bytes(
        hashlib.blake2b(f"{file[0]}\0{file[1]}".encode(errors="surrogateescape"), digest_size=8).digest(), "big"
    )


def _own_path(folder: Path) -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "wfc_dist" / "audio" / f"{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32]}.npz"


def _written(path: Path, arrays: dict[str, Any]) -> bool:
    staged = path.with_name(f"{NAME}{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(staged, "xb") as file:
            np.savez(file, **arrays)
        os.replace(staged, path)
    except OSError:
        with contextlib.suppress(OSError):
            staged.unlink(missing_ok=True)
        return False
    return True
