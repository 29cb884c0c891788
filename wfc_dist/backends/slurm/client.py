"""Slurm's own commands: what the site offers, how a job is doing. Loads neither torch nor submitit."""

import logging
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wfc_dist.errors import ConfigError, WfcError

logger = logging.getLogger(__name__)
COMMANDS = ("sbatch", "srun", "squeue", "sinfo", "scontrol", "scancel")
TIMEOUT_S = 60.0
ENDED = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED"),
    "TIMEOUT",
)
"""States a job does not leave by itself; Slurm puts a requeued job through some of them in passing."""


class SlurmError(WfcError):
    """A command of Slurm failed; says which and what it said."""


@dataclass(frozen=True)
class Partition:
    """A partition of the site.

    Attributes:
        name: Its name.
        limit_min: Longest time limit of a job in minutes; None without one.
        is_default: Whether jobs go there that name none.
        state: up, down, drain or inact.
    """

    name: str
    limit_min: float | None
    is_default: bool
    state: str


@dataclass(frozen=True)
class JobState:
    """What Slurm says of a job.

    Attributes:
        job_id: Its number.
        state: PENDING, RUNNING, ... (the long form).
        nodes: Where it runs or ran; "" while it waits.
        reason: Why it waits or how it ended, in Slurm's words.
    """

    job_id: str
    state: str
    nodes: str
    reason: str

    @property
    def ended(self) -> bool:
        """Whether it will not run on by itself."""
        return self.state in ENDED


def call(*command: str) -> str:
    """Runs a command and returns its output. Raises SlurmError when it fails or does not answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SlurmError(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise SlurmError(f"{command[0]}: {' '.join((done.stderr or done.stdout).split())}")
    return done.stdout


def require_slurm(instead: str) -> None:
    """Raises ConfigError when this machine has no Slurm, or it does not answer; `instead` says what else can be used."""
    lacking = [name for name in COMMANDS if shutil.which(name) is None]
    if lacking:
        raise ConfigError(f"there is no Slurm here (no {', '.join(lacking)}): use a login node, or {instead}")
    try:
        call("sinfo", "--noheader", "--format=%R")
    except SlurmError as error:
        raise ConfigError(f"Slurm does not answer ({error.message}): ask the site's admins, or use {instead}") from error


def parse_minutes(text: str) -> float | None:
    """Returns the minutes of a Slurm time such as 1-02:30:00, 04:00:00 or 30:00; None for no limit."""
    if text.lower() in ("infinite", "unlimited", "n/a", "none", ""):
        return None
    days, _, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if days:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    else:
        hours, minutes, seconds = ([0] * (3 - len(parts)) + parts) if len(parts) > 1 else (0, parts[0], 0)
    return int(days or 0) * 1440 + hours * 60 + minutes + seconds / 60


def partitions() -> list[Partition]:
    """Returns the partitions of the site."""
    found = {}
    for line in call("sinfo", "--noheader", "--format=%R|%P|%l|%a").splitlines():
        name, marked, limit, state = line.strip().split("|")
        found[name] = Partition(name, parse_minutes(limit), marked.endswith("*"), state)
    return list(found.values())


def check_partition(wanted: str | None, time_min: float | None, there_are: Sequence[Partition]) -> None:
    """Checks that jobs can go to one of the partitions `wanted`, names with commas as sbatch takes them, for so long.

    None is the default one; where the site has none, sbatch knows what else chooses.

    Raises:
        ConfigError: No such partition, none of them is up, or their time limits are shorter; names what there is.
    """
    names = ", ".join(item.name + (" (default)" if item.is_default else "") for item in there_are)
    asked = [name.strip() for name in wanted.split(",")] if wanted else []
    for name in asked:
        if name not in {item.name for item in there_are}:
            raise ConfigError(f"there is no partition {name!r}; partitions here: {names}")
    chosen = [item for item in there_are if (item.name in asked if asked else item.is_default)]
    up = [item for item in chosen if item.state == "up"]
    if chosen and not up:
        said = ", ".join(f"partition {item.name} is {item.state}" for item in chosen)
        raise ConfigError(f"{said}; partitions here: {names}")
    if time_min is not None and up and all(item.limit_min is not None and time_min > item.limit_min for item in up):
        limits = ", ".join(f"{item.name} {item.limit_min:g}" for item in there_are if item.limit_min is not None)
        longest = max(up, key=lambda item: item.limit_min or 0)
        raise ConfigError(
            f"a time limit of {time_min:g} min is above partition {longest.name}'s {longest.limit_min:g} min (limits: {limits}); "
            "an adapter that needs longer checkpoints and goes on in the next job"
        )


def states(names: Sequence[str]) -> dict[str, JobState]:
    """Returns the state of the jobs with these names (unique ones) that the controller remembers, by name."""
    if not names:
        return {}
    found = {}
    lines = call("squeue", "--noheader", "--states=all", f"--name={','.join(names)}", "--format=%i|%j|%T|%N|%r").splitlines()
    for line in lines:
        job_id, name, state, nodes, reason = line.strip().split("|")
        found[name] = JobState(job_id, state, nodes, "" if reason == "None" else reason)
    return found


def state_of(job_id: str) -> JobState | None:
    """Returns the state of one job, from the controller or, later, the accounting; None where nobody knows it (yet)."""
    try:
        lines = call("squeue", "--noheader", "--states=all", f"--jobs={job_id}", "--format=%i|%T|%N|%r").splitlines()
    except SlurmError as error:
        if "Invalid job id" not in error.message:
            raise
        lines = []
    for line in lines:
        number, state, nodes, reason = line.strip().split("|")
        return JobState(number, state, nodes, "" if reason == "None" else reason)
    return remembered(job_id)


def output_file(job_id: str) -> Path:
    """Returns where a job that the controller remembers prints to; /dev/null for another."""
    try:
        words = call("scontrol", "--oneliner", "show", "job", job_id).split()
    except SlurmError:
        return Path("/dev/null")
    return Path(next((word.partition("=")[2] for word in words if word.startswith("StdOut=")), "/dev/null"))


def remembered(job_id: str) -> JobState | None:
    """Returns how a job ended, from the accounting, for one the controller has forgotten; None where nobody knows."""
    try:
        lines = call(
            "sacct", "--noheader", "--allocations", "--parsable2", f"--jobs={job_id}", "--format=State,NodeList"
        ).splitlines()
    except SlurmError as error:
        logger.debug("no accounting: %s", error)
        return None
    for line in lines:
        state, nodes = line.split("|")
        return JobState(job_id, state.split()[0], "" if nodes.startswith("None") else nodes, "")
    return None


def exit_code(job_id: str) -> int | None:
    """Returns the exit code of an ended job's script, or None where nobody knows."""
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
    """Cancels a job; with `pending_only` one that runs by now runs on. A job that has ended is left alone."""
    try:
        call("scancel", *(["--state=PENDING"] if pending_only else []), job_id)
    except SlurmError as error:
        logger.warning("job %s could not be cancelled: %s", job_id, error)
