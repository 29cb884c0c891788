"""Normalises texts before they are scored: `whisper`, `paper` or `none`."""

import json
import logging
import re
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path

from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

from wfc_dist.data.text import without_invisible
from wfc_dist.errors import ConfigError, InputError

logger = logging.getLogger(__name__)
NAMES = ("whisper", "paper", "none")
_SPELLING = "normalizer.json"

# The marks `paper` deletes, by script. The apostrophe stays, since words of English, French and Italian have one.
PUNCTUATION = (
    '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~'  # ASCII, 31
    "\u00a1\u00a7\u00ab\u00b0\u00b4\u00b6\u00b7\u00b8\u00bb\u00bf\u00d7\u00f7"  # Latin-1, 12
    "\u2010\u2011\u2012\u2013\u2014\u2015\u2016"  # dashes, 7
    "\u2018\u201a\u201b\u201c\u201d\u201e\u201f\u2039\u203a"  # quotation marks, 9
    "\u2020\u2021\u2022\u2025\u2026\u2030\u2032\u2033\u203c\u203d\u2044\u2212"  # general punctuation, 12
    "\u037e\u0387\u060c\u061b\u061f\u066a\u066b\u066c\u066d\u06d4"  # Greek and Arabic, 10
    "\u0589\u05be\u05c3\u0964\u0965\u0e5a\u104a\u104b\u1362\u17d4\u17d5"  # Armenian to Khmer, 11
    "\u3001\u3002\u3008\u3009\u300a\u300b\u300c\u300d\u300e\u300f\u3010\u3011\u30fb"  # CJK, 13
    "\uff01\uff08\uff09\uff0c\uff0d\uff0e\uff1a\uff1b\uff1f\uff5e"  # full width, 10
)
_DELETE = str.maketrans(dict.fromkeys(PUNCTUATION) | {"\u2019": "'"})  # the typographic apostrophe is the same letter


_ENDLESS_NUMBER = re.compile(r"\d{1000}(?=\d)")
"""Of a longer one, such as a loop of nines, the English normaliser makes no number, which Python refuses: it is read in parts."""


def _comparable(text: str) -> str:
    """Returns the text that all spellings of the same letters have in common: NFC, without invisible characters."""
    return unicodedata.normalize("NFC", without_invisible(unicodedata.normalize("NFC", text)))


def _paper(text: str) -> str:
    text = _comparable(text)
    return " ".join(text.translate(_DELETE).lower().split())


def spelling_table(model_folder: Path) -> dict[str, str]:
    """Returns the British -> American spelling table in a model folder's normalizer.json.

    Warns when there is none: English is then scored without it, which counts "colour" against "color" as an error.

    Raises:
        InputError: The file is not a JSON object.
    """
    path = model_folder / _SPELLING
    if not path.is_file():
        logger.warning("%s does not exist: English spelling variants count as errors; copy it from the root model", path)
        return {}
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); copy the file of the root model") from error
    if not isinstance(table, dict):
        raise InputError(f"{path} is not a table of spellings (a JSON object); copy the file of the root model")
    return table


def normalizer(name: str, language: str, spelling: Mapping[str, str]) -> Callable[[str], str]:
    """Returns the function that is applied to references and hypotheses alike.

    Args:
        name: `whisper` (English: Whisper's English normaliser; others: its basic one, without splitting letters), `paper`
            (deletes `PUNCTUATION`, lower case, single spaces) or `none` (strips only). The first two compare NFC text without
            invisible characters (see `data.text`), so that a letter and its mark are one whichever way they are stored.
        language: Whisper language code of the text.
        spelling: British -> American, used by `whisper` for English; see `spelling_table`.

    Raises:
        ConfigError: `name` is not known.
    """
    if name == "none":
        return str.strip
    if name == "paper":
        return _paper
    if name != "whisper":
        raise ConfigError(f"evaluate.normalizer: {name!r} is not known; there are: {', '.join(NAMES)}")
    whisper = EnglishTextNormalizer(dict(spelling)) if language in ("en", "english") else BasicTextNormalizer()
    return lambda text: whisper(_ENDLESS_NUMBER.sub(r"\g<0> ", _comparable(text))).strip()
