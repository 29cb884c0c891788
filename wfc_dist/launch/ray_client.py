"""Finds and describes the attempts of runs in Ray's job API, and explains the errors of its client."""

import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from wfc_dist.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, ConfigError

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
CONNECT_TIMEOUT_S = 10.0
RUN_KEY, ATTEMPT_KEY = "wfc_run", "wfc_attempt"


def connect(address: str | None) -> tuple[Any, str]:
    """Returns Ray's job client and its address. Raises ConfigError if the cluster cannot be reached or has another version."""
    address = address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS
    _check_reachable(address)
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # Ray prefers its environment to the argument
    if token_source():
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # without this variable, Ray's client does not send the token
    try:
        import ray
        from ray.job_submission import JobSubmissionClient

        client = JobSubmissionClient(address)
    except ImportError as error:
        raise ConfigError(f'Ray\'s job client is missing ({error}); pip install "ray[default]"') from error
    theirs = client._server_ray_version
    if theirs != ray.__version__:
        raise ConfigError(
            f"the cluster at {address} runs Ray {theirs}, this machine has {ray.__version__}; "
            f'make them equal: pip install "ray[default]=={theirs}"'
        )
    return client, address


def token_source() -> str:
    """Returns the variable or the file that has the token of Ray's client; "" if there is none."""
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        if os.environ.get(name):
            return name
    file = Path.home() / ".ray" / "auth_token"
    return str(file) if file.is_file() else ""


def check_size(working_dir: Path) -> None:
    """Raises ConfigError if the working directory is too large for Ray's job API; the message names the largest entries."""
    from ray._private import ray_constants  # the limit and the patterns that Ray itself uses; checked with 2.60

    limit, sizes = ray_constants.DASHBOARD_CLIENT_MAX_SIZE, Counter[str]()
    for path in packed_files(working_dir, ray_constants.get_runtime_env_default_excludes()):
        sizes[path.relative_to(working_dir).parts[0]] += path.lstat().st_size
        if sizes.total() > limit:
            large = ", ".join(f"{name} {size / 2**20:.0f} MiB" for name, size in sizes.most_common(3))
            raise ConfigError(
                f"the working directory {working_dir.resolve()} is larger than the {limit / 2**20:.0f} MiB of Ray's job API "
                f"(so far: {large}); keep data, models and runs out of it with .rayignore, or submit a smaller --working-dir"
            )


def packed_files(folder: Path, names: Sequence[str], ignored: Sequence[Callable[[Path], bool]] = ()) -> Iterator[Path]:
    """Yields the files that Ray packs: all files that are not below `names` and not ignored by .gitignore or .rayignore."""
    from ray._private.runtime_env.packaging import get_excludes_from_ignore_files

    ignored = [*ignored, *get_excludes_from_ignore_files(folder, include_gitignore=True)]
    for path in sorted(folder.iterdir()):
        if path.name in names or any(matches(path) for matches in ignored):
            continue
        if path.is_dir():
            yield from packed_files(path, names, ignored)
        elif path.is_file():
            yield path


def _check_reachable(address: str) -> None:
    """Raises ConfigError if no server answers at `address`. Without this check, Ray's client would wait for minutes."""
    try:
        url = urlsplit(address)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("it is not a URL of http or https")
        with socket.create_connection((url.hostname, url.port or (443 if url.scheme == "https" else 80)), CONNECT_TIMEOUT_S):
            pass
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no Ray dashboard answers at {address} ({error}); give the head node's as --address http://HEAD:8265, "
            "or forward its port: `ssh -L 8265:127.0.0.1:8265 HEAD`, `ray dashboard CLUSTER.yaml`, `kubectl port-forward`"
        ) from error


def explain(error: Exception) -> str | None:
    """Returns a message for the user about an error of Ray's client; None for an unknown error."""
    text = " ".join(str(error).split())
    if type(error).__name__ == "AuthenticationError":
        what = "wants a token and got none" if "Missing" in text else f"refuses the token of {token_source()}"
        return (
            f"the cluster {what}; set RAY_AUTH_TOKEN to the cluster's own, or RAY_AUTH_TOKEN_PATH to a file with it "
            "(on the head node, `ray get-auth-token` prints it)"
        )
    if isinstance(error, (RuntimeError, OSError, ValueError)):
        return f"Ray's job API: {text[:1000]}"
    return None


def is_attempt(details: Any) -> bool:
    """Returns whether a job was submitted as an attempt of a run by `wfc launch ray submit`."""
    return bool(details.submission_id) and RUN_KEY in (details.metadata or {})


def submission_id(name: str, number: int) -> str:
    """Returns the id of a run's attempt."""
    return f"wfc-{name}-{number}"


def next_attempt(name: str, attempts: Sequence[Any]) -> int:
    """Returns the next free number for an attempt of a run of this name."""
    return 1 + max(
        (
            int(job.metadata[ATTEMPT_KEY])
            for job in attempts
            if job.submission_id == submission_id(name, int(job.metadata[ATTEMPT_KEY]))
        ),
        default=0,
    )


def started(details: Any) -> int:
    """Returns the time at which a job was submitted, as a sort key."""
    return details.start_time or 0


def find(client: Any, run: str) -> Any:
    """Returns the last attempt of a run, given by name, folder or job id. Raises ConfigError if none or several runs match."""
    run = run.rstrip("/")
    attempts = sorted((job for job in client.list_jobs() if is_attempt(job)), key=started)
    for matches in (
        [job for job in attempts if run in (job.submission_id, job.metadata[RUN_KEY])],
        [job for job in attempts if run == job.metadata[RUN_KEY].rpartition("/")[2]],
    ):
        folders = sorted({job.metadata[RUN_KEY] for job in matches})
        if len(folders) > 1:
            raise ConfigError(f"{run}: several runs have this name; say which: {', '.join(folders)}")
        if matches:
            return matches[-1]
    known = ", ".join(sorted({job.metadata[RUN_KEY] for job in attempts})) or "none"
    raise ConfigError(
        f"no run {run} was submitted to this cluster with `wfc launch ray submit`; known: {known}. "
        "A run that was submitted in another way is stopped with `ray job submit -- wfc stop RUN`"
    )


def exit_code(details: Any) -> int:
    """Returns the exit code of wfc: 75 for a run that Ray was told to stop, 128 + n for a run killed by signal n."""
    if details.driver_exit_code is not None:
        code = int(details.driver_exit_code)
        return code if code >= 0 else 128 - code
    return {"SUCCEEDED": 0, "STOPPED": EXIT_INTERRUPTED}.get(str(details.status.value), EXIT_FAILED)


def describe(details: Any) -> str:
    """Returns the state of a job in words."""
    state = str(details.status.value)
    if not details.status.is_terminal():
        return state
    if details.driver_exit_code is None and state == "FAILED":  # wfc never ran; the logs do not say why
        return f"FAILED before wfc started: {details.message}"
    code = exit_code(details)
    words = {0: "done", EXIT_USAGE: "configuration or input", EXIT_INTERRUPTED: "interrupted, `submit` goes on"}
    return f"{words.get(code, 'failed')} (exit code {code})"
