"""Memory of a warm process: what a job has freed goes back to the system."""

import ctypes
import os
import platform
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from wfc_dist.backends import memory

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries keep nothing, or cannot be asked")
BLOCK_BYTES, NUM_BLOCKS = 4000, 20_000
THREADS = """
import ctypes, sys, threading
from wfc_dist.backends import memory

if sys.argv[2] == "few":
    memory.have_few_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
together = threading.Barrier(9)

def allocate():
    libc.malloc(100)
    together.wait()  # every thread has its arena
    together.wait()

for _ in range(8):
    threading.Thread(target=allocate).start()
together.wait()
file = libc.fopen(sys.argv[1].encode(), b"w")
libc.malloc_info(0, ctypes.c_void_p(file))
libc.fclose(ctypes.c_void_p(file))
together.wait()
"""


def test_freed_memory_goes_back_to_the_system() -> None:
    libc, process = ctypes.CDLL(None), psutil.Process()
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
    blocks = [libc.malloc(BLOCK_BYTES) for _ in range(NUM_BLOCKS)]
    for block in blocks:
        ctypes.memset(block, 1, BLOCK_BYTES)
    for block in blocks[:-1]:  # the last one is in use, and what lies before it stays with the allocator
        libc.free(block)
    kept_bytes = process.memory_info().rss

    memory.trim()

    assert kept_bytes - process.memory_info().rss > 0.8 * BLOCK_BYTES * NUM_BLOCKS
    libc.free(blocks[-1])


def num_arenas(folder: Path, which: str, environment: dict[str, str]) -> int:
    subprocess.run([sys.executable, "-c", THREADS, folder / which, which], check=True, env=environment)
    return (folder / which).read_text().count("<heap nr=")


@pytest.mark.process
def test_the_threads_of_a_process_share_a_few_arenas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    usual = dict(os.environ)

    assert num_arenas(tmp_path, "usual", usual) > memory.ARENAS
    assert num_arenas(tmp_path, "few", usual) <= memory.ARENAS
    assert num_arenas(tmp_path, "given", usual | memory.ENVIRONMENT) <= memory.ARENAS
