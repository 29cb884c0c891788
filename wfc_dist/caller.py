"""What a function of the public interface puts back in the process that calls it. Importing this file loads no other library."""

import contextlib
import gc
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
"""What schedulers and terminals send, to one process, to its group, or to every process of a job."""


@contextlib.contextmanager
def handled(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Has SIGNALS handled by `handler` while the context lasts; does nothing outside the main thread, where Python cannot.

    SIGHUP stays ignored where it is, as under nohup. Signals that a parent has blocked, as Ray's workers have, are let through.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    wanted = [number for number in SIGNALS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in wanted}
    blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, wanted)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for number, previous in before.items():
            signal.signal(number, previous)


@contextlib.contextmanager
def put_back() -> Iterator[None]:
    """Puts back at the end what the work in it, or a library, changes for the whole process.

    That is torch's number of threads, the random generators of Python, NumPy and torch, the environment, the filters of warnings,
    the hook for uncaught exceptions, and what `gc.freeze` hides from the collector. `log.put_back` does the same for loggers.
    """
    import numpy as np
    import torch

    threads, later_threads = torch.get_num_threads(), _in_a_new_thread(torch.get_num_threads)
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    environment, num_frozen, hook = dict(os.environ), gc.get_freeze_count(), sys.excepthook
    try:
        with warnings.catch_warnings():
            yield
    finally:
        torch.set_num_threads(threads)
        _in_a_new_thread(lambda: torch.set_num_threads(later_threads))  # torch keeps one number a thread, and one for new threads
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        for device, state in enumerate(cuda):
            torch.cuda.set_rng_state(state, device)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        for name, value in environment.items():
            if os.environ.get(name) != value:
                os.environ[name] = value
        sys.excepthook = hook  # a process group of torch has its own, and keeps it when it ends
        if not num_frozen:
            gc.unfreeze()


def _in_a_new_thread(work: Callable[[], T]) -> T:
    found: list[T] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]
