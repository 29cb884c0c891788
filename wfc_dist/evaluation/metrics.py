"""WER, CER and MER at corpus level, with intervals (see docs/metrics.md). Pure: texts in, numbers out.

A window is what the model decodes at once: one clip, or several packed clips. Letters of shapes: N clips.
"""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wfc_dist.errors import ConfigError, InputError
from wfc_dist.evaluation.intervals import Columns, Estimated, columns_without_each, estimated, units_of

_SEPARATOR = "\x1f"  # between tokens on the way into jiwer; a token may be a space (CER)

# Scripts written without spaces between words: first and last code point of their blocks.
_UNSPACED = (
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x19E0, 0x19FF), (0x2E80, 0x2FDF), (0x3005, 0x3007),  # Thai to Han
    (0x3021, 0x3029), (0x3038, 0x303B), (0x3041, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF),  # Han and kana
    (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F), (0xF900, 0xFAFF), (0xFF66, 0xFF9F), (0x20000, 0x3FFFF),
)  # fmt: skip


@dataclass(frozen=True)
class Score:
    """One system on one test set.

    Attributes:
        metric: `wer`, `cer` or `mer`.
        rate: errors / reference_length; may exceed 1.
        low, high: The interval of the rate; None where there is none (see `intervals.limits`).
        errors: substitutions + deletions + insertions.
        reference_length: Reference tokens (words, characters or both).
        substitutions, deletions, insertions: The parts of `errors`.
        num_clips: Clips, packed or not.
        confidence: Confidence level of the interval, such as 0.95.
        num_units: Windows, groups or clips, whatever is independent (see `intervals`); None in scores of earlier versions.
    """

    metric: str
    rate: float
    low: float | None
    high: float | None
    errors: int
    reference_length: int
    substitutions: int
    deletions: int
    insertions: int
    num_clips: int
    confidence: float
    num_units: int | None = None


@dataclass(frozen=True)
class Counts:
    """Errors per clip and the unit of each clip (see `intervals`), int64, each (N,). Intervals need nothing else."""

    substitutions: npt.NDArray[np.int64]
    deletions: npt.NDArray[np.int64]
    insertions: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    units: npt.NDArray[np.int64]

    @property
    def errors(self) -> npt.NDArray[np.int64]:
        """Returns substitutions + deletions + insertions, (N,)."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Returns the corpus rate: all errors / all reference tokens."""
        return float(self.errors.sum() / self.lengths.sum())

    @property
    def num_units(self) -> int:
        """Returns how many units there are."""
        return int(self.units.max()) + 1

    def columns(self) -> Columns:
        """Returns the rate, and the rates without each unit, (1 + WIDTH,)."""
        return np.concatenate([[self.rate], columns_without_each(self.errors, self.lengths, self.units)])


def is_unspaced(character: str) -> bool:
    """Returns whether a character belongs to a script without spaces: Han, kana, Thai, Lao, Khmer, Myanmar."""
    code = ord(character)
    return code >= 0x0E00 and any(first <= code <= last for first, last in _UNSPACED)


def mixed_tokens(text: str) -> list[str]:
    """Returns the tokens of MER: characters (with the marks on them) in scripts without spaces, words elsewhere."""
    tokens: list[str] = []
    for word in text.split():
        joinable = False  # whether the next letter continues the last token
        for character in word:
            unspaced = is_unspaced(character)
            mark = unicodedata.category(character).startswith("M")
            if tokens and joinable and (mark or not (unspaced or is_unspaced(tokens[-1][0]))):
                tokens[-1] += character
            else:
                tokens.append(character)
            joinable = True
    return tokens


TOKENIZERS: dict[str, Callable[[str], list[str]]] = {
    "wer": str.split,
    "cer": lambda text: list(" ".join(text.split())),
    "mer": mixed_tokens,
}


def count(
    references: Sequence[tuple[str, ...]], hypotheses: Sequence[str], metric: str, groups: Sequence[Sequence[str]] = ()
) -> Counts:
    """Returns the errors of each clip: jiwer's minimal alignment of a window, split at the clips of its reference.

    The sum over the clips of a window is what the window's joined reference gives. An insertion counts for the clip of the
    reference token before the insertion, or for the window's first clip. With `cer` the space between two clips belongs to the
    second. An empty reference is no error of its own; what the model wrote for it counts as insertions.

    Args:
        references: Windows of clips, normalised clip by clip; a clip that was decoded alone is a window of one clip.
        hypotheses: One normalised text a window.
        metric: `wer`, `cer` or `mer`.
        groups: For every window the groups of its clips, where they are known (see `intervals.units_of`).

    Raises:
        ConfigError: Unknown metric.
        InputError: No clips, other numbers of windows and hypotheses, or no reference token in the whole set.
    """
    counts = count_part(references, hypotheses, metric, groups)
    if counts.lengths.sum() == 0:
        raise InputError(
            f"none of the {len(counts.lengths)} references has a token after normalisation, so there is no {metric.upper()}; "
            "check the text column and evaluate.normalizer"
        )
    return counts


def count_part(
    references: Sequence[tuple[str, ...]], hypotheses: Sequence[str], metric: str, groups: Sequence[Sequence[str]] = ()
) -> Counts:
    """Returns what `count` does for a part of a set, which may have no reference token of its own."""
    if metric not in TOKENIZERS:
        raise ConfigError(f"evaluate.metric: {metric!r} is not known; there are: {', '.join(TOKENIZERS)}")
    if len(references) != len(hypotheses):
        raise InputError(f"{len(references)} references and {len(hypotheses)} hypotheses cannot be scored; decode the set again")
    tables = [_count_window(clips, written, metric) for clips, written in zip(references, hypotheses, strict=True)]
    substitutions, deletions, insertions, lengths = np.concatenate([np.zeros((0, 4), dtype=np.int64), *tables]).T
    return Counts(substitutions, deletions, insertions, lengths, units_of(list(map(len, references)), groups))


def _count_window(clips: Sequence[str], written: str, metric: str) -> npt.NDArray[np.int64]:
    """Returns (clips, 4): substitutions, deletions, insertions and length of every clip of a window."""
    tokenize = TOKENIZERS[metric]
    said: list[str] = []
    owners: list[int] = []  # the clip of every reference token
    table = np.zeros((len(clips), 4), dtype=np.int64)
    for number, clip in enumerate(clips):
        tokens = tokenize(clip)
        if metric == "cer" and said and tokens:
            tokens = [" ", *tokens]
        said += tokens
        owners += [number] * len(tokens)
        table[number, 3] = len(tokens)
    for kind, start, stop, num_inserted in edits(said, tokenize(written)):
        if kind == "insert":
            table[owners[start - 1] if start else 0, 2] += num_inserted
        for owner in owners[start:stop]:
            table[owner, 0 if kind == "substitute" else 1] += 1
    return table


def edits(said: list[str], written: list[str]) -> list[tuple[str, int, int, int]]:
    """Returns (substitute, delete or insert; first and last + 1 reference token; tokens written) of jiwer's minimal alignment."""
    if not said or not written:
        return [("delete", 0, len(said), 0), ("insert", 0, 0, len(written))]
    import jiwer

    split = jiwer.Compose([jiwer.ReduceToListOfListOfWords(word_delimiter=_SEPARATOR)])
    joined = (_SEPARATOR.join(said), _SEPARATOR.join(written))
    (chunks,) = jiwer.process_words(*joined, reference_transform=split, hypothesis_transform=split).alignments
    return [
        (chunk.type, chunk.ref_start_idx, chunk.ref_end_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
        for chunk in chunks
        if chunk.type != "equal"
    ]


@np.errstate(invalid="ignore")  # infinite without the only unit that has a token
def difference(before: Counts, after: Counts, confidence: float) -> Estimated:
    """Returns rate(after) - rate(before) over the same clips and units; paired, so that what both find hard counts once."""
    return estimated(after.columns() - before.columns(), confidence, "difference")


def score(counts: Counts, *, metric: str, confidence: float = 0.95, intervals: bool = True) -> Score:
    """Returns rate = (S + D + I) / reference length over the whole set, with its interval.

    Args:
        counts: The errors of one system (see `count`).
        metric: Which tokens were counted.
        confidence: Confidence level of the interval.
        intervals: False leaves the interval out.
    """
    found = estimated(counts.columns(), confidence, "rate") if intervals else None
    parts = {name: int(getattr(counts, name).sum()) for name in ("errors", "substitutions", "deletions", "insertions")}
    return Score(
        metric, counts.rate, found and found.low, found and found.high, reference_length=int(counts.lengths.sum()), **parts,
        num_clips=len(counts.lengths), confidence=confidence, num_units=counts.num_units,
    )  # fmt: skip
