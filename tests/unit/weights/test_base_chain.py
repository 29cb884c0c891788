"""Updates on the disk: what is no delta is refused with the file's name."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from wfc_dist.errors import InputError
from wfc_dist.merging.factors import Factors, concatenated
from wfc_dist.weights import base_chain


@pytest.fixture
def delta(tmp_path: Path) -> Path:
    item = concatenated([Factors(torch.ones(2, 3), torch.ones(4, 2), 0.5)], [1.0])
    base_chain.write_delta(tmp_path, {"a.b": item})
    return tmp_path


@pytest.mark.parametrize("gone", ["lora_A", "lora_B", "coefficients"])
def test_a_delta_that_lacks_a_part_is_refused(delta: Path, gone: str) -> None:
    path = delta / base_chain.DELTA
    save_file({name: tensor for name, tensor in load_file(path).items() if not name.endswith(gone)}, path)
    with pytest.raises(InputError, match=rf"delta\.safetensors is no delta: .*{gone}"):
        base_chain.read_delta(delta)


@pytest.mark.parametrize("size", [0, 7, 30, -1])
def test_a_delta_that_is_cut_off_is_refused(delta: Path, size: int) -> None:
    path = delta / base_chain.DELTA
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match=r"delta\.safetensors cannot be read"):
        base_chain.read_delta(delta)


def test_a_whole_delta_is_read(delta: Path) -> None:
    assert torch.equal(base_chain.read_delta(delta)["a.b"].dense(), torch.ones(4, 3, dtype=torch.float64))


def test_a_folder_that_is_gone_is_not_called_pickled(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the model folder .*/gone does not exist; restore it there"):
        base_chain.weight_map(tmp_path / "gone")
