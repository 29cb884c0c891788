import doctest
import json
from pathlib import Path

import numpy as np
import pytest

from wfc_dist.config.schema import EvaluateConfig
from wfc_dist.errors import InputError
from wfc_dist.evaluation.explain import FORMULAS, explain, in_words
from wfc_dist.evaluation.hallucinations import Loop
from wfc_dist.evaluation.hypotheses import Hypothesis, score_hypotheses
from wfc_dist.evaluation.metrics import Counts, score
from wfc_dist.evaluation.ratios import Ratio, ratios

PLAIN = EvaluateConfig(normalizer="none", intervals=False)


def said(reference, written, language="en", **more):
    parts = reference if isinstance(reference, tuple) else (reference,)
    return Hypothesis("x", parts, written, language, 1.0, **more)


def explained(*hypotheses, **options):
    return explain(hypotheses, EvaluateConfig(**{"normalizer": "none", "intervals": False, **options}), {})


def values(explanation):
    return {name: ratio.value for name, ratio in explanation.figures.items()}


def test_ratios_are_sums_over_sums_with_the_interval_of_the_rate():
    above, below, units = np.array([1, 0, 3, 2, 1, 0]), np.array([4, 2, 2, 0, 3, 5]), np.array([0, 0, 1, 2, 3, 4])
    zeros = np.zeros_like(above)

    found = ratios({"r": (above, below)}, units, confidence=0.8)["r"]

    expected = score(Counts(above, zeros, zeros, below, units), metric="wer", confidence=0.8)
    assert found == (7 / 16, expected.low, expected.high) and 0 < found.low < 7 / 16 < found.high


def test_difference_of_ratios_is_paired():
    above, below, none = np.array([1, 2, 3, 5, 2]), np.array([4] * 5), np.zeros(5, dtype=np.int64)
    parts, differences = {"a": (above, below), "b": (above, below), "c": (none, none)}, {"d": ("a", "b"), "e": ("a", "c")}

    found = ratios(parts, np.arange(5), differences)

    assert found["d"] == Ratio(0, 0, 0)
    assert "c" not in found and "e" not in found


def test_intervals_can_be_left_out():
    assert ratios({"r": (np.array([1, 1]), np.array([2, 2]))}, np.arange(2), intervals=False) == {"r": Ratio(0.5, None, None)}
    assert ratios({}, np.arange(2)) == {}


def test_rate_of_132_percent_is_explained_by_hand():
    # 25 words in 5 clips; a loop of 24 words and 9 plain errors: 33 / 25
    found = explained(
        said("a b c d e", "x y c d e"),  # 2 substitutions
        said("a b c d e", "a b"),  # 3 deletions
        said("a b c d e", "a b c d e" + " thank you" * 12),  # 24 insertions: the loop
        said("a b c d e", "a b c d e f g"),  # 2 insertions: too few to be a hallucination
        said("a b c d e", "a b x z e"),  # 2 substitutions
    )

    assert values(found) == pytest.approx({
        "rate": 33 / 25, "substitutions": 4 / 25, "deletions": 3 / 25, "insertions": 26 / 25, "hallucinated_clips": 1 / 5,
        "hallucinated_insertions": 24 / 25, "rate_without_hallucinations": 9 / 20, "foreign_script": 0,
    })  # fmt: skip
    assert found.longest_loop == Loop(("thank", "you"), 12)
    assert in_words(found) == (
        "132.0 % = 16.0 substitutions, 12.0 deletions, 104.0 insertions; 20 % of the clips have a hallucination, "
        'without them it is 45.0 %; the longest loop is "thank you" x 12'
    )


def test_parts_and_intervals_are_those_of_the_score():
    hypotheses = [said("a b c d", f"a x {'c' * (index % 2)} d {'e f g ' * (index % 3)}") for index in range(30)]
    evaluate = EvaluateConfig(normalizer="none")
    whole, found = score_hypotheses(hypotheses, evaluate, {}), explain(hypotheses, evaluate, {}).figures

    assert found["rate"] == (whole.rate, whole.low, whole.high) and whole.low < whole.high
    assert found["insertions"].value == whole.insertions / whole.reference_length
    assert sum(found[name].value for name in ("substitutions", "deletions", "insertions")) == pytest.approx(whole.rate)


def test_empty_texts():
    found = explained(said("a b", ""), said("", "c"), said("", ""))

    assert values(found) == {
        "rate": 1.5, "substitutions": 0, "deletions": 1, "insertions": 0.5, "hallucinated_clips": 0, "hallucinated_insertions": 0,
        "rate_without_hallucinations": 1.5, "foreign_script": 0,
    }  # fmt: skip
    assert in_words(found) == "150.0 % = 0.0 substitutions, 100.0 deletions, 50.0 insertions; no hallucination"


def test_nothing_but_hallucinations_has_no_rate_without_them():
    found = explained(said("a", "b b b b b"))

    assert "rate_without_hallucinations" not in found.figures
    assert "without them" not in in_words(found)


def test_nothing_written_has_no_share_of_scripts():
    assert "foreign_script" not in explained(said("a", "")).figures


def test_set_without_reference_tokens_is_refused():
    with pytest.raises(InputError, match="none of the 1 references"):
        explained(said("", "a"))


def test_every_language_has_its_rate_over_clips():
    found = explained(said("a b", "a b"), said(("c", "d e"), "c d x", "es"), said("f", "g"))

    assert {name: ratio.value for name, ratio in found.languages.items()} == {"en": 1 / 3, "es": 1 / 3}
    assert explained(said("a", "a")).languages == {}


def test_language_errors_count_clips_where_languages_were_detected():
    found = explained(said("a", "a", detected="en"), said(("b", "c"), "b c", detected="es"))

    assert found.figures["language_errors"].value == 2 / 3
    assert "language_errors" not in explained(said("a", "a")).figures


def test_other_alphabet_is_seen():
    found = explained(said("good day", "\u0434\u043e\u0431\u0440\u044b\u0439 day"), said("good", "good"))

    assert found.figures["foreign_script"].value == 1 / 3
    assert found.scripts == {"CYRILLIC": 1}


def test_marked_words_at_a_switch_by_hand():
    marks = (("en", "en", "es", "es", "es"),)
    found = explained(said("one two tres cuatro cinco", "one two tree cuatro six", word_languages=marks), said("a", "b"))

    # at a switch: two, tres (wrong); the rest: one, cuatro, cinco (wrong)
    assert (found.num_switched, found.num_rest) == (2, 3)
    for metric in ("wer", "mer"):
        assert found.figures[f"{metric}_switched"].value == 1 / 2
        assert found.figures[f"{metric}_rest"].value == 1 / 3
        assert found.figures[f"{metric}_gap"].value == pytest.approx(1 / 6)


def test_marks_win_over_scripts_and_clips_without_marks_are_told_by_script():
    window = said(("ok ok", "a \u6211"), "ok ok a", word_languages=(("en", "es"), ()))

    found = explained(window, metric="mer")

    assert (found.num_switched, found.figures["mer_switched"].value) == (4, 1 / 4)


def test_whatever_the_metric_hallucinations_are_judged_on_mixed_tokens():
    item = said("a b c d", "a b c d eeeeeeee")  # one word too many, but nine characters

    for metric in ("wer", "cer", "mer"):
        assert explained(item, metric=metric).figures["hallucinated_clips"].value == 0


def test_clips_decoded_apart_are_counted_where_there_are_any():
    found = explained(said(("a", "b"), "a b", apart=True), said("c", "c"))

    assert found.figures["decoded_apart"].value == 2 / 3
    assert "decoded_apart" not in explained(said("a", "a")).figures


def test_as_json():
    clips = [said("a b \u6211", "a b b"), said("c", "c" + " d" * 5, "es")]
    found = explained(*clips * 3, intervals=True, metric="mer")

    tree = json.loads(json.dumps(found.as_tree()))

    assert set(tree["figures"]) == {*FORMULAS} - {"language_errors", "decoded_apart"}
    assert tree["figures"]["rate"]["low"] <= tree["figures"]["rate"]["value"] == 6 / 4
    assert tree["longest_loop"] == {"ngram": ["d"], "times": 5}
    assert set(tree["languages"]) == {"en", "es"}


def test_examples_of_the_documentation():
    page = Path(__file__).parents[3] / "docs" / "metrics.md"

    found = doctest.testfile(str(page), module_relative=False)

    assert found.attempted > 5
    assert found.failed == 0
