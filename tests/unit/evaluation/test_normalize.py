import logging

import pytest

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
