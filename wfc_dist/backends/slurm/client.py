"""Calls the commands of Slurm: partitions of the site, states of jobs. Loads neither torch nor submitit."""

import logging
import math
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wfc_dist.errors import ConfigError, WfcError

logger = logging.getLogger(__name__)
_TIME = re.compile(r"(\d{1,9}-)?\d{1,9}(:\d{1,9}){0,2}", re.ASCII)
COMMANDS = ("sbatch", "srun", "squeue", "sinfo", "scontrol", "scancel")
TIMEOUT_S = 60.0
ENDED = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED"),
    "TIMEOUT",
)
"""States of a job that has ended. A job that Slurm requeues also passes through some of them."""


class SlurmError(WfcError):
    """A command of Slurm failed. The message has the command and the words of Slurm."""


@dataclass(frozen=True)
class Partition:
    """A partition of the site.

    Attributes:
        name: The name that sbatch takes.
        limit_min: Longest time limit of a job in minutes; None if there is no limit.
        is_default: Whether jobs that name no partition run there.
        state: up, down, drain or inact.
    """

    name: str
    limit_min: float | None
    is_default: bool
    state: str


@dataclass(frozen=True)
class JobState:
    """The state of a job in Slurm.

    Attributes:
        job_id: Slurm's number of the job.
        state: PENDING, RUNNING, ... (the long form).
        nodes: Nodes on which the job runs or ran; "" while it is pending.
        reason: Why the job is pending, or how it ended, in the words of Slurm.
    """

    job_id: str
    state: str
    nodes: str
    reason: str

    @property
    def ended(self) -> bool:
        """Whether the job has ended, unless Slurm requeues it."""
        return self.state in ENDED


def call(*command: str) -> str:
    """Runs a command and returns its output. Raises SlurmError if it fails or does not answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SlurmError(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise SlurmError(f"{command[0]}: {' '.join((done.stderr or done.stdout).split())}")
    return done.stdout


def require_slurm(instead: str) -> None:
    """Raises ConfigError if this machine has no Slurm, or Slurm does not answer. `instead` names alternatives."""
    lacking = [name for name in COMMANDS if shutil.which(name) is None]
    if lacking:
        raise ConfigError(f"there is no Slurm here (no {', '.join(lacking)}): use a login node, or {instead}")
    try:
        call("sinfo", "--noheader", "--format=%R")
    except SlurmError as error:
        raise ConfigError(f"Slurm does not answer ({error.message}): ask the site's admins, or use {instead}") from error


def parse_minutes(text: str) -> float | None:
    """Returns the minutes of a Slurm time such as 1-02:30:00, 04:00:00 or 30:00; None for no limit. Raises SlurmError else."""
    if text.lower() in ("infinite", "unlimited", "n/a", "none", ""):
        return None
    if not _TIME.fullmatch(text):
        raise SlurmError(f"{text[:60]!r} is no time of Slurm")
    days, _, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if days:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    else:
        hours, minutes, seconds = ([0] * (3 - len(parts)) + parts) if len(parts) > 1 else (0, parts[0], 0)
    return int(days or 0) * 1440 + hours * 60 + minutes + seconds / 60


def _rows(num_fields: int, *command: str) -> list[list[str]]:
    """Returns the fields, between |, of each line that a command prints. The last field may hold a | itself.

    Raises:
        SlurmError: The command fails, or prints a line with fewer fields.
    """
    rows = [line.strip().split("|", num_fields - 1) for line in call(*command).splitlines() if line.strip()]
    if odd := [row for row in rows if len(row) < num_fields]:
        raise SlurmError(f"{command[0]} printed {'|'.join(odd[0])[:100]!r}, where {num_fields} fields are expected")
    return rows


def partitions() -> list[Partition]:
    """Returns the partitions of the site."""
    by_name = {}
    for name, marked, limit, state in _rows(4, "sinfo", "--noheader", "--format=%R|%P|%l|%a"):
        by_name[name] = Partition(name, parse_minutes(limit), marked.endswith("*"), state)
    return list(by_name.values())


def node_names(wanted: str | None) -> list[str]:
    """Returns the nodes of the partitions `wanted`, names separated by commas; of the default partition for None.

    Nodes that are down or draining are among them: they may come back while a job waits.
    """
    names = wanted or ",".join(part.name for part in partitions() if part.is_default)
    chosen = [f"--partition={names}"] if names else []
    return sorted(set(call("sinfo", "--noheader", "--Node", "--format=%N", *chosen).split()))


def host_names(expression: str) -> list[str]:
    """Returns the nodes of a host list of Slurm, such as node[1-3,7]; none for ""."""
    return call("scontrol", "show", "hostnames", expression).split() if expression else []


def check_partition(wanted: str | None, time_min: float | None, site: Sequence[Partition]) -> None:
    """Checks that jobs can go to one of the partitions `wanted`, for `time_min` minutes.

    Args:
        wanted: Names separated by commas, as sbatch takes them. None means the default partition. If the site has none, sbatch
            decides.
        time_min: Time limit of a job; None leaves it to the partition.
        site: The partitions of the site.

    Raises:
        ConfigError: A partition does not exist, none is up, or their time limits are shorter; the message names the site's.
    """
    here = ", ".join(partition.name + (" (default)" if partition.is_default else "") for partition in site)
    names = [name.strip() for name in wanted.split(",")] if wanted else [part.name for part in site if part.is_default]
    for name in names:
        if name not in {partition.name for partition in site}:
            raise ConfigError(f"there is no partition {name!r}; partitions here: {here}")
    chosen = [partition for partition in site if partition.name in names]
    up = [partition for partition in chosen if partition.state == "up"]
    if chosen and not up:
        states = ", ".join(f"partition {partition.name} is {partition.state}" for partition in chosen)
        raise ConfigError(f"{states}; partitions here: {here}")
    if time_min is None or not up:
        return
    longest = max(up, key=lambda partition: math.inf if partition.limit_min is None else partition.limit_min)
    if longest.limit_min is not None and time_min > longest.limit_min:
        limits = ", ".join(f"{partition.name} {partition.limit_min:g}" for partition in site if partition.limit_min is not None)
        raise ConfigError(
            f"a time limit of {time_min:g} min is above partition {longest.name}'s {longest.limit_min:g} min (limits: {limits}); "
            "set a shorter limit: an adapter that needs more time checkpoints and goes on in the next job"
        )


def _squeue(selection: str) -> dict[str, JobState]:
    """Returns name -> state of the selected jobs, for all jobs that the controller knows."""
    by_name = {}
    for job_id, name, state, nodes, reason in _rows(
        5, "squeue", "--noheader", "--states=all", selection, "--format=%i|%j|%T|%N|%r"
    ):
        by_name[name] = JobState(job_id, state, nodes, "" if reason == "None" else reason)
    return by_name


def states(names: Sequence[str]) -> dict[str, JobState]:
    """Returns name -> state of the jobs with these unique names, for all jobs that the controller knows."""
    return _squeue(f"--name={','.join(names)}") if names else {}


def state_of(job_id: str) -> JobState | None:
    """Returns the state of one job, from the controller or else from the accounting; None if neither knows the job."""
    try:
        jobs = _squeue(f"--jobs={job_id}")
    except SlurmError as error:
        if "Invalid job id" not in error.message:
            raise
        jobs = {}
    return next(iter(jobs.values()), None) or remembered(job_id)


def output_file(job_id: str) -> Path:
    """Returns the output file of a job; /dev/null if the controller has forgotten the job."""
    try:
        words = call("scontrol", "--oneliner", "show", "job", job_id).split()
    except SlurmError:
        return Path("/dev/null")
    return Path(next((word.partition("=")[2] for word in words if word.startswith("StdOut=")), "/dev/null"))


def remembered(job_id: str) -> JobState | None:
    """Returns the last state of a job from the accounting, which knows jobs that the controller has forgotten; else None."""
    try:
        rows = _rows(2, "sacct", "--noheader", "--allocations", "--parsable2", f"--jobs={job_id}", "--format=State,NodeList")
    except SlurmError as error:
        logger.debug("no accounting: %s", error)
        return None
    for state, nodes in rows:
        return JobState(job_id, state.partition(" ")[0], "" if nodes.startswith("None") else nodes, "")
    return None


def exit_code(job_id: str) -> int | None:
    """Returns the exit code of the script of an ended job; None if neither controller nor accounting knows it."""
    try:
        fields = dict(word.split("=", 1) for word in call("scontrol", "--oneliner", "show", "job", job_id).split() if "=" in word)
        return int(fields["ExitCode"].split(":")[0])
    except (SlurmError, KeyError, ValueError):
        pass
    try:
        return int(call("sacct", "-n", "-X", "-P", f"--jobs={job_id}", "--format=ExitCode").split(":")[0])
    except (SlurmError, ValueError):
        return None


def cancel(job_id: str, *, pending_only: bool = False) -> None:
    """Cancels a job. `pending_only` spares a job that runs. A job that has ended stays as it is."""
    try:
        call("scancel", *(["--state=PENDING"] if pending_only else []), job_id)
    except SlurmError as error:
        logger.warning("job %s could not be cancelled: %s", job_id, error)
