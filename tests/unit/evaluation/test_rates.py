"""Rates with their draws, read from hypotheses on disk."""

import json

import numpy as np
import pytest
from scored_runs import hypotheses_with, make_scored_run

from wfc_dist.evaluation import rates as rates_module
from wfc_dist.evaluation.hypotheses import write_hypotheses
from wfc_dist.evaluation.matrix import read_matrix
from wfc_dist.evaluation.metrics import bootstrap_rates
from wfc_dist.evaluation.rates import OtherClipsError, RateReader


@pytest.fixture
def matrix(tmp_path):
    return read_matrix(make_scored_run(tmp_path))


def test_a_rate_stands_before_its_draws_and_the_place_of_the_set_is_the_seed(matrix):
    reader = RateReader(matrix.config)
    read = {name: reader.rates(matrix.bases[0], name) for name in ("fr", "zh", "cs")}
    _, counts = reader.texts(matrix.bases[0], "cs")

    assert [read[name][0] for name in ("zh", "cs", "fr")] == [0.5, 0.4, 0.2]
    seed = 1 + list(matrix.config.test_sets()).index("cs")
    np.testing.assert_array_equal(read["cs"][1:], bootstrap_rates([counts], 200, seed)[0])


def test_all_models_are_resampled_alike_and_each_set_on_its_own(matrix):
    reader = RateReader(matrix.config)
    before, again = (reader.rates(matrix.bases[index], "ar") for index in (1, 2))  # 4 tenths, both
    other = reader.rates(matrix.bases[0], "cs")  # 4 tenths, another set

    np.testing.assert_array_equal(before, again)
    assert before[0] == other[0] and not np.array_equal(before, other)


def test_every_text_is_counted_once(matrix, monkeypatch):
    counted = []
    count = rates_module.count_hypotheses
    monkeypatch.setattr(rates_module, "count_hypotheses", lambda *args: counted.append(args) or count(*args))
    reader = RateReader(matrix.config)
    for _ in range(2):
        reader.run(matrix)
        reader.texts(matrix.bases[0], "cs")

    assert len(counted) == 3 * 5  # bases, sets


def test_a_run_is_read_with_what_it_learned(matrix):
    run = RateReader(matrix.config, num_samples=0).run(matrix)

    assert (run.learned, run.last) == ({"cs": 1, "ar": 1, "zh": 2}, 2)
    assert run.rates[2, "zh"].tolist() == [0.2]


def test_models_that_were_scored_on_other_clips_are_not_compared(matrix):
    header = {"schema": 2, "model_sha256": "another"}
    write_hypotheses(matrix.bases[2].hypotheses("cs"), header, hypotheses_with(3)[:7])

    with pytest.raises(OtherClipsError, match="cs has other clips than in the other runs"):
        RateReader(matrix.config).run(matrix)


def test_errors_of_a_set_are_counted_with_its_own_metric(tmp_path):
    folder = make_scored_run(tmp_path)
    tree = json.loads((folder / "config.json").read_text())
    tree["config"]["datasets"]["cs"]["metric"] = "cer"
    (folder / "config.json").write_text(json.dumps(tree))
    matrix = read_matrix(folder)
    reader = RateReader(matrix.config, num_samples=0)

    words, letters = (int(reader.texts(matrix.bases[0], name)[1].lengths.sum()) for name in ("ar", "cs"))
    assert (words, letters) == (20 * 10, 20 * 19), "ten words of one letter are nineteen characters with their spaces"
    assert reader.rates(matrix.bases[0], "cs")[0] == 20 * 4 / letters
