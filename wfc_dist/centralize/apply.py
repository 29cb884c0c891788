"""Adds averaged updates to the tensors of the root, module by module. The memory it needs does not grow with the model.

One thread computes each module, in float64 and in a fixed order, so the bytes do not depend on the number of threads.
"""

import contextlib
import ctypes
import math
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from wfc_dist.config.cluster import MAX_MERGE_THREADS
from wfc_dist.errors import NotFiniteError
from wfc_dist.merging.factors import ROWS, AnyDelta, chain_sum_rows, squared_sum
from wfc_dist.weights import base_chain
from wfc_dist.weights.hashing import tensor_sha256
from wfc_dist.weights.tensor_files import TensorSpec

_M_MMAP_THRESHOLD, _MAPPED_BYTES = -3, 1 << 20  # from malloc.h; by default the threshold grows up to 32 MB


@dataclass(frozen=True)
class MergedModule:
    """One module of a new base, with the sums of squares for its diagnostics.

    Attributes:
        tensor: cast(root + past deltas + delta), (out, in).
        sha256: Hash of the tensor.
        update_squared: ||delta||^2.
        lost_squared: ||exact sum - cast sum||^2.
    """

    tensor: torch.Tensor
    sha256: str
    update_squared: float
    lost_squared: float


def num_threads() -> int:
    """Returns the number of threads that merge: at most the cores that this process, or its Slurm task, may use."""
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")  # a left-over may be anything
    return min(MAX_MERGE_THREADS, len(os.sched_getaffinity(0)), max(int(given), 1) if given.isdecimal() else MAX_MERGE_THREADS)


def return_freed_memory() -> None:
    """Makes glibc allocate each large tensor with mmap, so that freed memory returns to the system. Does nothing without glibc.

    Only processes that average call it, because mmap would slow down a trainer.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)


def threads() -> ThreadPoolExecutor:
    """Returns a pool of threads in which torch runs single-threaded, so that every module has the same bytes on any machine."""
    return ThreadPoolExecutor(num_threads(), initializer=partial(torch.set_num_threads, 1))


def merge_module(
    root_OI: torch.Tensor, past: Iterable[AnyDelta], delta: AnyDelta, dtype: torch.dtype
) -> tuple[torch.Tensor, float, float]:
    """Returns (cast(root + past + delta), ||delta||^2, ||exact sum - cast sum||^2)."""
    merged_OI = torch.empty_like(root_OI, dtype=dtype)
    update_squared = lost_squared = 0.0
    sums = chain_sum_rows(root_OI, past, ROWS)
    buffer = torch.empty(ROWS, root_OI.shape[1], dtype=torch.float64)
    for exact, merged, update in zip(sums, merged_OI.split(ROWS), delta.rows(ROWS), strict=True):
        merged.copy_(exact.add_(update))
        exact.sub_(buffer[: len(merged)].copy_(merged))
        update_squared += squared_sum(update)
        lost_squared += squared_sum(exact)
    return merged_OI, update_squared, lost_squared


def merged_modules(
    root: Path, past_deltas: Sequence[Path], averaged: Mapping[str, AnyDelta], dtype: str
) -> Iterator[tuple[str, MergedModule]]:
    """Yields (module, merged) in the order of `averaged`. Only a few modules are in memory at a time.

    Args:
        root: Checkpoint folder of base 0.
        past_deltas: Delta folders of earlier rounds, in order.
        averaged: Module -> this round's update.
        dtype: Data type of the result; "auto" keeps that of the root.

    Raises:
        NotFiniteError: A module of the result is not finite.
    """
    where = base_chain.weight_map(root)

    def merge(module: str) -> MergedModule:
        name = f"{module}.weight"
        root_OI = base_chain.read_tensor(where[name], name)
        past = base_chain.past_updates(past_deltas, module)
        wanted = root_OI.dtype if dtype == "auto" else base_chain.DTYPES[dtype]
        tensor, update, lost = merge_module(root_OI, past, averaged[module], wanted)
        if not math.isfinite(update + lost):
            raise NotFiniteError(f"{module} of the new base is not finite; lower centralize.scale or train.lr")
        return MergedModule(tensor, tensor_sha256(tensor), update, lost)

    with threads() as pool:
        ahead: deque[tuple[str, Future[MergedModule]]] = deque()
        for module in averaged:
            ahead.append((module, pool.submit(merge, module)))
            if len(ahead) > num_threads():  # one module to yield, and one for each thread
                done, future = ahead.popleft()
                yield done, future.result()
        for done, future in ahead:
            yield done, future.result()


def merged_specs(root: Path, modules: Iterable[str], dtype: str) -> dict[str, TensorSpec]:
    """Returns tensor name -> data type and shape after the merge, for each module of an update."""
    specs = base_chain.tensor_specs(root)
    names = [f"{module}.weight" for module in modules]
    return {name: specs[name] if dtype == "auto" else TensorSpec(base_chain.DTYPES[dtype], specs[name].shape) for name in names}
