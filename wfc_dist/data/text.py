"""Cleans transcripts as the block `text` of a data set says, and reports what is in them. Pure; no files, no torch."""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from wfc_dist.config.text import TextConfig
from wfc_dist.data.text_kinds import (
    BRACKETS,
    BREAKS,
    CONTROL,
    INVISIBLE,
    PARTIAL_WORD,
    SPACELESS,
    findings,
    without_idle_joiners,
)

MENDED = frozenset({"byte_order_mark", "invisible", "control", "line_break", "not_nfc"})
"""The kinds of `text_kinds.KINDS` that cleaning removes without any setting."""
Span = tuple[int, int]
_UNSEEN = re.compile(f"[{CONTROL}{INVISIBLE}\ufeff]+")
_BLANKS = re.compile(f"[ {BREAKS}]*[{BREAKS}][ {BREAKS}]*")
_SPACELESS = re.compile(f"[{SPACELESS}]")
_SHOWN_PLAIN = re.compile(
    f"[{CONTROL}{BREAKS}{INVISIBLE}\u200c\u200d\ufeff\x80-\xa0\u2000-\u200a\u3000\ud800-\udfff\ue000-\uf8ff]"
)


class InspectedText(NamedTuple):
    """A transcript as training gets it, and what is in it.

    Attributes:
        text: The clean text, without white space at its ends.
        left: Names of the kinds (`text_kinds.KINDS`) that the clean text still has.
        mended: Names of the kinds that the text had as written, and that cleaning removed without being asked to.
    """

    text: str
    left: tuple[str, ...]
    mended: tuple[str, ...]


def string_of(value: object) -> tuple[str, str | None]:
    """Returns a cell's string and None; or "" and the kind of fault: "null" (also NaN), "number" or "not_text"."""
    if isinstance(value, str):
        return value, None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "", "null"
    return "", "number" if isinstance(value, int | float) else "not_text"


def inspect_text(raw: str, config: TextConfig) -> InspectedText:
    """Cleans a transcript and finds what is in it before and after."""
    raw = raw.strip()
    before = findings(raw)
    if not before and not config.replace:
        return InspectedText(raw, (), ())
    text = clean(raw, config)
    left = before if text == raw else findings(text)
    return InspectedText(text, left, tuple(kind for kind in before if kind in MENDED and kind not in left))


def clean(text: str, config: TextConfig) -> str:
    """Returns a transcript as `config` wants it, without white space at its ends.

    The result does not change when it is cleaned again, unless a replacement makes text that is to be replaced.
    """
    text = config.normalized(text)
    for old, new in config.replace.items():
        replaced = text.replace(config.normalized(old), config.normalized(new))
        text = text if replaced == text else _single_spaces(replaced)
    while True:  # what is left without a character or a bracket may be a tag, or a letter and its mark
        before = text
        text = config.normalized(without_invisible(_without_markup(text, config.strip_markup))).strip()
        if text == before:
            return text


def without_invisible(text: str) -> str:
    """Returns a text without characters that stand for no sound and cannot be seen; line breaks and tabs become a space.

    These are byte order marks, zero-width characters, soft hyphens, direction marks, variation selectors and control characters.
    Zero-width joiners stay where they are spelling (Persian, Hindi, ...). Controls U+0080 to U+009F stay: they are letters that
    were read in a wrong encoding.
    """
    if text.isascii() and text.isprintable():
        return text
    return without_idle_joiners(_BLANKS.sub(" ", _UNSEEN.sub("", text)))


def shown(text: str, max_letters: int = 80) -> str:
    """Returns the beginning of a text for a message; what cannot be seen is written as a code, such as <U+200B>."""
    cut = text if len(text) <= max_letters else f"{text[: max_letters - 3]}..."
    return _SHOWN_PLAIN.sub(lambda match: f"<U+{ord(match.group()):04X}>", cut)


def marks_of_words(raw: str, text: str, marks: Sequence[str], config: TextConfig) -> tuple[str, ...] | None:
    """Returns the language marks of the words of a clean text, or None where they cannot be told.

    Args:
        raw: The transcript as written.
        text: The transcript after `clean`.
        marks: One language a word of `raw`, or a word of `text`; words are split at white space.
        config: The block that `text` was cleaned with.
    """
    if len(marks) == len(text.split()):
        return tuple(marks)
    words = [(clean(word, config).split(), mark) for word, mark in zip(raw.split(), marks, strict=False)]
    kept = [word for parts, _ in words for word in parts]
    if len(marks) != len(raw.split()) or kept != text.split():
        return None
    return tuple(mark for parts, mark in words for _ in parts)


def _single_spaces(text: str) -> str:
    return re.sub(" {2,}", " ", text)


def _without_markup(text: str, kinds: Sequence[str]) -> str:
    before = text
    for kind in kinds:
        if kind.startswith("<"):
            text = _cut(text, _elements(text, kind[1:-1]))
    if "double_round" in kinds:
        pairs = set(_pairs(text, "round"))
        doubled = [(start, end) for start, end in pairs if (start + 1, end - 1) in pairs]
        marks = {place for start, end in doubled for place in (start, start + 1, end - 2, end - 1)}
        text = "".join(letter for place, letter in enumerate(text) if place not in marks) if marks else text
    for kind, (opening, closing) in BRACKETS.items():
        if kind in kinds:
            text = _cut(text, _pairs(text, kind))
        if f"{kind}_marks" in kinds:
            text = text.translate(dict.fromkeys(map(ord, opening + closing)))
    if "partial_words" in kinds:
        text = re.sub(r"\S+", _whole_word, text)
    return text if text == before else _single_spaces(text)


def _whole_word(word: re.Match[str]) -> str:
    """Returns the word, or "" if it is a part of a word. Text of a script without spaces between its words is no word."""
    text = word.group()
    return "" if PARTIAL_WORD.search(text) and not _SPACELESS.search(text) else text


def _pairs(text: str, kind: str) -> Iterator[Span]:
    """Yields the stretches from an opening to its closing bracket, inner before outer. A < before white space opens nothing."""
    opening, closing = BRACKETS[kind]
    starts: list[int] = []
    for match in re.finditer(f"[{re.escape(opening + closing)}]", text):
        place = match.start()
        if match.group() in closing:
            if starts:
                yield starts.pop(), place + 1
        elif kind != "angle" or not text[place + 1 : place + 2].isspace():
            starts.append(place)


def _elements(text: str, name: str) -> Iterator[Span]:
    """Yields the stretches from <name ...> to its </name>, and the tags <name/>, inner before outer."""
    starts: list[int] = []
    for tag in re.finditer(rf"<(/?){re.escape(name)}(?:\s[^<>]*)?>|<{re.escape(name)}\s*/>", text, re.IGNORECASE):
        if tag.group().endswith("/>"):
            yield tag.span()
        elif not tag.group(1):
            starts.append(tag.start())
        elif starts:
            yield starts.pop(), tag.end()


def _cut(text: str, spans: Iterable[Span]) -> str:
    """Returns a text without the spans. A space takes the place of each, but not between letters of a script without spaces."""
    pieces, place = [], 0
    for start, end in sorted(spans):
        if start >= place:
            pieces.append(text[place:start])
        place = max(place, end)
    pieces.append(text[place:])
    cut = pieces[0]
    for piece in pieces[1:]:
        is_spaceless = _SPACELESS.match(cut[-1:]) and _SPACELESS.match(piece[:1])
        cut += piece if is_spaceless else f" {piece}"
    return cut
