"""The process inside a Slurm job. submitit unpickles a `JobProcess` on every rank and calls it. `payloads` has the payloads.

The payload runs in a thread of its own, so that the main thread can handle signals. submitit sends a warning signal before
preemption or the time limit. Then the process asks the training for a checkpoint, waits for it, and requeues the job. If the stop
file of the run exists, the job is not requeued.
"""

import contextlib
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

from typing_extensions import Required, TypedDict

from wfc_dist import activity
from wfc_dist.backends import net
from wfc_dist.backends.hangs import Hang, Limits
from wfc_dist.backends.watchdog import Watchdog
from wfc_dist.errors import GangFailedError, HungError, IntegrityError, Interrupted, WfcError
from wfc_dist.storage import durable
from wfc_dist.storage.shapes import STRICT, Shape

logger = logging.getLogger(__name__)
if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission


class _Result(TypedDict, total=False):
    __pydantic_config__ = STRICT  # type: ignore[misc]
    state: Required[str]
    reason: str
    value: dict[str, object]
    host: str


class _Failure(TypedDict, total=False):
    __pydantic_config__ = STRICT  # type: ignore[misc]
    refused: Required[bool]
    error: Required[str]
    message: Required[str]
    host: str
    node: str


_RESULT, _FAILURE = Shape(_Result), Shape(_Failure)
RESULT, STARTS, BEGAN = "result.json", "starts.jsonl", "began.json"
POLL_S = 0.5
BEATS_IN_LIMIT = 10
FIRST_PORT, NUM_PORTS = 10_000, 10_000  # below the ephemeral ports of the system, and below those of slurm/round.sh


@dataclass
class RankContext:
    """The place of one process in its job.

    Attributes:
        world_size: Number of processes in the job.
        world_rank: Rank of this process in the job.
        local_rank: Rank of this process on its node.
        host: Name of this host, for the ledger.
        endpoint: Address and port at which the ranks meet: the first node of the job, and a port derived from the job id.
        stop_requested: Set when a checkpoint is requested.
        on_stop: Called when a checkpoint is requested.
        on_begin: Called once, when the work of this rank comes to its first step.
    """

    world_size: int
    world_rank: int
    local_rank: int
    host: str
    endpoint: tuple[str, int]
    stop_requested: threading.Event = field(default_factory=threading.Event)
    on_stop: Callable[[], None] | None = None
    on_begin: Callable[[], None] | None = None

    def begin(self) -> None:
        """Notes that the work has come to its first step. A job that fails before has failed at its start."""
        on_begin, self.on_begin = self.on_begin, None
        if on_begin:
            on_begin()

    def request_stop(self) -> None:
        """Requests a checkpoint from the payload."""
        self.stop_requested.set()
        if self.on_stop:
            self.on_stop()

    def call_on_stop(self, stopper: Callable[[], None]) -> None:
        """Sets the function that a request to stop calls. If a stop was requested before, the function is called at once."""
        self.on_stop = stopper
        if self.stop_requested.is_set():
            stopper()


class Payload(Protocol):
    """The work of a job. Its value is written to the result file of the job."""

    def __call__(self, context: RankContext) -> dict[str, Any]:
        """Does the work of one rank. Only the value of rank 0 is written."""


def rendezvous_port(job_id: int) -> int:
    """Returns the port at which the ranks of a job meet. Jobs that share a node have different ports."""
    return FIRST_PORT + job_id % NUM_PORTS


def rank_context() -> RankContext:
    """Returns the rank of this process, from srun. Chooses the network interface if the job has more than one node."""
    from submitit import JobEnvironment

    job = JobEnvironment()
    address = "127.0.0.1"
    if job.num_nodes > 1:
        address = socket.gethostbyname(job.hostnames[0])
        net.choose_interface(_own_address(address))
    endpoint = (address, rendezvous_port(int(job.raw_job_id)))
    return RankContext(job.num_tasks, job.global_rank, job.local_rank, socket.gethostname(), endpoint)


def _own_address(peer: str) -> str:
    """Returns the address from which this host reaches `peer`. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((peer, 9))
        return str(probe.getsockname()[0])


def _num_restarts() -> int:
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def failed_file(folder: Path, world_rank: int) -> Path:
    """Returns the file in which a rank records why it failed."""
    return folder / f"failed-{world_rank}.json"


def heartbeat_file(folder: Path, world_rank: int) -> Path:
    """Returns the file in which a rank says again and again what it works at."""
    return folder / f"alive-{world_rank}.json"


@dataclass
class JobProcess:
    """One process of a job. submitit runs it, and checkpoints and requeues it on a warning signal.

    Attributes:
        folder: The folder of the job.
        stop_file: The stop file of the run. A training polls this file itself.
        payload: The work of the job.
        max_requeues: The job fails after more requeues than this.
        checkpoints: Whether the payload can checkpoint. If not, it starts from the beginning after a requeue.
        limits: How long the work may stand still.
    """

    folder: str
    stop_file: str
    payload: Payload
    max_requeues: int
    checkpoints: bool
    limits: Limits = Limits()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        self._context: RankContext | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def __call__(self) -> None:
        """Runs the payload to its end, unless an earlier start of the job has finished the payload."""
        folder, restarts = Path(self.folder), _num_restarts()
        if (result := read_result(folder)) and result["state"] == "done":
            return
        context = rank_context()
        for file in (failed_file, heartbeat_file):
            file(folder, context.world_rank).unlink(missing_ok=True)
        if context.world_rank == 0:
            for name in (RESULT, BEGAN):
                (folder / name).unlink(missing_ok=True)
            context.on_begin = lambda: durable.write_json(folder / BEGAN, {"time_s": time.time(), "host": context.host})
            if Path(self.stop_file).exists():  # the queue started this job on the nodes of a stopped one
                self._write("stopped", reason="the run was asked to stop before the job began")
                sys.exit(os.EX_TEMPFAIL)  # not 0, so that srun ends the other ranks, which wait for rank 0
            self._note(start=restarts, host=context.host)
        if restarts > self.max_requeues:
            self._write_failure(context, self._too_often())
            raise self._too_often()
        signal.signal(signal.SIGTERM, self._on_term)  # submitit ignores it, but some sites preempt with SIGTERM alone
        activity.may_end_process = True
        with Watchdog(self.limits, lambda hang: self._record_hang(context, hang), context.world_rank):
            thread = self.start(context)
            threading.Thread(target=self._beat, args=(context, thread), name="heartbeat", daemon=True).start()
            while thread.is_alive():
                thread.join(POLL_S)  # short waits, because Python runs signal handlers between them
        self._conclude(context)

    def start(self, context: RankContext) -> threading.Thread:
        """Starts the payload in a thread."""
        self._context = context
        self._thread = threading.Thread(target=self._run, args=(context,), name="payload", daemon=True)
        self._thread.start()
        return self._thread

    def _beat(self, context: RankContext, thread: threading.Thread) -> None:
        """Shows the coordinator that this process runs: a process that is stopped cannot say so itself."""
        every_s, number = self.limits.silence_s() / BEATS_IN_LIMIT, 0
        while thread.is_alive():
            number += 1
            with contextlib.suppress(OSError):
                heartbeat_file(Path(self.folder), context.world_rank).write_text(
                    json.dumps({"beat": number, "host": context.host, **asdict(activity.now())}), encoding="utf-8"
                )
            thread.join(every_s)

    def _record_hang(self, context: RankContext, hang: Hang) -> None:
        about = hang.state.said.about if hang.state.said else ""
        self._write_failure(context, hang.error(about or "the job", context.host))

    def _run(self, context: RankContext) -> None:
        try:
            value = self.payload(context)
        except Interrupted as error:
            self._error = error
        except Exception as error:
            self._error = error
            self._write_failure(context, error)
        else:
            if context.world_rank == 0:
                self._write("done", value=value, host=context.host)

    def _conclude(self, context: RankContext) -> None:
        if isinstance(self._error, Interrupted):
            if context.world_rank == 0:
                self._write("stopped", reason=self._error.message)
        elif self._error is not None:
            raise self._error  # the exit code makes srun end the other ranks

    def _on_term(self, number: int, frame: FrameType | None) -> None:
        if self._context:
            self._context.request_stop()

    def checkpoint(self) -> "DelayedSubmission | None":
        """Handles the warning signal: submitit calls it on rank 0. submitit runs the returned process after the requeue."""
        from submitit.helpers import DelayedSubmission

        restarts = _num_restarts()
        again = DelayedSubmission(JobProcess(**self.__getstate__()))
        if self._context is None:  # the signal came before the payload began
            return again
        if self.checkpoints and self._thread:
            self._context.request_stop()
            self._thread.join()
            if not isinstance(self._error, Interrupted):  # the payload ended before it could checkpoint
                sys.exit(1 if self._error else 0)
        if Path(self.stop_file).exists():
            self._write("stopped", reason="the run was asked to stop")
            sys.exit(0)
        if restarts >= self.max_requeues:
            self._write_failure(self._context, self._too_often())
            sys.exit(1)
        with_state = "with a checkpoint" if self.checkpoints else "to begin again"
        self._note(requeue=restarts + 1, reason=f"preempted or out of time, requeued {with_state}")
        return again

    def _too_often(self) -> WfcError:
        return GangFailedError(
            f"the job was requeued more often than cluster.slurm.max_requeues = {self.max_requeues}; "
            "raise this limit, or set a longer cluster.slurm.time_min"
        )

    def _note(self, **facts: Any) -> None:
        durable.append_line(Path(self.folder) / STARTS, json.dumps({"time_s": time.time(), **facts}))

    def _write(self, state: str, **facts: Any) -> None:
        durable.write_sealed(Path(self.folder) / RESULT, {"state": state, **facts})

    def _write_failure(self, context: RankContext, error: BaseException) -> None:
        refused = isinstance(error, WfcError) and not isinstance(error, IntegrityError | HungError)
        facts = {"refused": refused, "error": type(error).__name__, "message": str(error), "host": context.host,
                 "node": os.environ.get("SLURMD_NODENAME", ""),
                 "traceback": "".join(traceback.format_exception(error))}  # fmt: skip
        durable.write_sealed(failed_file(Path(self.folder), context.world_rank), facts)

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("folder", "stop_file", "payload", "max_requeues", "checkpoints", "limits")}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def read_result(folder: Path) -> dict[str, Any] | None:
    """Returns the result that rank 0 of a job wrote at its end; None if there is none, or a damaged one."""
    return _read(folder / RESULT, _RESULT)


def read_failure(folder: Path) -> dict[str, Any] | None:
    """Returns the recorded failure of a rank that refused, else that of the lowest rank; None if there is none."""
    found = [_read(path, _FAILURE) for path in sorted(folder.glob("failed-*.json"))]
    failures = [failure for failure in found if failure is not None]
    return next((failure for failure in failures if failure["refused"]), failures[0] if failures else None)


def _read(path: Path, shape: Shape) -> dict[str, Any] | None:
    remedy = "the job counts as one without a result"
    try:
        facts = durable.read_sealed(path, remedy)
        shape.require(facts, path, remedy)
        return facts
    except FileNotFoundError:
        return None
    except IntegrityError as error:
        logger.warning("%s", error)
        return None
