"""Names of data sets are safe and apart, whatever their folders are called."""

import re

import pytest

from wfc_dist.data.detection.names import language_in, safe_name, unique_names

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")


@pytest.mark.parametrize(
    ("folder", "name"),
    [("Größe über alles", "Grosse-uber-alles"), ("my data (old)", "my-data-old"), ("_x_", "x"), ("данные", ""), ("a/b", "a-b"),
     ("řeč", "rec"), ("x" * 300, "x" * 60)],
)  # fmt: skip
def test_a_safe_name(folder, name):
    assert safe_name(folder) == name
    assert not name or NAME.match(name)


def test_names_that_are_alike_take_the_folders_above():
    assert unique_names([["es", "cv"], ["es", "mls"], ["it", "cv"]]) == ["cv-es", "mls-es", "it"]


def test_names_that_stay_alike_are_numbered():
    assert unique_names([["es"], ["ES"], ["данные"], ["データ"]]) == ["es", "ES-2", "data", "data-2"]


@pytest.mark.parametrize(
    ("words", "code"),
    [(["Czech"], "cs"), (["clips", "cs"], "cs"), (["mls_polish_opus"], "pl"), (["my"], None), (["spanish-english"], None),
     (["cmn_hans_cn"], "zh"), (["train"], None), ([], None)],
)  # fmt: skip
def test_languages_in_names(words, code):
    assert language_in(words) == code
