import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wfc_dist.evaluation import metrics
from wfc_dist.evaluation.metrics import mixed_tokens
from wfc_dist.evaluation.normalize import normalizer
from wfc_dist.evaluation.switching import count_switched, languages_by_marks, languages_by_script, switched

HAN = "\u6211\u60f3"
TEXT = st.text(alphabet="ab \u6211\u60f3", max_size=8)
WINDOWS = st.lists(st.tuples(st.lists(TEXT, min_size=1, max_size=4).map(tuple), TEXT), min_size=1, max_size=4)


def by_script(references, metric):
    return [[languages_by_script(metrics.TOKENIZERS[metric](clip)) for clip in clips] for clips in references]


def counts_of(references, hypotheses, metric="mer"):
    return count_switched(references, hypotheses, by_script(references, metric), metric)


@pytest.mark.parametrize(
    ("tokens", "languages"),
    [
        (["a", "\u6211"], ["LATIN", "CJK"]),
        (["3", "a", "4", "\u6211", "5"], ["LATIN", "LATIN", "LATIN", "CJK", "CJK"]),
        (["\u6211want\u8fd9"], ["CJK LATIN CJK"]),  # WER does not split it
        (["\u30ab", "\u3042", "\u6211"], ["CJK"] * 3),  # kana and kanji are one language
        (["1", "2"], ["", ""]),
        ([], []),
    ],
)
def test_languages_by_script(tokens, languages):
    assert [" ".join(of_token) for of_token in languages_by_script(tokens)] == languages


@pytest.mark.parametrize(
    ("languages", "flags"),
    [
        ("e e e s s s", "001100"),
        ("e s e", "111"),
        ("e", "0"),
        ("", ""),
        ("e e", "00"),
        ("ese", "1"),  # changes within
        ("e es s e e", "01110"),  # the switch is within the second; s to e is another one
    ],
)
def test_words_at_a_switch(languages, flags):
    assert switched([tuple(word) for word in languages.split()]) == [flag == "1" for flag in flags]


def test_marks_follow_the_words_through_the_normaliser():
    normalize = normalizer("whisper", "en", {})
    text, marks = "I'm twenty-five, dice: \u00bfvale?", ["en", "en", "es", "es"]

    found = languages_by_marks(text, marks, normalize, str.split)

    assert normalize(text).split() == ["i", "am", "25", "dice", "vale"]
    assert found == [("en",)] * 3 + [("es",)] * 2


def test_switch_that_the_normaliser_blurs_is_left_out():
    # "twenty" and "five" are one number only together
    assert languages_by_marks("twenty five", ["en", "es"], normalizer("whisper", "en", {}), str.split) is None


def test_errors_at_switches_by_hand():
    # tokens: a b | HAN HAN | c d; at a switch: b, first HAN, second HAN, c
    references = [(f"a b {HAN} c d",), ("a b",)]
    hypotheses = [f"x b {HAN[0]} \u4e00 y d", "x"]

    found = counts_of(references, hypotheses)

    # substituted: a (rest), the second HAN and c (switch); inserted: none; the second clip has no switch
    assert found.switched_errors.tolist() == [2, 0]
    assert found.switched_lengths.tolist() == [4, 0]
    assert found.rest_errors.tolist() == [1, 0]
    assert found.rest_lengths.tolist() == [2, 0]


def test_insertion_belongs_to_the_token_before_it():
    found = counts_of([(f"a b {HAN[0]} \u4e00",)], [f"z z a b q {HAN[0]} \u4e00"])

    assert found.switched_errors.tolist() == [1]  # q, after b
    assert found.rest_errors.tolist() == [2]  # z z: with the first token


def test_two_clips_of_a_window_make_no_switch():
    found = counts_of([("a b", HAN, "c \u4e00\u4e8c")], [f"a b {HAN}"])

    assert found.switched_lengths.tolist() == [0, 0, 2]
    assert found.switched_errors.tolist() == [0, 0, 2]
    assert found.rest_lengths.tolist() == [0, 0, 1]


def test_words_are_the_tokens_of_wer():
    found = counts_of([(f"a {HAN} b c",)], [f"a {HAN} x c"], "wer")

    assert (found.switched_errors.sum(), found.switched_lengths.sum(), found.rest_lengths.sum()) == (1, 3, 1)


@pytest.mark.parametrize(("references", "hypotheses"), [([("",)], ["a"]), ([("a", "")], [""]), ([], [])])
def test_nothing_to_count(references, hypotheses):
    found = counts_of(references, hypotheses)

    assert found.switched_lengths.sum() == found.rest_lengths.sum() == 0
    assert len(found.switched_errors) == sum(map(len, references))


@settings(max_examples=150, deadline=None)
@given(WINDOWS)
def test_both_sides_are_all_errors_of_a_clip_with_a_switch(windows):
    references, hypotheses = [said for said, _ in windows], [written for _, written in windows]
    if not any(mixed_tokens(clip) for clips in references for clip in clips):
        return
    if any(not mixed_tokens(clips[0]) for clips in references):
        return  # what is inserted first is booked on the first clip there, on the first token here
    whole, found = metrics.count(references, hypotheses, "mer"), counts_of(references, hypotheses)

    has_switch = found.switched_lengths > 0
    assert (found.switched_errors + found.rest_errors).tolist() == (whole.errors * has_switch).tolist()
    assert (found.switched_lengths + found.rest_lengths).tolist() == (whole.lengths * has_switch).tolist()
