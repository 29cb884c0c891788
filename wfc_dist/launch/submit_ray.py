"""Submits runs of wfc to a Ray cluster through its job API, from any machine that reaches the dashboard.

    wfc launch ray submit CONFIG [KEY.PATH=VALUE]...    submits, follows the logs, exits with wfc's own code
    wfc launch ray stop RUN|CONFIG                      checkpoints everything first; submit again to go on
    wfc launch ray status [RUN|CONFIG]
    wfc launch ray logs RUN|CONFIG                      from the beginning, then as they come

`python launch/submit_ray.py` is the same. Needs `pip install "ray[default]"` of the cluster's version; see launch/README.md.
Exit codes: wfc's own (0 done, 1 failed, 2 configuration or input, 75 interrupted), 2 when nothing could be submitted, 130 after
Ctrl-C.
"""

import argparse
import asyncio
import contextlib
import logging
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from wfc_dist.config import loading
from wfc_dist.config.schema import Config
from wfc_dist.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, ConfigError, WfcError
from wfc_dist.launch.ray_client import (
    ATTEMPT_KEY,
    DEFAULT_ADDRESS,
    RUN_KEY,
    check_size,
    connect,
    describe,
    exit_code,
    explain,
    find,
    is_attempt,
    next_attempt,
    started,
    submission_id,
)

PROGRAM = "wfc launch ray"
EXIT_CTRL_C = 130
RECONNECT_FOR_S = 300.0  # covers a dashboard that restarts and a laptop that sleeps
ASK_AGAIN_S = 30.0  # a run clears an old stop file when it is opened, so a stop may have to be repeated
SILENCE_S = 60.0
POLL_S = 1.0


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Entry point; returns the exit code. Messages say `program` for the command that was called."""
    logging.disable(logging.WARNING)  # Ray's client logs every step, and this program prints what matters
    options = parse_arguments(arguments, program)
    try:
        return int(options.command(options))
    except WfcError as error:
        say(error.message)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_CTRL_C
    except Exception as error:  # Ray's client has no error class of its own
        message = explain(error)
        if message is None:
            raise
        say(message)
        return EXIT_USAGE


def parse_arguments(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> argparse.Namespace:
    """Returns the parsed command line; `command` is the function to call."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--address", help=f"the dashboard; RAY_API_SERVER_ADDRESS or {DEFAULT_ADDRESS} by default")
    parser = argparse.ArgumentParser(prog=program, description="Runs of wfc on a Ray cluster, through its job API.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    sub = commands.add_parser("submit", parents=[common], help="run, or go on with, a configuration; follow its logs")
    sub.add_argument("config", metavar="CONFIG", type=Path, help="YAML file inside the working directory")
    sub.add_argument("overrides", metavar="KEY.PATH=VALUE", nargs="*", help="such as train.lr=1e-4")
    sub.add_argument("--working-dir", type=Path, default=Path(), help="what the job carries; this folder by default")
    sub.add_argument("--runtime-env", type=Path, metavar="FILE", help="YAML, such as launch/runtime-env-container.yaml")
    sub.add_argument("--pip", type=Path, metavar="FILE", help="requirements that the nodes install")
    sub.add_argument("--no-follow", action="store_true", help="print the job's id and return")
    sub.set_defaults(command=submit)
    for name, function, text in (
        ("stop", stop, "checkpoint everything, then end"),
        ("logs", logs, "print the logs of the last attempt, follow them to its end"),
        ("status", status, "show the attempts of a run, or of all runs"),
    ):
        sub = commands.add_parser(name, parents=[common], help=text)
        sub.add_argument(
            "run", metavar="RUN|CONFIG", nargs="?" if name == "status" else None, help="name, folder, job or YAML file"
        )
        sub.set_defaults(command=function)
        if name == "stop":
            sub.add_argument("--grace", type=float, default=600, metavar="SECONDS", help="then Ray kills it; 600 by default")
    options, rest = parser.parse_known_args(arguments)
    if rest and (options.command is not submit or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.overrides += rest  # overrides behind options
    options.program = program
    return options


def submit(options: argparse.Namespace) -> int:
    """Submits the next attempt of a run. Raises ConfigError if an attempt still runs."""
    settings = loading.load_config(options.config, options.overrides)
    run_dir = shared_run_dir(settings)
    entrypoint = entry_command(options.config, options.working_dir, options.overrides)
    environment = read_runtime_env(options.runtime_env, options.pip) | {"working_dir": str(options.working_dir)}
    client, address = connect(options.address)
    check_size(options.working_dir)
    attempts = [job for job in client.list_jobs() if is_attempt(job)]
    for job in attempts:
        if job.metadata[RUN_KEY] == run_dir and not job.status.is_terminal():
            raise ConfigError(f"{run_dir} is running as job {job.submission_id}; `logs` follows it, `stop` ends it")
    number = next_attempt(settings.run.name, attempts)
    job_id = client.submit_job(
        entrypoint=entrypoint,
        submission_id=submission_id(settings.run.name, number),
        runtime_env=environment,
        metadata={RUN_KEY: run_dir, ATTEMPT_KEY: str(number)},
    )
    say(f"submitted {job_id}: {entrypoint}")
    if options.no_follow:
        print(job_id)
        return 0
    return follow(client, job_id, address, options.program)


def stop(options: argparse.Namespace) -> int:
    """Stops a run after its checkpoints, by a small job in the cluster, and waits. Ray's own stop kills after 3 s."""
    client, _ = connect(options.address)
    details = find(client, named(options.run))
    job_id = details.submission_id
    if details.status.is_terminal():
        say(f"{job_id} has already ended: {describe(details)}")
        return 0
    if details.status == "PENDING":  # nothing runs that could checkpoint
        client.stop_job(job_id)
        say(f"{job_id} had not started; it was stopped")
        return 0
    for now in _while_asking_to_stop(client, details, options.grace):
        if now.status.is_terminal():
            say(f"{job_id} ended: {describe(now)}")
            return 0 if exit_code(now) in (0, EXIT_INTERRUPTED) else EXIT_FAILED
    client.stop_job(job_id)
    say(f"{job_id} did not end within {options.grace:g} s and was killed; its last checkpoints hold, `submit` goes on from them")
    return EXIT_FAILED


def _while_asking_to_stop(client: Any, details: Any, grace_s: float) -> Iterator[Any]:
    """Yields the details of the job once a second, for `grace_s`. Runs `wfc stop` in the cluster, where the run directory is."""
    end, next_s, asked = time.monotonic() + grace_s, 0.0, ""
    while time.monotonic() < end:
        if asked and (answer := client.get_job_info(asked)).status.is_terminal():
            client.delete_job(asked)
            asked, next_s = "", time.monotonic() + (ASK_AGAIN_S if answer.status == "SUCCEEDED" else POLL_S)
        if not asked and time.monotonic() >= next_s:
            command = shlex.join(["python", "-m", "wfc_dist", "stop", details.metadata[RUN_KEY]])
            asked = client.submit_job(entrypoint=command, runtime_env=details.runtime_env or {})  # its files are there already
            say(f"asking {details.submission_id} to checkpoint and stop")
        yield client.get_job_info(details.submission_id)
        time.sleep(POLL_S)


def logs(options: argparse.Namespace) -> int:
    """Prints and follows the logs of a run's last attempt; returns wfc's exit code."""
    client, address = connect(options.address)
    return follow(client, find(client, named(options.run)).submission_id, address, options.program)


def status(options: argparse.Namespace) -> int:
    """Prints the attempts of a run, or of all runs, oldest first."""
    client, _ = connect(options.address)
    run_dir = find(client, named(options.run)).metadata[RUN_KEY] if options.run else None
    attempts = [job for job in client.list_jobs() if is_attempt(job) and run_dir in (None, job.metadata[RUN_KEY])]
    for details in sorted(attempts, key=started):
        print(f"{details.submission_id}  {details.metadata[RUN_KEY]}  {describe(details)}")
    return 0


def follow(client: Any, job_id: str, address: str, program: str = PROGRAM) -> int:
    """Prints a job's logs until it ends and returns wfc's exit code. Ctrl-C leaves the job alone."""
    again = f"{program} {{}} {job_id} --address {address}"
    printed, lost_s = [0], None
    import aiohttp

    try:
        while True:
            try:
                complete = asyncio.run(_print_logs(client, job_id, printed))
                details, lost_s = client.get_job_info(job_id), None
                if details.status.is_terminal() and not complete:
                    print(client.get_job_logs(job_id)[printed[0] :], end="", flush=True)
            except (OSError, RuntimeError, aiohttp.ClientError) as error:
                lost_s = lost_s or time.monotonic()
                if time.monotonic() - lost_s > RECONNECT_FOR_S:
                    raise ConfigError(
                        f"lost {address} ({error}); job {job_id} may still run, follow it with `{again.format('logs')}`"
                    ) from error
            else:
                if details.status.is_terminal():
                    say(f"{job_id}: {describe(details)}")
                    return exit_code(details)
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        say(f"{job_id} runs on; follow it with `{again.format('logs')}`, end it with `{again.format('stop')}`")
        return EXIT_CTRL_C


async def _print_logs(client: Any, job_id: str, printed: list[int]) -> bool:
    """Prints the logs after the first printed[0] characters. Every connection starts at the beginning of the logs.

    Returns True at the end of the logs, False after `SILENCE_S` without a line: a connection may be lost without an error.
    """
    seen, texts = 0, client.tail_job_logs(job_id)
    with contextlib.suppress(asyncio.TimeoutError):
        while (text := await asyncio.wait_for(anext(texts, None), SILENCE_S)) is not None:
            new = text[max(printed[0] - seen, 0) :]
            seen += len(text)
            printed[0] = max(printed[0], seen)
            print(new, end="", flush=True)
        return True
    return False


def named(run: str) -> str:
    """Returns the name of the run if `run` is a configuration file; else `run` as it is."""
    return loading.load_config(run).run.name if run.endswith((".yaml", ".yml")) else run


def shared_run_dir(settings: Config) -> str:
    """Returns the run directory or its URL. Raises ConfigError if it would lie in the temporary files of the job."""
    settings.require_lasting_run_dir()
    return f"{settings.run.dir.rstrip('/')}/{settings.run.name}"


def entry_command(config: Path, working_dir: Path, overrides: Sequence[str]) -> str:
    """Returns the shell command of the job. If the working directory is a checkout, its code is the code that runs."""
    try:
        inside = config.resolve().relative_to(working_dir.resolve())
    except ValueError as error:
        raise ConfigError(f"{config} is not inside --working-dir {working_dir.resolve()}; the job would not see it") from error
    return shlex.join(["python", "-m", "wfc_dist", "run", inside.as_posix(), *overrides, "--plain"])


def read_runtime_env(file: Path | None, requirements: Path | None) -> dict[str, Any]:
    """Returns Ray's runtime_env from a YAML file and a requirements file. Raises ConfigError if a file is missing or invalid."""
    from wfc_dist.config.yaml_text import read_yaml_file

    for path in (file, requirements):
        if path and not path.is_file():
            raise ConfigError(f"{path} does not exist; give the path of an existing file")
    found = read_yaml_file(file) if file else {}
    if not isinstance(found, dict):
        raise ConfigError(f"{file}: expected keys of Ray's runtime_env, such as pip: or image_uri:")
    return found | ({"pip": str(requirements)} if requirements else {})


def say(text: str) -> None:
    """Prints one line on standard error; standard output is for the job's logs."""
    print(f"{PROGRAM}: {text}", file=sys.stderr, flush=True)
