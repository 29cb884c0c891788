"""Finds what a reader could open below a folder: manifests, tables, data directories, archives. It looks into the files."""

import json
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from wfc_dist.config.datasets import Format, SplitName
from wfc_dist.data.audio_files import SUFFIXES
from wfc_dist.data.detection.roles import place_of, split_of
from wfc_dist.data.readers.lines import json_lines, text_lines
from wfc_dist.data.readers.tables import table_rows
from wfc_dist.errors import InputError

MAX_DEPTH = 6
_LEFT_OUT = frozenset({"exp", "__pycache__", "node_modules", "runs"})
_METADATA = re.compile(r"^metadata\.(csv|tsv|jsonl)(\.gz)?$")
_NUMBERED_PARQUET = re.compile(r"^(.+?)(-\d+-of-\d+)?\.parquet$")
_TABLE = re.compile(r"\.(csv|tsv|tab)(\.gz)?$")
_LINES = re.compile(r"\.(jsonl|json|ndjson)(\.gz)?$")
_AUDIO_NAME = re.compile(rf"({'|'.join(map(re.escape, sorted(SUFFIXES)))})$", re.IGNORECASE)
_AUDIO_PART = re.compile(rf"({'|'.join(map(re.escape, sorted(SUFFIXES)))})(\W|$)", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(?=\D*$)")


@dataclass(frozen=True)
class Unit:
    """Something that a reader opens as one split.

    Attributes:
        kind: The format that reads it.
        base: The folder that is to be `source`.
        value: What is to stand in `splits`, relative to the base.
        split: The split that its name stands for, or None.
        key: The words of its path below the base, without that of the split.
        above: The parts of the path from the folder that was searched to the base.
        options: Further keys of the data set, such as those of a repository of the hub.
    """

    kind: Format
    base: Path
    value: str
    split: SplitName | None
    key: tuple[str, ...]
    above: tuple[str, ...]
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def path(self) -> Path:
        """The file or folder."""
        return self.base / self.value


@dataclass
class Survey:
    """What lies below a folder.

    Attributes:
        units: In the order of their paths.
        num_audio: Audio files.
        num_texts: Text files, *.txt.
        others: Files that look as if they were meant, but are none: path -> why.
        num_files: All files.
    """

    units: list[Unit] = field(default_factory=list)
    num_audio: int = 0
    num_texts: int = 0
    others: dict[str, str] = field(default_factory=dict)
    num_files: int = 0


def survey(root: Path) -> Survey:
    """Returns what lies in a folder and below it; hidden folders, and what is deeper than MAX_DEPTH, are not entered.

    Raises:
        InputError: A folder cannot be read.
    """
    found, beside = Survey(), []
    seen: set[tuple[int, int]] = set()
    for place, folders, every in os.walk(root, onerror=_refuse, followlinks=True):
        stat = os.stat(place)
        folder = Path(place)
        parts = folder.relative_to(root).parts
        is_known = (stat.st_dev, stat.st_ino) in seen
        seen.add((stat.st_dev, stat.st_ino))
        folders[:] = [] if is_known or len(parts) >= MAX_DEPTH else sorted(map(str, filter(_is_entered, folders)))
        if is_known:
            continue
        names = sorted(name for name in every if not name.startswith("."))
        found.num_files += len(names)
        audio = {name.rpartition(".")[0] for name in names if is_audio_name(name)}
        texts = {name.rpartition(".")[0] for name in names if name.lower().endswith(".txt")}
        found.num_audio += len(audio)
        found.num_texts += len(texts)
        if audio & texts:
            beside.append(folder)
        whole = _whole_folder(folder, set(names), set(folders))
        if whole is not None:
            found.units += _saved_units(root, folder) if whole == "saved" else [folder_unit(whole, root, folder)]
            folders[:] = [] if whole != "folder" else folders
            continue
        if "wav.scp" in names:
            found.others[str(folder / "wav.scp")] = (
                f"{folder / 'wav.scp'} names audio, but no file text with transcripts is beside it"
            )
        found.units += _files(root, folder, names, found)
    if not found.units:
        found.units += _beside(root, beside)
    return found


def _refuse(error: OSError) -> None:
    raise InputError(f"cannot read {error.filename}: {error.strerror or error}; check who may read it") from error


def _is_entered(name: str) -> bool:
    return not name.startswith(".") and name not in _LEFT_OUT and not re.fullmatch(r"split\d+\w*", name)


def is_audio_name(name: object) -> bool:
    """Says whether a value ends as the name of an audio file does."""
    return isinstance(name, str) and _AUDIO_NAME.search(name.strip()) is not None


def _whole_folder(folder: Path, names: set[str], folders: set[str]) -> Format | None:
    """Returns the format of a folder that is read as a whole; None for any other."""
    if "dataset_dict.json" in names or {"state.json", "dataset_info.json"} <= names:
        return "saved"
    if {"wav.scp", "text"} <= names:
        return "kaldi"
    if any(re.match(r"cuts\.\d+\.jsonl", name) for name in names) and any(name.startswith("recording.") for name in names):
        return "lhotse"
    if any(map(_METADATA.match, names)) and _names_files(folder, names):
        return "folder"
    return None


def _saved_units(root: Path, folder: Path) -> Iterator[Unit]:
    """Yields the splits of a folder of save_to_disk; of a single data set `train`, whatever `splits` says is read then."""
    above, dictionary = folder.relative_to(root).parts, folder / "dataset_dict.json"
    try:
        names = json.loads(dictionary.read_text(encoding="utf-8"))["splits"] if dictionary.is_file() else ["train"]
        names = [str(name) for name in names]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(f"{dictionary} is damaged ({error}); save the data set again") from error
    for name in names:
        split, rest = split_of(name)
        yield Unit("saved", folder, name, split, (rest,) if rest else (), above)


def _names_files(folder: Path, names: set[str]) -> bool:
    record = first_record(folder / min(filter(_METADATA.match, names)))
    return record is not None and any(is_audio_name(value) for value in record.values())


def folder_unit(kind: Format, root: Path, folder: Path) -> Unit:
    """Returns the unit of a folder below the one that was searched."""
    parts = folder.relative_to(root).parts
    place = place_of(parts)
    at = len(parts) if place.at is None else place.at
    base = root.joinpath(*parts[:at])
    if kind == "stm" and place.at is None and parts:
        base = root.joinpath(*parts[:-1])
    return Unit(kind, base, folder.relative_to(base).as_posix(), place.split, place.key, base.relative_to(root).parts)


def _file_unit(kind: Format, root: Path, path: Path, value: str = "", stem: str = "") -> Unit:
    parts = (*path.parent.relative_to(root).parts, stem or path.name.split(".")[0])
    place = place_of(parts)
    at = len(parts) - 1 if place.at is None else place.at
    base = root.joinpath(*parts[:at])
    name = path.with_name(value) if value else path
    return Unit(kind, base, name.relative_to(base).as_posix(), place.split, place.key, base.relative_to(root).parts)


def _files(root: Path, folder: Path, names: list[str], found: Survey) -> Iterator[Unit]:
    """Yields the units that are files of one folder."""
    kinds: dict[str, Format | None] = {}
    for name in names:
        if _TABLE.search(name) or _LINES.search(name):
            try:
                kinds[name] = _kind_of_records(folder / name)
            except InputError as error:
                found.others[str(folder / name)] = str(error)
    if "lhotse" in kinds.values() and any("cuts" in name for name, kind in kinds.items() if kind == "lhotse"):
        kinds = {name: kind for name, kind in kinds.items() if kind != "lhotse" or "supervisions" not in name}
    of_kind = {name: kind for name, kind in kinds.items() if kind}
    ranged, single = _ranges([name for name, kind in of_kind.items() if kind == "jsonl"])
    for value, first in ranged.items():
        yield _file_unit("jsonl", root, folder / first, value, _NUMBER.sub("", first.split(".")[0]).strip("-_") or "all")
    for name, kind in of_kind.items():
        if kind != "jsonl" or name in single:
            yield _file_unit(kind, root, folder / name)
    yield from _stm_units(root, folder, [name for name in names if name.endswith(".stm")])
    yield from _parquet_units(root, folder, [name for name in names if name.endswith(".parquet")])
    has_manifest = "jsonl" in of_kind.values() or "lhotse" in of_kind.values()
    if not has_manifest:
        yield from _shard_units(root, folder, [name for name in names if name.endswith(".tar")])


def first_record(path: Path) -> dict[str, Any] | None:
    """Returns the first row of a table or a manifest; None where there is none. Raises InputError naming file and line."""
    if not _TABLE.search(path.name):
        return next((row for _, row in json_lines(path)), None)
    try:
        return next((row for _, row in table_rows(path)), None)
    except InputError:
        return next((row for _, row in table_rows(path, "none")), None)


def _kind_of_records(path: Path) -> Format | None:
    """Returns the format of a file of records, or None where its first row is no utterance."""
    if _TABLE.search(path.name):
        return "csv" if _is_table_of_clips(path) else None
    head = next(text_lines(path), (0, ""))[1].strip()
    if head[:1] == "[" or head == "{":
        raise InputError(f"{path} is one JSON value over several lines; write one object a line")
    record = first_record(path)
    if record is None:
        raise InputError(f"{path} has no rows")
    if "supervisions" in record or str(record.get("type", "")).endswith("Cut"):
        return "lhotse"
    if "recording_id" in record and "type" not in record and "sources" not in record:
        return "lhotse"
    return "jsonl" if any(map(is_audio_name, record.values())) and "sources" not in record else None


def _is_table_of_clips(path: Path) -> bool:
    record = first_record(path)
    if record is None:
        raise InputError(f"{path} has no rows below its first line")
    if any(map(is_audio_name, record)):
        raise InputError(
            f"{path}: the first line names no columns ({next(iter(record))!r}, ...); write one above it, such as audio,text"
        )
    (head, first), is_narrow = next(iter(record.items())), len(record) == 1
    other = next((mark for mark in ";|\t," if is_narrow and mark in head and _AUDIO_PART.search(first)), None)
    if other is not None:
        raise InputError(
            f"{path}: the columns are separated by {other!r}; a .csv has commas, a .tsv has tabs: save it as one of these"
        )
    return not is_narrow and any(map(is_audio_name, record.values()))


def _ranges(names: list[str]) -> tuple[dict[str, str], list[str]]:
    """Returns (pattern with a range -> first name, names that are in none) of files that differ in one running number."""
    groups: dict[tuple[str, str, int], dict[int, str]] = {}
    for name in names:
        match = _NUMBER.search(name.split(".")[0])
        if match:
            digits = match[0]
            width = len(digits) if digits.startswith("0") and len(digits) > 1 else 0
            start, end = name[: match.start()], name[match.end() :]
            groups.setdefault((start, end, width), {})[int(digits)] = name
    ranged: dict[str, str] = {}
    for (start, end, width), numbers in groups.items():
        first, last = min(numbers), max(numbers)
        if len(numbers) > 1 and last - first + 1 == len(numbers):
            ranged[f"{start}{{{first:0{width}d}..{last:0{width}d}}}{end}"] = numbers[first]
    taken = {numbers[n] for numbers in groups.values() for n in numbers if numbers[min(numbers)] in ranged.values()}
    return ranged, [name for name in names if name not in taken]


def _stm_units(root: Path, folder: Path, names: list[str]) -> Iterator[Unit]:
    if not names:
        return
    if any(place_of([name.split(".")[0]]).split for name in names) and place_of(folder.relative_to(root).parts).split is None:
        yield from (_file_unit("stm", root, folder / name) for name in names)
    elif len(names) == 1 and not folder.relative_to(root).parts:
        yield _file_unit("stm", root, folder / names[0])
    else:
        yield folder_unit("stm", root, folder)


def _parquet_units(root: Path, folder: Path, names: list[str]) -> Iterator[Unit]:
    stems: dict[str, list[str]] = {}
    for name in names:
        match = _NUMBERED_PARQUET.match(name)
        stems.setdefault(match[1] if match else name, []).append(name)
    if names and all(stem.isdecimal() for stem in stems) and folder != root:  # train/0000.parquet
        yield folder_unit("parquet", root, folder)
        return
    for stem, files in stems.items():
        is_plain = len(files) == 1 and files[0] == f"{stem}.parquet"
        is_usual = not is_plain and folder.name == "data" and folder != root
        unit = _file_unit("parquet", root, folder / files[0], files[0] if is_plain else f"{stem}-*.parquet", stem)
        yield replace(unit, base=folder.parent, value=stem, above=unit.above[:-1]) if is_usual else unit


def _shard_units(root: Path, folder: Path, names: list[str]) -> Iterator[Unit]:
    shards = [name for name in names if _has_clips(folder / name)]
    ranged, single = _ranges(shards)
    for value, first in ranged.items():
        yield _file_unit("webdataset", root, folder / first, value, _NUMBER.sub("", first.split(".")[0]).strip("-_") or "all")
    for name in single:
        yield _file_unit("webdataset", root, folder / name)


def _has_clips(archive: Path) -> bool:
    """Says whether a tar archive begins with audio that has a json or a txt of the same name."""
    try:
        with tarfile.open(archive, "r:") as tar:
            names = [info.name for info in islice(tar, 50) if info.isfile()]
    except (OSError, tarfile.TarError):
        return False
    keys = {name.split(".")[0] for name in names if is_audio_name(name)}
    return any(name.split(".")[0] in keys for name in names if name.endswith((".json", ".txt", ".text")))


def _beside(root: Path, folders: list[Path]) -> list[Unit]:
    """Returns the units of recordings with a text beside each: one a split, or one a language."""
    from wfc_dist.data.languages import language_code

    found: dict[Path, Unit] = {}
    for folder in folders:
        parts = folder.relative_to(root).parts
        place = place_of(parts)
        if place.at is not None:
            top = root.joinpath(*parts[: place.at + 1])
        else:
            top = root / parts[0] if parts and language_code(parts[0]) else root
        found.setdefault(top, folder_unit("folder", root, top))
    return list(found.values())
