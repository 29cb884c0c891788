"""Memory of a warm process: what a job has freed goes back to the system."""

import ctypes
import platform

import psutil
import pytest

from wfc_dist.backends.worker import trim_memory

BLOCK_BYTES, NUM_BLOCKS = 4000, 20_000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep nothing, or cannot be asked to return it")
def test_freed_memory_goes_back_to_the_system() -> None:
    libc, process = ctypes.CDLL(None), psutil.Process()
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
    blocks = [libc.malloc(BLOCK_BYTES) for _ in range(NUM_BLOCKS)]
    for block in blocks:
        ctypes.memset(block, 1, BLOCK_BYTES)
    for block in blocks[:-1]:  # the last one is in use, and what lies before it stays with the allocator
        libc.free(block)
    kept_bytes = process.memory_info().rss

    trim_memory()

    assert kept_bytes - process.memory_info().rss > 0.8 * BLOCK_BYTES * NUM_BLOCKS
    libc.free(blocks[-1])
