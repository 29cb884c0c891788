"""What is known of a job: what it is to do, how far it is, what came of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wfc_dist.backends.slurm.heartbeats import Heartbeats
from wfc_dist.backends.slurm.job_process import Payload
from wfc_dist.backends.slurm.submission import JobRecord, Resources


@dataclass(frozen=True)
class JobSpec:
    """The specification of one job.

    Attributes:
        label: Name in the run directory, such as train-a.
        title: Name in messages, such as a.
        key: Identity of the inputs: base, data set, adapters. An earlier job counts only if it has the same key.
        make_payload: Returns the work of the job. It is called when the job is submitted.
        resources: The resources of the job.
        facts: The facts that name the job in the ledger, such as {"dataset": "a"}.
        checkpoints: Whether the job can checkpoint.
    """

    label: str
    title: str
    key: str
    make_payload: Callable[[], Payload]
    resources: Resources
    facts: Mapping[str, Any]
    checkpoints: bool = False


@dataclass(frozen=True)
class JobResult:
    """The result of a job: the value of its payload, its host, its number in Slurm and its number of requeues."""

    value: Mapping[str, Any]
    host: str
    job_id: str
    num_requeues: int


@dataclass
class SubmittedJob:
    """A job that was submitted to Slurm.

    Attributes:
        spec: The specification of the job.
        record: The record of the job in the run directory.
        host: The host on which the job ran last.
        told: The last message about the job.
        num_requeues: Number of requeues that the job has recorded.
        num_recorded: Number of requeues that are in the ledger.
        cancelled_s: Time of the last cancellation, `time.monotonic`.
        heartbeats: What its ranks say while they run; None before the first look.
        hung: The failure of a rank that says nothing any more, as the rank itself would have recorded it.
    """

    spec: JobSpec
    record: JobRecord
    host: str = ""
    told: str = ""
    num_requeues: int = 0
    num_recorded: int = 0
    cancelled_s: float = field(default=-1e9)
    heartbeats: Heartbeats | None = None
    hung: dict[str, Any] | None = None

    @property
    def job_id(self) -> str:
        """Slurm's number of the job."""
        return str(self.record.job_id)
