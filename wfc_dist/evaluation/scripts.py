"""Finds the script of a text from Unicode's names alone: an answer in another alphabet is a language error that one can see.

Languages that share a script cannot be distinguished here; `evaluate.language: detect` distinguishes them.
"""

import functools
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from wfc_dist.evaluation.metrics import mixed_tokens

_LETTERS = ("Lu", "Ll", "Lt", "Lo")  # the others, such as the long vowel sign of kana, are shared by scripts
_USUAL = 0.05  # a language owns the scripts of at least this share of its reference tokens in a set


@functools.cache
def script_of(character: str) -> str:
    """Returns the script of a letter as its Unicode name begins (LATIN, CYRILLIC, CJK, HIRAGANA, ...); "" for what is no letter.

    Compatibility forms count as what they stand for: a full-width A is LATIN.
    """
    plain = unicodedata.normalize("NFKC", character)[:1]
    if not plain or unicodedata.category(plain) not in _LETTERS:
        return ""
    return unicodedata.name(plain, "").partition(" ")[0]


def scripts_of(text: str) -> set[str]:
    """Returns the scripts of the letters of a text."""
    return set(map(script_of, text)) - {""}


def usual_scripts(tokens: Iterable[str]) -> set[str]:
    """Returns the scripts that at least 5 % of the tokens with letters have."""
    counts: Counter[str] = Counter()
    num_tokens = 0
    for scripts in map(scripts_of, tokens):
        counts.update(scripts)
        num_tokens += bool(scripts)
    return {script for script, number in counts.items() if number >= _USUAL * num_tokens}


def count_foreign(
    references: Sequence[tuple[str, ...]], hypotheses: Sequence[str], languages: Sequence[str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Counter[str]]:  # fmt: skip
    """Returns tokens in a foreign script and tokens with letters, each (N,), and the number of tokens in every foreign script.

    Foreign is a script that neither the window's own references have nor 5 % of the set's reference tokens of the same
    language. The tokens of a window's text are booked on its first clip. A window whose scripts are all unknown counts nothing.

    References and hypotheses are those of `metrics.count`; every window has a language.
    """
    spoken: dict[str, list[str]] = {}
    for clips, language in zip(references, languages, strict=True):
        spoken.setdefault(language, []).extend(token for clip in clips for token in mixed_tokens(clip))
    usual = {language: usual_scripts(tokens) for language, tokens in spoken.items()}
    foreign, written, seen = [], [], Counter[str]()
    for clips, text, language in zip(references, hypotheses, languages, strict=True):
        known = usual[language].union(*map(scripts_of, clips))
        scripts = [scripts for scripts in map(scripts_of, mixed_tokens(text)) if scripts and known]
        others = [sorted(of_token)[0] for of_token in scripts if of_token.isdisjoint(known)]
        seen.update(others)
        foreign += [len(others), *[0] * (len(clips) - 1)]
        written += [len(scripts), *[0] * (len(clips) - 1)]
    return np.array(foreign, dtype=np.int64), np.array(written, dtype=np.int64), seen
