"""Reads WebDataset's tar shards: the files a.flac, a.json and a.txt, one after the other, are one clip."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data.audio_files import SUFFIXES
from wfc_dist.data.readers.archives import Member, members, numbered
from wfc_dist.data.readers.lines import matching
from wfc_dist.data.rows import Columns, SourceRow
from wfc_dist.errors import InputError

_NAME = re.compile(r"^((?:.*/)?[^./][^./]*)\.([^/]+)$")
_TEXTS = ("txt", "text")


def webdataset_rows(dataset: DatasetConfig, pattern: str) -> Iterator[SourceRow]:
    """Yields the clips of the shards that a pattern names: a file, a folder, *.tar, or numbers such as a-{000..012}.tar.

    Raises:
        InputError: A shard cannot be read, or a clip lacks its audio or text, or has several; names shard and clip.
    """
    columns = Columns(dataset, read=(*SUFFIXES, *_TEXTS, "json"), is_cut=True)
    for shard in _shards(Path(dataset.source), pattern):
        for key, files in _samples(shard):
            where = f"{shard}:{key}"
            audio = _audio_of(dataset, files, where).audio
            yield columns.row(_record(dataset, files, where), where, name=Path(key).name, audio=audio)


def _shards(source: Path, pattern: str) -> list[Path]:
    if source.is_file():
        return [source]
    if "*" in pattern or "?" in pattern:
        found = matching(source, pattern)
    elif (source / pattern).is_dir():
        found = sorted((source / pattern).glob("*.tar"))
    else:
        found = [source / name for name in numbered(pattern).values()]
    if not found:
        raise InputError(f"no shard {pattern!r} (*.tar) in {source}; check source and splits")
    return found


def _samples(shard: Path) -> Iterator[tuple[str, dict[str, Member]]]:
    """Yields (key, suffix -> file) of the samples of a shard: files with one name up to the first dot, one after the other."""
    done: set[str] = set()
    key, files = "", dict[str, Member]()
    for member in members(shard):
        match = _NAME.match(member.name)
        if match is None:
            continue
        if match[1] != key:
            if files:
                yield key, files
            done.add(key)
            key, files = match[1], {}
        suffix = match[2].lower()
        if key in done or suffix in files:
            raise InputError(f"{shard}: the files of {key} are there twice, or not one after the other; write the shard again")
        files[suffix] = member
    if files:
        yield key, files


def _audio_of(dataset: DatasetConfig, files: dict[str, Member], where: str) -> Member:
    if dataset.audio_column != "audio":
        found = [suffix for suffix in files if suffix == dataset.audio_column.removeprefix(".")]
    else:
        found = [suffix for suffix in files if f".{suffix.rpartition('.')[2]}" in SUFFIXES]
    if len(found) != 1:
        what = " and ".join(found) or "no audio"
        raise InputError(
            f"{where}: {what} (there is: {', '.join(files)}); expected one audio file a name up to its first dot, or set "
            "audio_column to its suffix"
        )
    return files[found[0]]


def _record(dataset: DatasetConfig, files: dict[str, Member], where: str) -> dict[str, Any]:
    """Returns the keys of a sample's json, and its text files under their suffixes; `text` is what the only one of them says."""
    record = _json_of(files["json"], where) if "json" in files else {}
    named = {dataset.text_column, *dataset.columns.values(), *_TEXTS}
    wanted = [suffix for suffix in files if suffix in named]
    texts = {suffix: _text_of(files[suffix], where) for suffix in wanted}
    for suffix, text in texts.items():
        if str(record.get(suffix, text)).strip() != text.strip():
            raise InputError(f"{where}: the json and the .{suffix} have different texts under {suffix!r}; take one of them out")
    record |= texts
    if "txt" not in texts:
        return record
    text = str(record.setdefault("text", texts["txt"]))
    if dataset.text_column == "text" and text.strip() != texts["txt"].strip():
        raise InputError(f"{where}: text and .txt are different texts; set text_column: txt, or rename text in the json")
    return record


def _text_of(member: Member, where: str) -> str:
    try:
        return member.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: {member.name} is not UTF-8 ({error}); write the shard again") from error


def _json_of(member: Member, where: str) -> dict[str, Any]:
    try:
        record = json.loads(_text_of(member, where))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: {member.name} is not JSON ({error}); write the shard again") from error
    if not isinstance(record, dict):
        raise InputError(f"{where}: {member.name} is no JSON object; write the shard again")
    return record
