"""safetensors files written tensor by tensor: the bytes the safetensors library writes, and what is refused."""

import errno
import hashlib
import json
import os
import resource
from pathlib import Path

import psutil
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from wfc_dist.errors import InputError
from wfc_dist.weights import tensor_files
from wfc_dist.weights.tensor_files import TensorFileWriter, TensorSpec, open_tensors, read_header, write_order


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "b": torch.randn(3, 5, generator=generator).to(torch.bfloat16),
        "a": torch.randn(7, generator=generator),
        "c": torch.arange(4),
        "empty": torch.zeros(0, 3, dtype=torch.float16),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "flag": torch.tensor([True, False, True]),
    }


def specs_of(items: dict[str, torch.Tensor]) -> dict[str, TensorSpec]:
    return {name: TensorSpec(tensor.dtype, tuple(tensor.shape)) for name, tensor in items.items()}


def test_the_library_reads_back_what_was_written_and_the_hash_is_the_files(tmp_path: Path) -> None:
    items = tensors()
    writer = TensorFileWriter(tmp_path / "x.safetensors", specs_of(items))
    for name in write_order(specs_of(items)):
        writer.write(name, items[name])
    sha256 = writer.close()

    assert sha256 == hashlib.sha256((tmp_path / "x.safetensors").read_bytes()).hexdigest()
    loaded = load_file(tmp_path / "x.safetensors")
    assert loaded.keys() == items.keys()
    assert all(torch.equal(loaded[name], items[name]) and loaded[name].dtype == items[name].dtype for name in items)


def test_the_header_says_what_the_library_wrote(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "x.safetensors", {"format": "pt"})
    assert read_header(tmp_path / "x.safetensors") == specs_of(tensors())


@pytest.mark.parametrize("data", [b"", b"\xff" * 8, b"\x05\0\0\0\0\0\0\0{]{]}", b"\x02\0\0\0\0\0\0\0[]"])
def test_what_is_no_safetensors_file_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "bad.safetensors").write_bytes(data)
    with pytest.raises(InputError, match=r"bad\.safetensors cannot be read as safetensors"):
        read_header(tmp_path / "bad.safetensors")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="it is no file"):
        read_header(tmp_path / "x.safetensors")
    with pytest.raises(OSError, match="it is no file"):
        tensor_files.TensorFile(tmp_path / "x.safetensors")


def test_a_full_disk_is_told_with_the_file(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            tensor_files.save_tensors(tmp_path / "x.safetensors", tensors())
        assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(tmp_path / "x.safetensors"))
        with pytest.raises(OSError, match="File too large") as caught:
            writer = TensorFileWriter(tmp_path / "y.safetensors", specs_of({"a" * 200: torch.zeros(1)}))
            writer.write("a" * 200, torch.zeros(1))
            writer.close()
        assert caught.value.filename == str(tmp_path / "y.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data[:-40], lambda data: data + b"\0"])
def test_a_file_that_is_cut_off_or_too_long_says_how_many_bytes_are_there(tmp_path: Path, change) -> None:
    save_file(tensors(), path := tmp_path / "x.safetensors", {"format": "pt"})
    whole = path.read_bytes()
    path.write_bytes(change(whole))
    with pytest.raises(InputError, match=rf"x\.safetensors has {len(change(whole))} bytes, its header says {len(whole)}.*copy"):
        read_header(path)


@pytest.mark.parametrize(
    "item",
    [
        {"dtype": "F8_E4M3", "shape": [4]}, {"dtype": "F4", "shape": [4]}, {"dtype": ["F32"], "shape": [4]}, {"shape": [4]},
        {"dtype": "F32", "shape": [-4]}, {"dtype": "F32", "shape": [1.0]}, {"dtype": "F32", "shape": "4"}, {"dtype": "F32"},
        {"dtype": "F32", "shape": None}, [], 1, None, {"dtype": "F32", "shape": [2**62, 2**62]},
    ],
)  # fmt: skip
def test_a_header_that_makes_no_sense_is_refused(tmp_path: Path, item: object) -> None:
    header = json.dumps({"a": item}).encode()
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    with pytest.raises(InputError, match=r"x\.safetensors"):
        read_header(tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=r"x\.safetensors"):
        open_tensors(tmp_path / "x.safetensors")


def test_an_order_or_a_shape_that_breaks_the_layout_is_refused(tmp_path: Path) -> None:
    items = {"a": torch.zeros(2), "b": torch.zeros(3)}
    writer = TensorFileWriter(tmp_path / "x.safetensors", specs_of(items))
    with pytest.raises(AssertionError, match="out of order"):
        writer.write("b", items["b"])
    with pytest.raises(AssertionError, match="not what the header says"):
        writer.write("a", torch.zeros(3))
    writer.write("a", items["a"])
    with pytest.raises(AssertionError, match="b was not written"):
        writer.close()


def test_a_disk_that_fails_while_the_file_is_being_written_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensor_files, "_FLUSH_BYTES", 64)
    items = {name: torch.zeros(32) for name in "abcd"}

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(OSError, match="Input/output"):  # from `write` or from `close`, whichever comes after it
        writer = TensorFileWriter(tmp_path / "x.safetensors", specs_of(items))
        for name, tensor in items.items():
            writer.write(name, tensor)
        writer.close()


def test_a_file_of_the_library_has_its_bytes_and_a_mode_that_follows_the_umask(tmp_path: Path) -> None:
    for umask, mode in ((0o022, 0o644), (0o002, 0o664), (0o077, 0o600)):
        before = os.umask(umask)
        try:
            tensor_files.save_tensors(tmp_path / f"{umask}", tensors(), {"format": "pt"})
        finally:
            os.umask(before)
        assert (tmp_path / f"{umask}").stat().st_mode & 0o777 == mode
    save_file(tensors(), tmp_path / "library", metadata={"format": "pt"})
    assert (tmp_path / "library").read_bytes() == (tmp_path / f"{0o022}").read_bytes()


def test_tensors_are_read_bit_for_bit_with_memory_of_their_own(tmp_path: Path) -> None:
    wanted = tensors() | {"eight": torch.randn(4).to(torch.float8_e4m3fn)}
    save_file(wanted, tmp_path / "x.safetensors")
    with open_tensors(tmp_path / "x.safetensors") as file:
        assert sorted(file.names()) == sorted(wanted)
        found = {name: file.read(name) for name in file.names()}
    for name, tensor in wanted.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert found[name].reshape(-1).view(torch.uint8).equal(tensor.reshape(-1).view(torch.uint8)), name
        found[name].zero_()
    with open_tensors(tmp_path / "x.safetensors") as file:
        assert file.read("a").equal(wanted["a"])
        with pytest.raises(SafetensorError, match="nothing"):
            file.read("nothing")


def test_reading_tensors_holds_no_memory(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "x.safetensors")

    def read(times: int) -> int:
        with open_tensors(tmp_path / "x.safetensors") as file:
            for _ in range(times):
                file.read("a")
        return psutil.Process().memory_full_info().uss

    before = read(2000)
    assert read(100_000) - before < 2_000_000, "the library's own tensors leave 6.4 MB behind"
