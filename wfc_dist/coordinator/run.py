"""`wfc run`: from a configuration to the last base. This module puts the parts together; the algorithm is in `rounds`."""

import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from wfc_dist import activity, caller, log
from wfc_dist.backends.failure_policy import Decision, Failure
from wfc_dist.backends.hangs import Hang, Limits
from wfc_dist.backends.ray.cluster import EMBEDDED_STORE_BYTES, address_of, connected, named_address, prepare_environment
from wfc_dist.backends.ray.embedded import User
from wfc_dist.backends.watchdog import Watchdog
from wfc_dist.config.schema import Config
from wfc_dist.coordinator.checks import Checked, check_start
from wfc_dist.coordinator.ending import say_interrupted
from wfc_dist.coordinator.notify import notify
from wfc_dist.coordinator.precision import settle
from wfc_dist.coordinator.signals import StopOnSignal
from wfc_dist.errors import Interrupted, WfcError, exit_code_of
from wfc_dist.progress import Display
from wfc_dist.rounds import Base, Centralizer, Scorer, Trainers, run_rounds
from wfc_dist.runs import layout
from wfc_dist.runs.environment import describe_environment
from wfc_dist.runs.opening import opened_for_writing
from wfc_dist.runs.store import RunStore
from wfc_dist.storage import durable
from wfc_dist.tracking.follower import tracked

if TYPE_CHECKING:
    from wfc_dist.backends.in_process import InProcessBackend
    from wfc_dist.backends.ray.trainers import RayTrainers
    from wfc_dist.backends.slurm.backend import SlurmBackend

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """An opened run, and what carries out the verbs of the algorithm there."""

    store: RunStore
    checked: Checked
    display: Display
    trainers: Trainers
    centralizer: Centralizer
    scorer: Scorer


def all_rounds(parts: Parts) -> Base:
    """Runs, or goes on with, every round of the configuration (see `rounds.run_rounds`)."""
    return run_rounds(parts.store.config.round_list(), parts.store, parts.trainers, parts.centralizer, parts.scorer)


def run(config: Config, display: Display | None = None, work: Callable[[Parts], Base] = all_rounds) -> Base:
    """Runs, or goes on with, all rounds of a configuration and returns the last base. Writes the run directory.

    In the main thread, the first signal checkpoints and stops the run. Python lets no other thread catch signals: there,
    `wfc stop RUN` and the file RUN/stop do it. What the call changes for the whole process is put back at its end. A second
    signal ends the process with exit code 75.

    Args:
        config: From `load_config`.
        display: Shows progress, on standard error by default.
        work: What is done once everything is up; by default all rounds.

    Returns:
        The last base: index, folder and sha256. `open_run(config.run_dir())` reads everything else.

    Raises:
        ConfigError, InputError: Something cannot be used; nothing was started.
        RunLockedError: Another process works on the run.
        Interrupted: A stop was asked for, or something that passes ended the run; the message and RUN/status.json say what has
            checkpointed, and the same call goes on.
        WfcError: What else went wrong; the message and the exit code are in RUN/status.json, too.

    Example:
        >>> from wfc_dist import load_config, run
        >>> run(load_config("configs/demo.yaml")).index
        2
    """
    display = display or Display()
    opened: list[RunStore] = []
    watchdog = Watchdog(Limits.of(config.cluster), lambda hang: _tell_hang(hang, display, opened))
    with caller.put_back(), log.put_back(), StopOnSignal(display).caught() as signals, watchdog:
        checked = check_start(config)
        for warning in checked.warnings:
            display.say(f"warning: {warning}")
        if config.cluster.backend == "ray" and not config.cluster.address and address_of(config.cluster):
            display.say(f"the cluster is the one at {named_address(config.cluster)}")
        prepare_environment(config.cluster)  # before anything imports ray
        with _joined(config), opened_for_writing(config, checked.fingerprints, display.say) as store:
            opened.append(store)
            try:
                with signals.stopping(store):
                    return _run_locked(store, checked, display, work)
            finally:
                opened.clear()
                log.close()


def _tell_hang(hang: Hang, display: Display, opened: Sequence[RunStore]) -> None:
    """Says that this process hangs, and records it in the run, where there is one."""
    host, facts = socket.gethostname(), hang.facts()
    work = hang.state.said.about if hang.state.said else ""
    for store in opened:
        error = hang.error(f"round {store.current_round()}{f', {work}' if work else ''}", host, "the process")
        display.say(f"{error}; the same command goes on")
        about = {"dataset": work} if work in store.config.datasets else {"work": work} if work else {}
        what = {"host": host, "kind": Failure.HUNG.value, "reason": str(error)[:300], "decision": Decision.WAIT.value}
        store.ledger.record("failure", round=store.current_round(), **about, **what, **facts)
        if activity.may_end_process:
            store.status.write("interrupted", error.message, error.exit_code)
    if not opened:
        display.say(str(hang.error("before anything was started", host, "the process")))


def _joined(config: Config) -> contextlib.AbstractContextManager[None]:
    """Connects to the running cluster of a configuration, so that one that refuses leaves no run directory behind."""
    is_running = config.cluster.backend == "ray" and address_of(config.cluster) is not None
    return connected(config.cluster) if is_running else contextlib.nullcontext()


def _run_locked(store: RunStore, checked: Checked, display: Display, work: Callable[[Parts], Base]) -> Base:
    layout.open_logs(store.log_dir(), "coordinator")
    store.ledger.record(
        "attempt", round=store.current_round(), host=socket.gethostname(), before=store.status.last_state(), **launched_by(),
        environment=describe_environment(),
    )  # fmt: skip
    store.status.write("running")
    display.keep = partial(_keep_progress, store)
    try:
        base = _run_opened(store, checked, display, work)
    except Interrupted as error:
        reason = store.stop_reason() or error.message
        with contextlib.suppress(WfcError, OSError):  # a full disk takes no record; the error itself is what counts
            store.ledger.record("stopped", round=store.current_round(), reason=reason, **error.facts)
        with contextlib.suppress(WfcError, OSError):
            store.status.write("interrupted", error.message, error.exit_code, **error.facts, **store.end_facts())
        notify(store.config, "stopped", error.message, error.exit_code)
        raise
    except Exception as error:
        code = exit_code_of(error)
        with contextlib.suppress(WfcError, OSError):
            store.status.write("failed", str(error), code)
        logger.exception("failed")
        with contextlib.suppress(WfcError, OSError):
            store.ledger.record("failed", round=store.current_round(), reason=f"{type(error).__name__}: {error}"[:300])
        notify(store.config, "failed", str(error), code)
        raise
    finally:
        display.keep = None
        store.paths.progress.unlink(missing_ok=True)
    message = f"base {base.index} is {base.path}"
    store.status.write("done", message, 0, base_sha256=base.sha256)
    notify(store.config, "done", message, 0)
    return base


def _keep_progress(store: RunStore, snapshot: Mapping[str, Any]) -> None:
    """Writes RUN/progress.json; a run does not fail for the sake of who watches."""
    try:
        durable.write_json(store.paths.progress, dict(snapshot))
    except OSError as error:
        logger.warning("%s is not written: %s", store.paths.progress, error)


def launched_by() -> dict[str, object]:
    """Returns the scheduler's ids of this attempt, for the ledger."""
    names = {"slurm_job_id": "SLURM_JOB_ID", "slurm_restart_count": "SLURM_RESTART_COUNT", "slurm_nodes": "SLURM_JOB_NODELIST"}
    facts: dict[str, object] = {key: os.environ[name] for key, name in names.items() if name in os.environ}
    ray_job = (durable.as_object(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")) or {}).get(
        "metadata"
    )  # others may set it, too
    is_named = isinstance(ray_job, dict) and "job_submission_id" in ray_job
    return facts | ({"ray_job_id": ray_job["job_submission_id"]} if ray_job and is_named else {})


def _run_opened(store: RunStore, checked: Checked, display: Display, work: Callable[[Parts], Base]) -> Base:
    from wfc_dist.coordinator.repair import repair_rounds
    from wfc_dist.runs.root import ensure_root

    start = time.monotonic()
    ensure_root(store)
    if store.attempt > 1:
        with log.span("verify_rounds", phase="loading"):
            repair_rounds(store, display.say)
    rounds = store.config.round_list()
    first = store.current_round()
    if store.attempt > 1:
        display.say(f"going on with {store.paths.run_dir}, attempt {store.attempt}, round {first} of {len(rounds)}")
    with tracked(store, display.say), contextlib.ExitStack() as stack:
        base = work(_parts(store, checked, display, stack))
    display.say(f"base {base.index} ({base.sha256[:12]}) after {time.monotonic() - start:.0f} s: {base.path}")
    return base


def _parts(store: RunStore, checked: Checked, display: Display, stack: contextlib.ExitStack) -> Parts:
    from wfc_dist.coordinator.fitting import FittedCentralizer
    from wfc_dist.coordinator.gating import GatedCentralizer
    from wfc_dist.coordinator.late import LateTrainers
    from wfc_dist.coordinator.reading_back import CheckedCentralizer
    from wfc_dist.evaluation.scoring import RunScorer

    trainers, merger = _backend(store, checked, display, stack)
    centralizer: Centralizer = CheckedCentralizer(store, merger, display.say)
    scorer = RunScorer(store, trainers, checked.test_hours, checked.fingerprints, display.say)
    if store.config.centralize.is_fitted:
        centralizer = FittedCentralizer(store, centralizer, trainers, display.say)
    if store.config.centralize.gate.is_on:
        centralizer = GatedCentralizer(store, centralizer, scorer, display.say)
    if store.config.centralize.late != "never":
        return Parts(store, checked, display, LateTrainers(store, trainers, display.say), centralizer, scorer)
    return Parts(store, checked, display, trainers, centralizer, scorer)


def _lose_ray(store: RunStore, message: str) -> None:
    # Trainers that still work checkpoint, and a program that is no command stops when it can.
    store.stop(message, by_itself=True)
    say_interrupted(store, message)


def _backend(
    store: RunStore, checked: Checked, display: Display, stack: contextlib.ExitStack
) -> tuple["InProcessBackend | SlurmBackend | RayTrainers", Centralizer]:
    """Starts the backend of the configuration; `stack` ends it. Returns its trainers, which also decode, and its centralizer."""
    if store.config.cluster.backend == "in_process":
        from wfc_dist.backends.in_process import InProcessBackend
        from wfc_dist.runs.precision import has_bf16

        settle(store, lambda: {"this machine": has_bf16(use_gpu=store.config.cluster.gpus_per_worker > 0)}, display.say)
        here = InProcessBackend(store, display)
        stack.callback(here.shutdown)
        return here, here
    if store.config.cluster.backend == "slurm":
        from wfc_dist.backends.slurm.backend import SlurmBackend

        jobs = SlurmBackend(store, display, checked.hours)
        settle(store, jobs.nodes_with_bf16, display.say)
        return jobs, jobs
    from wfc_dist.backends.ray.admission import admit
    from wfc_dist.backends.ray.bf16 import nodes_with_bf16
    from wfc_dist.backends.ray.centralizer import RayCentralizer
    from wfc_dist.backends.ray.fleet import Fleet
    from wfc_dist.backends.ray.nodes import Nodes
    from wfc_dist.backends.ray.trainers import RayTrainers

    with log.span("start_ray", phase="loading"):
        user = User(display.say, store.raise_if_stopped, partial(_lose_ray, store))
        stack.enter_context(connected(store.config.cluster, EMBEDDED_STORE_BYTES, user))
    nodes = Nodes(store, display, admit(store, display.say))
    settle(store, lambda: nodes_with_bf16(store, nodes), display.say)
    fleet = Fleet(store, display.say, nodes)
    centralizer = RayCentralizer(store, nodes)
    stack.callback(centralizer.shutdown)
    stack.callback(fleet.shutdown)
    return RayTrainers(store, display, checked.hours, centralizer, fleet), centralizer
