import logging
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wfc_dist.errors import ConfigError, InputError
from wfc_dist.evaluation.normalize import PUNCTUATION, normalizer, spelling_table


def test_whisper_english_uses_the_spelling_table_and_numbers():
    normalize = normalizer("whisper", "en", {"colour": "color"})

    assert normalize("Well, the COLOUR isn't twenty-one!") == "well the color is not 21"


def test_whisper_other_languages_keep_words_whole():
    normalize = normalizer("whisper", "es", {"colour": "color"})

    assert normalize("\u00bfQu\u00e9 tal, se\u00f1or colour?") == "qu\u00e9 tal se\u00f1or colour"


def test_paper_deletes_punctuation_and_keeps_the_apostrophe():
    normalize = normalizer("paper", "fr", {})

    assert normalize("  \u00ab L'\u00c9t\u00e9,  aujourd\u2019hui \u2013 oui\u3002 \u00bb ") == "l'\u00e9t\u00e9 aujourd'hui oui"


def test_paper_list_is_about_110_marks_without_letters_or_apostrophe():
    assert 100 <= len(PUNCTUATION) <= 120
    assert len(set(PUNCTUATION)) == len(PUNCTUATION)
    assert "'" not in PUNCTUATION and not any(mark.isalnum() or mark.isspace() for mark in PUNCTUATION)


def test_none_strips_only():
    assert normalizer("none", "en", {})("  Hi, There ") == "Hi, There"


def test_unknown_normalizer_is_refused_with_the_names_there_are():
    with pytest.raises(ConfigError, match="whisper, paper, none"):
        normalizer("wisper", "en", {})


def test_spelling_table_is_read(tmp_path):
    (tmp_path / "normalizer.json").write_text('{"grey": "gray"}')

    assert spelling_table(tmp_path) == {"grey": "gray"}


def test_missing_spelling_table_warns(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        assert spelling_table(tmp_path) == {}
    assert "spelling variants count as errors" in caplog.text


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_damaged_spelling_table_is_refused(tmp_path, text):
    (tmp_path / "normalizer.json").write_text(text)

    with pytest.raises(InputError, match=r"normalizer\.json"):
        spelling_table(tmp_path)


@pytest.mark.parametrize(
    ("language", "text", "whisper", "paper"),
    [
        (
            "en",
            "Well, the COLOUR isn't \u00a321.50 (noise) or twenty-one!",
            "well the color is not \u00a321.50 or 21",
            "well the colour isn't \u00a32150 noise or twentyone",
        ),
        (
            "en",
            "Na\u00efve caf\u00e9: Mr. M\u00fcller's 1,000 \u20ac.",
            "naive cafe mister muller is 1000 \u20ac",
            "na\u00efve caf\u00e9 mr m\u00fcller's 1000 \u20ac",
        ),
        (
            "es",
            "\u00bfQu\u00e9 tal, se\u00f1or? \u00a1Ma\u00f1ana!",
            "qu\u00e9 tal se\u00f1or ma\u00f1ana",
            "qu\u00e9 tal se\u00f1or ma\u00f1ana",
        ),
        (
            "fr",
            "\u00ab L\u2019\u00c9t\u00e9, aujourd\u2019hui \u00bb \u2013 oui\u2026",
            "l \u00e9t\u00e9 aujourd hui oui",
            "l'\u00e9t\u00e9 aujourd'hui oui",
        ),
        (
            "de",
            "Die Stra\u00dfe hie\u00df fr\u00fcher \u201eWeg\u201c.",
            "die stra\u00dfe hie\u00df fr\u00fcher weg",
            "die stra\u00dfe hie\u00df fr\u00fcher weg",
        ),
        (
            "tr",
            "\u0130stanbul'da I\u015eIK \u00e7ok g\u00fczel, \u0131\u015f\u0131k.",
            "i stanbul da i\u015fik \u00e7ok g\u00fczel \u0131\u015f\u0131k",
            "i\u0307stanbul'da i\u015fik \u00e7ok g\u00fczel \u0131\u015f\u0131k",
        ),
        (
            "vi",
            "Ti\u1ebfng Vi\u1ec7t r\u1ea5t \u0111\u1eb9p, ph\u1ea3i kh\u00f4ng?",
            "ti\u1ebfng vi\u1ec7t r\u1ea5t \u0111\u1eb9p ph\u1ea3i kh\u00f4ng",
            "ti\u1ebfng vi\u1ec7t r\u1ea5t \u0111\u1eb9p ph\u1ea3i kh\u00f4ng",
        ),
        (
            "hi",
            "\u0915\u093c\u0932\u092e \u091c\u093c\u0930\u0942\u0930 \u0932\u093e\u0913\u0964",
            "\u0915 \u0932\u092e \u091c \u0930 \u0930 \u0932 \u0913",
            "\u0915\u093c\u0932\u092e \u091c\u093c\u0930\u0942\u0930 \u0932\u093e\u0913",
        ),
        (
            "ar",
            "\u0622\u062e\u0631\u064f \u0623\u0645\u0633\u064d\u060c \u0643\u0650\u062a\u064e\u0627\u0628\u061f",
            "\u0622\u062e\u0631 \u0623\u0645\u0633 \u0643 \u062a \u0627\u0628",
            "\u0622\u062e\u0631\u064f \u0623\u0645\u0633\u064d \u0643\u0650\u062a\u064e\u0627\u0628",
        ),
        (
            "fa",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645\u061b \u0628\u0644\u0647.",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u0628\u0644\u0647",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u0628\u0644\u0647",
        ),
        ("zh", "\u4f60\u597d\uff0cworld\uff01\uff08\u7b11\uff09", "\u4f60\u597d world \u7b11", "\u4f60\u597dworld\u7b11"),
        (
            "ko",
            "\uc548\ub155\ud558\uc138\uc694, \uc138\uacc4!",
            "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4",
            "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4",
        ),
        (
            "th",
            "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22 \u0e33",
            "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22 \u0e32",
            "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22 \u0e33",
        ),
        (
            "ja",
            "\u4eca\u65e5\u306f\u3001\u30ac\u30ae\u30b0\u3002",
            "\u4eca\u65e5\u306f \u30ac\u30ae\u30b0",
            "\u4eca\u65e5\u306f\u30ac\u30ae\u30b0",
        ),
        (
            "ru",
            "\u0401\u043b\u043a\u0430, \u0439\u043e\u0434 \u2014 \u0434\u0430!",
            "\u0451\u043b\u043a\u0430 \u0439\u043e\u0434 \u0434\u0430",
            "\u0451\u043b\u043a\u0430 \u0439\u043e\u0434 \u0434\u0430",
        ),
    ],
)
def test_plain_text_in_nfc_is_normalised_as_ever(language, text, whisper, paper):
    assert normalizer("whisper", language, {"colour": "color"})(text) == whisper
    assert normalizer("paper", language, {})(text) == paper


SPELLINGS = {
    "fr": "\u00e9t\u00e9 \u00e0 No\u00ebl",
    "tr": "\u0130STANBUL \u00e7ok g\u00fczel \u0131\u015f\u0131k",
    "vi": "ti\u1ebfng Vi\u1ec7t r\u1ea5t \u0111\u1eb9p",
    "ar": "\u0622\u062e\u0631 \u0623\u0645\u0633 \u0625\u0644\u0649",
    "hi": "\u095b\u0930\u0942\u0930 \u0958\u0932\u092e",  # letters with a dot below: NFC takes them apart, as a file may not
    "bn": "\u09dc\u09df \u0995\u09cb",
    "ko": "\ud55c\uad6d\uc5b4",
    "ja": "\u30ac\u30ae\u30b0 \u30d1",
    "el": "\u03ac\u03bb\u03c6\u03b1",
    "ru": "\u0451\u043b\u043a\u0430 \u0439\u043e\u0434",
    "he": "\ufb2a\ufb4a",  # no form but the one apart is NFC
    "en": "na\u00efve \u212bngstr\u00f6m 5 \u2126",
}


@pytest.mark.parametrize("name", ["whisper", "paper"])
@pytest.mark.parametrize("language", SPELLINGS)
def test_composed_and_decomposed_letters_are_the_same(name, language):
    normalize, text = normalizer(name, language, {}), SPELLINGS[language]

    wanted = normalize(text)

    assert wanted and {normalize(unicodedata.normalize(form, text)) for form in ("NFC", "NFD")} == {wanted}


@pytest.mark.parametrize("name", ["whisper", "paper"])
@pytest.mark.parametrize("language", ["en", "es"])
@pytest.mark.parametrize(
    "letter", ["\ufeff", "\u200b", "\u2060", "\u00ad", "\u200e", "\u202b", "\u2066", "\u200c", "\0", "\ufe0f"]
)
def test_what_nobody_sees_is_no_error(name, language, letter):
    normalize = normalizer(name, language, {})

    assert normalize(f"{letter}hola cafe{letter}\u0301 a{letter}s{letter}") == normalize("hola caf\u00e9 as")
    assert normalize(letter) == ""


@pytest.mark.parametrize("name", ["whisper", "paper"])
def test_a_joiner_that_is_spelling_stays(name):
    joined, apart = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0645\u06cc\u062e\u0648\u0627\u0647\u0645"
    normalize = normalizer(name, "fa", {})

    assert normalize(joined) == joined != normalize(apart)
    assert normalize(f"{joined}\u200c.") == joined


LETTERS = st.text(
    st.sampled_from(
        "aI\u0130\u0131e\u00e9\u1ec7\u0301\u0323\u0302\u0307 '.\u0627\u0653\u0622\u0915\u093c\u0958\u1112\u1161\u11ab\ud55c\ufb2a"
    )
)


@settings(deadline=None)
@given(text=LETTERS, place=st.integers(0, 50), name=st.sampled_from(["whisper", "paper"]), language=st.sampled_from(["en", "tr"]))
def test_neither_form_nor_invisible_letters_change_a_normalised_text(text, place, name, language):
    normalize = normalizer(name, language, {})

    wanted = normalize(text)

    assert normalize(unicodedata.normalize("NFD", text)) == wanted
    assert normalize(f"{text[:place]}\u200b\ufeff{text[place:]}") == wanted


@pytest.mark.parametrize("text", ["a\u200bb", "e\u0301"])
def test_none_leaves_letters_as_they_are(text):
    assert normalizer("none", "en", {})(text) == text


def test_a_number_without_end_is_read_in_parts() -> None:
    written = normalizer("whisper", "en", {})("9" * 5000 + " dogs")
    assert [len(word) for word in written.split()] == [1000] * 5 + [4]
    assert normalizer("whisper", "en", {})("9" * 1000) == "9" * 1000
