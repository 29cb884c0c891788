import io

import pytest
from rich.console import Console
from scored_runs import BASES, make_config, make_mixed_run, make_run, make_scored_run, put

from wfc_dist.config import loading
from wfc_dist.evaluation.matrix import read_matrix
from wfc_dist.evaluation.metrics import Score
from wfc_dist.reports.score_tables import percent, round_tables, scores_table, summary_tables
from wfc_dist.reports.tables import metric_text


def as_text(matrix, width=120):
    console = Console(file=io.StringIO(), width=width, no_color=True, force_terminal=False)
    for table in summary_tables(matrix, width):
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


@pytest.mark.parametrize("width", [80, 100, 120, 200])
@pytest.mark.parametrize("length", [2, 14, 40])
@pytest.mark.parametrize("metric", [None, "cer"])
def test_no_number_and_no_name_is_cut_at_any_width(tmp_path, width, length, metric):
    names = [f"{number}{'long-name-' * 9}"[:length] for number in range(6)]
    tree = make_config(tmp_path).model_dump(mode="json")
    tree["datasets"] = dict.fromkeys(names, tree["datasets"]["cs"]) | {names[0]: tree["datasets"]["cs"] | {"metric": metric}}
    config = loading.parse(tree | {"rounds": [names[:5], names[5:]]})
    folder = make_run(tmp_path / "r", config)
    rates = dict(zip([*names, "en", "fr"], (10, 0, 4, 8, 3, 2, 10, 1), strict=True))
    for index in (0, 1, 2):
        put(folder, config, max(1, index), f"base-{index:04d}", rates)
    for name in names:
        put(folder, config, 1 + names.index(name) // 5, name, rates)
    matrix = read_matrix(folder)

    text = as_text(matrix, width)

    assert max(len(line) for line in text.splitlines()) <= width and "\N{HORIZONTAL ELLIPSIS}" not in text
    for score in matrix.bases[2].scores.values():
        assert text.count(percent(score)) >= 3, "at every base"
    assert "100.0" in text
    if length == 2:
        assert all(f"\n {name} " in text for name in names)
    assert all(name[:8] in text and name[-3:] in text for name in names), "folded, not cut"


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


def with_metrics(config, **metrics):
    tree = config.model_dump(mode="json")
    for name, metric in metrics.items():
        block = tree["evaluate"]["protected"] if name in tree["evaluate"]["protected"] else tree["datasets"]
        block[name]["metric"] = metric
    return loading.parse(tree)


@pytest.mark.parametrize(
    ("metrics", "text", "averaged"),
    [
        ({}, "WER", "WER"),
        (dict.fromkeys(("zh", "cs", "ar", "en", "fr"), "mer"), "MER", "MER"),
        ({"zh": "mer", "en": "mer"}, "WER (MER: zh, en)", "mean of error rates (WER; MER: zh, en)"),
        ({"zh": "mer", "fr": "cer"}, "WER (MER: zh; CER: fr)", "mean of error rates (WER; MER: zh; CER: fr)"),
        (dict.fromkeys(("zh", "cs", "ar", "en"), "mer") | {"fr": "cer"}, "MER (CER: fr)", "mean of error rates (MER; CER: fr)"),
    ],
)
def test_a_caption_names_the_metric_of_every_set(tmp_path, metrics, text, averaged):
    config = with_metrics(make_config(tmp_path), **metrics)

    assert (metric_text(config), metric_text(config, averaged=True)) == (text, averaged)


def test_tables_of_sets_with_different_metrics_say_so(tmp_path):
    config = with_metrics(make_config(tmp_path), zh="mer")
    folder = make_run(tmp_path / "r", config)
    for index, rates in BASES.items():
        put(folder, config, max(1, index), f"base-{index:04d}", rates)
    text = as_text(read_matrix(folder))

    assert "WER (MER: zh) in percent, corpus level" in text
    assert "\n zh (MER) " in text and "\n cs (WER) " in text and "\n en (WER) " in text
    assert " ".join(text.split()).count("a mean of error rates, MER and WER") == 2, "those of the new sets, not of the protected"
    assert max(len(line) for line in text.splitlines()) <= 120


def test_the_table_of_one_model_names_the_metric_of_a_set(tmp_path):
    score = Score("wer", 0.123, None, None, 1, 8, 1, 0, 0, 1, 0.95)
    shown = {}
    for name, config in (("same", make_config(tmp_path)), ("mixed", with_metrics(make_config(tmp_path), zh="mer"))):
        console = Console(file=io.StringIO(), width=100, no_color=True)
        console.print(scores_table("m", config, {"zh": score, "cs": score}))
        shown[name] = console.file.getvalue()

    assert "m: WER %, none normalizer" in shown["same"] and "(" not in shown["same"] and shown["same"].count("WER") == 2
    assert "m: WER (MER: zh) %, none normalizer" in shown["mixed"] and "error rate" in shown["mixed"]
    assert "zh (MER)" in shown["mixed"] and "cs (WER)" in shown["mixed"]
