"""What was said beside what was written: by hand, and against the counts of the score on any texts."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wfc_dist.evaluation import metrics
from wfc_dist.reports.alignment import DELETION, EQUAL, INSERTION, LOOP, SUBSTITUTION, Piece, align, num_errors


def kinds(said, written, metric="wer"):
    return [(piece.kind, piece.said, piece.written) for piece in align(said, written, metric)]


def test_every_kind_by_hand():
    assert kinds("the cat sat right down", "a cat right down there") == [
        (SUBSTITUTION, "the", "a"),
        (EQUAL, "cat", "cat"),
        (DELETION, "sat", ""),
        (EQUAL, "right", "right"),
        (EQUAL, "down", "down"),
        (INSERTION, "", "there"),
    ]


@pytest.mark.parametrize(
    ("said", "written", "found"),
    [
        ("", "a b", [(INSERTION, "", "a"), (INSERTION, "", "b")]),
        ("a b", "", [(DELETION, "a", ""), (DELETION, "b", "")]),
        ("", "", []),
        ("a", "a", [(EQUAL, "a", "a")]),
    ],
)
def test_an_empty_text(said, written, found):
    assert kinds(said, written) == found


def test_a_loop_is_told_from_other_insertions_and_is_cut_short():
    pieces = align("hi you", "oh hi you" + " no way" * 30, "wer")

    assert [piece.kind for piece in pieces] == [INSERTION, EQUAL, EQUAL, *[LOOP] * 5]
    assert [piece.written for piece in pieces[3:7]] == ["no", "way", "no", "way"]
    assert pieces[-1] == Piece(LOOP, left_out=56)
    assert num_errors(pieces, INSERTION) == 61 and num_errors(pieces, LOOP) == 60


def test_what_was_said_over_and_over_is_no_loop():
    assert {kind for kind, _, _ in kinds("no no no no", "no no no no no no")} == {EQUAL, INSERTION}


def test_characters_are_joined_where_they_are_equal():
    assert kinds("the cat", "the car", "cer") == [(EQUAL, "the ca", "the ca"), (SUBSTITUTION, "t", "r")]
    assert kinds("你好 ok", "你们 ok", "mer") == [(EQUAL, "你", "你"), (SUBSTITUTION, "好", "们"), (EQUAL, "ok", "ok")]


WORDS = st.lists(st.sampled_from(["a", "b", "c", "dd", "e"]), max_size=12).map(" ".join)


@settings(deadline=None, max_examples=60)
@given(WORDS, WORDS, st.sampled_from(["wer", "cer", "mer"]))
def test_errors_are_as_many_as_the_score_counts_and_no_token_is_lost(said, written, metric):
    pieces = align(said, written, metric)

    counts = metrics.count_part([(said,)], [written], metric)
    found = [num_errors(pieces, kind) for kind in (SUBSTITUTION, DELETION, INSERTION)]
    assert found == [counts.substitutions.sum(), counts.deletions.sum(), counts.insertions.sum()]
    tokens = metrics.TOKENIZERS[metric](said)
    assert "".join(piece.said for piece in pieces) == "".join(tokens)
