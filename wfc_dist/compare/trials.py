"""The trials of a sweep under Ray Tune. Imports ray; `compare.tune` prepares the environment of ray before."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError
from ray.tune.logger import CSVLoggerCallback, JsonLoggerCallback
from ray.tune.progress_reporter import TrialProgressCallback

from wfc_dist.backends.ray.cluster import address_of, alive_nodes
from wfc_dist.compare.results import is_done
from wfc_dist.compare.settings import PlannedRun
from wfc_dist.compare.sweep import KEPT, LEARNED, Sweep
from wfc_dist.compare.tune_folder import TuneFolder, last_words
from wfc_dist.config import loading
from wfc_dist.config.cluster import ClusterConfig
from wfc_dist.config.schema import Config
from wfc_dist.errors import WfcError
from wfc_dist.evaluation.continual import SystemRates, figures
from wfc_dist.evaluation.matrix import read_matrix
from wfc_dist.evaluation.rates import RateReader

POLL_S = 0.5
# `wfc`, killed with the worker that started it: a process left alone would keep the run locked.
_WFC = """import ctypes, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
from wfc_dist.cli import main
main()
"""


@dataclass(frozen=True)
class _Site:
    """What the process of a trial is given besides its point."""

    folder: TuneFolder
    work_dir: str
    overrides: tuple[str, ...]


class _Announcer(TrialProgressCallback):  # stands in for the one that Tune would add, which prints on stdout
    """Says which runs start and how they end; runs that were done before are not mentioned."""

    def __init__(self, say: Callable[[str], None], todo: Sequence[str]) -> None:
        super().__init__()
        self._say, self._todo, self._num_started = say, todo, 0

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it with the experiment, which nobody reads back

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """See ray.tune.Callback."""
        if _trial_name(trial) in self._todo:
            self._num_started += 1
            self._say(f"run {self._num_started} of {len(self._todo)}: {_trial_name(trial)}")

    def on_trial_result(self, *_: Any, **info: Any) -> None:
        """See ray.tune.Callback; `on_trial_complete` says the only result of a trial."""

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """See ray.tune.Callback."""
        shown = [f"{name} {100 * trial.last_result[name]:+.1f} %" for name in (LEARNED, KEPT) if name in trial.last_result]
        if _trial_name(trial) in self._todo:
            self._say(f"{_trial_name(trial)}: {', '.join(shown) or 'stopped'}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """See ray.tune.Callback."""
        self._say(f"{_trial_name(trial)} failed")


def run(sweep: Sweep, folder: TuneFolder, say: Callable[[str], None]) -> None:
    """Runs every point that is not done; points that are done report their figures at once. Ray must be connected.

    Returns when all points have ended or stopped. Raises WfcError when Ray Tune itself fails.
    """
    runs, cluster = sweep.comparison.runs, sweep.comparison.runs[0].config.cluster
    logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)  # it lists the trials that failed, which `say` reports
    todo = [planned.config.run.name for planned in runs if not is_done(planned)]
    address = _address(cluster)
    site = _Site(TuneFolder(folder.path.resolve()), str(Path.cwd()), (f"cluster.address={address}",) if address else ())
    points = [
        {"run": planned.config.run.name, "system": planned.system, "seed": planned.seed, **sweep.points[planned.system]}
        for planned in runs
    ]
    tuner = tune.Tuner(
        tune.with_resources(_trainable(site), _resources(cluster)),
        param_space={"point": tune.grid_search(points)},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=sweep.concurrent,
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name="experiment",
            storage_path=str(site.folder.path),
            verbose=0,
            callbacks=[JsonLoggerCallback(), CSVLoggerCallback(), _Announcer(say, todo)],
        ),
    )
    _fit(tuner)


def _fit(tuner: tune.Tuner) -> None:
    """Fits in another thread: in the main one Tune would take the signals, and end the trials without a checkpoint."""
    with ThreadPoolExecutor(1, thread_name_prefix="ray-tune") as thread:
        try:
            thread.submit(tuner.fit).result()
        except (RayError, tune.TuneError) as error:
            raise WfcError(f"Ray Tune failed: {error}; the same command goes on") from error


def _address(cluster: ClusterConfig) -> str | None:
    """Returns where the runs of the trials find the Ray cluster that this process is connected to.

    An embedded node is on loopback. A token is where Ray keeps it, and RAY_AUTH_MODE goes on to the workers and their children.
    """
    if cluster.backend != "ray":
        return None
    return address_of(cluster) or str(ray.get_runtime_context().gcs_address)


def _trial_name(trial: Any) -> str:
    return str(trial.config["point"]["run"])


def _resources(cluster: ClusterConfig) -> dict[str, float]:
    """Returns what a trial itself takes. On Ray the trainers take their own, and the coordinator runs where this process is."""
    if cluster.backend == "in_process":
        most = max(node.cpus for node in alive_nodes())
        return {"cpu": min(cluster.threads_per_worker, most), "gpu": cluster.gpus_per_worker}
    return {"cpu": 0, f"node:{ray.util.get_node_ip_address()}": 0.001}


def _trainable(site: _Site) -> Callable[[dict[str, Any]], None]:
    def wfc_run(config: dict[str, Any]) -> None:
        _run_trial(site, config["point"])

    return wfc_run


def _run_trial(site: _Site, point: Mapping[str, Any]) -> None:
    name = point["run"]
    config = loading.load_config(site.folder.config(name))
    planned = PlannedRun(point["system"], point["seed"], "", config)
    os.chdir(site.work_dir)  # the paths of a configuration are relative to it
    if not is_done(planned):
        if site.folder.stop.exists():
            return
        _wfc_run(site, name)
    if is_done(planned):
        tune.report(_figures(config))
    elif not site.folder.stop.exists():
        raise WfcError(last_words(site.folder.log(name)))


def _wfc_run(site: _Site, name: str) -> None:
    """Runs `wfc run` to its end; tells it once to checkpoint and stop when the sweep is to stop."""
    command = [sys.executable, "-c", _WFC, "run", str(site.folder.config(name)), "--plain", *site.overrides]
    with open(site.folder.log(name), "wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )  # a session of its own: Ctrl-C in the terminal must not reach it a second time
    asked = False
    while process.poll() is None:
        if site.folder.stop.exists() and not asked:
            process.terminate()
            asked = True
        try:
            process.wait(POLL_S)
        except subprocess.TimeoutExpired:
            continue


def _figures(config: Config) -> dict[str, float]:
    protected = list(config.evaluate.protected)
    new = [name for name in config.test_sets() if name not in protected]
    rates = RateReader(config, intervals=False).run(read_matrix(config.run_dir()))  # intervals are for the table
    return {name: float(figure[0]) for name, figure in figures(SystemRates([rates], new, protected)).items()}
