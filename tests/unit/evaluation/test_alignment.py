"""Texts become stretches of equal and differing tokens, of which the error counts are the sums."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wfc_dist.evaluation import metrics
from wfc_dist.evaluation.alignment import Stretch, align

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=9)


@pytest.mark.parametrize(
    ("said", "written", "expected"),
    [
        ("the cat sat", "the cat sat", [Stretch("equal", ("the", "cat", "sat"), ("the", "cat", "sat"))]),
        ("the cat sat", "the bat sat", [
            Stretch("equal", ("the",), ("the",)), Stretch("substitute", ("cat",), ("bat",)), Stretch("equal", ("sat",), ("sat",)),
        ]),
        ("the cat sat", "the sat", [
            Stretch("equal", ("the",), ("the",)), Stretch("delete", ("cat",), ()), Stretch("equal", ("sat",), ("sat",)),
        ]),
        ("the cat", "oh the cat", [Stretch("insert", (), ("oh",)), Stretch("equal", ("the", "cat"), ("the", "cat"))]),
        ("the cat", "the cat oh no", [Stretch("equal", ("the", "cat"), ("the", "cat")), Stretch("insert", (), ("oh", "no"))]),
        ("", "oh no", [Stretch("insert", (), ("oh", "no"))]),
        ("oh no", "", [Stretch("delete", ("oh", "no"), ())]),
        ("", "", []),
    ],
)  # fmt: skip
def test_stretches_say_what_differs_and_where(said: str, written: str, expected: list[Stretch]) -> None:
    assert align(said.split(), written.split()) == expected


@given(WORDS, WORDS)
def test_stretches_are_both_texts_and_the_counted_errors(said: list[str], written: list[str]) -> None:
    stretches = align(said, written)
    assert list(itertools.chain(*(stretch.said for stretch in stretches))) == said
    assert list(itertools.chain(*(stretch.written for stretch in stretches))) == written
    assert all((stretch.said == stretch.written) == (stretch.kind == "equal") for stretch in stretches)
    counts = metrics.count_part([(" ".join(said),)], [" ".join(written)], "wer")
    of_kind = {
        kind: sum(max(len(stretch.said), len(stretch.written)) for stretch in stretches if stretch.kind == kind)
        for kind in ("substitute", "delete", "insert")
    }
    assert (of_kind["substitute"], of_kind["delete"], of_kind["insert"]) == (
        counts.substitutions.sum(), counts.deletions.sum(), counts.insertions.sum(),
    )  # fmt: skip
