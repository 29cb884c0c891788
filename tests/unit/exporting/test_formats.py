"""Formats and their options: what is refused, and what the message says."""

from pathlib import Path

import pytest
import torch

from wfc_dist.cli.sharing import size_bytes
from wfc_dist.errors import ConfigError, InputError
from wfc_dist.exporting import onnx_format
from wfc_dist.exporting.catalog import FORMATS, resolve
from wfc_dist.exporting.formats import Options
from wfc_dist.exporting.safetensors_format import shards
from wfc_dist.exporting.verification import Compared
from wfc_dist.weights.tensor_files import TensorSpec


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ctranslate", Options(), "did you mean 'ctranslate2'"),
        ("onnx", Options("int8"), "'int8': onnx takes float32"),
        ("ctranslate2", Options("int4"), "'int4': ctranslate2 takes float32 or float16 or int8"),
        ("safetensors", Options("int8"), "takes nothing: the tensors stay as they are"),
        ("ctranslate2", Options(shard_size_bytes=1), "--shard-size is not read by --to ctranslate2"),
        ("safetensors", Options(converter=Path("x")), "--converter is not read by --to safetensors"),
    ],
)
def test_what_a_format_does_not_take_is_refused(name: str, options: Options, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(name, options)


def test_the_first_quantization_is_the_default() -> None:
    found = {name: resolve(name, Options())[1].quantization for name in FORMATS}
    assert found == {"safetensors": "", "ctranslate2": "float32", "ggml": "float16", "onnx": "float32"}


def test_a_converter_that_is_missing_or_has_no_python_beside_it_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs --converter PATH: the optimum-cli of an environment with `pip install"):
        onnx_format.write(tmp_path, tmp_path, Options())
    (tmp_path / "optimum-cli").write_text("")
    for name in ("optimum-cli", "python3"):
        with pytest.raises(InputError, match=f"{name}: no such file, or no Python beside it"):
            onnx_format.write(tmp_path, tmp_path, Options(converter=tmp_path / name))


@pytest.mark.parametrize(("text", "size"), [("2GB", 2 * 10**9), ("500mb", 5 * 10**8), ("1.5 KB", 1500), ("7", 7)])
def test_a_size_is_read(text: str, size: int) -> None:
    assert size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1GB", "2TB", "GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no size such as 2GB"):
        size_bytes(text)


@pytest.mark.parametrize(
    ("size_bytes", "expected"),
    [(100, [["a", "b", "c"]]), (24, [["a", "b"], ["c"]]), (23, [["a"], ["b"], ["c"]]), (1, [["a"], ["b"], ["c"]])],
)
def test_a_shard_holds_at_most_its_size_or_one_tensor(size_bytes: int, expected: list[list[str]]) -> None:
    specs = {"b": TensorSpec(torch.float32, (2,)), "a": TensorSpec(torch.float32, (4,)), "c": TensorSpec(torch.float16, (12,))}
    assert shards(specs, size_bytes) == expected


@pytest.mark.parametrize(("after", "is_same"), [("a b", True), (" a  b\n", True), ("a c", False), ("", False)])
def test_texts_are_the_same_but_for_white_space(after: str, is_same: bool) -> None:
    assert Compared("x", "a b", after).is_same is is_same
