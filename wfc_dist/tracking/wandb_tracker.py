"""Runs of Weights & Biases: offline, unless WANDB_API_KEY or WANDB_MODE says otherwise."""

import json
import os
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from wfc_dist.storage import durable
from wfc_dist.tracking.runs import Point, TrackedRun

_STEP = "step"


class WandbTracker:
    """Writes runs of a project that has the name of the run, grouped by round (see `runs.Tracker`).

    An offline run cannot be read back, so that a file beside the runs keeps the last steps. The step is a value of its own:
    wandb's counter of rows would refuse a dev error that comes after the row of its step.

    Args:
        folder: Gets the offline runs, and the files of last steps.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, Any] = {}

    def _record(self, run: TrackedRun) -> Path:
        return self._folder / "last-steps" / f"{run.id}.json"

    def _recorded(self, run: TrackedRun) -> dict[str, Any]:
        path = self._record(run)
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"steps": {}}
        return found

    def is_complete(self, run: TrackedRun) -> bool:
        """See `runs.Tracker`."""
        return bool(self._recorded(run).get("complete"))

    def last_steps(self, run: TrackedRun) -> dict[str, int]:
        """See `runs.Tracker`."""
        return dict(self._recorded(run)["steps"])

    def _init(self, run: TrackedRun) -> Any:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        is_online = bool(os.environ.get("WANDB_API_KEY"))
        mode: Any = os.environ.get("WANDB_MODE") or ("online" if is_online else "offline")
        # Neither the output of the run, nor facts of its machine, its command line and its git repository.
        settings = wandb.Settings(
            console="off", silent=True, disable_git=True, disable_code=True, disable_job_creation=True,
            x_disable_meta=True, x_disable_stats=True, x_disable_machine_info=True, login_timeout=5.0,
        )  # fmt: skip
        self._folder.mkdir(parents=True, exist_ok=True)
        made = wandb.init(
            project=run.project, group=run.group or run.name, name=run.name, id=run.id, config=dict(run.settings),
            dir=str(self._folder), mode=mode, resume="allow" if mode == "online" else None, reinit="create_new",
            settings=settings,
        )  # fmt: skip
        made.define_metric(_STEP)
        made.define_metric("*", step_metric=_STEP)
        return made

    def write(self, run: TrackedRun, points: Sequence[Point]) -> None:
        """See `runs.Tracker`."""
        if run.id not in self._open:
            self._open[run.id] = self._init(run)
        for step, together in groupby(points, key=lambda point: point.step):
            self._open[run.id].log({_STEP: step, **{point.key: point.value for point in together}})
        recorded = self._recorded(run)
        recorded["steps"] |= {point.key: point.step for point in points}
        durable.write_json(self._record(run), recorded)

    def finish(self, run: TrackedRun) -> None:
        """See `runs.Tracker`."""
        if run.id in self._open:
            self._open.pop(run.id).finish()
        durable.write_json(self._record(run), self._recorded(run) | {"complete": True})

    def close(self) -> None:
        """See `runs.Tracker`."""
        while self._open:
            self._open.popitem()[1].finish()
