"""safetensors files read by their headers and written tensor by tensor: no more than one tensor in memory at a time."""

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from wfc_dist import activity
from wfc_dist.errors import InputError
from wfc_dist.storage import durable

_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}
_FLUSH_BYTES = 32 << 20  # what is written goes to the disk while the next tensors are computed
MAX_HEADER_BYTES = 100_000_000  # as in the safetensors library


@dataclass(frozen=True)
class TensorSpec:
    """What a header says of a tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Returns the size of its data."""
        return self.dtype.itemsize * math.prod(self.shape)


def read_header(path: Path) -> dict[str, TensorSpec]:
    """Returns name -> spec of a safetensors file without touching its data.

    Raises:
        InputError: It is none, it is cut off, or a tensor has another data type than those of `TensorSpec`.
    """
    try:
        durable.require_file(path)
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 0 < size <= MAX_HEADER_BYTES:
                raise ValueError(f"a header of {size} bytes")
            header = json.loads(file.read(size))
            there = os.fstat(file.fileno()).st_size
        specs = {name: _spec(name, item) for name, item in header.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as safetensors: {error!r}") from error
    expected = 8 + size + sum(spec.size_bytes for spec in specs.values())
    if there != expected:
        raise InputError(
            f"{path} has {there} bytes, its header says {expected}: it is cut off or damaged; copy or download it again"
        )
    return specs


def _spec(name: str, item: Mapping[str, Any]) -> TensorSpec:
    if item["dtype"] not in _DTYPES:
        raise ValueError(f"{name} has the data type {item['dtype']}, which is not read; convert it to F32, F16 or BF16")
    shape = tuple(item["shape"])
    if not all(isinstance(size, int) and size >= 0 for size in shape):
        raise ValueError(f"{name} has the shape {item['shape']}")
    return TensorSpec(_DTYPES[item["dtype"]], shape)


class TensorFile:
    """An open safetensors file, whose tensors are read one by one.

    NumPy reads them: of each that the library hands out as a tensor of torch, 64 bytes are never given back (safetensors 0.8). A
    merge reads three of them for each module and earlier round. Data types that NumPy does not know, bfloat16, come from torch.

    Raises:
        OSError, SafetensorError: It is no safetensors file.
    """

    def __init__(self, path: Path) -> None:
        durable.require_file(path)
        self._path, self._file = path, safe_open(path, framework="np")
        self._torch_file: safe_open | None = None

    def __enter__(self) -> "TensorFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.__exit__(None, None, None)
        if self._torch_file is not None:
            self._torch_file.__exit__(None, None, None)

    def names(self) -> list[str]:
        """Returns the names of its tensors."""
        return list(self._file.keys())

    def read(self, name: str) -> torch.Tensor:
        """Returns a tensor with its own memory. Raises SafetensorError if the file has none of that name."""
        if _DTYPES.get(self._file.get_slice(name).get_dtype(), torch.bfloat16) != torch.bfloat16:
            return torch.from_numpy(self._file.get_tensor(name))
        self._torch_file = self._torch_file or safe_open(self._path, framework="pt")
        return self._torch_file.get_tensor(name)  # type: ignore[no-any-return]


def open_tensors(path: Path) -> TensorFile:
    """Returns an open safetensors file. Raises InputError when it is none."""
    try:
        return TensorFile(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read as safetensors: {error}") from error


def write_order(specs: Mapping[str, TensorSpec]) -> list[str]:
    """Returns names in the order of a file's data: larger data types first, so that all are aligned, then by name."""
    return sorted(specs, key=lambda name: (-specs[name].dtype.itemsize, name))


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file with the library, as contiguous tensors. The mode of the file follows the umask."""
    path.touch()
    mode = path.stat().st_mode & 0o777
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=metadata)
    except SafetensorError as error:  # the library tells of a full disk by words
        if (number := re.search(r"\(os error (\d+)\)", str(error))) is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    path.chmod(mode)  # the library replaces the file by a temporary one, which only its owner may read


class TensorFileWriter:
    """Writes one safetensors file, laid out as the safetensors library does, and hashes it as it goes.

    Args:
        path: The file; must not exist.
        specs: Name -> what will be written, in `write_order`.
    """

    def __init__(self, path: Path, specs: Mapping[str, TensorSpec]) -> None:
        self._path, self._specs = path, specs
        self._order, self._next = write_order(specs), 0
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for name in self._order:
            spec = specs[name]
            end = offset + spec.size_bytes
            header[name] = {"dtype": _NAMES[spec.dtype], "shape": list(spec.shape), "data_offsets": [offset, end]}
            offset = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._digest = hashlib.sha256()
        self._file = open(path, "xb")  # noqa: SIM115 - `close` flushes and closes it
        self._behind, self._flush, self._unflushed = ThreadPoolExecutor(1), Future[None](), 0
        self._flush.set_result(None)
        self._put(len(text).to_bytes(8, "little") + text)

    def _put(self, data: bytes | memoryview) -> None:
        activity.moved()
        self._digest.update(data)
        with durable.naming(self._path):
            self._file.write(data)
            self._unflushed += len(data)
            if self._unflushed >= _FLUSH_BYTES and self._flush.done():
                self._flush.result()  # a disk that failed says so here
                self._file.flush()
                self._flush, self._unflushed = self._behind.submit(os.fdatasync, self._file.fileno()), 0

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Appends the next tensor of `write_order`, which must be what its spec says."""
        assert self._order[self._next] == name, f"{name} out of order"
        assert TensorSpec(tensor.dtype, tuple(tensor.shape)) == self._specs[name], f"{name} is not what the header says"
        self._next += 1
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        if flat.numel():
            self._put(flat.view(torch.uint8).numpy().data)

    def close(self) -> str:
        """Flushes the finished file to the disk and returns its sha256."""
        assert self._next == len(self._order), f"{self._path}: {self._order[self._next]} was not written"
        self._behind.shutdown()
        with durable.naming(self._path):
            self._flush.result()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        return self._digest.hexdigest()
