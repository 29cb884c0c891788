"""Which split the name of a file or a folder stands for: train.tsv, dev_clean, validation-00000-of-00001.parquet."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from wfc_dist.config.datasets import SplitName

_WORDS: dict[SplitName, tuple[str, ...]] = {
    "dev": ("dev", "devset", "devel", "development", "valid", "validset", "validation", "val"),
    "test": ("test", "tests", "testset", "testing", "tst", "eval", "evalset", "evaluation"),
    "train": ("train", "trainset", "training", "trn"),
}
"""Our split -> words that corpora use for it; `train_dev` is a dev set, so that the order counts."""
_FILLERS = frozenset({"manifest", "manifests", "metadata", "cuts", "supervisions", "split", "splits", "set", "data", "list"})


@dataclass(frozen=True)
class Place:
    """What the parts of a path say.

    Attributes:
        split: The split that they name, or None.
        at: Which of the parts names it; None where none does.
        key: The other words of that part, and the parts behind it, such as ("es",) of train_es.tsv. Of a corpus all splits have
            the same.
    """

    split: SplitName | None
    at: int | None
    key: tuple[str, ...]


def split_of(name: str) -> tuple[SplitName | None, str]:
    """Returns (split that a name stands for, the other words of the name joined by "_")."""
    words = [word for word in re.split(r"[-_. ]+", name) if word]
    plain = [word.lower().rstrip("0123456789") for word in words]
    for split, known in _WORDS.items():
        if any(word in known for word in plain):
            every = {word for names in _WORDS.values() for word in names}
            rest = [word for word, low in zip(words, plain, strict=True) if low not in every]
            return split, "_".join(rest)
    return None, name


def place_of(parts: Sequence[str]) -> Place:
    """Returns what the parts of a path below a source say; the last part that names a split counts."""
    for at in reversed(range(len(parts))):
        split, rest = split_of(parts[at])
        if split is not None:
            return Place(split, at, tuple(filter(None, (rest, *parts[at + 1 :]))))
    return Place(None, None, tuple(parts[-1:]))


def telling(key: Sequence[str]) -> list[str]:
    """Returns the words of a key that tell corpora apart: without `manifest` and the like."""
    words = [[word for word in re.split(r"[_. ]+", part) if word.lower() not in _FILLERS] for part in key]
    return ["_".join(part) for part in words if part]
