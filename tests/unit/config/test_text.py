import pytest
from pydantic import ValidationError

from wfc_dist.config.text import MARKUP, TextConfig


def test_without_settings_text_is_composed_and_nothing_else_is_asked_for():
    assert TextConfig().model_dump() == {"unicode": "nfc", "replace": {}, "strip_markup": []}


@pytest.mark.parametrize("kind", [*MARKUP, "<background>", "<v-noise>", "<foreign.en>"])
def test_kinds_of_markup_and_elements_are_accepted(kind):
    assert TextConfig(strip_markup=[kind]).strip_markup == [kind]


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"strip_markup": ["angel"]}, "'angel' is no kind of markup; did you mean 'angle'"),
        ({"strip_markup": ["<a b>"]}, "'<a b>' is no kind of markup"),
        ({"strip_markup": ["<(a+)+$>"]}, "no kind of markup"),
        ({"strip_markup": ["<>"]}, "write <name> for the elements of a name"),
        ({"strip_markup": [r"\[.*\]"]}, "no kind of markup"),
        ({"strip_markup": "angle"}, "valid list"),
        ({"replace": {"": "x"}}, "the empty text stands everywhere"),
        ({"replace": {"a": None}}, "valid string"),
        ({"replace": ["a"]}, "valid dictionary"),
        ({"unicode": "nfd"}, "'nfc', 'nfkc' or 'keep'"),
        ({"strip": ["angle"]}, "Extra inputs"),
    ],
)
def test_what_means_nothing_is_refused(block, message):
    with pytest.raises(ValidationError) as caught:
        TextConfig.model_validate(block)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("form", "wanted"), [("nfc", "\u00e9 \uff21 \ufb01"), ("nfkc", "\u00e9 A fi"), ("keep", "e\u0301 \uff21 \ufb01")]
)
def test_unicode_names_the_form(form, wanted):
    assert TextConfig(unicode=form).normalized("e\u0301 \uff21 \ufb01") == wanted
