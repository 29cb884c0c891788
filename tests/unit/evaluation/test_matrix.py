import json

import pytest
from scored_runs import make_mixed_run, make_scored_run

from wfc_dist.config import loading
from wfc_dist.errors import InputError, IntegrityError
from wfc_dist.evaluation.matrix import ScoreMatrix, read_matrix


@pytest.fixture
def run(tmp_path):
    return make_scored_run(tmp_path)


def test_models_stand_in_the_order_they_came_to_be(run):
    matrix = read_matrix(run)

    assert [model.title for model in matrix.models_of(1)] == ["base 0", "1:cs", "1:ar", "base 1"]
    assert [model.title for model in matrix.models_of(2)] == ["base 1", "2:zh", "base 2"]
    assert matrix.learned == {"cs": 1, "ar": 1, "zh": 2}
    assert matrix.own == ["cs", "ar", "zh"] and matrix.protected == ["en", "fr"]


def test_the_parts_of_a_mix_are_learned_with_it(tmp_path):
    matrix = read_matrix(make_mixed_run(tmp_path))

    assert matrix.learned == {"cs": 1, "ar": 1, "zh": 2} and matrix.own == ["cs", "ar", "zh"]
    assert [name for name in matrix.own if matrix.trained_on(matrix.adapters[1, "all"], name)] == ["cs", "ar"]


def test_a_mix_with_a_test_split_of_its_own_is_learned_as_well(tmp_path):
    part = {"source": "s", "splits": {"train": "t", "test": "e"}}
    mix = {"format": "mix", "parts": {"x": part, "y": part}, "splits": {"train": "train", "test": "test"}}
    tree = {"run": {"name": "r"}, "base": {"model": "m"}, "datasets": {"both": mix, "x": part, "z": part},
            "rounds": [["both"], ["x", "z"]]}  # fmt: skip

    assert ScoreMatrix(loading.parse(tree), {2: None}, {}).learned == {"both": 1, "x": 2, "z": 2}


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
