"""Where the audio is that a manifest names: beside it, in another folder, or under a path of another machine."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data.rows import audio_paths

_MOST_PARTS, _MOST_FOLDERS = 6, 200


def place_of_audio(block: Mapping[str, Any], folder: Path, names: Sequence[str]) -> dict[str, Any] | None:
    """Returns the keys `audio_dir` and `path_parts` under which all names are files; None where there are none.

    Args:
        block: Keys of the data set; `source` counts.
        folder: What relative names start from without `audio_dir`.
        names: Names of audio files as they are written.
    """
    for keys in _choices(Path(block["source"]), names):
        dataset = DatasetConfig(source=block["source"], format=block.get("format", "jsonl"), **keys)
        path_of = audio_paths(dataset, folder)
        if all(os.path.isfile(path_of(name)) for name in names):
            return keys
    return None


def _choices(source: Path, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    longest = max(len(PurePosixPath(name.replace("\\", "/")).parts) for name in names)
    parts = [None, *reversed(range(1, min(longest, _MOST_PARTS + 1)))]
    folders = [None, ".", *_folders(source), ".."]
    for path_parts in parts:
        for audio_dir in folders:
            keys = {"audio_dir": audio_dir, "path_parts": path_parts}
            yield {key: value for key, value in keys.items() if value is not None}


def _folders(source: Path) -> list[str]:
    """Returns folders below the source, and beside it, relative to it."""
    start = source if source.is_dir() else source.parent
    below = [path for path in sorted(start.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    deeper = [path for folder in below[:50] for path in sorted(folder.iterdir())[:_MOST_FOLDERS] if path.is_dir()]
    beside = [path for path in sorted(start.resolve().parent.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    names = [path.relative_to(start).as_posix() for path in (below + deeper)[:_MOST_FOLDERS]]
    return names + [f"../{path.name}" for path in beside[:20] if path != start.resolve()]
