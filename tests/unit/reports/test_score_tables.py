import io

import pytest
from rich.console import Console
from scored_runs import BASES, make_config, make_mixed_run, make_run, make_scored_run, put

from wfc_dist.config import loading
from wfc_dist.evaluation.matrix import read_matrix
from wfc_dist.evaluation.metrics import Score
from wfc_dist.reports.score_tables import percent, round_tables, summary_tables


def as_text(matrix):
    console = Console(file=io.StringIO(), width=120, no_color=True, force_terminal=False)
    for table in summary_tables(matrix):
        console.print(table)
    return console.file.getvalue()


@pytest.fixture
def run(tmp_path):
    return make_scored_run(tmp_path)


def test_table_marks_own_sets_and_prints_brackets(run):
    text = as_text(read_matrix(run))

    assert text.count("*10.0 [") == 3
    assert "mean_j (R[t_j][j] - R[T][j])" in text
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


def test_run_that_has_just_begun(tmp_path):
    config = make_config(tmp_path)
    folder = make_run(tmp_path / "r", config)
    assert summary_tables(read_matrix(folder)) == []

    put(folder, config, 1, "base-0000", BASES[0])
    matrix = read_matrix(folder)

    assert [line.split()[-1] for line in as_text(matrix).splitlines() if "scored after a round" in line] != []
    assert "No round has been scored yet." in as_text(matrix)
    assert len(round_tables(matrix)) == 1


@pytest.mark.parametrize(
    ("low", "high", "text"), [(0.101, 0.148, "12.3 [10.1, 14.8]"), (None, None, "12.3")]
)  # fmt: skip
def test_percent(low, high, text):
    assert percent(Score("wer", 0.123, low, high, 1, 8, 1, 0, 0, 1, 0.95)) == text


def test_an_adapter_of_a_mix_was_trained_on_every_part(tmp_path):
    assert as_text(read_matrix(make_mixed_run(tmp_path))).count("*10.0 [") == 2
