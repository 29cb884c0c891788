"""One Slurm job and its folder: submitted once, found again after a crash of the coordinator.

RUN/slurm/round-0001/train-a-1/     the first job of that work; a later one is train-a-2
  job.json                          what it is for, its unique name in Slurm, its id; written before the submission counts
  starts.jsonl                      a line per start and per requeue, with the host
  result.json, failed-<rank>.json   how it ended
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
from wfc_dist.backends.slurm.tasks import STARTS, Task
from wfc_dist.config.schema import MAX_MERGE_THREADS, ClusterConfig
from wfc_dist.errors import ConfigError
from wfc_dist.storage import durable

logger = logging.getLogger(__name__)
SCHEMA_VERSION = 1
EXIT_NOT_SHARED = 66
LAYOUT = ("nodes", "ntasks-per-node")
WARNING_S = 120
"""How long before the time limit a job is warned; a third of a shorter limit."""


@dataclass(frozen=True)
class Shape:
    """What one job asks for.

    Attributes:
        num_tasks: Processes.
        num_cpus, num_gpus: For each.
        spread: Whether `nodes` and `ntasks-per-node` of `cluster.slurm.parameters` are meant for it: they are the trainers'.
    """

    num_tasks: int
    num_cpus: int
    num_gpus: int
    spread: bool = False

    def __str__(self) -> str:
        gpus = f", {self.num_gpus} GPU" if self.num_gpus else ""
        return f"{self.num_tasks} x ({self.num_cpus} CPU{gpus})"


def trainer_shape(cluster: ClusterConfig) -> Shape:
    """Returns what a job that trains asks for."""
    num_cpus, num_gpus = math.ceil(cluster.cpus_per_worker), int(cluster.gpus_per_worker)
    return Shape(cluster.workers_per_trainer, num_cpus, num_gpus, spread=True)


def decoder_shape(cluster: ClusterConfig) -> Shape:
    """Returns what a job that scores asks for."""
    return replace(trainer_shape(cluster), num_tasks=1, spread=False)


def centralizer_shape(cluster: ClusterConfig) -> Shape:
    """Returns what a job that centralizes asks for, on one node: of a worker's cores as many for each rank as it can use."""
    return Shape(cluster.centralizer_ranks or 1, min(math.ceil(cluster.cpus_per_worker), MAX_MERGE_THREADS), 0)


@dataclass(frozen=True)
class Submission:
    """A job that was, or is about to be, submitted.

    Attributes:
        folder: Its folder; the last part is `<label>-<number>`.
        name: Its name in Slurm, which no other job has.
        key: Identity of the work: base, data set, adapters.
        job_id: None until sbatch has answered.
    """

    folder: Path
    name: str
    key: str
    job_id: str | None = None

    def write(self) -> None:
        """Makes it durable."""
        facts = asdict(self) | {"folder": self.folder.name}
        durable.write_json(self.folder / "job.json", {"schema": SCHEMA_VERSION, **facts})

    def starts(self) -> list[dict[str, Any]]:
        """Returns what the job noted of its starts and requeues."""
        return [json.loads(line) for line in durable.read_lines(self.folder / STARTS)]


def find(round_folder: Path, label: str) -> Submission | None:
    """Returns the last submission of some work, or None."""
    numbered = [(number, path) for path in round_folder.glob(f"{label}-*") if (number := _number(path, label)) is not None]
    for _, folder in sorted(numbered, reverse=True):
        with contextlib.suppress(FileNotFoundError):
            facts = json.loads((folder / "job.json").read_text(encoding="utf-8"))
            return Submission(folder, facts["name"], facts["key"], facts["job_id"])
    return None


def _number(path: Path, label: str) -> int | None:
    found = re.fullmatch(r"-(\d+)", path.name[len(label) :])
    return int(found[1]) if found else None


def prepare(round_folder: Path, label: str, key: str, run_name: str) -> Submission:
    """Returns the next submission of some work, written down under a name of its own, not yet submitted."""
    taken = [number for path in round_folder.glob(f"{label}-*") if (number := _number(path, label)) is not None]
    folder = round_folder / f"{label}-{max(taken, default=0) + 1}"
    folder.mkdir(parents=True)
    submission = Submission(folder, f"wfc-{run_name}-{round_folder.name}-{label}-{secrets.token_hex(4)}", key)
    submission.write()
    return submission


def parameters(cluster: ClusterConfig, submission: Submission, shape: Shape) -> dict[str, Any]:
    """Returns what submitit is told of one job: `cluster` and `cluster.slurm` in submitit's words.

    The batch script first looks for the job's folder: a node that does not see it exits 66 with nothing written.
    """
    slurm, folder = cluster.slurm, submission.folder
    chosen: dict[str, Any] = {
        "job_name": submission.name,
        "time": slurm.time_min,
        "nodes": 1,
        "ntasks_per_node": shape.num_tasks,
        "cpus_per_task": shape.num_cpus,
        "signal_delay_s": min(WARNING_S, slurm.time_min * 60 // 3),
        "stderr_to_stdout": True,
        "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={shape.num_cpus}"],
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
        elif shape.spread:
            chosen[option.replace("-", "_")] = int(value)
    if (total := chosen["nodes"] * chosen["ntasks_per_node"]) != shape.num_tasks:
        raise ConfigError(
            f"cluster.slurm.parameters: nodes x ntasks-per-node = {total}, but cluster.workers_per_trainer is {shape.num_tasks}"
        )
    if shape.num_gpus:
        chosen["gpus_per_node"] = shape.num_gpus * chosen["ntasks_per_node"]
    return chosen | {"additional_parameters": other}


def _executor(cluster: ClusterConfig, submission: Submission, shape: Shape) -> Any:
    from submitit import SlurmExecutor

    executor = SlurmExecutor(submission.folder / "submitit", max_num_timeout=cluster.slurm.max_requeues)
    executor.update_parameters(**parameters(cluster, submission, shape))
    return executor


def test_only(cluster: ClusterConfig, folder: Path, does: str, shape: Shape) -> None:
    """Asks Slurm whether it would take such a job, which `does` something; submits nothing.

    Raises:
        ConfigError: It would not: which job, what it asks for, and Slurm's own words.
    """
    script = folder / "test-only.sh"
    executor = _executor(cluster, Submission(folder, "wfc-test-only", ""), shape)
    script.write_text(executor._make_submission_file_text("true", ""), encoding="utf-8")
    try:
        with _outside_any_job():
            client.call("sbatch", "--test-only", str(script))
    except SlurmError as error:
        raise ConfigError(
            f"Slurm would not take a job that {does}, {shape}: {error.message}; see cluster.slurm, cluster.cpus_per_worker, "
            "gpus_per_worker, workers_per_trainer and centralizer_ranks"
        ) from error


def submit(submission: Submission, task: Task, cluster: ClusterConfig, shape: Shape) -> Submission:
    """Submits a prepared job and returns it with its id, written down. Raises SlurmError."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    executor = _executor(cluster, submission, shape)
    try:
        with _outside_any_job():
            job = executor.submit(task)
    except (FailedJobError, FailedSubmissionError, OSError) as error:
        raise SlurmError(f"sbatch: {' '.join(str(error).split())}") from error
    submitted = replace(submission, job_id=str(job.job_id))
    submitted.write()
    return submitted


def adopt(submission: Submission) -> Submission:
    """Settles a submission whose coordinator died between asking sbatch and writing its answer down.

    Returns it with its id if Slurm has the job and submitit had put its work in place; else any such job is cancelled.
    """
    if submission.job_id is not None:
        return submission
    found = client.states([submission.name]).get(submission.name)
    if found is None:
        return submission
    if (submission.folder / "submitit" / f"{found.job_id}_submitted.pkl").exists():
        adopted = replace(submission, job_id=found.job_id)
        adopted.write()
        return adopted
    client.cancel(found.job_id)
    return submission


@contextlib.contextmanager
def _outside_any_job() -> Iterator[None]:
    """Hides the variables of the job the coordinator itself may run in, which sbatch would take for options."""
    from submitit.helpers import clean_env

    keep = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
    with clean_env():
        os.environ.update(keep)
        yield
