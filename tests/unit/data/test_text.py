import subprocess
import sys
import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wfc_dist.config.text import MARKUP, TextConfig
from wfc_dist.data.text import clean, inspect_text, marks_of_words, shown, string_of
from wfc_dist.data.text_kinds import findings

DEFAULT = TextConfig()
ALL = [*MARKUP, "<bg>"]


@pytest.mark.parametrize(
    "text",
    [
        "hello  there",  # two spaces stay two
        "Well-known (laughs) <unk> [noise]",
        "\u00bfQu\u00e9 tal?",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\u0915\u094d\u200d\u0937",
        "oui\u00a0!",
        "\uff28\uff45\uff0c\u597d",
        "",
    ],
    ids=ascii,
)
def test_text_in_nfc_without_invisible_letters_keeps_every_byte(text):
    assert clean(text, DEFAULT) == text
    assert clean(f" {text} ", DEFAULT) == text.strip()


@pytest.mark.parametrize(
    ("text", "wanted", "mended"),
    [
        ("\ufeffhello", "hello", "byte_order_mark"),
        ("\u200bhello\u200b", "hello", "invisible"),
        ("\u200b hello \u200b", "hello", "invisible"),
        ("\u200b", "", "invisible"),
        ("hel\0lo", "hello", "control"),
        ("hel\u00adlo", "hello", "invisible"),
        ("\u202bhello\u202c", "hello", "invisible"),
        ("hel\u200clo", "hello", "invisible"),
        ("hello\r\nthere", "hello there", "line_break"),
        ("hello \t there", "hello there", "line_break"),
        ("cafe\u0301", "caf\u00e9", "not_nfc"),
        ("cafe\u200b\u0301", "caf\u00e9", "invisible"),  # together once nothing is between them
        ("\u0958", "\u0915\u093c", "not_nfc"),
        ("\u212b", "\u00c5", "not_nfc"),
        ("\ufeffcafe\u0301\0", "caf\u00e9", "byte_order_mark control not_nfc"),
    ],
    ids=ascii,
)
def test_what_nobody_sees_is_deleted_and_told(text, wanted, mended):
    assert inspect_text(text, DEFAULT) == (wanted, (), tuple(mended.split()))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<|en|> hello", "whisper_token"),
        ("(ppb) hello", "round"),
        ("don\x92t", "mojibake"),
        ("\ud800", "surrogate"),
        ("nan", "no_value"),
    ],
    ids=ascii,
)
def test_what_is_not_cleaned_is_left_and_told(text, left):
    assert inspect_text(text, DEFAULT) == (text, (left,), ())


def test_a_token_that_only_cleaning_makes_is_told():
    text, left, _ = inspect_text("<\u200b|en|> hello", DEFAULT)
    assert text == "<|en|> hello" and left == ("whisper_token",)
    assert inspect_text("\uff1c|en|\uff1e", TextConfig(unicode="nfkc")).left == ("whisper_token",)
    assert inspect_text("[en] hello", TextConfig(replace={"[": "<|", "]": "|>"})).left == ("whisper_token",)


@pytest.mark.parametrize(
    ("kinds", "text", "wanted"),
    [
        ("angle", "<laugh> hello </laugh>", "hello"),
        ("angle", '<foreign lang="English"> hola </foreign> si', "hola si"),
        ("angle", "<unk>hello<v-noise>there<unk>", "hello there"),
        ("angle", "<|startoftranscript|><|en|> hello<|endoftext|>", "hello"),
        ("angle", "<|0.00|> hello <|1.00|>", "hello"),
        ("angle", "<<a> b>", ""),
        ("angle", "3 < 5 > 2", "3 < 5 > 2"),  # no tag
        ("angle", "\uff1c\u7b11\uff1e\u597d", "\u597d"),
        ("round", "(ppb) hello (uh) there", "hello there"),
        ("round", "((hello)) there", "there"),
        ("round", "(a (b) c) d", "d"),
        ("round", "\uff08\u7b11\uff09\u597d", "\u597d"),
        ("round", "a) b (c", "a) b (c"),  # no pair
        ("square", "\u6211[UNK]\u4eec", "\u6211\u4eec"),  # no space between Chinese letters
        ("square", "hello[UNK]there", "hello there"),
        ("curly", "{laugh} hello", "hello"),
        ("double_round", "((hello)) (there)", "hello (there)"),
        ("double_round", "((uh) hello)", "((uh) hello)"),  # these are two pairs, not one of two marks
        ("round double_round", "((hello)) (uh)", "hello"),  # whatever the order of the list
        ("round_marks", "ama(zing)", "amazing"),
        ("square_marks", "[hello]", "hello"),
        ("curly_marks", "{hello", "hello"),
        ("partial_words", "wo- word -rd well-known - 3- a--", "word well-known - 3- a--"),
        ("partial_words", "wo-, word", "word"),
        ("partial_words", "\u6211\u4eec-", "\u6211\u4eec-"),  # a sentence, not a word
        ("<background>", '<background type="a"> noise </background> hello <other> x', "hello <other> x"),
        ("<background>", "hello <background/> there", "hello there"),
        ("<background>", "<Background><background> a </background> b </BACKGROUND> c", "c"),
        ("<background>", "<background> hello", "<background> hello"),  # never closed
        ("<background>", "<backgrounds> hello </backgrounds>", "<backgrounds> hello </backgrounds>"),
        ("<laugh> angle", "<laugh> ha </laugh> <lname>X</lname>", "X"),
        ("angle square round curly", "[a {b] <c> (d} e)", ""),
    ],
)
def test_markup_is_deleted_as_asked(kinds, text, wanted):
    assert clean(text, TextConfig(strip_markup=kinds.split())) == wanted


@pytest.mark.parametrize(
    ("block", "text", "wanted"),
    [
        # SEAME: noises in round and angle brackets
        ({"strip_markup": ["angle", "round"]}, "(ppl) <v-noise> \u7136\u540e(ppb) lah <unk hm>", "\u7136\u540e lah"),
        # Fisher Spanish: English words stay, also between misspelt tags; noises go with what is in them
        (
            {"strip_markup": ["<laugh>", "<background>", "angle"]},
            '<laugh>ja</laugh> <foreign lang="English"> okay </foreing> <lname>X</lname> <background> tv </background><cough/>',
            "okay X",
        ),
        # ASCEND
        ({"strip_markup": ["square"]}, "\u5443[UNK]\u6211 go", "\u5443\u6211 go"),
        # TALCS: full-width letters become ASCII, marks go, others become a space
        (
            {"unicode": "nfkc", "replace": {"#": "", "=": "", "\u300a": "", "\u300b": "", "~": " "}},
            "\u300a\uff28\uff49\u300b#\u597d~\u597d",
            "Hi\u597d \u597d",
        ),
        # data sets made by the paper's own code: Whisper's tokens around the text
        (
            {"strip_markup": ["angle"]},
            "<|startoftranscript|><|zh|><|transcribe|><|notimestamps|>\u597d ok<|endoftext|>",
            "\u597d ok",
        ),
    ],
)
def test_transcripts_of_known_corpora_become_the_spoken_words(block, text, wanted):
    assert inspect_text(text, TextConfig(**block)) == (wanted, (), ())


def test_without_being_asked_no_markup_is_deleted_and_asked_for_markup_is_not_mended():
    assert inspect_text("(ppb) hello", TextConfig(strip_markup=["round"])) == ("hello", (), ())
    assert inspect_text("(ppb) hello", TextConfig(strip_markup=["square"])).left == ("round",)


def test_replacements_are_plain_text_in_their_order():
    assert clean("a.c abc", TextConfig(replace={"a.c": "x"})) == "x abc"
    assert clean("a", TextConfig(replace={"a": "b", "b": "c"})) == "c"
    assert clean("a", TextConfig(replace={"b": "c", "a": "b"})) == "b"
    assert clean("a~~b", TextConfig(replace={"~": " "})) == "a b"
    assert clean("AT&amp;T", TextConfig(replace={"&amp;": "&"})) == "AT&T"
    assert clean("\u1780\u200b\u1781", TextConfig(replace={"\u200b": " "})) == "\u1780 \u1781"


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_replacements_meet_the_text_in_its_form(form):
    name, text = (unicodedata.normalize(form, word) for word in ("\u00e9", "cafe\u0301"))
    assert clean(text, TextConfig(replace={name: "e"})) == "cafe"


@pytest.mark.parametrize(("unicode", "wanted"), [("nfkc", "He, fi"), ("nfc", "\uff28\uff45\uff0c \ufb01")])
def test_special_forms_become_plain_letters_when_asked(unicode, wanted):
    assert clean("\uff28\uff45\uff0c \ufb01", TextConfig(unicode=unicode)) == wanted


def test_keep_changes_no_form_and_still_deletes_what_nobody_sees():
    assert inspect_text("cafe\u0301\u200b", TextConfig(unicode="keep")) == ("cafe\u0301", ("not_nfc",), ("invisible",))


LETTERS = (
    "ab <>|/()[]{}-\t\n\0\u200b\u200c\u200d\ufeff\u00ad\u0301e\u00e9\u0645\u0915\u094d\u093c\uff1c\uff1e\uff08\uff09\u6211\u2028"
    "\ufb01\u212b\u0344\ud800\xa0\u1100\u1161\ufe0f\u2764"
)
PIECES = st.sampled_from([*LETTERS, "<bg>", "</bg>", "<bg/>", "((", "))", "<|en|>", "wo-"])
CONFIGS = st.builds(
    TextConfig,
    unicode=st.sampled_from(["nfc", "nfkc", "keep"]),
    strip_markup=st.lists(st.sampled_from(ALL), unique=True),
    replace=st.sampled_from([{}, {"b": ""}, {"a": "e", "<": "["}]),
)


@settings(deadline=None, max_examples=400)
@given(pieces=st.lists(PIECES), config=CONFIGS)
def test_what_is_clean_stays_as_it_is(pieces, config):
    text = "".join(pieces)

    once = clean(text, config)

    assert clean(once, config) == once == once.strip()
    assert not {"byte_order_mark", "invisible", "control", "line_break"} & set(findings(once))
    assert config.unicode == "keep" or unicodedata.is_normalized("NFC", once)
    assert "angle" not in config.strip_markup or "whisper_token" not in findings(once)
    inspected = inspect_text(text, config)
    assert inspected.text == once and inspected.left == findings(once)


@settings(deadline=None)
@given(pieces=st.lists(PIECES))
def test_composed_and_decomposed_text_are_clean_alike(pieces):
    text = "".join(pieces)
    assert clean(unicodedata.normalize("NFD", text), DEFAULT) == clean(unicodedata.normalize("NFC", text), DEFAULT)


@pytest.mark.parametrize(
    "text",
    [
        *(
            f"{piece * 50_000}x"
            for piece in ("(", "<a ", "[({<", "\u200c", "x-", "a ", "\\", "((a", "<bg>", "\u0645\u200c", "a\u200c")
        ),
        "<bg(" * 50_000 + ")>" * 50_000,
        "(" * 50_000 + ")" * 50_000,
        " " * 200_000 + "\0x",
    ],
    ids=lambda text: ascii(text[:4]),
)
def test_a_hostile_text_ends_soon(text):
    start = time.process_time()
    inspect_text(text, TextConfig(strip_markup=ALL))
    assert time.process_time() - start < 5  # what grows with the square would take minutes


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (" hello ", (" hello ", None)),
        ("", ("", None)),
        ("42", ("42", None)),
        (None, ("", "null")),
        (float("nan"), ("", "null")),
        (42, ("", "number")),
        (4.2, ("", "number")),
        (True, ("", "number")),
        (["hello"], ("", "not_text")),
        (b"hello", ("", "not_text")),
        ({"text": "hello"}, ("", "not_text")),
    ],
)
def test_a_cell_is_a_string_or_says_why_not(value, wanted):
    assert string_of(value) == wanted


def test_shown_text_names_what_cannot_be_seen():
    assert shown("hel\u200blo\0 \ud800\u00a0caf\u00e9") == "hel<U+200B>lo<U+0000> <U+D800><U+00A0>caf\u00e9"
    assert shown("a" * 200) == "a" * 77 + "..."
    assert shown("\ud800").encode() == b"<U+D800>"


ROUND = TextConfig(strip_markup=["round", "angle", "partial_words"])


@pytest.mark.parametrize(
    ("raw", "marks", "wanted"),
    [
        ("uno two", "es en", "es en"),
        ("(ppb) uno wo- two", "xx es en en", "es en"),  # marks of the words as written
        ("(ppb) uno wo- two", "es en", "es en"),  # marks of the words that are left
        ("\u200b uno two", "xx es en", "es en"),
        ('<f lang="en"> one </f> dos', "x x en x es", None),  # a tag of two words
        ("uno two", "es", None),
        ("uno two", "es en en", None),
    ],
)
def test_language_marks_follow_their_words(raw, marks, wanted):
    got = marks_of_words(raw, clean(raw, ROUND), marks.split(), ROUND)
    assert got == (tuple(wanted.split()) if wanted else None)


@pytest.mark.process
@pytest.mark.parametrize("module", ["data.text", "data.languages", "config.text"])
def test_no_heavy_library_is_loaded(module):
    code = f"import sys, wfc_dist.{module}; print(*{{'torch', 'ray', 'transformers', 'numpy'}} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
