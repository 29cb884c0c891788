"""Parts of the rules by which the scripts of this folder clean texts. Each script states its rule."""

import re
import unicodedata


def plain(text: str) -> str:
    """Returns the text in form NFC, full-width letters as ASCII, curly apostrophes straight, no control characters."""
    folded = "".join(
        chr(ord(letter) - 0xFEE0) if "\uff01" <= letter <= "\uff5e" else " " if letter.isspace() else letter for letter in text
    )
    folded = folded.replace("\u2018", "'").replace("\u2019", "'")
    return unicodedata.normalize("NFC", "".join(letter for letter in folded if unicodedata.category(letter) not in ("Cc", "Cf")))


def is_mark(letter: str) -> bool:
    """Says whether a character is punctuation or a symbol; an apostrophe is none."""
    return letter != "'" and unicodedata.category(letter)[0] in "PS"


def marks_to(text: str, replacement: str) -> str:
    """Returns the text with "" or " " for every punctuation mark and symbol; an apostrophe stays inside a word only."""
    replaced = "".join(replacement if is_mark(letter) else letter for letter in text)
    return re.sub(r"(?<!\w)'+|'+(?!\w)", "", replaced)


def without_arabic_marks(text: str) -> str:
    """Returns the text without Arabic diacritics (U+064B to U+065F, U+0670) and without tatweel (U+0640)."""
    return re.sub("[\u064b-\u065f\u0670\u0640]", "", text)


def one_spaced(text: str) -> str:
    """Returns the text with one space between words, and none between two Chinese characters."""
    han = "[\u3005\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f]"
    return re.sub(rf"(?<={han}) (?={han})", "", " ".join(text.split()))
