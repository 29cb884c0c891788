"""Looks at a source of speech, and returns the corpora in it as blocks of a configuration."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wfc_dist.config.datasets import SPLITS, SplitName
from wfc_dist.data.detection import columns, samples
from wfc_dist.data.detection.blocks import block_of
from wfc_dist.data.detection.facts import SplitFacts, facts_of
from wfc_dist.data.detection.groups import Group, groups_of
from wfc_dist.data.detection.hub import has_card, hub_groups, hub_id
from wfc_dist.data.detection.names import language_in
from wfc_dist.data.detection.roles import split_of, telling
from wfc_dist.data.detection.units import Survey, Unit, is_audio_name, survey
from wfc_dist.data.readers.lines import text_lines
from wfc_dist.errors import InputError

LAYOUTS: dict[str, str] = {
    "jsonl": "manifest", "csv": "table", "folder": "audio folder", "kaldi": "Kaldi", "stm": "STM", "lhotse": "Lhotse",
    "parquet": "parquet", "webdataset": "WebDataset", "hub": "hub", "saved": "save_to_disk",
}  # fmt: skip
"""Format -> what it is called in a table."""
_FOREIGN = {
    "*.trans.txt": "LibriSpeech", "transcripts.txt": "MLS", "*.TextGrid": "Praat", "*.eaf": "ELAN", "*.srt": "subtitles",
    "*.vtt": "subtitles", "*.lab": "label files", "metadata.csv": "a table without a first line that names file_name",
}  # fmt: skip
_CODE_SWITCHING = ("cs", "csw")
"""In the name of a file, train_cs.csv, that is code-switching as often as Czech."""
_PACKED = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
_MOST_NAMED = 6


@dataclass
class Corpus:
    """A corpus that was found.

    Attributes:
        words: What it may be called: its own name, then the folders above it.
        block: The keys of the data set, without language.
        facts: Split -> what it has.
        language: What `language` has to be, as its rows do not say it; None where the rows do, or where it is not known.
        language_by: Where that was read.
        passed_over: Files beside it that are not read.
        todo: What the file must still be told, a sentence each.
        notes: What its owner should know, a sentence each.
    """

    words: list[str]
    block: dict[str, Any]
    facts: dict[SplitName, SplitFacts]
    language: str | None = None
    language_by: str = ""
    passed_over: list[str] = field(default_factory=list)
    todo: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def splits(self) -> dict[SplitName, str]:
        """Our split -> its name in the source."""
        return dict(self.block["splits"])

    @property
    def is_silent(self) -> bool:
        """Says whether no language is known of some row, and none of the data set."""
        return self.language is None and any(facts.strange or not facts.languages for facts in self.facts.values())


def look(source: str) -> list[Corpus]:
    """Returns the corpora of a folder, of a file or of a data set on the hub, `org/name` or `org/name:subset`.

    Raises:
        InputError: There is none; says what was found, and what to do.
    """
    path = Path(source)
    if (repository := _repository(source)) is not None:
        name, subset = repository
        names = [f"{Path(name).name}-{subset}" if subset else Path(name).name, *Path(name).parts[-2::-1]]
        groups = hub_groups(name, subset)
        return [_corpus(group, names, [subset, Path(name).name], is_only=len(groups) == 1) for group in groups]
    if not path.exists():
        raise InputError(_not_there(source))
    if not path.is_file() and not path.is_dir():
        raise InputError(f"{source} is neither a file nor a folder; name the folder of a corpus, or its manifest")
    if path.is_file():
        groups = [_with_file(path)]
    else:
        found = survey(path)
        if not found.units:
            raise InputError(_nothing_in(path, found))
        groups = _of_folder(path, found)
    is_only = len(groups) == 1 and path.is_dir()
    names = [name for name in (path if path.is_dir() else path.parent).resolve().parts[:0:-1] if split_of(name)[1]]
    return _apart([_corpus(group, names, names[:2], is_only=is_only) for group in groups])


def _repository(source: str) -> tuple[str, str] | None:
    """Returns (repository, configuration or "") of a source on the hub, or of a folder with a repository and its card."""
    if Path(source).is_dir():
        return (source.rstrip("/"), "") if has_card(Path(source)) else None
    name, _, subset = source.rpartition(":")
    if name and Path(name).is_dir():
        return name, subset
    return None if Path(source).exists() else hub_id(source)


def _not_there(source: str) -> str:
    parent = Path(source).parent
    if Path(source).is_symlink():
        return f"{source} is a link to {Path(source).readlink()}, which is not there"
    there = sorted(path.name for path in parent.iterdir()) if parent.is_dir() else []
    return f"{source}: there is no such file or folder" + (f"; {parent} has: {_some(there)}" if there else f", and no {parent}")


def _of_folder(path: Path, found: Survey) -> list[Group]:
    """Returns the corpora of a folder; of one that is itself a split, `data/train`, with the splits beside it."""
    groups = groups_of(found.units)
    parent = path.resolve().parent
    if len(found.units) == 1 and found.units[0].value == "." and split_of(path.resolve().name)[0]:
        beside = survey(path.parent if path.parent != path else parent)
        for group in groups_of(beside.units):
            if any(unit.path.resolve() == path.resolve() for unit in group.splits.values()):
                return [group]
    return groups


def _with_file(path: Path) -> Group:
    """Returns the corpus that a file is a split of; the splits beside it are those of the same format and name.

    Raises:
        InputError: The file is nothing that a reader opens.
    """
    folder = path.parent
    if split_of(folder.resolve().name)[0] and not split_of(path.name.split(".")[0])[0]:
        folder = folder.parent if folder.parent != folder else folder.resolve().parent
    found = survey(folder)
    wanted = path.resolve()
    for group in groups_of(found.units):
        for unit in group.splits.values():
            if _is_unit_of(unit, wanted):
                return group
    for unit in found.units:
        if _is_unit_of(unit, wanted):
            return Group({unit.split or "train": unit})
    raise InputError(_no_manifest(path, found))


def _is_unit_of(unit: Unit, wanted: Path) -> bool:
    from wfc_dist.data.readers.archives import numbered
    from wfc_dist.data.readers.lines import matching

    names = [unit.base / name for name in numbered(unit.value).values()]
    names += matching(unit.base, unit.value) if "*" in unit.value else []
    inside = unit.path.is_dir() and wanted.parent == unit.path.resolve()
    return inside or any(name.resolve() == wanted for name in names)


def _no_manifest(path: Path, found: Survey) -> str:
    if str(path) in found.others:
        return found.others[str(path)]
    if is_audio_name(path.name):
        return f"{path} is a recording; name its folder, or the table or manifest that has its transcript"
    if path.suffix.lower() in _PACKED:
        return f"{path} is packed; unpack it, and name the folder"
    try:
        head = next(text_lines(path), (0, ""))[1][:60]
    except InputError:
        head = ""
    begins = f"; it begins with {head!r}" if head.strip() and head.isprintable() else ""
    return (
        f"{path} is no manifest, table, archive or data directory that names audio and texts{begins}. A table needs a first line "
        "with the names of its columns, such as audio,text; a manifest one JSON object a line with audio_filepath and text"
    )


def _nothing_in(path: Path, found: Survey) -> str:
    if not found.num_files:
        return f"{path} is empty; name a folder with recordings and their transcripts"
    if found.others:
        first, *more = found.others.values()
        return first + (f"; {len(more)} more {'files' if len(more) > 1 else 'file'} cannot be read" if more else "")
    if found.num_audio:
        transcripts = _foreign(path)
        return (
            f"{path} has {found.num_audio} audio files, but no transcripts that a reader knows{transcripts}. Write "
            "metadata.csv into it with the columns file_name,text, or a text file of the same name beside each recording"
        )
    names = sorted(one.name for one in path.iterdir() if not one.name.startswith("."))
    return (
        f"{path} has {found.num_files} files ({_some(names)}), but no manifest, table, data directory or archive that "
        "names audio and texts; docs/data.md shows the layouts that are read"
    )


def _foreign(path: Path) -> str:
    """Returns the name of a file that looks like transcripts of a layout that no reader has."""
    for pattern, what in _FOREIGN.items():
        first = next(path.rglob(pattern), None)
        if first is not None:
            return f" (there is {first.name}, {what}, which is not read)"
    return ""


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")


def _corpus(group: Group, names: Sequence[str], saying: Sequence[str], *, is_only: bool) -> Corpus:
    """Returns what is known of a corpus.

    Args:
        group: Its splits.
        names: What its source may be called, the most telling first.
        saying: Names of its source that may say the language.
        is_only: Whether it is all that the source has, so that it is called after the source.
    """
    block = block_of(group)
    splits = {split: group.splits[split] for split in SPLITS if split in group.splits}
    facts = {}
    for split, unit in splits.items():
        try:
            facts[split] = facts_of(unit, block)
        except InputError as error:
            if "quotation mark" not in str(error) or block.get("format") != "csv" or "quoting" in block:
                raise
            block["quoting"] = "none"
            facts[split] = facts_of(unit, block)
    block["splits"] = {split: unit.value for split, unit in splits.items()}
    own = [] if is_only else reversed(telling([*group.first.above, *group.key]))
    corpus = Corpus([*own, *names], block, facts)
    corpus.passed_over = [str(unit.path) for unit in group.passed_over]
    corpus.notes += _notes(group, block)
    words = [word for word in reversed(group.key) if word.casefold() not in _CODE_SWITCHING]
    _add_language(corpus, [*words, *reversed(group.first.above), *saying])
    programs = samples.programs_of(group.first)
    if programs and "allow_pipes" not in block:
        corpus.todo.append(f"allow_pipes: its wav.scp starts {', '.join(programs)}; name what may be started, such as {programs}")
    return corpus


def _notes(group: Group, block: Mapping[str, Any]) -> list[str]:
    if group.first.kind not in ("jsonl", "csv") or len(group.splits) > 1:
        return []
    records = samples.records_of(group.first, block.get("quoting", "minimal"))
    if (name := columns.split_column(records)) is None:
        return []
    return [f"the column {name} tells splits apart, but is not read, so that all rows are one split: write a file for each split"]


def _add_language(corpus: Corpus, words: Sequence[str]) -> None:
    strange = sum((facts.strange for facts in corpus.facts.values()), Counter[str]())
    if not strange:
        return
    corpus.language = language_in(words)
    corpus.language_by = "the name of its configuration" if corpus.block.get("format") == "hub" else "the name of its folder"
    labels = [label for label in strange if label]
    if corpus.language is None:
        said = f"its rows say {_some(sorted(labels))}" if labels else "neither its rows nor its folder say it"
        corpus.todo.append(f"language: {said}, write Whisper's code such as es")


def _is_same(one: Corpus, other: Corpus) -> bool:
    if "train" not in one.facts or "train" not in other.facts:
        return False
    first, second = one.facts["train"].first, other.facts["train"].first
    return 2 * len(first & second) > min(len(first), len(second))


def _apart(corpora: list[Corpus]) -> list[Corpus]:
    """Returns the corpora without those whose train split begins with clips of one before: the same audio, written down twice."""
    kept: list[Corpus] = []
    for corpus in corpora:
        same = next((one for one in kept if _is_same(one, corpus)), None)
        if same is None:
            kept.append(corpus)
        else:
            same.passed_over += [str(Path(corpus.block["source"]) / name) for name in corpus.splits.values()]
    return kept
