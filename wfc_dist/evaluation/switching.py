"""Counts errors on the words at a change of language (code-switching), and on the other words of the same clips. Pure."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wfc_dist.evaluation.metrics import TOKENIZERS, edits
from wfc_dist.evaluation.scripts import script_of

Languages = tuple[str, ...]  # the languages of one token, in the order of its letters
_ONE_LANGUAGE = {"HIRAGANA": "CJK", "KATAKANA": "CJK"}  # Japanese is written in all three


@dataclass(frozen=True)
class SwitchCounts:
    """Errors and reference tokens at switches and elsewhere in the clips that have one, int64, each (N,)."""

    switched_errors: npt.NDArray[np.int64]
    switched_lengths: npt.NDArray[np.int64]
    rest_errors: npt.NDArray[np.int64]
    rest_lengths: npt.NDArray[np.int64]


def languages_by_script(tokens: Sequence[str]) -> list[Languages]:
    """Returns the languages of tokens as their scripts tell them; a number has that of the token before it, or else after it."""
    by_token: list[Languages] = []
    for token in tokens:
        scripts = [_ONE_LANGUAGE.get(script, script) for script in map(script_of, token) if script]
        by_token.append(tuple(script for script, _ in itertools.groupby(scripts)))
    last = next((languages[0] for languages in by_token if languages), "")
    for number, languages in enumerate(by_token):
        by_token[number] = languages or (last,)
        last = by_token[number][-1]
    return by_token


def languages_by_marks(
    text: str, marks: Sequence[str], normalize: Callable[[str], str], tokenize: Callable[[str], list[str]]
) -> list[Languages] | None:
    """Returns the languages of the tokens of a clip whose words are marked, or None where normalising blurs a switch.

    Every stretch of one language is normalised by itself; together they must give the tokens of the whole.

    Args:
        text: The reference as the data set has it.
        marks: A language for every word of `text`, split at spaces.
        normalize: Normaliser of the clip.
        tokenize: Splits a text into the tokens of the metric.
    """
    words = iter(text.split())
    tokens: list[str] = []
    languages: list[Languages] = []
    for language, run in itertools.groupby(marks):
        stretch = tokenize(normalize(" ".join(itertools.islice(words, len(list(run))))))
        tokens += stretch
        languages += [(language,)] * len(stretch)
    return languages if tokens == tokenize(normalize(text)) else None


def switched(languages: Sequence[Languages]) -> list[bool]:
    """Returns which tokens stand at a switch: the last before it, the first after it, and one that changes within."""
    changes = [False, *(before[-1] != after[0] for before, after in itertools.pairwise(languages)), False]
    return [len(of_token) > 1 or changes[number] or changes[number + 1] for number, of_token in enumerate(languages)]


def count_switched(
    references: Sequence[tuple[str, ...]], hypotheses: Sequence[str], languages: Sequence[Sequence[list[Languages] | None]],
    metric: str,
) -> SwitchCounts:  # fmt: skip
    """Returns the errors at switches and elsewhere of every clip that has a switch; zeros for the others.

    Substitutions and deletions belong to their reference token, an insertion to the token before it, or to the window's first.
    Between two clips of a window there is no switch.

    Args:
        references, hypotheses: See `metrics.count`.
        languages: For every clip of every window the languages of its tokens; None where they are not known.
        metric: `wer` or `mer`.
    """
    windows = zip(references, hypotheses, languages, strict=True)
    tables = [_count_window(clips, text, of_window, TOKENIZERS[metric]) for clips, text, of_window in windows]
    return SwitchCounts(*np.concatenate([np.zeros((0, 4), dtype=np.int64), *tables]).T)


def _count_window(
    clips: Sequence[str], written: str, languages: Sequence[list[Languages] | None], tokenize: Callable[[str], list[str]]
) -> npt.NDArray[np.int64]:
    """Returns (clips, 4): errors and tokens at switches, errors and tokens of the rest."""
    table = np.zeros((len(clips), 4), dtype=np.int64)
    said: list[str] = []
    places: list[tuple[int, int] | None] = []  # clip and column of every reference token
    for number, (clip, of_clip) in enumerate(zip(clips, languages, strict=True)):
        tokens = tokenize(clip)
        flags = switched(of_clip) if of_clip else []
        said += tokens
        places += [(number, 0 if flag else 2) for flag in flags] if any(flags) else [None] * len(tokens)
    for place in filter(None, places):
        table[place[0], place[1] + 1] += 1
    if not any(places):
        return table
    for kind, start, stop, num_inserted in edits(said, tokenize(written)):
        owners = [(max(start - 1, 0), num_inserted)] if kind == "insert" else [(index, 1) for index in range(start, stop)]
        for index, number in owners:
            if (owner := places[index]) is not None:
                table[owner] += number
    return table
