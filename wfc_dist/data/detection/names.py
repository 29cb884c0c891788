"""What data sets are called after their folders, and which language a folder's name says."""

import re
import unicodedata
from collections.abc import Sequence

from wfc_dist.data.languages import WHISPER_LANGUAGES, language_code

_LETTERS = str.maketrans({"ß": "ss", "æ": "ae", "ø": "o", "ł": "l", "đ": "d", "œ": "oe", "ı": "i"})
_WORDS_AS_WELL = frozenset({"my", "no", "is", "as", "so", "am", "be", "to"})
"""Codes of languages that are English words, too: a folder called `my` is no Burmese for certain."""
_LONGEST = 60


def safe_name(text: str) -> str:
    """Returns a name that `datasets` takes: letters without accents, digits, `_`, `.` and `-`; "" where none is left."""
    plain = unicodedata.normalize("NFKD", text.translate(_LETTERS)).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", plain).strip("-_.")[:_LONGEST].rstrip("-_.")


def unique_names(wanted: Sequence[Sequence[str]]) -> list[str]:
    """Returns a name for each data set, no two alike even in case.

    Args:
        wanted: For each its words, the most telling first: its own folder, that above it, and so on. As many of them are taken
            as the names need to be apart, and a number where all of them are the same.
    """
    words = [[name for word in one if (name := safe_name(word))] or ["data"] for one in wanted]
    used = [1] * len(words)
    for _ in range(max(map(len, words), default=0)):
        names = ["-".join(reversed(one[:num])) for one, num in zip(words, used, strict=True)]
        alike = [name.casefold() for name in names]
        used = [num + (alike.count(name) > 1) for num, name in zip(used, alike, strict=True)]
    names = ["-".join(reversed(one[:num])) for one, num in zip(words, used, strict=True)]
    taken: set[str] = set()
    for place, name in enumerate(names):
        number, free = 2, name
        while free.casefold() in taken:
            number, free = number + 1, f"{name}-{number}"
        names[place] = free
        taken.add(free.casefold())
    return names


def language_in(words: Sequence[str]) -> str | None:
    """Returns Whisper's code of the language that the first of some names says which says one: `cs`, `Czech`, `mls_spanish`."""
    for word in words:
        if word.casefold() in _WORDS_AS_WELL:
            continue
        if code := language_code(word):
            return code
        parts = [part for part in re.split(r"[\W_\d]+", word) if len(part) > 3]
        codes = {code for part in parts if (code := language_code(part)) and part.casefold() != code}
        if len(codes) == 1:
            return codes.pop()
    return None


def language_name(code: str) -> str:
    """Returns the English name of Whisper's code."""
    return WHISPER_LANGUAGES[code].title()
