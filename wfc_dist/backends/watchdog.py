"""Notices from within that this process hangs, says where, and ends the process where that is allowed."""

import logging
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import TracebackType

from wfc_dist import activity
from wfc_dist.backends.hangs import Hang, Limits, RankState
from wfc_dist.config.cluster import ClusterConfig
from wfc_dist.errors import EXIT_INTERRUPTED

logger = logging.getLogger(__name__)
LOOK_EVERY_S = 1.0
WARN_S = 60.0
"""Seconds without a move after which a file that is read then is named, long before the limit."""
PAUSED_S = 20.0
"""A longer time between two looks was none of the process."""
RECORD_S = 20.0
"""Seconds that the record of a hang may take: what hangs may be the disk that it is written to."""


class Watchdog:
    """A thread that looks whether the work of this process moves (see `activity`), while the context lasts.

    At a hang it logs the stack of every thread, calls `on_hang`, and ends the process with exit code 75 if the process is a
    command or a job (`activity.may_end_process`). The process of a user's own program is left alone; the hang is told once.

    Args:
        limits: How long the work may stand still.
        on_hang: Gets the hang, and records it.
        world_rank: Rank of this process, for the message.
    """

    def __init__(self, limits: Limits, on_hang: Callable[[Hang], None], world_rank: int = 0) -> None:
        self._limits, self._on_hang, self._rank = limits, on_hang, world_rank
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        activity.moved()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end.set()

    def _look(self) -> None:
        is_told, is_warned, looked_s = False, False, time.monotonic()
        while not self._end.wait(LOOK_EVERY_S):
            before_s, looked_s = looked_s, time.monotonic()
            if looked_s - before_s > PAUSED_S:
                activity.moved()  # the process itself was stopped, as by a scheduler that suspends jobs
                continue
            said = activity.now()
            limit_s = self._limits.limit_s([said])
            if said.idle_s < WARN_S:
                is_warned = False
            elif said.reading and not is_warned:
                is_warned = True
                logger.warning("still reading %s, for %.0f s", said.reading, said.reading_s)
            if said.idle_s < limit_s:
                is_told = False
            elif not is_told:
                is_told = True
                self._tell(Hang(RankState(self._rank, 0.0, said.idle_s, said), limit_s))

    def _tell(self, hang: Hang) -> None:
        logger.error("nothing has moved for %.0f s; the threads of this process:\n%s", hang.state.still_s, stacks())
        recorder = threading.Thread(target=self._record, args=(hang,), name="watchdog-record", daemon=True)
        recorder.start()
        recorder.join(RECORD_S)
        if activity.may_end_process and not self._end.is_set():
            os._exit(EXIT_INTERRUPTED)  # a thread that hangs in the system can neither be interrupted nor joined

    def _record(self, hang: Hang) -> None:
        try:
            self._on_hang(hang)
        except Exception:
            logger.exception("the hang could not be recorded")


def watched(command: str, cluster: ClusterConfig | None = None) -> Watchdog:
    """Returns the watchdog of a command that has no run: it prints the hang on standard error.

    Args:
        command: Its name.
        cluster: Has the limits; without a configuration the limit is that of `auto`.
    """

    def tell(hang: Hang) -> None:
        error = hang.error(command, socket.gethostname(), "the process", has_key=cluster is not None)
        print(f"wfc: {error}", file=sys.stderr, flush=True)

    return Watchdog(Limits.of(cluster) if cluster else Limits(), tell)


def stacks() -> str:
    """Returns the stack of every other thread, the name first."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = {number: frame for number, frame in sys._current_frames().items() if number != threading.get_ident()}
    return "\n".join(
        f"{names.get(number, number)}:\n{''.join(traceback.format_stack(frame))}" for number, frame in frames.items()
    )
