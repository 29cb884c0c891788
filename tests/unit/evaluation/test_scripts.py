import sys
import unicodedata

import pytest
import regex

from wfc_dist.evaluation.scripts import count_foreign, script_of, scripts_of, usual_scripts

NAMES = (
    "LATIN", "CYRILLIC", "GREEK", "ARABIC", "HEBREW", "DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI", "TAMIL", "TELUGU",
    "KANNADA", "MALAYALAM", "SINHALA", "THAI", "LAO", "TIBETAN", "MYANMAR", "GEORGIAN", "HANGUL", "ETHIOPIC", "KHMER",
    "MONGOLIAN", "ARMENIAN", "HIRAGANA", "KATAKANA",
)  # fmt: skip
NAMED_OTHERWISE = ("TURNED ", "ROMAN NUMERAL ", "HENTAIGANA ")  # Latin and Hiragana by the database, in no living text
ALL = map(chr, range(sys.maxunicode + 1))
LETTERS = [
    letter
    for letter in ALL
    if unicodedata.category(letter) in ("Lu", "Ll", "Lt", "Lo") and unicodedata.is_normalized("NFKC", letter)
]


@pytest.mark.parametrize("name", [*NAMES, "CJK"])
def test_scripts_of_whispers_languages_are_those_of_the_unicode_database(name):
    known = regex.compile(rf"\p{{Script={'Han' if name == 'CJK' else name.title()}}}")

    wrong = [letter for letter in LETTERS if (script_of(letter) == name) != bool(known.match(letter))]

    assert [f"{ord(letter):x}" for letter in wrong if not unicodedata.name(letter).startswith(NAMED_OTHERWISE)] == []


@pytest.mark.parametrize(
    ("text", "scripts"),
    [
        ("caf\u00e9", {"LATIN"}),
        ("\uff21\uff22", {"LATIN"}),  # full width
        ("\u044d\u0442\u043e ok", {"CYRILLIC", "LATIN"}),
        ("\u4e00\u676f\u30ab", {"CJK", "KATAKANA"}),
        ("42 %, \u30fc '", set()),  # the long vowel sign is written in both kana
        ("", set()),
    ],
)
def test_scripts_of_a_text(text, scripts):
    assert scripts_of(text) == scripts


def test_script_is_usual_from_five_percent():
    assert usual_scripts(["a"] * 19 + ["\u0431"]) == {"LATIN", "CYRILLIC"}
    assert usual_scripts(["a"] * 20 + ["\u0431"]) == {"LATIN"}
    assert usual_scripts(["1", ""]) == set()


def test_foreign_tokens_by_hand():
    references = [("good day",), ("\u0434\u0430 sms",), ("\u043d\u0435\u0442",), ("12",)]
    hypotheses = ["\u0434\u0430 day 7", "yes sms", "no \u043d\u0435\u0442", "twelve"]

    foreign, written, scripts = count_foreign(references, hypotheses, ["en", "ru", "ru", "fr"])

    # Latin is a third of the Russian tokens, so usual there; nothing is known about French
    assert foreign.tolist() == [1, 0, 0, 0]
    assert written.tolist() == [2, 2, 2, 0]
    assert scripts == {"CYRILLIC": 1}


def test_script_of_the_own_reference_is_never_foreign():
    references = [("\u0434\u0430",)] * 30 + [("sms",)]

    foreign, _, _ = count_foreign(references, ["ok"] + ["\u0434\u0430"] * 29 + ["ok"], ["ru"] * 31)

    assert foreign.tolist() == [1] + [0] * 30


def test_window_is_booked_on_its_first_clip():
    foreign, written, _ = count_foreign([("a b", "", "c"), ("d",)], ["\u0431 b \u0432", ""], ["en", "en"])

    assert foreign.tolist() == [2, 0, 0, 0]
    assert written.tolist() == [3, 0, 0, 0]
