"""The end of a run at once, whatever its main thread does: status.json, ledger and exit code say that the run can go on."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from wfc_dist.coordinator.notify import notify
from wfc_dist.errors import EXIT_INTERRUPTED, WfcError
from wfc_dist.runs.store import RunStore

LIMIT_S = 10.0


def end_at_once(store: RunStore, message: str) -> NoReturn:
    """Says that a run was interrupted (see `say_interrupted`), and ends the process with EXIT_INTERRUPTED."""
    say_interrupted(store, message)
    os._exit(EXIT_INTERRUPTED)


def say_interrupted(store: RunStore, message: str) -> None:
    """Records that a run was interrupted, and why, and prints it.

    Each of the two has LIMIT_S: a file system or a terminal that hangs holds nothing up.
    """
    for work in (lambda: _record(store, message), lambda: _print(message)):
        _within_limit(work)


def _within_limit(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(LIMIT_S)


def _record(store: RunStore, message: str) -> None:
    if store.status.last_state() != "lost":  # "lost" is what a file that says "running" means to others
        return
    with contextlib.suppress(WfcError, OSError):  # the other record may go well
        store.status.write("interrupted", message, EXIT_INTERRUPTED, **store.end_facts())
    with contextlib.suppress(WfcError, OSError):
        store.ledger.record("stopped", round=store.current_round(), reason=message)
    notify(store.config, "stopped", message, EXIT_INTERRUPTED)


def _print(message: str) -> None:
    with contextlib.suppress(OSError):
        print(f"wfc: {message}", file=sys.stderr, flush=True)
