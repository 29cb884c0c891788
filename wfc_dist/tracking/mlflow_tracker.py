"""Runs of MLflow, on the server of MLFLOW_TRACKING_URI or in a folder."""

import os
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from wfc_dist.tracking.runs import Point, TrackedRun

URI = "MLFLOW_TRACKING_URI"
_ID, _BATCH = "wfc.id", 1000  # the most metrics that one request may hold


class MlflowTracker:
    """Writes runs of an experiment that has the name of the run (see `runs.Tracker`).

    It calls MLflow's client, not its active run, of which a thread has one only; and the client records no user, no command and
    no address of a git repository.

    Args:
        folder: Holds the runs where MLFLOW_TRACKING_URI is not set.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._run_ids: dict[str, str] = {}

    @cached_property
    def _client(self) -> Any:
        defaults = {
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        uri = os.environ.get(URI)
        if not uri:
            uri = self._folder.absolute().as_uri()
            defaults["MLFLOW_ALLOW_FILE_STORE"] = "true"
        for key, value in defaults.items():
            os.environ.setdefault(key, value)
        from mlflow.tracking import MlflowClient

        return MlflowClient(tracking_uri=uri)

    def _experiment(self, run: TrackedRun) -> str:
        found = self._client.get_experiment_by_name(run.project)
        return str(found.experiment_id if found else self._client.create_experiment(run.project))

    def _find(self, run: TrackedRun) -> Any:
        """Returns the run, as MLflow describes it, or None."""
        if run.id in self._run_ids:
            return self._client.get_run(self._run_ids[run.id])
        found = self._client.search_runs([self._experiment(run)], f"tags.`{_ID}` = '{run.id}'", max_results=1)
        if not found:
            return None
        self._run_ids[run.id] = found[0].info.run_id
        return found[0]

    def is_complete(self, run: TrackedRun) -> bool:
        """See `runs.Tracker`."""
        found = self._find(run)
        return found is not None and found.info.status == "FINISHED"

    def last_steps(self, run: TrackedRun) -> dict[str, int]:
        """See `runs.Tracker`."""
        found = self._find(run)
        if found is None:
            return {}
        history = self._client.get_metric_history
        return {key: max(metric.step for metric in history(found.info.run_id, key)) for key in found.data.metrics}

    def _make(self, run: TrackedRun) -> str:
        from mlflow.entities import Param

        tags = {_ID: run.id, "group": run.group or run.name, "kind": "adapter" if run.group else "bases"}
        if run.group:
            tags |= {"round": run.group.rpartition("-")[2].lstrip("0"), "dataset": run.name}
        made = self._client.create_run(self._experiment(run), run_name=run.name, tags=tags)
        params = [Param(key, str(value)) for key, value in run.settings.items()]
        self._client.log_batch(made.info.run_id, params=params)
        return str(made.info.run_id)

    def write(self, run: TrackedRun, points: Sequence[Point]) -> None:
        """See `runs.Tracker`."""
        from mlflow.entities import Metric

        if run.id not in self._run_ids and self._find(run) is None:
            self._run_ids[run.id] = self._make(run)
        now_ms = int(time.time() * 1000)
        metrics = [Metric(point.key, point.value, now_ms, point.step) for point in points]
        for start in range(0, len(metrics), _BATCH):
            self._client.log_batch(self._run_ids[run.id], metrics=metrics[start : start + _BATCH])

    def finish(self, run: TrackedRun) -> None:
        """See `runs.Tracker`."""
        found = self._find(run)
        if found is not None:
            self._client.set_terminated(found.info.run_id, "FINISHED")

    def close(self) -> None:
        """See `runs.Tracker`. A run that is not complete stays RUNNING: a later attempt goes on with it."""
