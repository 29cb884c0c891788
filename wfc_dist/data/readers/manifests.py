"""Reads jsonl manifests (NeMo's keys), also gzip'ed ones, with audio in files or in tar archives."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data.audio_files import AudioRef
from wfc_dist.data.readers.archives import Member, members, numbered
from wfc_dist.data.readers.lines import json_lines, manifest_path
from wfc_dist.data.rows import Columns, SourceRow, audio_column_of, audio_paths, file_audio
from wfc_dist.errors import InputError

_REPEATED = re.compile(r"^(.+)-sub\d+$")


def jsonl_rows(dataset: DatasetConfig, file_name: str) -> Iterator[SourceRow]:
    """Yields the rows of a manifest, or of numbered ones; audio paths are relative to its folder.

    Raises:
        InputError: A file cannot be read, or a row lacks its audio or text; names file and line.
    """
    manifests = list(dict.fromkeys(manifest_path(dataset, name) for name in numbered(file_name).values()))
    audio_of = _tarred(dataset, manifests[0].parent) if dataset.tar else _in_files(dataset, manifests[0].parent)
    column, columns = "", Columns(dataset)
    for manifest in manifests:
        for where, row in json_lines(manifest):
            if not column:
                column = audio_column_of(dataset, row, where, first="audio_filepath")
                columns = Columns(dataset, read=(column,))
            name = row.get(column)
            if not isinstance(name, str) or not name:
                raise InputError(f"{where}: no audio path under {column!r} (there is: {', '.join(row)}); set audio_column")
            yield columns.row(row, where, name=name, audio=audio_of(name, row, where))


_AudioOf = Callable[[str, Mapping[str, Any], str], Callable[..., AudioRef]]


def _in_files(dataset: DatasetConfig, folder: Path) -> _AudioOf:
    path_of = audio_paths(dataset, folder)

    def audio_of(name: str, row: Mapping[str, Any], where: str) -> Callable[..., AudioRef]:
        if "shard_id" in row:
            raise InputError(f"{where}: shard_id says that the audio is in archives; name them: tar: audio__OP_0..7_CL_.tar")
        return file_audio(path_of(name))

    return audio_of


def _tarred(dataset: DatasetConfig, folder: Path) -> _AudioOf:
    shards = {number: _Shard(folder / name) for number, name in numbered(dataset.tar or "").items()}

    def audio_of(name: str, row: Mapping[str, Any], where: str) -> Callable[..., AudioRef]:
        number = row.get("shard_id")
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number not in shards):
            first, last = min(shards), max(shards)
            raise InputError(
                f"{where}: shard_id is {number!r}, but tar names the archives {first} to {last}; correct one of them"
            )
        among = shards.values() if number is None else [shards[number]]
        found = [member for shard in among for member in shard.find(name)]
        if len(found) != 1:
            places = " and ".join(f"{member.name} in {member.archive}" for member in found[:2]) or "nowhere"
            archive = dataset.tar if number is None else shards[number].path.name
            raise InputError(
                f"{where}: {name} is {places}; expected once in {archive}, correct the row or fetch the archive again"
            )
        return found[0].audio

    return audio_of


class _Shard:
    """An archive, whose members are listed when the first of them is looked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._by_name: dict[str, list[Member]] | None = None
        self._by_stem: dict[str, list[Member]] = {}

    def find(self, name: str) -> list[Member]:
        """Returns the members of that name, else of that name without folders and suffix, as NeMo compares them.

        NeMo calls the further rows of a recording a-sub1.wav, a-sub2.wav; the archive has a.wav only.
        """
        if self._by_name is None:
            self._by_name = {}
            for member in members(self.path):
                self._by_name.setdefault(member.name, []).append(member)
                self._by_stem.setdefault(PurePosixPath(member.name).stem, []).append(member)
        stem = PurePosixPath(name).stem
        repeated = _REPEATED.match(stem)
        return (
            self._by_name.get(name.removeprefix("./"))
            or self._by_stem.get(stem)
            or (self._by_stem.get(repeated[1]) if repeated else None)
            or []
        )
