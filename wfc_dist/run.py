"""`wfc run`: from a configuration to the last base. Puts the parts together; the algorithm is in `rounds`."""

import contextlib
import logging
import math
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wfc_dist import log
from wfc_dist.backends.ray.cluster import connected, prepare_environment
from wfc_dist.config import Config
from wfc_dist.data.audit import audit
from wfc_dist.data.sources import open_split
from wfc_dist.display import Display
from wfc_dist.errors import EXIT_FAILED, EXIT_INTERRUPTED, ConfigError, Interrupted, WfcError
from wfc_dist.rounds import Base, run_rounds
from wfc_dist.run_store import RunStore, open_run

logger = logging.getLogger(__name__)
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True)
class Checked:
    """What is known of the data before anything starts.

    Attributes:
        hours: Data set -> hours of speech in its training split.
        test_hours: Test set -> hours of speech that scoring decodes.
        fingerprints: `<set>/<split>` -> sha256 over its rows.
    """

    hours: dict[str, float]
    test_hours: dict[str, float]
    fingerprints: dict[str, str]


def check(config: Config) -> Checked:
    """Checks all that can be checked before anything is started. Raises ConfigError or InputError."""
    if config.train.precision == "fp16" and not config.cluster.gpus_per_worker:
        raise ConfigError("train.precision fp16 needs GPUs (cluster.gpus_per_worker); use fp32 or bf16 on CPUs")
    report = audit(config)
    report.raise_for_errors()
    sets = dict(config.datasets) | config.evaluate.protected
    tested = [row for row in report.rows if row.split == "test"]
    most = config.evaluate.max_clips or math.inf
    wanted = {f"{row.name}/{row.split}": (row.name, row.split) for row in report.rows}
    return Checked(
        {row.name: row.hours for row in report.rows if row.split == "train"},
        {row.name: row.hours * min(1.0, most / row.num_clips) for row in tested},
        {key: open_split(name, sets[name], split).fingerprint for key, (name, split) in wanted.items()},
    )


@contextlib.contextmanager
def _stopping_on_signals(stop_file: Path, display: Display) -> Iterator[None]:
    """Turns the first signal into the stop file, which every trainer polls; a second one ends the process at once."""

    def stop(number: int, frame: object) -> None:
        if stop_file.exists():
            os._exit(EXIT_INTERRUPTED)
        stop_file.touch()
        display.say(f"{signal.Signals(number).name}: trainers checkpoint and stop; once more ends at once")

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(config: Config, display: Display) -> Base:
    """Runs, or goes on with, all rounds of a configuration and returns the last base.

    Writes the run directory. Raises WfcError children; each carries its exit code, also written to RUN/status.json.
    """
    checked = check(config)
    prepare_environment(config.cluster)  # before anything imports ray
    with open_run(config, checked.fingerprints) as store:
        logs = store.paths.logs(store.current_round(), store.attempt)
        log.configure(logs / "coordinator.log", console=False)
        log.open_events(logs / "events-coordinator.jsonl")
        store.write_status("running")
        store.record("attempt", round=store.current_round())
        try:
            with _stopping_on_signals(store.paths.stop_file, display):
                base = _run_opened(store, checked, display)
        except Interrupted as error:
            store.write_status("interrupted", error.message, error.exit_code)
            raise
        except Exception as error:
            code = error.exit_code if isinstance(error, WfcError) else EXIT_FAILED
            store.write_status("failed", str(error), code)
            logger.exception("failed")
            raise
        store.write_status("done", f"base {base.index} is {base.path}", 0, base_sha256=base.sha256)
        return base


def _run_opened(store: RunStore, checked: Checked, display: Display) -> Base:
    from wfc_dist.root import ensure_root

    start = time.monotonic()
    ensure_root(store)
    rounds = store.config.round_list()
    first = store.current_round()
    if store.attempt > 1:
        display.say(f"going on with {store.paths.run_dir}, attempt {store.attempt}, round {first} of {len(rounds)}")
    if store.config.cluster.backend == "in_process":
        from wfc_dist.backends.in_process import InProcessBackend
        from wfc_dist.evaluation.scoring import RunScorer

        backend = InProcessBackend(store, display)
        scorer = RunScorer(store, backend, checked.test_hours, checked.fingerprints, display.say)
        base = run_rounds(rounds, store, backend, backend, scorer)
    else:
        base = _run_on_ray(store, checked, display)
    display.say(f"base {base.index} ({base.sha256[:12]}) after {time.monotonic() - start:.0f} s: {base.path}")
    return base


def _run_on_ray(store: RunStore, checked: Checked, display: Display) -> Base:
    from wfc_dist.backends.ray.centralizer import RayCentralizer
    from wfc_dist.backends.ray.trainers import RayTrainers
    from wfc_dist.evaluation.scoring import RunScorer

    with log.span("start_ray"), contextlib.ExitStack() as stack:
        stack.enter_context(connected(store.config.cluster))
        centralizer = RayCentralizer(store)
        trainers = RayTrainers(store, display, checked.hours, centralizer.changed)
        stack.callback(centralizer.shutdown)
        stack.callback(trainers.shutdown)
        scorer = RunScorer(store, trainers, checked.test_hours, checked.fingerprints, display.say)
        return run_rounds(store.config.round_list(), store, trainers, centralizer, scorer)
