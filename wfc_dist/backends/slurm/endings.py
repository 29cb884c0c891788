"""Finds the root cause of a job that ended without a result."""

from dataclasses import dataclass
from typing import Any

from wfc_dist import errors
from wfc_dist.backends.failure_policy import Failure
from wfc_dist.backends.slurm import client
from wfc_dist.backends.slurm.client import JobState
from wfc_dist.backends.slurm.submission import EXIT_NOT_PRIVATE, EXIT_NOT_SHARED, PICKLES, JobRecord
from wfc_dist.errors import ConfigError, GangFailedError, HungError, InputError, IntegrityError, WfcError

INTERRUPTED = ("PREEMPTED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL")
SETTLE_S = {"PREEMPTED": 30.0, "NODE_FAIL": 30.0, "UNKNOWN": 30.0}
"""State -> seconds that a job must stay in it before the job counts as ended, because Slurm may still requeue the job."""
SETTLE_ELSE_S = 3.0  # for all other states: a shared file system may show the last file of a job with a delay


def root_cause(where: str, job: JobRecord, state: JobState, failure: dict[str, Any] | None, host: str) -> WfcError:
    """Returns the error that made a job fail.

    Args:
        where: Round, title and job, for the message.
        job: The job.
        state: The last state of the job in Slurm.
        failure: The failure that the job itself recorded (see `job_process.read_failure`); None if it recorded none.
        host: The host on which the job ran.
    """
    if failure is not None:
        known = getattr(errors, failure["error"], None)
        if isinstance(known, type) and issubclass(known, WfcError):
            return known(failure["message"])
        return GangFailedError(f"{where} on {host}: {failure['error']}: {failure['message']}")
    if not job.starts() and client.exit_code(str(job.job_id)) == EXIT_NOT_SHARED:
        return InputError(
            f"{where}: the run directory is not visible on {host}, where {job.folder} was not found; "
            f"choose a run.dir that all nodes share, or keep off the node with cluster.slurm.parameters: {{exclude: {host}}}"
        )
    if not job.starts() and client.exit_code(str(job.job_id)) == EXIT_NOT_PRIVATE:
        return ConfigError(
            f"{where}: {job.folder / PICKLES}, whose pickles a job loads, belongs to another user, or others may write it; "
            "look who changed it, and choose a run.dir that only you can write"
        )
    words = job.last_words()
    said = f"; its last words: {words}; " if words else " without saying why; "
    return GangFailedError(
        f"{where} on {host or 'no node'} ended {state.state}{said}"
        f"see {job.folder}/batch.log and submitit/, then run the same command"
    )


@dataclass(frozen=True)
class Ending:
    """How a job failed.

    Attributes:
        cause: The error that made it fail.
        kind: Whose failure this is.
        node: The node on which it failed, as Slurm calls it; "" where that is not known.
        why: The reason in one line: what the job recorded, or else the last line of its log.
        is_blind: Whether the node does not see the run directory.
    """

    cause: WfcError
    kind: Failure
    node: str
    why: str
    is_blind: bool


def judge(where: str, job: JobRecord, state: JobState, failure: dict[str, Any] | None, host: str) -> Ending:
    """Returns how a job failed (see `root_cause` for the arguments)."""
    cause, node = root_cause(where, job, state, failure, host), _node(state, failure)
    is_blind = failure is None and isinstance(cause, InputError)
    said = f"{failure['error']}: {failure['message']}" if failure else job.last_words() or f"ended {state.state}"
    why = f"does not see {job.folder}" if is_blind else " ".join(said.split())[:300]
    # Damaged files, somebody's scancel and too little memory are the same on any node.
    is_own = isinstance(cause, IntegrityError) or state.state in ("CANCELLED", "OUT_OF_MEMORY")
    kind = Failure.CRASHED if job.has_begun or is_own or not node else Failure.EARLY
    if isinstance(cause, InputError | ConfigError) or (failure and failure["refused"]):
        kind = Failure.REFUSED
    if isinstance(cause, HungError):
        kind = Failure.HUNG
    return Ending(cause, kind, node, why, is_blind)


def _node(state: JobState, failure: dict[str, Any] | None) -> str:
    if failure is not None and failure.get("node"):
        return str(failure["node"])
    is_one = state.nodes and not set("[,") & set(state.nodes)
    return state.nodes if is_one else ""
