"""Finds the root cause of a job that ended without a result."""

from typing import Any

from wfc_dist import errors
from wfc_dist.backends.slurm import client
from wfc_dist.backends.slurm.client import JobState
from wfc_dist.backends.slurm.submission import EXIT_NOT_SHARED, JobRecord
from wfc_dist.errors import GangFailedError, InputError, WfcError

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
    return GangFailedError(
        f"{where} on {host or 'no node'} ended {state.state} without saying why; "
        f"see {job.folder}/batch.log and submitit/, then run the same command"
    )
