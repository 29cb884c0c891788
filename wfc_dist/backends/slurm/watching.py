"""Watches jobs: polls their states in Slurm, and reads the progress of trainings from their metrics logs."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wfc_dist.backends.slurm import client
from wfc_dist.backends.slurm.client import JobState, SlurmError
from wfc_dist.runs.shapes import CURVE
from wfc_dist.storage import durable
from wfc_dist.training.job import Progress

logger = logging.getLogger(__name__)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 15.0
TAIL_BYTES = 16_384
_OF_A_STEP = {"loss", "lr", "speech_seconds"}


class Watch:
    """The states of some jobs in Slurm, polled every second, and less often while nothing changes to spare the controller."""

    def __init__(self) -> None:
        self._known: dict[str, JobState] = {}
        self._since_s: dict[str, float] = {}
        self._pause_s, self._next_s = FIRST_PAUSE_S, 0.0
        self._silent = False

    def poll(self, jobs: Sequence[tuple[str, str]]) -> None:
        """Polls the states of jobs, given as (name, id), if the pause is over. Tries again later if Slurm does not answer."""
        if time.monotonic() < self._next_s:
            return
        try:
            states = client.states([name for name, _ in jobs])
        except SlurmError as error:
            if not self._silent:
                logger.warning("Slurm does not answer (%s); the jobs go on, and wfc asks again", error.message)
            self._silent = True
            self._next_s = time.monotonic() + LONGEST_PAUSE_S
            return
        self._silent = False
        for name, job_id in jobs:
            if name not in states:
                states[name] = client.remembered(job_id) or JobState(job_id, "UNKNOWN", "", "")
        changed = {name for name, state in states.items() if self._known.get(name) != state}
        self._since_s |= dict.fromkeys(changed, time.monotonic())
        self._known |= states
        self._pause_s = FIRST_PAUSE_S if changed else min(1.5 * self._pause_s, LONGEST_PAUSE_S)
        self._next_s = time.monotonic() + self._pause_s

    def hurry(self) -> None:
        """Makes the next `poll` ask at once. Call it after a change such as a submission."""
        self._pause_s, self._next_s = FIRST_PAUSE_S, 0.0

    def state(self, name: str) -> JobState | None:
        """Returns the last known state of a job, or None before the first answer."""
        return self._known.get(name)

    def age_s(self, name: str) -> float:
        """Returns for how many seconds the last known state of a job has not changed."""
        return time.monotonic() - self._since_s.get(name, time.monotonic())


@dataclass
class CurveTail:
    """Reads the progress of a training from the end of its metrics log."""

    path: Path
    max_steps: int
    _step: int = -1
    _read_s: float = field(default_factory=time.monotonic)
    _rate: float = 0.0

    def progress(self) -> Progress | None:
        """Returns the progress of the training, or None before its first step."""
        try:
            with open(self.path, "rb") as file:
                file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
                lines = file.read().split(b"\n")[:-1]  # the last line may be incomplete
        except FileNotFoundError:
            return None
        rows = [durable.as_object(line.decode(errors="replace")) for line in lines]  # the first may have lost its beginning
        steps = [row for row in rows if row is not None and CURVE.fits(row) and row.keys() >= _OF_A_STEP]
        if not steps:
            return None
        now, last = time.monotonic(), steps[-1]
        if last["step"] != self._step:
            new = [row["speech_seconds"] for row in steps if row["step"] > self._step]
            self._rate = sum(new) / max(now - self._read_s, 1e-9) if self._step >= 0 else 0.0
            self._step, self._read_s = last["step"], now
        return Progress(last["step"], self.max_steps, last["loss"], last["lr"], self._rate, "train")
