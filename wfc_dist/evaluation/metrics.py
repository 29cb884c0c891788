"""WER, CER and MER at corpus level, with bootstrap intervals. Pure: texts in, numbers out (see docs/metrics.md).

Letters of shapes: N utterances, S bootstrap samples, M systems.
"""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jiwer
import numpy as np
import numpy.typing as npt

from wfc_dist.errors import ConfigError, InputError

_SEPARATOR = "\x1f"  # between tokens on the way into jiwer; a token may be a space (CER)
_SPLIT = jiwer.Compose([jiwer.ReduceToListOfListOfWords(word_delimiter=_SEPARATOR)])
_DRAWS_AT_ONCE = 4_000_000  # bounds the memory of the resampling to some 30 MB

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
        low, high: Bootstrap percentile interval of the rate over utterances; None without bootstrap samples.
        errors: substitutions + deletions + insertions.
        reference_length: Reference tokens (words, characters or both).
        substitutions, deletions, insertions: The parts of `errors`.
        num_clips: Utterances (or windows, if they were decoded packed): the unit of resampling.
        confidence: Of the interval, such as 0.95.
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


class Difference(NamedTuple):
    """rate(after) - rate(before) on the same utterances, with its bootstrap interval; negative is better."""

    difference: float
    low: float
    high: float

    @property
    def improved(self) -> bool:
        """Whether the whole interval is below zero; only then may a report say so."""
        return self.high < 0

    @property
    def worse(self) -> bool:
        """Whether the whole interval is above zero."""
        return self.low > 0


@dataclass(frozen=True)
class Counts:
    """Errors per utterance, int64, each (N,): all that resampling needs."""

    substitutions: npt.NDArray[np.int64]
    deletions: npt.NDArray[np.int64]
    insertions: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]

    @property
    def errors(self) -> npt.NDArray[np.int64]:
        """Returns substitutions + deletions + insertions, (N,)."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Returns the corpus rate: all errors / all reference tokens."""
        return float(self.errors.sum() / self.lengths.sum())


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


def count(references: Sequence[str], hypotheses: Sequence[str], metric: str) -> Counts:
    """Returns the errors of each utterance from jiwer's minimal alignment.

    An empty reference is no error of its own; what was said to it counts as insertions.

    Raises:
        ConfigError: Unknown metric.
        InputError: No utterances, other numbers of references and hypotheses, or no reference token in the whole set.
    """
    if metric not in TOKENIZERS:
        raise ConfigError(f"evaluate.metric: {metric!r} is not known; there are: {', '.join(TOKENIZERS)}")
    if len(references) != len(hypotheses):
        raise InputError(f"{len(references)} references and {len(hypotheses)} hypotheses cannot be scored; decode the set again")
    tokenize = TOKENIZERS[metric]
    rows = [_align(tokenize(said), tokenize(written)) for said, written in zip(references, hypotheses, strict=True)]
    table = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    counts = Counts(*table)
    if counts.lengths.sum() == 0:
        raise InputError(
            f"none of the {len(rows)} references has a token after normalisation, so there is no {metric.upper()}; "
            "check the text column and evaluate.normalizer"
        )
    return counts


def _align(reference: list[str], hypothesis: list[str]) -> tuple[int, int, int, int]:
    if not reference or not hypothesis:
        return 0, len(reference), len(hypothesis), len(reference)
    joined = (_SEPARATOR.join(reference), _SEPARATOR.join(hypothesis))
    found = jiwer.process_words(*joined, reference_transform=_SPLIT, hypothesis_transform=_SPLIT)
    return found.substitutions, found.deletions, found.insertions, len(reference)


def bootstrap_rates(systems: Sequence[Counts], samples: int, seed: int) -> npt.NDArray[np.float64]:
    """Returns corpus rates of M systems on S resamples of the same utterances, (M, S); nan where a resample has no token.

    Args:
        systems: Counts over the same N utterances; every resample takes the same utterances of each (paired).
        samples: S.
        seed: Decides every draw.
    """
    num_utterances = len(systems[0].lengths)
    generator = np.random.default_rng(seed)
    errors = np.stack([system.errors for system in systems])
    lengths = np.stack([system.lengths for system in systems])
    rates = np.empty((len(systems), samples))
    step = max(1, _DRAWS_AT_ONCE // num_utterances)
    for start in range(0, samples, step):
        stop = min(samples, start + step)
        picks = generator.integers(num_utterances, size=(stop - start, num_utterances))
        tokens = lengths[:, picks].sum(axis=-1)
        sums = errors[:, picks].sum(axis=-1)
        rates[:, start:stop] = np.divide(sums, tokens, out=np.full(sums.shape, np.nan), where=tokens > 0)
    return rates


def interval(draws: npt.NDArray[np.float64], value: float, confidence: float) -> tuple[float, float]:
    """Returns the central percentile interval of bootstrap draws, widened where needed to contain the value itself."""
    draws = draws[~np.isnan(draws)]
    if not draws.size:
        return value, value
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return min(float(low), value), max(float(high), value)


def score(
    references: Sequence[str], hypotheses: Sequence[str], *, metric: str, samples: int = 1000, confidence: float = 0.95,
    seed: int = 1,
) -> Score:  # fmt: skip
    """Returns rate = (S + D + I) / reference length over the whole set, with a bootstrap percentile interval over utterances.

    Args:
        references, hypotheses: Normalised texts, one each per utterance.
        metric: `wer`, `cer` or `mer`.
        samples: Bootstrap resamples; 0 leaves the interval out.
        confidence: Of the interval.
        seed: Of the resampling.

    Raises:
        ConfigError, InputError: As `count`.
    """
    counts = count(references, hypotheses, metric)
    low, high = interval(bootstrap_rates([counts], samples, seed)[0], counts.rate, confidence) if samples else (None, None)
    parts = {name: int(getattr(counts, name).sum()) for name in ("errors", "substitutions", "deletions", "insertions")}
    return Score(
        metric, counts.rate, low, high, reference_length=int(counts.lengths.sum()), **parts, num_clips=len(references),
        confidence=confidence,
    )  # fmt: skip


def paired_difference(
    references: Sequence[str], before: Sequence[str], after: Sequence[str], *, metric: str, samples: int = 1000,
    confidence: float = 0.95, seed: int = 1,
) -> Difference:  # fmt: skip
    """Returns rate(after) - rate(before) of two systems on the same utterances, with a paired bootstrap interval.

    Resampling both systems together takes out what is hard for both, so the interval is narrower than that of two rates.

    Raises:
        ConfigError, InputError: As `count`; InputError without samples.
    """
    if samples < 1:
        raise InputError("a difference needs bootstrap samples; set evaluate.bootstrap_samples to 1000")
    systems = [count(references, hypotheses, metric) for hypotheses in (before, after)]
    draws = bootstrap_rates(systems, samples, seed)
    difference = systems[1].rate - systems[0].rate
    return Difference(difference, *interval(draws[1] - draws[0], difference, confidence))
