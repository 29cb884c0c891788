"""Memory of processes that live as long as a run: what is freed goes back to the system. Nothing happens without glibc.

glibc keeps freed memory that lies between blocks in use, in an arena for every few threads. A warm process grows by that from job
to job, though it uses no more.
"""

import contextlib
import ctypes
import gc

ARENAS = 2
ENVIRONMENT = {"MALLOC_ARENA_MAX": str(ARENAS)}
"""Gives a process that starts with it few arenas."""
_M_ARENA_MAX = -8


def have_few_arenas() -> None:
    """Has the threads that this process starts from now on share a few arenas. Call it before there are many threads."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, ARENAS)


def trim() -> None:
    """Gives memory that is not in use back to the system: what garbage cycles hold, and what the allocator keeps."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
