"""A Slurm job and its folder. A job is submitted once, and found again after a crash of the coordinator.

RUN/slurm/round-0001/train-a-1/     the first job that trains a; the next one is train-a-2
  job.json                          key and unique name in Slurm, written before sbatch is called; after it, the id
  starts.jsonl                      a line per start and per requeue, with the host
  began.json                        written at the first step of its work, with the host
  result.json, failed-<rank>.json   how the job ended
  batch.log, submitit/              what the job printed; submitit's script and its pickles, which only submitit reads
"""

import contextlib
import logging
import math
import os
import re
import secrets
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from wfc_dist.backends.slurm import client
from wfc_dist.backends.slurm.client import SlurmError
from wfc_dist.backends.slurm.job_process import BEGAN, STARTS, JobProcess
from wfc_dist.config.cluster import MAX_MERGE_THREADS, ClusterConfig, SlurmConfig
from wfc_dist.errors import ConfigError, IntegrityError
from wfc_dist.storage import durable
from wfc_dist.storage.shapes import STRICT, Shape

logger = logging.getLogger(__name__)
SCHEMA_VERSION = 2
"""Schema of job.json and of the pickled classes of a job. A job with another schema cannot start."""
EXIT_NOT_SHARED, EXIT_NOT_PRIVATE = 66, 67
PICKLES = "submitit"
"""Name of the folder, in that of a job, to which submitit writes its submission as a pickle."""
LAYOUT = ("nodes", "ntasks-per-node")
TAIL_BYTES = 4096
WARNING_S = 120
"""Seconds before the time limit at which a job is warned. A job with a short limit is warned after two thirds of it."""

_FROM_ENVIRONMENT = {"partition": "SBATCH_PARTITION", "account": "SBATCH_ACCOUNT", "qos": "SBATCH_QOS"}


@dataclass(frozen=True)
class Resources:
    """The resources of a job.

    Attributes:
        num_tasks: Number of processes.
        num_cpus: Number of CPUs per process.
        num_gpus: Number of GPUs per process.
        spread: Whether `nodes` and `ntasks-per-node` of `cluster.slurm.parameters` apply. They apply to training jobs only.
    """

    num_tasks: int
    num_cpus: int
    num_gpus: int
    spread: bool = False

    def __str__(self) -> str:
        gpus = f", {self.num_gpus} GPU" if self.num_gpus else ""
        return f"{self.num_tasks} x ({self.num_cpus} CPU{gpus})"


def trainer_resources(cluster: ClusterConfig) -> Resources:
    """Returns the resources of a job that trains."""
    num_cpus, num_gpus = math.ceil(cluster.cpus_per_worker), int(cluster.gpus_per_worker)
    return Resources(cluster.workers_per_trainer, num_cpus, num_gpus, spread=True)


def decoder_resources(cluster: ClusterConfig) -> Resources:
    """Returns the resources of a job that scores."""
    return replace(trainer_resources(cluster), num_tasks=1, spread=False)


def centralizer_resources(cluster: ClusterConfig) -> Resources:
    """Returns the resources of a job that centralizes, on one node. A rank gets the cores of a worker, up to those it can use."""
    return Resources(cluster.centralizer_ranks or 1, min(math.ceil(cluster.cpus_per_worker), MAX_MERGE_THREADS), 0)


@dataclass(frozen=True)
class JobRecord:
    """The content of job.json: a job that was submitted or will be submitted.

    Attributes:
        folder: The folder of the job, called `<label>-<number>`.
        name: The unique name of the job in Slurm.
        key: Identity of the inputs of the job (see `loop.JobSpec`).
        job_id: Id of the job in Slurm; None until sbatch has answered.
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
        """Returns the starts and requeues that the job has recorded."""
        return durable.read_json_lines(self.folder / STARTS, fits=_is_start)

    @property
    def has_begun(self) -> bool:
        """Whether the last start of the job has come to the first step of its work."""
        return (self.folder / BEGAN).exists()

    def last_words(self) -> str:
        """Returns the last line that a process of the job printed, or else its script; "" where there is none."""
        logs = sorted((self.folder / PICKLES).glob("*_log.*"), key=lambda path: path.stat().st_mtime)
        for path in (*reversed(logs), self.folder / "batch.log"):
            with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
                file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
                if lines := file.read().decode(errors="replace").strip().splitlines():
                    return lines[-1].strip()
        return ""


def find(round_folder: Path, label: str) -> JobRecord | None:
    """Returns the last job with a label, or None."""
    for _, folder in reversed(_numbered(round_folder, label)):
        with contextlib.suppress(FileNotFoundError):
            facts = durable.as_object((folder / "job.json").read_text(encoding="utf-8", errors="replace"))
            if not _RECORD.fits(facts):
                raise IntegrityError(
                    f"{folder / 'job.json'} is damaged, so that its job is not known; cancel the job, if `squeue --me` shows one "
                    f"for {label}, remove {folder}, and run again"
                )
            assert facts is not None, "it has the shape of one"
            return JobRecord(folder, facts["name"], facts["key"], facts["job_id"], facts["schema"])
    return None


class _Record(TypedDict):
    __pydantic_config__ = STRICT  # type: ignore[misc]
    name: str
    key: str
    job_id: str | None
    schema: int


class _Start(TypedDict):
    __pydantic_config__ = STRICT  # type: ignore[misc]
    start: int
    host: str


class _Requeue(TypedDict):
    __pydantic_config__ = STRICT  # type: ignore[misc]
    requeue: int
    reason: str


_RECORD, _START, _REQUEUE = Shape(_Record), Shape(_Start), Shape(_Requeue)


def _is_start(line: object) -> bool:
    return _START.fits(line) or _REQUEUE.fits(line)


def _numbered(round_folder: Path, label: str) -> list[tuple[int, Path]]:
    """Returns (number, folder) of the jobs with a label, in order."""
    found = [(re.fullmatch(r"-(\d+)", path.name[len(label) :]), path) for path in round_folder.glob(f"{label}-*")]
    return sorted((int(match[1]), path) for match, path in found if match)


def prepare(round_folder: Path, label: str, key: str, run_name: str) -> JobRecord:
    """Creates the folder and the record of the next job with a label. The job is not submitted yet."""
    last = max((number for number, _ in _numbered(round_folder, label)), default=0)
    folder = round_folder / f"{label}-{last + 1}"
    folder.mkdir(parents=True)
    (folder / PICKLES).mkdir(mode=0o700)  # a job unpickles what lies there
    record = JobRecord(folder, f"wfc-{run_name}-{round_folder.name}-{label}-{secrets.token_hex(4)}", key)
    record.write()
    return record


def asked_of_site(slurm: SlurmConfig, key: str) -> str | None:
    """Returns the partition, account or qos of `cluster.slurm`; else of the variable that sbatch reads; else None."""
    configured: str | None = getattr(slurm, key)
    return configured if configured is not None else os.environ.get(_FROM_ENVIRONMENT[key])


def parameters(cluster: ClusterConfig, record: JobRecord, resources: Resources, exclude: Sequence[str] = ()) -> dict[str, Any]:
    """Returns the parameters that submitit needs for a job, from `cluster` and `cluster.slurm`; it keeps off the nodes `exclude`.

    The batch script, which Slurm keeps, first looks for the folder of the job, and ends with EXIT_NOT_SHARED if the node does not
    see it. It ends with EXIT_NOT_PRIVATE if anyone else owns, or may write, the folder whose pickles the job loads.
    """
    slurm, folder, pickles = cluster.slurm, record.folder, shlex.quote(str(record.folder / PICKLES))
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
            f'[ -O {pickles} ] && [ -z "$(find {pickles} -maxdepth 0 -perm /022)" ] || exit {EXIT_NOT_PRIVATE}',
            *slurm.setup,
        ],
    }
    if slurm.mem_gb is not None:
        chosen["mem"] = f"{math.ceil(slurm.mem_gb * 1024)}M"
    chosen |= {key: asked for key in _FROM_ENVIRONMENT if (asked := asked_of_site(slurm, key)) is not None}
    # A job ends silently if its node cannot open the output file.
    other: dict[str, Any] = {"requeue": True, "output": "/dev/null"}
    for key, value in slurm.parameters.items():
        option = key.lstrip("-").replace("_", "-")
        if option not in LAYOUT:
            other[option] = value
        elif resources.spread:
            chosen[option.replace("-", "_")] = int(value)
    if exclude:
        other["exclude"] = ",".join([*([str(other["exclude"])] if "exclude" in other else []), *exclude])
    if (total := chosen["nodes"] * chosen["ntasks_per_node"]) != resources.num_tasks:
        raise ConfigError(
            f"cluster.slurm.parameters: nodes x ntasks-per-node = {total}, "
            f"but cluster.workers_per_trainer is {resources.num_tasks}; make both numbers equal"
        )
    if resources.num_gpus:
        chosen["gpus_per_node"] = resources.num_gpus * chosen["ntasks_per_node"]
    return chosen | {"additional_parameters": other}


def _executor(cluster: ClusterConfig, record: JobRecord, resources: Resources, exclude: Sequence[str] = ()) -> Any:
    from submitit import SlurmExecutor

    executor = SlurmExecutor(record.folder / PICKLES, max_num_timeout=cluster.slurm.max_requeues)
    executor.update_parameters(**parameters(cluster, record, resources, exclude))
    return executor


def test_only(cluster: ClusterConfig, folder: Path, does: str, resources: Resources) -> None:
    """Asks Slurm whether it would take a job. Submits nothing.

    Args:
        cluster: The block `cluster` of the configuration.
        folder: A folder for the batch script.
        does: The verb for the job in the message, such as "trains".
        resources: The resources of the job.

    Raises:
        ConfigError: Slurm would not take the job. The message has the job, its resources and the words of Slurm.
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


def submit(
    record: JobRecord, process: JobProcess, cluster: ClusterConfig, resources: Resources, exclude: Sequence[str] = ()
) -> JobRecord:  # fmt: skip
    """Submits a prepared job that keeps off the nodes `exclude`.

    Writes and returns its record with the id. Raises SlurmError if sbatch refuses the job.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    executor = _executor(cluster, record, resources, exclude)
    try:
        with _outside_any_job():
            job = executor.submit(process)
    except (FailedJobError, FailedSubmissionError, OSError) as error:
        raise SlurmError(f"sbatch: {' '.join(str(error).split())}") from error
    submitted = replace(record, job_id=str(job.job_id))
    submitted.write()
    return submitted


def adopt(record: JobRecord) -> JobRecord:
    """Completes the record of a job if the coordinator died between the call of sbatch and the writing of the id.

    Returns:
        The record with the id, if Slurm has the job and submitit has written its pickle. Otherwise such a job is cancelled, and
        the record is returned unchanged.
    """
    if record.job_id is not None:
        return record
    state = client.states([record.name]).get(record.name)
    if state is None:
        return record
    if (record.folder / PICKLES / f"{state.job_id}_submitted.pkl").exists():
        adopted = replace(record, job_id=state.job_id)
        adopted.write()
        return adopted
    client.cancel(state.job_id)
    return record


@contextlib.contextmanager
def _outside_any_job() -> Iterator[None]:
    """Hides the Slurm variables of the job in which the coordinator may run, because sbatch would read them as options."""
    from submitit.helpers import clean_env

    keep = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
    with clean_env():
        os.environ.update(keep)
        yield
