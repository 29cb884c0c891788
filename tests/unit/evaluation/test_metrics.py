import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wfc_dist.errors import ConfigError, InputError
from wfc_dist.evaluation import metrics
from wfc_dist.evaluation.intervals import mark
from wfc_dist.evaluation.metrics import TOKENIZERS, mixed_tokens

TEXT = st.text(alphabet="ab \u6211\u60f3\u0e01", max_size=8)
PAIRS = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=9)
WINDOWS = st.lists(st.tuples(st.lists(TEXT, min_size=1, max_size=5).map(tuple), TEXT), min_size=1, max_size=4)


def count(references, hypotheses, metric):
    return metrics.count([(said,) for said in references], hypotheses, metric)


def score(references, hypotheses, *, metric, **options):
    return metrics.score(count(references, hypotheses, metric), metric=metric, **options)


def paired_difference(references, before, after):
    first, second = (count(references, texts, "wer") for texts in (before, after))
    return metrics.difference(first, second, 0.95)


def marked(found):
    return mark(found, found.p, 0.95)


def distance(reference: list[str], hypothesis: list[str]) -> int:
    """Returns the edit distance by the textbook recursion: the reference jiwer is held against."""
    row = list(range(len(hypothesis) + 1))
    for i, said in enumerate(reference, start=1):
        diagonal, row[0] = row[0], i
        for j, written in enumerate(hypothesis, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (said != written))
    return row[-1]


def test_wer_by_hand():
    found = score(["a b c d", "e f"], ["a x c", "e f g"], metric="wer")

    assert (found.substitutions, found.deletions, found.insertions) == (1, 1, 1)
    assert (found.errors, found.reference_length, found.num_clips) == (3, 6, 2)
    assert found.rate == 0.5


def test_cer_counts_spaces_once():
    found = score(["ab  c"], ["abc"], metric="cer")

    assert (found.errors, found.deletions, found.reference_length) == (1, 1, 4)


def test_mer_by_hand():
    found = score(["\u6211\u60f3 order \u4e00\u676fcoffee"], ["\u6211\u8981 order \u4e00 coffee"], metric="mer")

    assert (found.substitutions, found.deletions, found.insertions, found.reference_length) == (1, 1, 0, 6)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("\u6211want\u8fd9\u4e2a", ["\u6211", "want", "\u8fd9", "\u4e2a"]),
        ("\u30ab\u30bf\u30ab\u30ca\u3042", list("\u30ab\u30bf\u30ab\u30ca\u3042")),
        ("\u0e2a\u0e27\u0e31\u0e2a", ["\u0e2a", "\u0e27\u0e31", "\u0e2a"]),  # the vowel sign stays on its consonant
        ("\u1780\u17b6 \u0ea5\u0eb2\u0ea7 \u1019\u102c", ["\u1780\u17b6", "\u0ea5", "\u0eb2", "\u0ea7", "\u1019\u102c"]),
        ("caf\u00e9 e\u0301t\u00e9", ["caf\u00e9", "e\u0301t\u00e9"]),
        ("\ud55c\uad6d\uc5b4 \ub2e8\uc5b4", ["\ud55c\uad6d\uc5b4", "\ub2e8\uc5b4"]),  # Korean has spaces
        ("", []),
    ],
)
def test_mixed_tokens(text, tokens):
    assert mixed_tokens(text) == tokens


def test_empty_reference_counts_insertions():
    found = score(["", "a b"], ["x y z", "a b"], metric="wer")

    assert (found.errors, found.insertions, found.reference_length, found.rate) == (3, 3, 2, 1.5)


def test_empty_hypothesis_is_all_deletions():
    assert score(["a b"], [""], metric="wer").deletions == 2


def test_set_without_reference_tokens_is_refused():
    with pytest.raises(InputError, match="none of the 2 references"):
        score(["", " "], ["x", ""], metric="wer")


def test_no_utterances_are_refused():
    with pytest.raises(InputError, match="none of the 0 references"):
        score([], [], metric="wer")


def test_unequal_numbers_are_refused():
    with pytest.raises(InputError, match="2 references and 1 hypotheses"):
        score(["a", "b"], ["a"], metric="wer")


def test_unknown_metric_is_refused():
    with pytest.raises(ConfigError, match="wer, cer, mer"):
        count(["a"], ["a"], "bleu")


@settings(max_examples=150, deadline=None)
@given(PAIRS, st.sampled_from(sorted(TOKENIZERS)))
def test_errors_equal_the_textbook_edit_distance(pairs, metric):
    references, hypotheses = [said for said, _ in pairs], [written for _, written in pairs]
    tokenize = TOKENIZERS[metric]
    if not any(tokenize(said) for said in references):
        return
    counts = count(references, hypotheses, metric)

    assert counts.errors.tolist() == [distance(tokenize(said), tokenize(written)) for said, written in pairs]
    assert counts.lengths.tolist() == [len(tokenize(said)) for said in references]
    assert (counts.lengths - counts.deletions + counts.insertions).tolist() == [len(tokenize(text)) for text in hypotheses]


@settings(max_examples=150, deadline=None)
@given(WINDOWS, st.sampled_from(sorted(TOKENIZERS)))
def test_errors_of_the_clips_add_up_to_those_of_the_window(windows, metric):
    references, hypotheses = [said for said, _ in windows], [written for _, written in windows]
    tokenize = TOKENIZERS[metric]
    if not any(tokenize(clip) for clips in references for clip in clips):
        return
    clips = metrics.count(references, hypotheses, metric)
    whole = count([" ".join(said) for said in references], hypotheses, metric)

    starts = np.cumsum([0, *map(len, references[:-1])])
    for name in ("substitutions", "deletions", "insertions", "lengths"):
        assert np.add.reduceat(getattr(clips, name), starts).tolist() == getattr(whole, name).tolist()
    assert len(clips.lengths) == sum(map(len, references))
    assert (clips.substitutions + clips.deletions <= clips.lengths).all()


@pytest.mark.parametrize(
    ("metric", "clips", "written", "errors", "lengths"),
    [
        ("wer", ("a b", "c d", "e"), "x a b y c e", [2, 1, 0], [2, 2, 1]),  # x before, y after the first clip; d is missing
        ("wer", ("", "a", "", "b"), "x a y b", [1, 1, 0, 0], [0, 1, 0, 1]),
        ("wer", ("", ""), "x", [1, 0], [0, 0]),
        ("wer", ("a", "b"), "", [1, 1], [1, 1]),
        ("cer", ("ab", "", "cd"), "ab", [0, 0, 3], [2, 0, 3]),  # the space between belongs to the clip that follows
        ("mer", ("\u6211a", "\u60f3"), "\u6211a", [0, 1], [2, 1]),
    ],
)
def test_errors_go_to_the_clip_they_happen_in(metric, clips, written, errors, lengths):
    counts = metrics.count([("a",), clips], ["a", written], metric)

    assert counts.errors.tolist() == [0, *errors]
    assert counts.lengths.tolist() == [1, *lengths]


@settings(max_examples=60, deadline=None)
@given(PAIRS, st.sampled_from(sorted(TOKENIZERS)))
def test_interval_contains_the_rate_and_identity_is_zero(pairs, metric):
    references, hypotheses = [said for said, _ in pairs], [written for _, written in pairs]
    if not any(TOKENIZERS[metric](said) for said in references):
        return
    found = score(references, hypotheses, metric=metric, confidence=0.5)
    same = score(references, references, metric=metric)

    assert found.low is None or found.low < found.rate < found.high
    assert found.low is not None or len({*pairs}) < len(pairs) or len(pairs) < 5 or found.rate == 0 or _in_one_unit(pairs, metric)
    assert (same.rate, same.low, same.high) == (0, None, None), "nothing says how rare an error is that nobody made"


def _in_one_unit(pairs, metric):
    """Says whether all errors, or all tokens, are in one clip, or every clip has the same rate."""
    counts = [metrics.count_part([(said,)], [written], metric) for said, written in pairs]
    errors, lengths = ([int(getattr(each, name).sum()) for each in counts] for name in ("errors", "lengths"))
    without = {(sum(errors) - e, sum(lengths) - n) for e, n in zip(errors, lengths, strict=True)}
    rates = {e / n if n else None for e, n in without}
    return min(sum(map(bool, errors)), sum(map(bool, lengths))) < 2 or len(rates) == 1


def test_intervals_can_be_left_out():
    found = score(["a", "a"], ["b", "a"], metric="wer", intervals=False)

    assert (found.rate, found.low, found.high, found.num_units) == (0.5, None, None, 2)


def test_clear_improvement_is_said_and_its_reverse_too():
    references = ["a b c d"] * 30
    bad, good = ["a x c x"] * 15 + ["a b c x"] * 15, ["a b c d"] * 28 + ["a b c x"] * 2

    better = paired_difference(references, bad, good)
    worse = paired_difference(references, good, bad)

    assert marked(better) == "lower" and better.high < 0 and better.p < 0.001
    assert marked(worse) == "higher"
    assert better.value == pytest.approx(-worse.value)


def test_noise_is_not_called_an_improvement():
    references = ["a b c d"] * 30
    first, second = ["a b c x", "a b c d"] * 15, ["a b c d", "a b c x"] * 14 + ["a b c d"] * 2

    difference = paired_difference(references, first, second)

    assert difference.value < 0
    assert marked(difference) == "same"


def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(1)
    references = ["a b c d"] * 40
    before = [" ".join("x" if rng.random() < hard else word for word in "abcd") for hard in rng.random(40)]
    after = [text.replace("x", "a", 1) if text.startswith("x") else text for text in before]
    paired = paired_difference(references, before, after)
    alone = score(references, before, metric="wer")

    assert paired.high - paired.low < alone.high - alone.low


def test_one_clip_has_no_interval_and_improves_nothing():
    found = score(["a b c d"], ["a b c x"], metric="wer")
    assert (found.rate, found.low, found.high, found.num_units) == (0.25, None, None, 1)
    difference = paired_difference(["a b c d"], ["a b c x"], ["a b c d"])
    assert difference.value == -0.25 and difference.p is None and marked(difference) == "too few to say"


def test_clips_of_one_window_or_one_group_are_one_unit():
    words, texts = ("a b", "c d", "e f", "g h"), ["a b", "c x", "x x", "g h"]
    alone = metrics.count([(said,) for said in words], texts, "wer")
    packed = metrics.count([words[:2], words[2:]], ["a b c x", "x x g h"], "wer")
    grouped = metrics.count([(said,) for said in words], texts, "wer", [("ann",), ("ann",), ("bob",), ()])

    assert [counts.units.tolist() for counts in (alone, packed, grouped)] == [[0, 1, 2, 3], [0, 0, 1, 1], [0, 0, 1, 2]]
    assert [metrics.score(counts, metric="wer").num_units for counts in (alone, packed, grouped)] == [4, 2, 3]


def test_shares_of_a_set_sum_to_the_set_whatever_is_in_them():
    references, written = [("",), ("hello there",)], ["thank you for watching", "hello there"]
    whole = metrics.count(references, written, "wer")
    shares = [metrics.count_part(references[n : n + 1], written[n : n + 1], "wer") for n in range(2)]
    assert [int(sum(share.errors.sum() for share in shares)), int(sum(share.lengths.sum() for share in shares))] == [4, 2]
    assert [int(whole.errors.sum()), int(whole.lengths.sum())] == [4, 2]
    with pytest.raises(InputError, match="none of the 1 references has a token"):
        metrics.count(references[:1], written[:1], "wer")
