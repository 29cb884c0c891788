"""Finds what is no plain text in a transcript: Whisper's tokens, markup, invisible characters, wrong encodings. Pure.

Most transcripts are plain: their characters decide that, and only the others are looked at kind by kind.
"""

import functools
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

BRACKETS = {
    "angle": ("<\uff1c", ">\uff1e"),
    "round": ("(\uff08", ")\uff09"),
    "square": ("[\uff3b\u3010\u3014\u3016", "]\uff3d\u3011\u3015\u3017"),
    "curly": ("{\uff5b", "}\uff5d"),
}
"""Kind of markup -> its opening and its closing marks."""
SPACELESS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u312f\u3190-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Thai, Lao, Burmese, Khmer, Japanese and Chinese letters, as a class of a regular expression: no spaces between words."""
INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\uffa0"
    "\ufff9-\ufffb\U000e0000-\U000e0fff"
)
"""Zero-width spaces, soft hyphens, direction marks, fillers, variation selectors: they stand for no sound in any language."""
JOINERS = "\u200c\u200d"
"""Zero-width non-joiner and joiner: part of the spelling in Persian, Hindi, Sinhala, ..., invisible elsewhere."""
CONTROL = "\x00-\x08\x0e-\x1b\x7f"
BREAKS = "\t\n\x0b\x0c\r\x1c-\x1f\u2028\u2029"
_SPACES = "\xa0\u1680\u2000-\u200a\u202f\u205f\u3000"
_LOST = "\ufffc\ufffd"
_PRIVATE = "\ue000-\uf8ff\ufdd0-\ufdef\ufffe\uffff\U000f0000-\U0010ffff"
_COMPATIBLE = (
    "\ufb00-\ufb06\ufb13-\ufb17\ufb20-\ufb29\ufb4f\ufb50-\ufdcf\ufdf0-\ufdfb\ufe70-\ufefc"
    "\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\uff66-\uff9d\U0001d400-\U0001d7ff"
)
_NO_VALUES = frozenset({"nan", "NaN", "NAN", "null", "NULL", "None", "N/A", "n/a", "#N/A", "<NA>", "<NULL>", "undefined"})


@dataclass(frozen=True)
class TextKind:
    """A kind of content that is no plain text: how bad that is, what the audit says, and what the user can do."""

    level: Literal["error", "warning"]
    what: str
    todo: str


def _markup(marks: str, example: str, kind: str) -> TextKind:
    todo = f"delete this with text: {{strip_markup: [{kind}]}}, unless somebody says it"
    return TextKind("warning", f"the text has markup in {marks}, such as {example}", todo)


KINDS: dict[str, TextKind] = {
    "null": TextKind("error", "the text is null", "write it, or take the rows out"),
    "number": TextKind("error", "the text is a number, not a string", "write it in quotes, as it is spoken"),
    "not_text": TextKind("error", "the text is no string", "write one string a row"),
    "whisper_token": TextKind(
        "error",
        "the text has a special token of Whisper, such as <|en|>, <|endoftext|> or a timestamp",
        "delete the tokens with text: {strip_markup: [angle]}; training adds its own",
    ),
    "surrogate": TextKind(
        "error",
        "the text has half a surrogate pair (U+D800 to U+DFFF), which no tokenizer reads",
        "write the manifest anew as UTF-8",
    ),
    "no_value": TextKind(
        "warning",
        "the text is a table's word for no value, such as nan or null",
        "take the rows out, unless somebody says it",
    ),
    "lost_letter": TextKind(
        "warning",
        "the text has U+FFFD or U+FFFC in place of a letter that was lost",
        "take the text from its source again, as UTF-8",
    ),
    "mojibake": TextKind(
        "warning",
        "the text was read in a wrong encoding, such as \u00c3\u00a9 for \u00e9",
        "read its source as UTF-8, and write the manifest anew",
    ),
    "byte_order_mark": TextKind("warning", "the text has a byte order mark (U+FEFF)", "delete it"),
    "invisible": TextKind(
        "warning",
        "the text has invisible characters, such as a zero-width space (U+200B) or a soft hyphen (U+00AD)",
        "delete them",
    ),
    "control": TextKind("warning", "the text has control characters, such as U+0000", "delete them"),
    "line_break": TextKind("warning", "the text has line breaks or tabs inside", "write spaces"),
    "private_use": TextKind(
        "warning",
        "the text has private-use characters or noncharacters, which stand for no letter",
        "name the letters with text: {replace: {...}}",
    ),
    "not_nfc": TextKind("warning", "the text is not in the Unicode form NFC", "set text: {unicode: nfc}"),
    "compatibility": TextKind(
        "warning",
        "the text has letters in a special form, such as full-width letters or ligatures",
        "write plain letters with text: {unicode: nfkc}",
    ),
    "other_space": TextKind(
        "warning",
        "the text has spaces other than the plain one, such as U+00A0 or U+3000",
        "write plain ones with text: {replace: {...}}",
    ),
    "html_entity": TextKind(
        "warning", "the text has entities of HTML, such as &amp;", "write the letters with text: {replace: {...}}"
    ),
    "escape": TextKind(
        "warning",
        "the text has escapes of a programming language, such as \\u00e9 or \\n",
        "write the letters with text: {replace: {...}}",
    ),
    "angle": _markup("angle brackets", "<unk>", "angle"),
    "double_round": _markup("double round brackets", "((hello))", "double_round"),
    "round": _markup("round brackets", "(ppb)", "round"),
    "square": _markup("square brackets", "[noise]", "square"),
    "curly": _markup("curly brackets", "{laugh}", "curly"),
    "partial_words": TextKind(
        "warning",
        "the text has what may be parts of words, such as wo- or -rd",
        "delete them with text: {strip_markup: [partial_words]}, unless the hyphens are spelling",
    ),
}
"""Name of a kind -> the kind, in the order in which an audit tells them."""

_WINDOWS = {chr(byte): bytes([byte]).decode("cp1252", "ignore") for byte in range(0x80, 0xA0)}
_LATIN_1 = str.maketrans({letter: byte for byte, letter in _WINDOWS.items() if letter})
_TAILS = "\x80-\xbf" + "".join(_WINDOWS.values())
_C1_CONTROL, _LIKELY_BYTES = re.compile("[\x80-\x9f]"), re.compile(f"[\xc2-\xf4][{_TAILS}]")
_BYTES = re.compile("[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_AFTER_A_WORD = frozenset("\u2018\u2019\u201c\u201d\u201e\u2026\u2013\u2014\u2039\u203a\xab\xbb\xa0\u2122")
_HYPHENS, _LETTER = "\u2010\u2011-", r"[^\W\d_]"
PARTIAL_WORD = re.compile(rf"[{_HYPHENS}](?:(?<![^\s\"'(][{_HYPHENS}]){_LETTER}|(?<={_LETTER}[{_HYPHENS}])[.,;:!?\"')]*(?!\S))")
_TOKEN = re.compile(r"<\|[^<>]*\|>")
_JOINER_RUNS = re.compile(f"[{JOINERS}]+")
_JOINED_SCRIPTS = re.compile("[\u0600-\u08ff\u0900-\u0dff\u1000-\u109f\u1780-\u18af\ufb50-\ufdff\ufe70-\ufefc]")
_CLASSES = {
    kind: re.compile(f"[{letters}]")
    for kind, letters in {
        "surrogate": "\ud800-\udfff",
        "lost_letter": _LOST,
        "mojibake": _TAILS,
        "byte_order_mark": "\ufeff",
        "invisible": INVISIBLE,
        "idle_joiner": JOINERS,
        "control": CONTROL,
        "line_break": BREAKS,
        "private_use": _PRIVATE,
        "compatibility": _COMPATIBLE,
        "other_space": _SPACES,
        "html_entity": "&",
        "escape": r"\\",
        "partial_words": _HYPHENS,
        **{kind: re.escape(opening + closing) for kind, (opening, closing) in BRACKETS.items()},
    }.items()
}
"""Kind -> the characters of which a text of this kind has at least one."""
_CONFIRMED: dict[str, Callable[[str], object]] = {
    "mojibake": lambda text: is_mojibake(text),  # noqa: PLW0108 - defined below
    "idle_joiner": lambda text: without_idle_joiners(text) != text,
    "html_entity": re.compile(r"&(?:[A-Za-z]{2,8}|#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6});").search,
    "escape": re.compile(r"\\(?:u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|[nrt\"'])").search,
    "partial_words": PARTIAL_WORD.search,
    "angle": lambda text: re.search("[<>\uff1c\uff1e]", _TOKEN.sub("", text)),
    "round": lambda text: "((" not in text or re.search("[()\uff08\uff09]", text.replace("((", "").replace("))", "")),
}
"""Kind -> what decides about a text that has one of its characters; without an entry the character decides."""
_plain_letters: set[str] = set()  # a memory of characters that are in no class


def findings(text: str) -> tuple[str, ...]:
    """Returns the names of the kinds that a text has, in the order of `KINDS`; () for a plain text.

    White space at the ends counts as text; give the text that is stripped.
    """
    found = set() if _plain_letters.issuperset(text) else _kinds_of_letters(text)
    if not text.isascii() and not unicodedata.is_normalized("NFC", text):
        found.add("not_nfc")
    if text in _NO_VALUES:
        found.add("no_value")
    return tuple(kind for kind in KINDS if kind in found) if found else ()


def _kinds_of_letters(text: str) -> set[str]:
    kinds: set[str] = set()
    for letter in set(text) - _plain_letters:
        of_letter = _classes_of(letter)
        kinds.update(of_letter)
        if not of_letter:
            _plain_letters.add(letter)
    found = {kind for kind in kinds if kind not in _CONFIRMED or _CONFIRMED[kind](text)}
    if "angle" in kinds and _TOKEN.search(text):
        found.add("whisper_token")
    if "round" in kinds and "((" in text:
        found.add("double_round")
    if "idle_joiner" in found:
        found.add("invisible")
    return found


@functools.cache
def _classes_of(letter: str) -> tuple[str, ...]:
    return tuple(kind for kind, letters in _CLASSES.items() if letters.match(letter))


def is_mojibake(text: str) -> bool:
    """Says whether a text is certainly UTF-8 that was read as Latin-1 or Windows-1252, such as U+00C3 U+00A9 for U+00E9.

    A capital letter before a closing quotation mark or an ellipsis also looks like two bytes of UTF-8. Such pairs do not count.
    Pairs other than those of Latin letters count where the whole text is made of them, and has two.
    """
    if _C1_CONTROL.search(text):
        return True
    if not _LIKELY_BYTES.search(text):
        return False
    as_bytes = text.translate(_LATIN_1)
    starts = [match.span() for match in _BYTES.finditer(as_bytes)]
    pairs = [text[start:end] for start, end in starts if not _AFTER_A_WORD.issuperset(text[start + 1 : end])]
    if any(pair[0] in "\xc2\xc3" or len(pair) > 2 for pair in pairs):
        return True
    try:
        return len(pairs) > 1 and bool(as_bytes.encode("latin-1").decode("utf-8"))
    except UnicodeError:
        return False


def without_idle_joiners(text: str) -> str:
    """Returns a text without the zero-width joiners and non-joiners that change no letter; of several in a row one stays.

    They are part of the spelling after a virama, between two letters of a script that joins letters, and between two emojis.
    """
    return _JOINER_RUNS.sub(_joiner_to_keep, text) if _JOINER_RUNS.search(text) else text


def _joiner_to_keep(run: re.Match[str]) -> str:
    text, start, end = run.string, run.start(), run.end()
    before, after = text[max(start - 1, 0) : start], text[end : end + 1]
    if not before:
        return ""
    is_joined = after and all(
        _JOINED_SCRIPTS.match(letter) and unicodedata.category(letter)[0] in "LM" for letter in before + after
    )
    is_emoji = after and all(unicodedata.category(letter) in ("So", "Sk") for letter in before + after)
    return run.group()[0] if unicodedata.combining(before) == 9 or is_joined or is_emoji else ""
