"""Event files for TensorBoard: a folder for each tracker run, with a new file for each attempt."""

import socket
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wfc_dist.tracking.runs import Point, TrackedRun

_COMPLETE = "complete"


class TensorBoardTracker:
    """Writes event files below one folder (see `runs.Tracker`).

    An attempt never appends to the file of another one: a crash may have cut that file in the middle of a record, behind which
    nothing would be read.

    Args:
        root: TensorBoard's log directory.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        # TensorBoard reads the files of a folder in the order of their names.
        self._file = f"events.out.tfevents.{time.time():020.9f}.{socket.gethostname()}.{uuid.uuid4().hex[:8]}"

    def _folder(self, run: TrackedRun) -> Path:
        return self._root / run.group / run.name

    def is_complete(self, run: TrackedRun) -> bool:
        """See `runs.Tracker`."""
        return (self._folder(run) / _COMPLETE).is_file()

    def last_steps(self, run: TrackedRun) -> dict[str, int]:
        """See `runs.Tracker`. Reads all event files of the run."""
        if not self._folder(run).is_dir():
            return {}
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(self._folder(run)), size_guidance={"scalars": 0})
        events.Reload()
        return {key: max(event.step for event in events.Scalars(key)) for key in events.Tags()["scalars"]}

    def write(self, run: TrackedRun, points: Sequence[Point]) -> None:
        """See `runs.Tracker`."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder, now_s = self._folder(run), time.time()
        is_new = not folder.is_dir()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self._file
        events = [] if path.exists() else [Event(wall_time=now_s, file_version="brain.Event:2")]
        if is_new:
            events.append(Event(wall_time=now_s, summary=_settings(run)))
        events += [
            Event(
                wall_time=now_s, step=point.step, summary=Summary(value=[Summary.Value(tag=point.key, simple_value=point.value)])
            )
            for point in points
        ]
        with open(path, "ab") as file:
            writer = RecordWriter(file)
            for event in events:
                writer.write(event.SerializeToString())

    def finish(self, run: TrackedRun) -> None:
        """See `runs.Tracker`."""
        (self._folder(run) / _COMPLETE).touch()

    def close(self) -> None:
        """See `runs.Tracker`. Every file is closed after each write."""


def _settings(run: TrackedRun) -> Any:
    """Returns the settings as TensorBoard's HPARAMS page reads them."""
    from tensorboard.plugins.hparams import summary_v2

    return summary_v2.hparams_pb({**run.settings, "group": run.group, "name": run.name}, trial_id=run.id)
