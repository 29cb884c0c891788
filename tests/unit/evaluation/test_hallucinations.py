import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wfc_dist.errors import InputError
from wfc_dist.evaluation.hallucinations import (
    Loop,
    compression_ratio,
    find_hallucinations,
    invented_loops,
    is_flooded,
    loops,
    num_spoken,
)

TOKENS = st.lists(st.sampled_from("abc"), max_size=30)


def loops_by_search(tokens: list[str]) -> dict[tuple[str, ...], int]:
    """Returns primitive n-gram -> most times in a row (4 or more), tried at every place: what `loops` is held against."""
    found: dict[tuple[str, ...], int] = {}
    for n in range(1, 7):
        for start in range(len(tokens) - n + 1):
            ngram = tuple(tokens[start : start + n])
            times = 1
            while tuple(tokens[start + times * n : start + (times + 1) * n]) == ngram:
                times += 1
            primitive = not any(n % m == 0 and ngram == ngram[:m] * (n // m) for m in range(1, n))
            if times >= 4 and primitive:
                key = min(ngram[index:] + ngram[:index] for index in range(n))
                found[key] = max(found.get(key, 0), times)
    return found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("a a a", []),
        ("a a a a", [Loop(("a",), 4)]),
        ("x a a a a a y", [Loop(("a",), 5)]),
        ("thank you thank you thank you thank you thank", [Loop(("thank", "you"), 4)]),  # half a turn more is no turn
        ("a b a b a b a c", []),
        ("a b c d e f " * 4, [Loop(tuple("abcdef"), 4)]),
        ("a b c d e f g " * 4, []),  # seven
        ("a " * 12, [Loop(("a",), 12)]),  # not "a a" six times
        ("a a a a b b b b b", [Loop(("a",), 4), Loop(("b",), 5)]),
    ],
)
def test_loops_by_hand(text, found):
    assert loops(text.split()) == found


@settings(max_examples=300, deadline=None)
@given(TOKENS)
def test_loops_are_those_of_a_plain_search(tokens):
    found = {min(loop.ngram[i:] + loop.ngram[:i] for i in range(len(loop.ngram))): loop.times for loop in loops(tokens)}

    assert found == loops_by_search(tokens)


def test_what_the_reference_repeats_is_not_invented():
    assert invented_loops(["no", "no", "no", "no", "no"], ["no", "no", "no", "no", "no", "no"]) == []
    assert invented_loops(["no", "no", "no"], ["no", "no", "no", "no"]) == [Loop(("no",), 4)]
    # entered at another place it is the same loop
    assert invented_loops(["x", "y", "x", "y", "x", "y", "x", "y"], ["y", "x", "y", "x", "y", "x", "y", "x"]) == []


@pytest.mark.parametrize(
    ("num_inserted", "num_said", "flooded"), [(3, 0, False), (4, 0, True), (4, 7, True), (4, 8, False), (5, 8, True)]
)
def test_flood_is_more_than_three_tokens_and_more_than_half_of_what_was_said(num_inserted, num_said, flooded):
    assert is_flooded(num_inserted, num_said) == flooded


def test_hallucinated_clips_by_hand():
    references = [("a b",), ("",), ("c d",), ("e f g h",), ("i",)]
    hypotheses = ["a b", "you there at last", "", "e e e e e f g h", "i j k l"]

    found = find_hallucinations(references, hypotheses)

    assert found.clips.tolist() == [0, 1, 0, 1, 0]  # four words to silence; a loop; three words too many
    assert found.longest == Loop(("e",), 5)


def test_window_is_judged_as_a_whole():
    windows = [("a b c", "d e f", ""), ("g",)]

    assert find_hallucinations(windows, ["a b c x x x x d e f", "g"]).clips.tolist() == [1, 1, 1, 0]
    # four insertions: more than half of each clip, less than half of the window
    assert find_hallucinations([("a b c d", "e f g h")], ["a b c d v w x y e f g h"]).clips.tolist() == [0, 0]


def test_characters_are_the_tokens_of_chinese():
    found = find_hallucinations([("\u4f60\u597d",)], ["\u4f60\u597d\u597d\u597d\u597d"])

    assert found.clips.tolist() == [1]
    assert found.longest == Loop(("\u597d",), 4)


def test_set_without_reference_tokens_is_refused():
    with pytest.raises(InputError, match="none of the 1 references"):
        find_hallucinations([("",)], ["a a a a"])


def test_compression_ratio_is_that_of_the_bytes():
    text = "\u043d\u0443 \u0432\u043e\u0442 " * 30

    assert compression_ratio(text) == 12 * 30 / len(zlib.compress(text.encode("utf-8")))
    assert compression_ratio("") == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 0), ("...", 0), ("ha-ha-ha", 3), ("Eeee...eeee...", 2), ("Moet je zien.", 3), ("l'onda", 2), ("\u4f60\u597d\u3002", 2)],
)
def test_punctuation_parts_words_that_are_counted(text, expected):
    assert num_spoken(text) == expected


@given(st.text())
def test_a_text_said_twice_counts_twice(text):
    assert num_spoken(f"{text} {text}") == 2 * num_spoken(text)


@pytest.mark.parametrize(
    "text",
    [
        "Password errata. Prego digitare la password seguita dal tasto cancelletto. Wat zullen we zeggen? " * 2,
        "se\u00f1or, " * 12 + "la conferencia ha terminado, gracias por llamar y hasta pronto",
        "un dos tres cuatro cinco seis siete ocho nueve diez",
    ],
    ids=lambda text: text[:9],
)
def test_a_window_that_says_a_thing_twice_is_no_failure_of_decoding(text):
    assert compression_ratio(text) < 2.4


@pytest.mark.parametrize("loop", ["ho ", "eee...", "heee ", "thank you for watching. "])
def test_a_loop_of_the_length_of_a_window_is_one(loop):
    said = "La tua voce non \u00e8 pi\u00f9 disattivata. In attesa di parlare con un operatore. "

    assert compression_ratio(said + loop * (440 // max(1, len(loop) // 3))) > 2.4
