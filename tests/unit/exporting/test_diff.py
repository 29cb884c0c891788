"""Two models side by side: what moved, by how much, and what cannot be compared."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from wfc_dist.errors import InputError
from wfc_dist.exporting.diff import diff
from wfc_dist.reports.difference import tables

NAME = "model.encoder.layers.0.self_attn.q_proj.weight"
ZERO = "model.encoder.layers.0.fc1.bias"


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    for name in "ab":
        tiny.make_whisper(tmp_path / name)
    return tmp_path / "a", tmp_path / "b"


def change(folder: Path, **values: torch.Tensor) -> None:
    path = folder / "model.safetensors"
    save_file(load_file(path) | {name.replace("__", "."): value for name, value in values.items()}, path, {"format": "pt"})


def test_two_models_alike_do_not_differ(models: tuple[Path, Path]) -> None:
    found = diff(*models)
    assert found.moved == () and found.relative == 0 and found.num_tensors > 50 and found.scores == {}


def test_a_tensor_that_moved_is_measured_in_float64(models: tuple[Path, Path]) -> None:
    before = load_file(models[0] / "model.safetensors")[NAME]
    after = before.clone()
    after[0, 0] += 0.5
    change(models[1], **{NAME: after})
    (moved,) = diff(*models).moved
    gap = (after.double() - before.double()).norm()
    assert moved.name == NAME and moved.relative == pytest.approx(float(gap / before.double().norm()), rel=1e-12)
    assert moved.largest == float((after.double() - before.double()).abs().max())


def test_what_is_infinite_is_null_in_json_and_comes_first(models: tuple[Path, Path]) -> None:
    size = load_file(models[0] / "model.safetensors")[ZERO].shape
    change(models[0], **{ZERO: torch.zeros(size)})
    change(models[1], **{ZERO: torch.ones(size), NAME: torch.ones_like(load_file(models[0] / "model.safetensors")[NAME])})
    found = diff(*models)
    assert [item.name for item in found.moved] == [ZERO, NAME] and found.moved[0].relative == math.inf
    told = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert told["moved"][0] == {"name": ZERO, "relative": None, "largest": 1.0, "why": ""}


def test_the_table_shows_as_many_as_asked_for(models: tuple[Path, Path]) -> None:
    size = load_file(models[0] / "model.safetensors")[NAME].shape
    change(models[1], **{NAME: torch.ones(size), ZERO: torch.ones(load_file(models[0] / "model.safetensors")[ZERO].shape)})
    (table,) = tables(diff(*models), 1)
    assert table.row_count == 2 and list(table.columns[0].cells)[-1] == "and 1 more"


def score(num_clips: int, reference_length: int) -> dict[str, object]:
    return {"metric": "wer", "rate": 0.25, "low": 0.1, "high": 0.4, "num_clips": num_clips, "reference_length": reference_length}


def test_errors_on_other_clips_are_not_put_side_by_side_without_a_word(models: tuple[Path, Path]) -> None:
    scores = {"es": [score(4, 33), score(24, 136)], "fr": [score(4, 33), score(4, 33)], "it": [None, score(4, 33)]}
    scores |= {"ru": [score(4, 33) | {"precision": precision} for precision in ("fp32", "bf16")]}
    errors = tables(replace(diff(*models), scores=scores), 1)[1]
    rows = list(zip(*(column.cells for column in errors.columns), strict=True))
    assert [row[:3] for row in rows] == [("es", "wer", "4 / 24"), ("fr", "wer", "4"), ("it", "wer", "4"), ("ru", "wer", "4")]
    assert str(errors.caption).endswith("so do not compare: es, ru")


def test_what_is_no_model_is_refused(models: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty"):
        diff(models[0], tmp_path / "empty")
