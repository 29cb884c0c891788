"""Runs every run of a comparison, one after the other; runs that are done are left alone."""

import contextlib
from collections.abc import Sequence

from wfc_dist.backends.ray.cluster import connected, prepare_environment
from wfc_dist.compare.results import is_done
from wfc_dist.compare.settings import Comparison
from wfc_dist.coordinator.checks import check
from wfc_dist.coordinator.run import run
from wfc_dist.errors import Interrupted, RunLockedError, WfcError
from wfc_dist.progress import Display


def run_all(comparison: Comparison, display: Display, only: Sequence[str] = ()) -> dict[str, str]:
    """Runs, or resumes, every run that is not done; returns run name -> error, for the runs that failed.

    A run that fails, such as one whose loss is not finite, does not stop the others. A run that another process works on is
    left to that process, so that several processes may share a comparison. `only` names systems, all by default.

    Raises:
        ConfigError, InputError: The data cannot be used; nothing was started.
        Interrupted: A stop was asked for; the same call resumes.
    """
    wanted = [planned for planned in comparison.runs if not only or planned.system in only]
    todo = [planned for planned in wanted if not is_done(planned)]
    display.say(f"{comparison.name}: {len(wanted) - len(todo)} of {len(wanted)} runs are done")
    if todo:
        check(todo[0].config)  # all have the same data
    failures = {}
    on_ray = [planned.config.cluster for planned in todo if planned.config.cluster.backend == "ray"]
    if on_ray:
        prepare_environment(on_ray[0])
    with connected(on_ray[0]) if on_ray else contextlib.nullcontext():  # the runs join this connection
        for number, planned in enumerate(todo, start=1):
            name = planned.config.run.name
            display.say(f"run {number} of {len(todo)}: {name}")
            try:
                run(planned.config, display)
            except Interrupted:
                raise
            except RunLockedError as error:
                display.say(f"{name}: {error}")
            except WfcError as error:
                failures[name] = str(error)
                display.say(f"{name} failed: {error}")
    return failures
