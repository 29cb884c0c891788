"""Figures of continual learning against numbers worked out by hand, of systems and of runs."""

import numpy as np
import pytest
from scored_runs import BASES, hypotheses_with, make_config, make_mixed_run, make_run, make_scored_run, put

from wfc_dist.evaluation.continual import SystemRates, figures, summarize, untouched
from wfc_dist.evaluation.hypotheses import write_hypotheses
from wfc_dist.evaluation.matrix import read_matrix
from wfc_dist.evaluation.rates import Rates, RunRates


def rates(rate: float, *draws: float) -> Rates:
    return np.array([rate, *(draws or (rate, rate))])


# x is learned in round 1, y in round 2; p is protected
RATES = {(0, "x"): 0.5, (0, "y"): 0.4, (0, "p"): 0.1, (1, "x"): 0.2, (1, "y"): 0.35, (2, "x"): 0.3, (2, "y"): 0.1, (2, "p"): 0.12}
RUN = RunRates({key: rates(rate) for key, rate in RATES.items()}, {"x": 1, "y": 2}, 2)


def rounded(found: dict[str, Rates]) -> dict[str, float]:
    return {name: round(float(value[0]), 6) for name, value in found.items()}


def test_figures_of_two_rounds() -> None:
    assert rounded(figures(SystemRates([RUN], ["x", "y"], ["p"]))) == {
        "own": 0.15,
        "new": 0.2,
        "new_relative": round(((0.3 / 0.5 - 1) + (0.1 / 0.4 - 1)) / 2, 6),
        "bwt": -0.05,
        "fwt": 0.05,  # y: 0.4 before anything was learned, 0.35 after x
        "protected": 0.12,
        "protected_relative": 0.2,
        "forgetting": round(((0.3 - 0.2) + 0.0 + (0.12 - 0.1)) / 3, 6),
    }


def test_data_sets_alone_are_averaged_over_their_runs() -> None:
    alone = [
        RunRates({(0, "x"): rates(0.5), (0, "y"): rates(0.4), (1, "x"): rates(x), (1, "y"): rates(y)}, {name: 1}, 1)
        for name, x, y in (("x", 0.2, 0.6), ("y", 0.7, 0.1))
    ]
    found = rounded(figures(SystemRates(alone, ["x", "y"], [])))
    assert (found["own"], found["new"], found["bwt"]) == (0.15, 0.4, -0.25)
    assert "fwt" not in found and "protected" not in found


def test_the_root_has_changed_nothing() -> None:
    found = rounded(untouched(RUN, ["x", "y"], ["p"]))
    assert (found["new"], found["protected"], found["new_relative"], found["bwt"]) == (0.45, 0.1, 0.0, 0.0)


@pytest.fixture
def run(tmp_path):
    return make_scored_run(tmp_path)


def values(folder):
    return {estimate.name: estimate.value for estimate in summarize(read_matrix(folder)).estimates}


def test_figures_by_hand(run):
    found = values(run)

    # R[j][j]: cs 0.2 and ar 0.4 after round 1, zh 0.2 after round 2; R[2]: cs 0.3, ar 0.4, zh 0.2
    assert found["bwt"] == pytest.approx(((0.2 - 0.3) + (0.4 - 0.4) + (0.2 - 0.2)) / 3)
    assert found["protected_relative"] == pytest.approx((0.2 + 0.3) / (0.1 + 0.2) - 1)
    assert found["new_relative"] == pytest.approx(((0.3 / 0.4 - 1) + (0.4 / 0.8 - 1) + (0.2 / 0.5 - 1)) / 3)


def test_set_learned_twice_counts_from_the_last_time(tmp_path):
    config = make_config(tmp_path, rounds=(("cs",), ("cs",)))
    folder = make_run(tmp_path / "r", config)
    for index, tenths in enumerate((5, 3, 2)):
        put(folder, config, max(1, index), f"base-{index:04d}", {"cs": tenths})

    assert values(folder)["bwt"] == 0


def test_a_round_that_learns_a_mix_has_learned_its_parts(tmp_path):
    summary = summarize(read_matrix(make_mixed_run(tmp_path)))

    assert summary.sentence == "From base 0 to base 2: of 3 learned sets, 3 improved; of 2 protected sets, 2 worse."
    assert [estimate.name for estimate in summary.estimates if estimate.value is None] == []


def test_intervals_contain_the_figures_and_follow_the_clips(run):
    summary = summarize(read_matrix(run))

    for estimate in summary.estimates:
        assert estimate.low <= estimate.value <= estimate.high
    verdicts = {change.name: change.verdict for change in summary.changes}
    assert verdicts == {"cs": "improved", "ar": "improved", "zh": "improved", "en": "worse", "fr": "worse"}
    assert summary.sentence == "From base 0 to base 2: of 3 learned sets, 3 improved; of 2 protected sets, 2 worse."


def test_without_hypotheses_nothing_is_called_improved(tmp_path):
    config = make_config(tmp_path)
    folder = make_run(tmp_path / "r", config)
    for index, rates in BASES.items():
        put(folder, config, max(1, index), f"base-{index:04d}", rates, with_hypotheses=False)
    summary = summarize(read_matrix(folder))

    assert {change.verdict for change in summary.changes} == {"unknown"}
    assert all(estimate.low is None and estimate.value is not None for estimate in summary.estimates)


def test_a_set_whose_clips_have_changed_has_no_interval(run):
    base = read_matrix(run).bases[2]
    write_hypotheses(base.hypotheses("cs"), {"schema": 2, "model_sha256": "another"}, hypotheses_with(3)[:7])
    summary = summarize(read_matrix(run))

    assert {change.name for change in summary.changes if change.verdict == "unknown"} == {"cs"}
    assert {estimate.name for estimate in summary.estimates if estimate.low is None} == {"new_relative", "bwt"}


def test_one_clip_has_no_interval_and_improves_nothing(tmp_path):
    config = make_config(tmp_path)
    folder = make_run(tmp_path / "r", config)
    for index, tenths in ((0, 5), (1, 2)):
        put(folder, config, 1, f"base-{index:04d}", {"cs": tenths}, num_clips=1)
    summary = summarize(read_matrix(folder))

    assert [change.verdict for change in summary.changes] == ["unknown"]
    assert summary.estimates[0].value < 0 and summary.estimates[0].low is None


def test_relative_change_of_a_zero_error_is_no_number(tmp_path):
    config = make_config(tmp_path)
    folder = make_run(tmp_path / "r", config)
    for index in (0, 1):
        put(folder, config, 1, f"base-{index:04d}", {"cs": index, "en": index})

    assert values(folder) == {"new_relative": None, "protected_relative": None, "bwt": 0}
