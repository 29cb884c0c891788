"""The sentences at the top of a report say what the figures say."""

import pytest
from scored_runs import make_config, make_run, make_scored_run, put

from wfc_dist.evaluation.continual import summarize
from wfc_dist.evaluation.matrix import read_matrix
from wfc_dist.reports.headline import headline
from wfc_dist.reports.tables import between


def test_what_was_learned_and_forgotten_with_the_intervals_of_the_figures(tmp_path):
    summary = summarize(read_matrix(make_scored_run(tmp_path)))

    count, learned, later, protected = headline(summary, 0.95)

    figures = {estimate.name: estimate for estimate in summary.estimates}
    assert count == summary.sentence
    new, kept, bwt = (figures[name] for name in ("new_relative", "protected_relative", "bwt"))
    assert f"{100 * new.value:+.1f} % (95 % interval {between(new.low, new.high, '+')})" in learned
    assert "cs, ar and zh improved" in learned
    assert f"{100 * kept.value:+.1f} %" in protected and "en and fr got worse" in protected
    assert later.startswith("Later rounds took back") and f"{100 * bwt.value:+.1f} points" in later


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ({"cs": 4, "en": 1}, "On the learned set cs the relative change of the error is +0.0 %"),
        ({"cs": 4, "en": 1}, "that is not beyond chance."),
        ({"cs": 1, "en": 9}, "On the protected set en the relative change of the error is +800.0 %"),
    ],
)
def test_one_set_of_a_kind(tmp_path, after, said):
    config = make_config(tmp_path, rounds=(("cs",),))
    folder = make_run(tmp_path / "r", config)
    put(folder, config, 1, "base-0000", {"cs": 4, "en": 1})
    put(folder, config, 1, "base-0001", after)

    assert said in " ".join(headline(summarize(read_matrix(folder)), 0.95))


def test_a_set_without_an_error_at_base_0_has_no_relative_change(tmp_path):
    config = make_config(tmp_path, rounds=(("cs",),))
    folder = make_run(tmp_path / "r", config)
    put(folder, config, 1, "base-0000", {"cs": 0})
    put(folder, config, 1, "base-0001", {"cs": 3})

    _, learned = headline(summarize(read_matrix(folder)), 0.95)

    assert learned.startswith("On the learned set cs there is no relative change of the error, since base 0 makes no error on cs")
    assert "cs got worse" in learned


def test_without_texts_there_is_no_interval_and_no_verdict(tmp_path):
    config = make_config(tmp_path, rounds=(("cs",),))
    folder = make_run(tmp_path / "r", config)
    for index, tenths in enumerate((4, 2)):
        put(folder, config, 1, f"base-{index:04d}", {"cs": tenths}, with_hypotheses=False)

    _, learned = headline(summarize(read_matrix(folder)), 0.95)

    assert learned.endswith("(without an interval).")
    assert "improved" not in learned


def test_before_a_second_base_there_is_nothing_to_say(tmp_path):
    folder = make_run(tmp_path / "r", make_config(tmp_path))

    assert headline(summarize(read_matrix(folder)), 0.95) == ["No round has been scored yet."]
