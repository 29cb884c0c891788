"""Rates with their columns, read from hypotheses on disk."""

import json

import numpy as np
import pytest
from scored_runs import WORDS, hypotheses_with, make_scored_run

from wfc_dist.errors import IntegrityError
from wfc_dist.evaluation import rates as rates_module
from wfc_dist.evaluation.hypotheses import Hypothesis, read_hypotheses, write_hypotheses
from wfc_dist.evaluation.intervals import WIDTH
from wfc_dist.evaluation.matrix import read_matrix
from wfc_dist.evaluation.rates import OtherClipsError, RateReader


@pytest.fixture
def matrix(tmp_path):
    return read_matrix(make_scored_run(tmp_path))


def test_a_rate_stands_before_its_columns_and_each_set_has_a_block_of_its_own(matrix):
    reader = RateReader(matrix.config)
    read = {name: reader.rates(matrix.bases[0], name) for name in ("fr", "zh", "cs")}
    _, counts = reader.texts(matrix.bases[0], "cs")

    assert [read[name][0] for name in ("zh", "cs", "fr")] == [0.5, 0.4, 0.2]
    sets = list(matrix.config.test_sets())
    blocks = read["cs"][1:].reshape(len(sets), WIDTH)
    np.testing.assert_array_equal(blocks[sets.index("cs")], counts.columns()[1:])
    assert (np.delete(blocks, sets.index("cs"), axis=0) == 0.4).all(), "leaving out a clip of another set changes nothing"
    assert reader.num_units == dict.fromkeys(read, 20)


def test_all_models_leave_out_the_same_units(matrix):
    reader = RateReader(matrix.config)
    before, again = (reader.rates(matrix.bases[index], "ar") for index in (1, 2))  # 4 tenths, both

    np.testing.assert_array_equal(before, again)


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
    run = RateReader(matrix.config, intervals=False).run(matrix)

    assert (run.learned, run.last) == ({"cs": 1, "ar": 1, "zh": 2}, 2)
    assert run.rates[2, "zh"].tolist() == [0.2]


def test_models_that_were_decoded_in_another_precision_are_not_compared(matrix):
    path = matrix.bases[2].hypotheses("ar")
    header, said = read_hypotheses(path)
    reader = RateReader(matrix.config)
    write_hypotheses(path, header | {"decoding": {"num_beams": 1}}, said)  # that of float32, as of versions before
    reader.run(matrix)
    write_hypotheses(path, header | {"decoding": {"num_beams": 1, "precision": "bf16"}}, said)

    with pytest.raises(IntegrityError, match=r"ar\.jsonl was decoded in bf16, .* in fp32: .* set evaluate\.precision"):
        reader.rates(matrix.bases[2], "ar")


def test_models_that_were_scored_on_other_clips_are_not_compared(matrix):
    header = {"schema": 2, "model_sha256": "another"}
    write_hypotheses(matrix.bases[2].hypotheses("cs"), header, hypotheses_with(3)[:7])

    with pytest.raises(OtherClipsError, match="cs has other clips than in the other runs"):
        RateReader(matrix.config).run(matrix)


def test_models_that_were_decoded_in_other_windows_are_not_compared(matrix):
    said = hypotheses_with(3)
    packed = Hypothesis("0..1", (WORDS, WORDS), f"{said[0].hypothesis} {said[1].hypothesis}", "en", 2.0)
    write_hypotheses(matrix.bases[2].hypotheses("cs"), {"schema": 2, "model_sha256": "another"}, [packed, *said[2:]])

    with pytest.raises(OtherClipsError, match="cs has other clips"):
        RateReader(matrix.config).run(matrix)


def test_errors_of_a_set_are_counted_with_its_own_metric(tmp_path):
    folder = make_scored_run(tmp_path)
    tree = json.loads((folder / "config.json").read_text())
    tree["config"]["datasets"]["cs"]["metric"] = "cer"
    (folder / "config.json").write_text(json.dumps(tree))
    matrix = read_matrix(folder)
    reader = RateReader(matrix.config, intervals=False)

    words, letters = (int(reader.texts(matrix.bases[0], name)[1].lengths.sum()) for name in ("ar", "cs"))
    assert (words, letters) == (20 * 10, 20 * 19), "ten words of one letter are nineteen characters with their spaces"
    assert reader.rates(matrix.bases[0], "cs")[0] == 20 * 4 / letters
