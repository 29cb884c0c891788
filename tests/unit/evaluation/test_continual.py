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
        "new_relative": round((0.3 + 0.1) / (0.5 + 0.4) - 1, 6),
        "new_relative_each": round(((0.3 / 0.5 - 1) + (0.1 / 0.4 - 1)) / 2, 6),
        "bwt": -0.1,  # x alone: nothing comes after y
        "fwt": 0.05,  # y: 0.4 before anything was learned, 0.35 after x
        "protected": 0.12,
        "protected_relative": 0.2,
        "protected_relative_each": 0.2,
        "forgetting": 0.1,
        "forgetting_protected": 0.02,
    }


def a_run_of(errors: Rates) -> SystemRates:
    """Returns a system that learns task j in round j; `errors` has a row for each base, the root's first: (T + 1, T)."""
    last = errors.shape[1]
    names = [f"task-{j}" for j in range(1, last + 1)]
    of_bases = {(t, name): rates(float(errors[t, j])) for t in range(last + 1) for j, name in enumerate(names)}
    return SystemRates([RunRates(of_bases, {name: j for j, name in enumerate(names, start=1)}, last)], names, [])


@pytest.mark.parametrize("seed", range(5))
def test_transfer_and_forgetting_are_those_of_the_papers(seed: int) -> None:
    """GEM's R[i, j] is an accuracy after task i, from 1 to T; CL-MASR and Chaudhry et al. write the same loops."""
    errors = np.random.default_rng(seed).uniform(0.05, 0.9, (6, 5))
    accuracy, last = 1 - errors, 5
    found = {name: float(value[0]) for name, value in figures(a_run_of(errors)).items()}

    backward = forward = forgotten = 0.0
    for i in range(1, last):
        backward += accuracy[last, i - 1] - accuracy[i, i - 1]
        forgotten += max(accuracy[t, i - 1] for t in range(1, last)) - accuracy[last, i - 1]
    for i in range(2, last + 1):
        forward += accuracy[i - 1, i - 1] - accuracy[0, i - 1]
    assert found["bwt"] == pytest.approx(backward / (last - 1))
    assert found["fwt"] == pytest.approx(forward / (last - 1))
    assert found["forgetting"] == pytest.approx(forgotten / (last - 1))

    wer_matrix = errors[1:]  # of CL-MASR, without the languages of the root, its task 0
    assert found["bwt"] == pytest.approx(np.diag(wer_matrix[:4, :4] - wer_matrix[4, :4]).mean())


def test_data_sets_alone_have_no_backward_transfer() -> None:
    alone = [
        RunRates({(0, "x"): rates(0.5), (0, "y"): rates(0.4), (1, "x"): rates(x), (1, "y"): rates(y)}, {name: 1}, 1)
        for name, x, y in (("x", 0.2, 0.6), ("y", 0.7, 0.1))
    ]
    found = rounded(figures(SystemRates(alone, ["x", "y"], [])))
    assert (found["own"], found["new"], found["new_relative"]) == (0.15, 0.4, round(0.4 / 0.45 - 1, 6))
    assert not found.keys() & {"bwt", "fwt", "forgetting", "protected"}


def test_the_root_has_changed_nothing() -> None:
    found = rounded(untouched(RUN, ["x", "y"], ["p"]))
    assert (found["new"], found["protected"], found["new_relative"], found["protected_relative"]) == (0.45, 0.1, 0.0, 0.0)
    assert not found.keys() & {"bwt", "fwt", "forgetting", "forgetting_protected"}


@pytest.fixture
def run(tmp_path):
    return make_scored_run(tmp_path)


def values(folder):
    return {estimate.name: estimate.value for estimate in summarize(read_matrix(folder)).estimates}


def test_figures_by_hand(run):
    found = values(run)

    # R[j][j]: cs 0.2 and ar 0.4 after round 1, zh 0.2 after round 2; R[2]: cs 0.3, ar 0.4, zh 0.2
    assert found["bwt"] == pytest.approx(((0.2 - 0.3) + (0.4 - 0.4)) / 2)  # zh is learned in the last round
    assert found["protected_relative"] == pytest.approx((0.2 + 0.3) / (0.1 + 0.2) - 1)
    assert found["protected_relative_each"] == pytest.approx(((0.2 / 0.1 - 1) + (0.3 / 0.2 - 1)) / 2)
    assert found["new_relative"] == pytest.approx((0.3 + 0.4 + 0.2) / (0.4 + 0.8 + 0.5) - 1)
    assert found["new_relative_each"] == pytest.approx(((0.3 / 0.4 - 1) + (0.4 / 0.8 - 1) + (0.2 / 0.5 - 1)) / 3)


def test_set_learned_twice_counts_from_the_last_time(tmp_path):
    config = make_config(tmp_path, rounds=(("cs",), ("cs",)))
    folder = make_run(tmp_path / "r", config)
    for index, tenths in enumerate((5, 3, 2)):
        put(folder, config, max(1, index), f"base-{index:04d}", {"cs": tenths})

    assert values(folder)["bwt"] is None  # round 2, the last, has learned it again


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
    without = {estimate.name for estimate in summary.estimates if estimate.low is None}
    assert without == {"new_relative", "new_relative_each", "bwt"}


def test_one_clip_has_no_interval_and_improves_nothing(tmp_path):
    config = make_config(tmp_path)
    folder = make_run(tmp_path / "r", config)
    for index, tenths in ((0, 5), (1, 2)):
        put(folder, config, 1, f"base-{index:04d}", {"cs": tenths}, num_clips=1)
    summary = summarize(read_matrix(folder))

    assert [change.verdict for change in summary.changes] == ["too few to say"]
    assert summary.estimates[0].value < 0 and summary.estimates[0].low is None


def test_relative_change_of_a_zero_error_is_no_number(tmp_path):
    config = make_config(tmp_path)
    folder = make_run(tmp_path / "r", config)
    for index in (0, 1):
        put(folder, config, 1, f"base-{index:04d}", {"cs": index, "en": index})

    assert set(values(folder).values()) == {None}
