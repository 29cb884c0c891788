"""Runs the points of a sweep as trials of Ray Tune, each `wfc run` in a process of its own.

The folders of the runs say what is done. Tune's experiment below FOLDER/tune is for people to look at: every call makes the
experiment anew, with all points, and nothing is ever unpickled from it.
"""

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator, Sequence

import yaml

from wfc_dist.backends.ray.cluster import connected, prepare_environment
from wfc_dist.caller import handled
from wfc_dist.compare.results import is_done
from wfc_dist.compare.settings import Comparison, PlannedRun
from wfc_dist.compare.sweep import Sweep
from wfc_dist.compare.tune_folder import TuneFolder, last_words
from wfc_dist.coordinator.checks import check
from wfc_dist.coordinator.signals import SignalsSoFar
from wfc_dist.errors import EXIT_INTERRUPTED, Interrupted, RunLockedError
from wfc_dist.progress import Display
from wfc_dist.runs import layout
from wfc_dist.runs.handle import Run
from wfc_dist.runs.opening import take_lock
from wfc_dist.storage import durable

_SETTINGS = {  # Ray Tune reads these when it is imported or starts
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # ours are enough; TensorBoard's would want another package
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # we say what failed
    "RAY_AIR_NEW_OUTPUT": "0",  # the newer output prints whatever `verbose` says
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


def run_all(sweep: Sweep, display: Display) -> dict[str, str]:
    """Runs, or resumes, every run that is not done; returns run name -> error, for the runs that failed.

    Writes FOLDER/tune besides the runs.

    Raises:
        ConfigError, InputError: The data cannot be used; nothing was started.
        RunLockedError: Another process works on the sweep.
        Interrupted: A stop was asked for; the same call resumes.
        WfcError: Ray Tune itself failed; the same call resumes.
    """
    comparison = sweep.comparison
    todo = [planned for planned in comparison.runs if not is_done(planned)]
    display.say(f"{comparison.name}: {len(comparison.runs) - len(todo)} of {len(comparison.runs)} runs are done")
    if not todo:
        return {}
    check(todo[0].config)  # all have the same data
    cluster = todo[0].config.cluster
    prepare_environment(cluster)  # before anything imports ray
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    with _opened(comparison) as folder, _signals(folder, display), connected(cluster):
        from wfc_dist.compare import trials

        trials.run(sweep, folder, display.say)
        if folder.stop.exists():
            reason = folder.stop.read_text(encoding="utf-8").strip()
            raise Interrupted(f"{reason}: stopped, with a checkpoint of what was running; the same command goes on")
    return _failures(todo, folder)


@contextlib.contextmanager
def _opened(comparison: Comparison) -> Iterator[TuneFolder]:
    """Locks FOLDER/tune, clears it of the last call's experiment, and writes the configuration of every run."""
    folder = TuneFolder(comparison.folder / "tune")
    folder.config("").parent.mkdir(parents=True, exist_ok=True)
    with open(folder.path / "lock", "a", encoding="utf-8") as lock:
        try:
            take_lock(lock, folder.path)
        except BlockingIOError as error:
            raise RunLockedError(f"{comparison.folder}: another `wfc sweep` works on it; wait for it, or stop it") from error
        folder.stop.unlink(missing_ok=True)
        shutil.rmtree(folder.path / "experiment", ignore_errors=True)
        for planned in comparison.runs:
            text = yaml.safe_dump(planned.config.model_dump(mode="json"), sort_keys=False)
            durable.write_text(folder.config(planned.config.run.name), text)
        yield folder


@contextlib.contextmanager
def _signals(folder: TuneFolder, display: Display) -> Iterator[None]:
    """Turns the first signal into the sweep's stop file, which every trial polls; a later one ends the process at once."""
    so_far = SignalsSoFar()

    def stop(number: int, frame: object) -> None:
        kind = so_far.kind(folder.stop.exists)
        if kind == "later":
            os._exit(EXIT_INTERRUPTED)
        if kind == "same":
            return
        name = signal.Signals(number).name
        durable.write_text(folder.stop, name + "\n")
        display.say(f"{name}: runs checkpoint and stop; another signal ends the program at once")

    with handled(stop):
        yield


def _failures(todo: Sequence[PlannedRun], folder: TuneFolder) -> dict[str, str]:
    left = [planned.config for planned in todo if not is_done(planned)]
    failures = {config.run.name: last_words(folder.log(config.run.name)) for config in left}
    begun = [config for config in left if layout.is_run(config.run_dir())]
    if stopped := [config.run.name for config in begun if Run(config.run_dir()).status().state == "interrupted"]:
        raise Interrupted(f"{', '.join(stopped)}: stopped; the same command goes on")
    return failures
