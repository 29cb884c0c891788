"""Maps the names that corpora give languages to Whisper's codes: "en", "en_us", "cmn_hans_cn", "arz", "Mandarin Chinese".

`languages.json` lists what is known, and everything else is refused: a label such as "zh,en" or "mixed" names no language.

- languages: Whisper's code -> English names, the first of which is Whisper's own, and other codes of the same language (ISO 639,
  withdrawn ones too). An individual language of a macro-language counts as the macro-language that Whisper has, such as arz
  (Egyptian Arabic) as ar. This does not hold for Chinese languages other than Mandarin and Cantonese, for Serbo-Croatian (Whisper
  has its parts), and for Voro, Latgalian and the like, which are written in another way.
- scripts (ISO 15924), regions (ISO 3166 with UK and XK, UN M.49), variants (registry of BCP 47).
- locales: Whisper's code -> regions whose code is a language's code, too, such as br in pt-BR. Source: CLDR.
"""

import functools
import json
import re
import unicodedata
from pathlib import Path

_TABLES = json.loads(Path(__file__).with_name("languages.json").read_text(encoding="utf-8"))
_WHOLE_TAGS = {"no-bok": "no", "no-nyn": "nn", "zh-guoyu": "zh"}  # in the registry, though not made of subtags
_CHINESE, _CANTONESE_REGIONS = ("zh", "zho", "chi"), ("hk", "mo")


def _plain(name: str) -> str:
    """Returns the small letters and digits of a name without accents, with one space between words."""
    letters = (letter for letter in unicodedata.normalize("NFKD", name) if unicodedata.category(letter) != "Mn")
    return re.sub(r"[\W_]+", " ", "".join(letters).casefold()).strip()


WHISPER_LANGUAGES: dict[str, str] = {code: entry["names"][0] for code, entry in _TABLES["languages"].items()}
"""Whisper's code -> English name, in the order of the tokens."""
_CODES: dict[str, str] = {word: code for code, entry in _TABLES["languages"].items() for word in (code, *entry["codes"].split())}
_NAMES: dict[str, str] = {_plain(name): code for code, entry in _TABLES["languages"].items() for name in entry["names"]}
_SCRIPTS, _REGIONS, _VARIANTS = (set(" ".join(_TABLES[key]).split()) for key in ("scripts", "regions", "variants"))
_LOCALES: dict[str, list[str]] = {code: regions.split() for code, regions in _TABLES["locales"].items()}


@functools.lru_cache(maxsize=4096)
def language_code(value: str) -> str | None:
    """Returns Whisper's code of the one language that a label surely names, or None.

    Known are codes of ISO 639, tags of BCP 47 and locales in any case ("en-US", "sr_latn_rs", "es_419"), English names
    ("Spanish", "Norwegian Bokmal" with or without its ring) and Whisper's tokens ("<|en|>"). Chinese of Hong Kong and Macao
    ("zh-HK") is Cantonese, as in Common Voice.

    None stands for a language that Whisper lacks ("ga-IE"), for no language ("und", "zxx") and for several ("mul", "zh,en",
    "zh-en"). Two codes joined by a hyphen name a language and a region only where the locale is known ("pt-br"), or where
    the letters say so: "en-ES" is English of Spain, "en-es" may be English and Spanish.
    """
    label = value.strip()
    if label.startswith("<|") and label.endswith("|>"):
        label = label[2:-2]
    tag = re.sub(r"\.utf-?8$", "", label, flags=re.IGNORECASE).replace("_", "-")
    return _code_of_tag(tag) or _NAMES.get(_plain(label))


def _code_of_tag(tag: str) -> str | None:
    """Returns the code of a tag of BCP 47: language[-extlang][-script][-region][-variants][-extensions]."""
    first, *rest = tag.lower().split("-")
    code = _CODES.get(first)
    if tag.lower() in _WHOLE_TAGS or code is None:
        return _WHOLE_TAGS.get(tag.lower())
    if rest and re.fullmatch("[a-z]{3}", rest[0]):
        extended = _CODES.get(rest.pop(0))
        if extended != code and (extended != "yue" or first not in _CHINESE):
            return None
        code, first = extended, ""
    if rest and rest[0] in _SCRIPTS:
        rest.pop(0)
    if rest and rest[0] in _REGIONS:
        region = rest.pop(0)
        if not _is_region(code, region, tag):
            return None
        code = "yue" if first in _CHINESE and region in _CANTONESE_REGIONS else code
    while rest and rest[0] in _VARIANTS:
        rest.pop(0)
    is_extended = len(rest) > 1 and len(rest[0]) == 1 and all(part.isalnum() for part in rest)
    return code if not rest or is_extended else None


def _is_region(code: str, region: str, tag: str) -> bool:
    """Says whether the region of a tag is surely one, and not the code of a second language."""
    if region not in WHISPER_LANGUAGES or region == code or region in _LOCALES.get(code, ()):
        return True
    language, *others = tag.split("-")
    return language.islower() and region.upper() in others
