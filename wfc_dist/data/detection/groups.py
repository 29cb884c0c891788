"""Which of the things that lie in a folder belong together: the splits of one corpus."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wfc_dist.config.datasets import SPLITS, Format, SplitName
from wfc_dist.data.detection.roles import telling
from wfc_dist.data.detection.units import Unit

_BEST_FIRST: tuple[Format, ...] = ("saved", "kaldi", "lhotse", "folder", "jsonl", "csv", "stm", "parquet", "webdataset")
_NEVER_ALONE = frozenset({"invalidated", "other", "reported", "unvalidated"})


@dataclass
class Group:
    """The splits of one corpus.

    Attributes:
        splits: Split -> what is read.
        passed_over: What lies beside it and is not read.
    """

    splits: dict[SplitName, Unit]
    passed_over: list[Unit] = field(default_factory=list)

    @property
    def first(self) -> Unit:
        """The unit that is looked at for columns and names."""
        return next(self.splits[split] for split in SPLITS if split in self.splits)

    @property
    def key(self) -> tuple[str, ...]:
        """The words that tell the corpus from others in the same folder."""
        return self.first.key

    @property
    def base(self) -> Path:
        """The folder that is to be `source`."""
        return self.first.base


def groups_of(units: Sequence[Unit]) -> list[Group]:
    """Returns the corpora that units are the splits of, in the order of their paths.

    Within a folder, a set called `train` wins over others such as train_sp; a dev or test set goes to the train set with which
    its name shares the most. Where two formats lie in one folder, that with more splits is read.
    """
    by_place: dict[tuple[Path, Format], list[Unit]] = {}
    for unit in units:
        by_place.setdefault((unit.base, unit.kind), []).append(unit)
    chosen: dict[Path, list[Group]] = {}
    for (base, _), here in by_place.items():
        chosen.setdefault(base, []).extend(_grouped(here))
    return [group for groups in chosen.values() for group in _one_format(groups)]


def _grouped(units: Sequence[Unit]) -> list[Group]:
    """Returns the corpora of one format in one folder."""
    by_key: dict[tuple[str, ...], list[Unit]] = {}
    for unit in units:
        by_key.setdefault(unit.key, []).append(unit)
    groups, left = [], []
    for same in by_key.values():
        splits: dict[SplitName, Unit] = {}
        for unit in same:
            if unit.split is None or unit.split in splits:
                left.append(unit)
            else:
                splits[unit.split] = unit
        if splits:
            groups.append(Group(splits))
    trained = [group for group in groups if "train" in group.splits]
    plain = [group for group in trained if not telling(group.key)]
    if len(plain) == 1 and len(trained) > 1:
        left += [unit for group in trained if group is not plain[0] for unit in group.splits.values()]
        trained = plain
    others = [unit for group in groups if "train" not in group.splits for unit in group.splits.values()]
    if trained:
        _attach(trained, others)
        trained[0].passed_over += left
        return trained
    if others:
        groups[0].passed_over += left
        return groups
    return _without_splits(left)


def _attach(trained: Sequence[Group], units: Iterable[Unit]) -> None:
    for group in trained:
        for split in ("dev", "test"):
            mine = [unit for unit in units if unit.split == split]
            if split in group.splits or not mine:
                continue
            best = max(mine, key=lambda unit: _shared(unit.key, group.key))
            if len(trained) == 1 or _shared(best.key, group.key):
                group.splits[split] = best
    used = {unit for group in trained for unit in group.splits.values()}
    trained[0].passed_over += [unit for unit in units if unit not in used]


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    words = [{word for part in key for word in part.split("_")} for key in (one, other)]
    return len(words[0] & words[1])


def _without_splits(units: Sequence[Unit]) -> list[Group]:
    """Returns a corpus for each unit that names no split, without what Common Voice leaves out of its splits."""
    kept = [unit for unit in units if unit.key[-1:] == () or unit.key[-1] not in _NEVER_ALONE] or list(units)
    groups = [Group({"train": unit}) for unit in kept]
    groups[0].passed_over += [unit for unit in units if unit not in kept]
    return groups


def _one_format(groups: Sequence[Group]) -> list[Group]:
    """Returns the corpora of the format that has the most splits, with what is passed over for them."""
    kinds = {group.first.kind for group in groups}
    if len(kinds) == 1:
        return list(groups)
    most = {kind: max(len(group.splits) for group in groups if group.first.kind == kind) for kind in kinds}
    best = min(kinds, key=lambda kind: (-most[kind], _BEST_FIRST.index(kind)))
    kept = [group for group in groups if group.first.kind == best]
    kept[0].passed_over += [unit for group in groups if group not in kept for unit in group.splits.values()]
    return kept
