"""Submits a run to Slurm and watches it to its end.

    wfc launch slurm CONFIG [KEY=VALUE]...                  sbatch slurm/round.sh: K nodes at once
    wfc launch slurm --per-adapter CONFIG [KEY=VALUE]...    sbatch slurm/per-adapter.sh: one small job per adapter
    wfc launch slurm --dry-run ...                          shows the command and checks it, submits nothing

`python launch/submit_slurm.py` is the same. Exit codes: wfc's own (0 done, 1 failed, 2 configuration or input, 75 interrupted);
2 when nothing could be submitted; 130 after Ctrl-C, which ends the watching only.
"""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from wfc_dist.backends.slurm import client
from wfc_dist.backends.slurm.client import JobState, SlurmError
from wfc_dist.config import loading
from wfc_dist.config.schema import Config
from wfc_dist.errors import EXIT_FAILED, EXIT_USAGE, ConfigError, InputError, WfcError
from wfc_dist.launch import shipped
from wfc_dist.runs.handle import Run
from wfc_dist.runs.layout import RunPaths

PROGRAM = "wfc launch slurm"
OUTPUT_FOLDER = "logs"  # of the batch scripts' --output, below the folder where the job is submitted
EXIT_CTRL_C = 130
POLL_S = 3.0
SETTLE_S = 20.0
"""Seconds that a job must stay preempted or without its node before it counts as ended, because Slurm may requeue the job."""
SITE = ("partition", "account", "qos")
SIZE = ("nodes", "gpus_per_node", "cpus_per_task", "mem")
INSTEAD = "cluster.backend=ray (`wfc run CONFIG` on this machine, `wfc launch ray` for a Ray cluster)"


def parse_arguments(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> argparse.Namespace:
    """Returns the parsed command line."""
    parser = argparse.ArgumentParser(prog=program, description="Submits a run to Slurm, and watches it to its end.")
    parser.add_argument("config", metavar="CONFIG", help="YAML file")
    parser.add_argument("overrides", metavar="KEY.PATH=VALUE", nargs="*", help="such as train.lr=1e-4")
    parser.add_argument("--per-adapter", action="store_true", help="one small job per adapter (cluster.backend: slurm)")
    parser.add_argument("--dry-run", action="store_true", help="check, show, submit nothing")
    parser.add_argument("--no-watch", action="store_true", help="print the job's id and return")
    for name in (*SITE, *SIZE, "time", "job_name"):
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="VALUE", help="as sbatch has it")
    parser.add_argument("--sbatch", metavar="OPTION", action="append", default=[], help="any other: --sbatch=--constraint=a100")
    options = parser.parse_args(arguments)
    if options.per_adapter and (given := [name for name in SIZE if getattr(options, name) is not None]):
        parser.error(
            f"--{given[0].replace('_', '-')} belongs to one large job; with --per-adapter, say what each adapter's job asks for "
            "in cluster.* and cluster.slurm.*"
        )
    return options


def site_overrides(options: argparse.Namespace, config: Config) -> list[str]:
    """Returns overrides that give the adapters' jobs the coordinator's partition, account and QOS, unless configured."""
    if not options.per_adapter:
        return []
    return [
        f"cluster.slurm.{name}={getattr(options, name)}"
        for name in SITE
        if getattr(options, name) is not None and getattr(config.cluster.slurm, name) is None
    ]


def render(options: argparse.Namespace, config: Config, scripts: Path) -> list[str]:
    """Returns the sbatch command: one of the scripts of the project, with the options as flags."""
    flags = [f"--job-name={options.job_name or 'wfc-' + config.run.name}"]
    flags += [
        f"--{name.replace('_', '-')}={value}" for name in (*SITE, *SIZE, "time") if (value := getattr(options, name)) is not None
    ]
    script = scripts / ("per-adapter.sh" if options.per_adapter else "round.sh")
    overrides = [*options.overrides, *site_overrides(options, config)]
    return ["sbatch", *flags, *options.sbatch, str(script), options.config, *overrides]


def check(options: argparse.Namespace, config: Config) -> None:
    """Checks partitions and time limits before a job is submitted. Raises ConfigError, which names what the site offers."""
    client.require_slurm(INSTEAD)
    time_min = client.parse_minutes(options.time) if options.time else None
    client.check_partition(options.partition, time_min, client.partitions())
    if options.per_adapter:
        slurm = config.cluster.slurm
        client.check_partition(slurm.partition or options.partition, slurm.time_min, client.partitions())


def submit(command: Sequence[str]) -> str:
    """Submits the job and returns its id. Creates logs/ for its output. The job uses this Python unless WFC_PYTHON names another.

    Raises:
        ConfigError: Slurm refuses the job.
    """
    Path(OUTPUT_FOLDER).mkdir(exist_ok=True)
    os.environ.setdefault("WFC_PYTHON", sys.executable)
    try:
        return client.call(command[0], "--parsable", *command[1:]).strip().partition(";")[0]
    except SlurmError as error:
        raise ConfigError(f"Slurm refuses the job: {error.message}\n  {shlex.join(command)}") from error


class LogTail:
    """Follows the output file of a job."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0

    def new(self) -> str:
        """Returns the complete lines written since the last call."""
        try:
            with open(self._path, "rb") as file:
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return ""
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return whole.decode(errors="replace")


def describe(state: JobState) -> str:
    """Returns a job's state in a few words, such as "PENDING (Resources)"."""
    where = f" on {state.nodes}" if state.nodes else ""
    return f"{state.state}{where}" + (f" ({state.reason})" if state.reason else "")


def watch(job_id: str, output: Path) -> JobState:
    """Prints each change of a job's state, and its output, until the job has ended for good. Returns the last state."""
    tail, told, ended_s = LogTail(output), "", None
    while True:
        try:
            state = client.state_of(job_id)
        except SlurmError as error:
            state = None
            say(f"{error.message}; asking again")
        if state is not None and describe(state) != told:
            told, ended_s = describe(state), time.monotonic()
            say(f"job {job_id}: {told}")
        print(tail.new(), end="", flush=True)
        settled = SETTLE_S if state and state.state in ("PREEMPTED", "NODE_FAIL") else POLL_S
        if state is not None and state.ended and ended_s is not None and time.monotonic() - ended_s >= settled:
            return state
        time.sleep(POLL_S)


def result(job_id: str, state: JobState, output: Path, config: Config) -> int:
    """Prints the state of the run and the places of its logs. Returns the exit code."""
    run_dir, code = config.run_dir(), client.exit_code(job_id)
    try:
        status = Run(run_dir).status()
        if not status.facts:
            raise InputError(f"{run_dir} has no status")
        say(f"run {status.state}: {status.message}" + (f", sha256 {sha}" if (sha := status.facts.get("base_sha256")) else ""))
    except (OSError, WfcError):
        say(f"{run_dir} has no status: it was not opened, or it is not visible from here")
    say(f"output: {output}; logs of each round and attempt: {RunPaths(run_dir).logs_pattern()}")
    if not code and state.state != "COMPLETED":
        code = EXIT_FAILED
    say(f"job {job_id}: {state.state}, exit code {EXIT_FAILED if code is None else code}")
    return EXIT_FAILED if code is None else code


def say(text: str) -> None:
    """Prints one line on standard error; standard output is for the job's output."""
    print(f"{PROGRAM}: {text}", file=sys.stderr, flush=True)


def run(options: argparse.Namespace) -> int:
    """Checks, submits and watches a run, as the options ask. Returns the exit code."""
    config = loading.load_config(options.config, options.overrides)
    command = render(options, config, shipped.folder("slurm"))
    if options.dry_run:
        print(shlex.join(command))
        check(options, config)
        say("Slurm here has such a partition; nothing was submitted")
        return 0
    check(options, config)
    job_id = submit(command)
    say(f"job {job_id}: {shlex.join(command)}")
    if options.no_watch:
        print(job_id)
        return 0
    try:
        output = client.output_file(job_id)  # asked before the job ends, because the controller forgets ended jobs
        return result(job_id, watch(job_id, output), output, config)
    except KeyboardInterrupt:
        say(f"job {job_id} goes on; `wfc stop {config.run_dir()}` checkpoints it, `scancel {job_id}` ends it")
        return EXIT_CTRL_C


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Entry point; returns the exit code. The usage says `program` for the command that was called."""
    try:
        return run(parse_arguments(arguments, program))
    except WfcError as error:
        say(error.message)
        return EXIT_USAGE
