import json

import pytest
from scored_runs import BASES, make_config, make_run, put

from wfc_dist.config import loading
from wfc_dist.errors import InputError, IntegrityError
from wfc_dist.evaluation.continual import backward_relative, bwt, new_relative, summarize
from wfc_dist.evaluation.matrix import Matrix, read_matrix
from wfc_dist.evaluation.metrics import Score
from wfc_dist.reports.matrix import as_markdown, as_text, percent, round_tables, summary_tables, table


@pytest.fixture
def run(tmp_path):
    config = make_config(tmp_path)
    folder = make_run(tmp_path / "r", config)
    for index, rates in BASES.items():
        put(folder, config, max(1, index), f"base-{index:04d}", rates)
    for index, name in ((1, "cs"), (1, "ar"), (2, "zh")):
        put(folder, config, index, name, BASES[index - 1] | {name: 1})
    return folder


def test_figures_by_hand(run):
    matrix = read_matrix(run)

    # R[j][j]: cs 0.2 and ar 0.4 after round 1, zh 0.2 after round 2; R[2]: cs 0.3, ar 0.4, zh 0.2
    assert bwt(matrix) == pytest.approx(((0.2 - 0.3) + (0.4 - 0.4) + (0.2 - 0.2)) / 3)
    assert backward_relative(matrix) == pytest.approx((0.2 + 0.3) / (0.1 + 0.2) - 1)
    assert new_relative(matrix) == pytest.approx(((0.3 / 0.4 - 1) + (0.4 / 0.8 - 1) + (0.2 / 0.5 - 1)) / 3)


def test_columns_come_as_the_models_came(run):
    matrix = read_matrix(run)

    assert [column.title for column in matrix.columns()] == ["base 0", "1:cs", "1:ar", "base 1", "2:zh", "base 2"]
    assert [column.title for column in matrix.columns(2)] == ["base 1", "2:zh", "base 2"]
    assert matrix.learned == {"cs": 1, "ar": 1, "zh": 2}
    assert matrix.own == ["cs", "ar", "zh"] and matrix.protected == ["en", "fr"]


def test_set_learned_twice_counts_from_the_last_time(tmp_path):
    config = make_config(tmp_path, rounds=(("cs",), ("cs",)))
    folder = make_run(tmp_path / "r", config)
    for index, tenths in enumerate((5, 3, 2)):
        put(folder, config, max(1, index), f"base-{index:04d}", {"cs": tenths})

    assert bwt(read_matrix(folder)) == 0


@pytest.fixture
def mixed_run(tmp_path):
    """A run whose first round learns a mix of cs and ar, which has no test split of its own."""
    tree = make_config(tmp_path).model_dump(mode="json")
    parts = {name: tree["datasets"][name] for name in ("cs", "ar")}
    tree["datasets"]["all"] = {"format": "mix", "parts": parts, "splits": {"train": "train"}}
    config = loading.parse(tree | {"rounds": [["all"], ["zh"]]})
    folder = make_run(tmp_path / "r", config)
    for index, rates in BASES.items():
        put(folder, config, max(1, index), f"base-{index:04d}", rates)
    put(folder, config, 1, "all", BASES[0] | {"cs": 1, "ar": 1})
    return folder


def test_a_round_that_learns_a_mix_has_learned_its_parts(mixed_run):
    matrix = read_matrix(mixed_run)
    summary = summarize(matrix)

    assert matrix.learned == {"cs": 1, "ar": 1, "zh": 2} and matrix.own == ["cs", "ar", "zh"]
    assert summary.sentence == "From base 0 to base 2: of 3 learned sets, 3 improved; of 2 protected sets, 2 worse."
    assert [figure.text for figure in summary.figures if figure.value is None] == []
    assert as_text(matrix).count("*10.0 [") == 2  # the adapter was trained on both parts


def test_a_mix_with_a_test_split_of_its_own_is_learned_as_well(tmp_path):
    part = {"source": "s", "splits": {"train": "t", "test": "e"}}
    mix = {"format": "mix", "parts": {"x": part, "y": part}, "splits": {"train": "train", "test": "test"}}
    tree = {"run": {"name": "r"}, "base": {"model": "m"}, "datasets": {"both": mix, "x": part, "z": part},
            "rounds": [["both"], ["x", "z"]]}  # fmt: skip

    assert Matrix(loading.parse(tree), {2: None}, {}).learned == {"both": 1, "x": 2, "z": 2}


def test_intervals_contain_the_figures_and_follow_the_clips(run):
    summary = summarize(read_matrix(run))

    for figure in summary.figures:
        assert figure.low <= figure.value <= figure.high
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
    assert all(figure.low is None and figure.value is not None for figure in summary.figures)


def test_relative_change_of_a_zero_error_is_no_number(tmp_path):
    config = make_config(tmp_path)
    folder = make_run(tmp_path / "r", config)
    for index in (0, 1):
        put(folder, config, 1, f"base-{index:04d}", {"cs": index, "en": index})

    assert new_relative(read_matrix(folder)) is None
    assert backward_relative(read_matrix(folder)) is None


def test_table_marks_own_sets_and_prints_brackets(run):
    text = as_text(read_matrix(run))

    assert text.count("*10.0 [") == 3
    assert "mean_j (R[j][j] - R[T][j])" in text
    assert text.index("\n zh ") < text.index("protected:") < text.index("\n en ")
    assert max(len(line) for line in text.splitlines()) <= 120


def test_round_with_many_adapters_is_split_to_stay_readable(tmp_path):
    names = [f"dataset-number-{number}" for number in range(7)]
    tree = make_config(tmp_path).model_dump(mode="json")
    tree["datasets"] = dict.fromkeys(names, tree["datasets"]["cs"])
    config = loading.parse(tree | {"rounds": [names]})
    folder = make_run(tmp_path / "r", config)
    rates = dict.fromkeys([*names, "en"], 4)
    for index in (0, 1):
        put(folder, config, 1, f"base-{index:04d}", rates)
    for name in names:
        put(folder, config, 1, name, rates)
    matrix = read_matrix(folder)

    assert len(round_tables(matrix)) == 3
    assert max(len(line) for line in as_text(matrix).splitlines()) <= 120
    assert len(table(matrix).columns) == 1 + 9


def test_markdown_has_every_model_and_formula(run):
    text = as_markdown(read_matrix(run))
    lines = text.splitlines()

    assert lines[0] == "| test set | base 0 | 1:cs | 1:ar | base 1 | 2:zh | base 2 |"
    assert all(line.count("|") == 8 for line in lines[:7])
    assert "mean_p R[T][p] / mean_p R[0][p] - 1" in text


def test_run_that_has_just_begun(tmp_path):
    config = make_config(tmp_path)
    folder = make_run(tmp_path / "r", config)
    assert summary_tables(read_matrix(folder)) == []

    put(folder, config, 1, "base-0000", BASES[0])
    matrix = read_matrix(folder)

    assert bwt(matrix) is None and backward_relative(matrix) is None and new_relative(matrix) is None
    assert "No round has been scored yet." in as_text(matrix)
    assert len(round_tables(matrix)) == 1


@pytest.mark.parametrize(
    ("low", "high", "text"), [(0.101, 0.148, "12.3 [10.1, 14.8]"), (None, None, "12.3")]
)  # fmt: skip
def test_percent(low, high, text):
    assert percent(Score("wer", 0.123, low, high, 1, 8, 1, 0, 0, 1, 0.95)) == text


def test_damaged_scores_are_refused(run):
    path = run / "round-0001" / "evaluation" / "cs" / "scores.json"
    path.write_text(json.dumps({"model": "cs"}))

    with pytest.raises(IntegrityError, match="scores"):
        read_matrix(run)


def test_base_with_another_name_is_refused(run):
    path = run / "round-0001" / "evaluation" / "base-0001" / "scores.json"
    path.write_text(path.read_text().replace('"base-0001"', '"first"'))

    with pytest.raises(IntegrityError, match="'first' is no base"):
        read_matrix(run)


def test_other_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a run directory"):
        read_matrix(tmp_path)
