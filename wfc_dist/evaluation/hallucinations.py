"""Finds text that nobody said: windows with far too many inserted tokens, or with a loop. Pure. Tokens are those of MER."""

import itertools
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from wfc_dist.evaluation import metrics

MAX_N = 6
MIN_TIMES = 4
MIN_INSERTED = 3


class Loop(NamedTuple):
    """An n-gram that stands `times` times in a row."""

    ngram: tuple[str, ...]
    times: int


@dataclass(frozen=True)
class Hallucinations:
    """The hallucinations of one model on one set.

    Attributes:
        clips: (N,), int64: 1 for every clip of a window with a hallucination.
        longest: The longest loop that no reference has, by tokens; None without one.
    """

    clips: npt.NDArray[np.int64]
    longest: Loop | None


def loops(tokens: Sequence[str]) -> list[Loop]:
    """Returns every n-gram of 1 to 6 tokens that follows itself at least 4 times in a row, with the most times it does so.

    An n-gram made of a shorter one is not listed again (`a b a b` is `a b` twice), nor is the same loop entered elsewhere.
    """
    longest: dict[tuple[str, ...], Loop] = {}
    for n in range(1, MAX_N + 1):
        same = [tokens[index] == tokens[index - n] for index in range(n, len(tokens))]
        start = 0
        for is_same, run in itertools.groupby(same):
            length = len(list(run))
            times, ngram = length // n + 1, tuple(tokens[start : start + n])
            if is_same and times >= MIN_TIMES and not _is_periodic(ngram):
                key = _rotated(ngram)
                longest[key] = max(longest.get(key, Loop(ngram, 0)), Loop(ngram, times), key=lambda loop: loop.times)
            start += length
    return list(longest.values())


def _is_periodic(ngram: tuple[str, ...]) -> bool:
    return any(len(ngram) % n == 0 and ngram == ngram[:n] * (len(ngram) // n) for n in range(1, len(ngram)))


def _rotated(ngram: tuple[str, ...]) -> tuple[str, ...]:
    return min(ngram[index:] + ngram[:index] for index in range(len(ngram)))


def invented_loops(said: Sequence[str], written: Sequence[str]) -> list[Loop]:
    """Returns the loops of `written` that are none in `said`."""
    known = {_rotated(loop.ngram) for loop in loops(said)}
    return [loop for loop in loops(written) if _rotated(loop.ngram) not in known]


def is_flooded(num_inserted: int, num_said: int) -> bool:
    """Returns whether more than 3 tokens were inserted, and more than half as many as were said."""
    return num_inserted > max(MIN_INSERTED, num_said / 2)


def num_spoken(text: str) -> int:
    """Returns how many tokens a text has where punctuation parts words, as it does once normalised: `ha-ha-ha` is three."""
    return len(metrics.mixed_tokens("".join(" " if unicodedata.category(letter)[0] in "PS" else letter for letter in text)))


def compression_ratio(text: str) -> float:
    """Returns how many times smaller zlib makes a text; 0 for an empty text.

    Speech stays near 2 or below, a loop of a window's length does not: Whisper's own decoding calls more than 2.4 a failure.
    """
    encoded = text.encode()
    return len(encoded) / len(zlib.compress(encoded)) if encoded else 0.0


def find_hallucinations(references: Sequence[tuple[str, ...]], hypotheses: Sequence[str]) -> Hallucinations:
    """Returns which clips belong to a window whose text was partly invented: flooded with insertions, or with a loop.

    A window is judged as a whole, since a loop runs on over the borders of its clips: all its clips are marked.

    References and hypotheses are those of `metrics.count`, which may raise InputError.
    """
    inserted = metrics.count(references, hypotheses, "mer").insertions
    flags: list[int] = []
    invented: list[Loop] = []
    for clips, text in zip(references, hypotheses, strict=True):
        said = [token for clip in clips for token in metrics.mixed_tokens(clip)]
        new_loops = invented_loops(said, metrics.mixed_tokens(text))
        num_inserted = int(inserted[len(flags) : len(flags) + len(clips)].sum())
        flags += [int(bool(new_loops) or is_flooded(num_inserted, len(said)))] * len(clips)
        invented += new_loops
    longest = max(invented, key=lambda loop: len(loop.ngram) * loop.times, default=None)
    return Hallucinations(np.array(flags, dtype=np.int64), longest)
