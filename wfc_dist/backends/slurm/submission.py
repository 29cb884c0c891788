"""One Slurm job and its folder: submitted once, and found again after a crash of the coordinator.

RUN/slurm/round-0001/train-a-1/     the first job that trains a; a later one is train-a-2
  job.json                          the job's key, its unique name in Slurm, its id; written before the submission counts
  starts.jsonl                      a line per start and per requeue, with the host
  result.json, failed-<rank>.json   how the job ended
  batch.log, submitit/              what the job printed; submitit's script and its pickles, which only submitit reads
"""

import contextlib
import json
import logging
import math
import os
import re
import secrets
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from wfc_dist.backends.slurm import client
from wfc_dist.backends.slurm.client import SlurmError
from wfc_dist.backends.slurm.job_process import STARTS, JobProcess
from wfc_dist.config.schema import MAX_MERGE_THREADS, ClusterConfig
from wfc_dist.errors import ConfigError
from wfc_dist.storage import durable

logger = logging.getLogger(__name__)
SCHEMA_VERSION = 2
"""Schema of job.json, and of the classes that the pickle of a job names: a job with another schema cannot start."""
EXIT_NOT_SHARED = 66
LAYOUT = ("nodes", "ntasks-per-node")
WARNING_S = 120
"""How long before the time limit a job is warned; a third of a shorter limit."""


@dataclass(frozen=True)
class Resources:
    """What one job asks for.

    Attributes:
        num_tasks: Processes.
        num_cpus, num_gpus: Of each process.
        spread: Whether `nodes` and `ntasks-per-node` of `cluster.slurm.parameters` count: they lay out the trainers' jobs only.
    """

    num_tasks: int
    num_cpus: int
    num_gpus: int
    spread: bool = False

    def __str__(self) -> str:
        gpus = f", {self.num_gpus} GPU" if self.num_gpus else ""
        return f"{self.num_tasks} x ({self.num_cpus} CPU{gpus})"


def trainer_resources(cluster: ClusterConfig) -> Resources:
    """Returns what a job that trains asks for."""
    num_cpus, num_gpus = math.ceil(cluster.cpus_per_worker), int(cluster.gpus_per_worker)
    return Resources(cluster.workers_per_trainer, num_cpus, num_gpus, spread=True)


def decoder_resources(cluster: ClusterConfig) -> Resources:
    """Returns what a job that scores asks for."""
    return replace(trainer_resources(cluster), num_tasks=1, spread=False)


def centralizer_resources(cluster: ClusterConfig) -> Resources:
    """Returns what a job that centralizes asks for, on one node: as many of a worker's cores for each rank as a rank can use."""
    return Resources(cluster.centralizer_ranks or 1, min(math.ceil(cluster.cpus_per_worker), MAX_MERGE_THREADS), 0)


@dataclass(frozen=True)
class JobRecord:
    """A job that was, or is about to be, submitted, as its job.json says.

    Attributes:
        folder: The job's folder; the last part is `<label>-<number>`.
        name: The job's name in Slurm, which no other job has.
        key: Identity of what the job is for (see `loop.JobSpec`).
        job_id: None until sbatch has answered.
        schema: SCHEMA_VERSION of the program that submitted the job.
    """

    folder: Path
    name: str
    key: str
    job_id: str | None = None
    schema: int = SCHEMA_VERSION

    def write(self) -> None:
        """Writes job.json, durably."""
        durable.write_json(self.folder / "job.json", asdict(self) | {"folder": self.folder.name})

    def starts(self) -> list[dict[str, Any]]:
        """Returns what the job noted of its starts and requeues."""
        return durable.read_json_lines(self.folder / STARTS)


def find(round_folder: Path, label: str) -> JobRecord | None:
    """Returns the last job with a label, or None."""
    for _, folder in reversed(_numbered(round_folder, label)):
        with contextlib.suppress(FileNotFoundError):
            facts = json.loads((folder / "job.json").read_text(encoding="utf-8"))
            return JobRecord(folder, facts["name"], facts["key"], facts["job_id"], facts["schema"])
    return None


def _numbered(round_folder: Path, label: str) -> list[tuple[int, Path]]:
    """Returns (number, folder) of the jobs with a label, in order."""
    found = [(re.fullmatch(r"-(\d+)", path.name[len(label) :]), path) for path in round_folder.glob(f"{label}-*")]
    return sorted((int(match[1]), path) for match, path in found if match)


def prepare(round_folder: Path, label: str, key: str, run_name: str) -> JobRecord:
    """Returns the next job with a label, written down under a name of its own, not yet submitted."""
    last = max((number for number, _ in _numbered(round_folder, label)), default=0)
    folder = round_folder / f"{label}-{last + 1}"
    folder.mkdir(parents=True)
    record = JobRecord(folder, f"wfc-{run_name}-{round_folder.name}-{label}-{secrets.token_hex(4)}", key)
    record.write()
    return record


def parameters(cluster: ClusterConfig, record: JobRecord, resources: Resources) -> dict[str, Any]:
    """Returns submitit's parameters of one job, from `cluster` and `cluster.slurm`.

    The batch script first looks for the job's folder: a node that does not see it exits 66 with nothing written.
    """
    slurm, folder = cluster.slurm, record.folder
    chosen: dict[str, Any] = {
        "job_name": record.name,
        "time": slurm.time_min,
        "nodes": 1,
        "ntasks_per_node": resources.num_tasks,
        "cpus_per_task": resources.num_cpus,
        "signal_delay_s": min(WARNING_S, slurm.time_min * 60 // 3),
        "stderr_to_stdout": True,
        "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={resources.num_cpus}"],
        "setup": [
            f"test -f {shlex.quote(str(folder / 'job.json'))} || exit {EXIT_NOT_SHARED}",
            f"exec >>{shlex.quote(str(folder / 'batch.log'))} 2>&1",
            *slurm.setup,
        ],
    }
    if slurm.mem_gb is not None:
        chosen["mem"] = f"{math.ceil(slurm.mem_gb * 1024)}M"
    chosen |= {key: value for key in ("partition", "account", "qos") if (value := getattr(slurm, key)) is not None}
    other: dict[str, Any] = {"requeue": True, "output": "/dev/null"}  # a file the node can't open would end the job silently
    for key, value in slurm.parameters.items():
        option = key.lstrip("-").replace("_", "-")
        if option not in LAYOUT:
            other[option] = value
        elif resources.spread:
            chosen[option.replace("-", "_")] = int(value)
    if (total := chosen["nodes"] * chosen["ntasks_per_node"]) != resources.num_tasks:
        raise ConfigError(
            f"cluster.slurm.parameters: nodes x ntasks-per-node = {total}, "
            f"but cluster.workers_per_trainer is {resources.num_tasks}"
        )
    if resources.num_gpus:
        chosen["gpus_per_node"] = resources.num_gpus * chosen["ntasks_per_node"]
    return chosen | {"additional_parameters": other}


def _executor(cluster: ClusterConfig, record: JobRecord, resources: Resources) -> Any:
    from submitit import SlurmExecutor

    executor = SlurmExecutor(record.folder / "submitit", max_num_timeout=cluster.slurm.max_requeues)
    executor.update_parameters(**parameters(cluster, record, resources))
    return executor


def test_only(cluster: ClusterConfig, folder: Path, does: str, resources: Resources) -> None:
    """Asks Slurm whether it would take a job; submits nothing.

    Args:
        cluster: The configuration's.
        folder: Gets the script.
        does: The job's verb in the message, such as "trains".
        resources: What the job asks for.

    Raises:
        ConfigError: Slurm would not take it: which job, what it asks for, and Slurm's own words.
    """
    script = folder / "test-only.sh"
    executor = _executor(cluster, JobRecord(folder, "wfc-test-only", ""), resources)
    script.write_text(executor._make_submission_file_text("true", ""), encoding="utf-8")
    try:
        with _outside_any_job():
            client.call("sbatch", "--test-only", str(script))
    except SlurmError as error:
        raise ConfigError(
            f"Slurm would not take a job that {does}, {resources}: {error.message}; see cluster.slurm, cluster.cpus_per_worker, "
            "gpus_per_worker, workers_per_trainer and centralizer_ranks"
        ) from error


def submit(record: JobRecord, process: JobProcess, cluster: ClusterConfig, resources: Resources) -> JobRecord:
    """Submits a prepared job and returns it with its id, written down. Raises SlurmError."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    executor = _executor(cluster, record, resources)
    try:
        with _outside_any_job():
            job = executor.submit(process)
    except (FailedJobError, FailedSubmissionError, OSError) as error:
        raise SlurmError(f"sbatch: {' '.join(str(error).split())}") from error
    submitted = replace(record, job_id=str(job.job_id))
    submitted.write()
    return submitted


def adopt(record: JobRecord) -> JobRecord:
    """Settles the record of a coordinator that died between asking sbatch and writing its answer down.

    Returns:
        The record with the job's id, if Slurm has the job and submitit had put its pickle in place. Else any such job is
        cancelled, and the record is returned as it is.
    """
    if record.job_id is not None:
        return record
    state = client.states([record.name]).get(record.name)
    if state is None:
        return record
    if (record.folder / "submitit" / f"{state.job_id}_submitted.pkl").exists():
        adopted = replace(record, job_id=state.job_id)
        adopted.write()
        return adopted
    client.cancel(state.job_id)
    return record


@contextlib.contextmanager
def _outside_any_job() -> Iterator[None]:
    """Hides the environment of the job in which the coordinator itself may run: sbatch would take it for options."""
    from submitit.helpers import clean_env

    keep = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
    with clean_env():
        os.environ.update(keep)
        yield
