"""The records of a run beside its committed folders: ledger, status, and fitted mixtures."""

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wfc_dist import log
from wfc_dist.merging.mixtures import Mixture
from wfc_dist.rounds import Adapter
from wfc_dist.runs.layout import RunPaths
from wfc_dist.storage import durable
from wfc_dist.storage.mirror import AnyMirror

_LONG_FACTS = (
    *("tensors", "changed", "links", "files", "schema", "root_files", "root_tensors"),
    *("gap_per_module", "update_norm_per_module", "dataset", "round", "config", "written"),
)
STATES = ("running", "done", "failed", "interrupted")


class Ledger:
    """RUN/ledger.jsonl: the events of the run, such as commits and failures, in order. The file is append-only.

    Args:
        path: The file.
        mirror: Publishes the file after each line.
        attempt: Number that is written into each line.
    """

    def __init__(self, path: Path, mirror: AnyMirror, attempt: int) -> None:
        self._path, self._mirror, self._attempt = path, mirror, attempt

    def record(self, event: str, **facts: Any) -> None:
        """Appends a line."""
        with log.span("append_ledger", phase="recording"):
            line = {"time": _now(), "attempt": self._attempt, "event": event, **facts}
            durable.append_line(self._path, json.dumps(line, sort_keys=True))
            self._mirror.publish_file(self._path)

    def record_commit(self, event: str, facts: Mapping[str, Any], **more: Any) -> None:
        """Appends a line about a committed folder with its short facts. Long facts are in the manifest of the folder only."""
        self.record(event, **more, **{key: value for key, value in facts.items() if key not in _LONG_FACTS})

    def lines(self, *, repair: bool = False) -> list[dict[str, Any]]:
        """Returns all lines. `repair` removes an incomplete last line, which a crash may leave."""
        return durable.read_json_lines(self._path, repair=repair)


class StatusFile:
    """RUN/status.json: the state of the run. Schedulers read from this file what the exit code says.

    Args:
        paths: The paths of the run.
        mirror: Publishes the file together with the coordinator's logs.
        attempt: Number that is written into the file.
    """

    def __init__(self, paths: RunPaths, mirror: AnyMirror, attempt: int) -> None:
        self._paths, self._path, self._mirror, self._attempt = paths, paths.status, mirror, attempt

    def write(self, state: str, message: str = "", exit_code: int | None = None, **facts: Any) -> None:
        """Replaces the file."""
        assert state in STATES
        durable.write_json(
            self._path,
            {"state": state, "message": message, "exit_code": exit_code, "attempt": self._attempt, "host": socket.gethostname(),
             "pid": os.getpid(), "time": _now(), **facts},
        )  # fmt: skip
        self._mirror.publish_file(self._path)
        self.publish_logs()

    def publish_logs(self) -> None:
        """Publishes the coordinator's logs of this attempt. All other processes publish their own logs."""
        for path in self._paths.coordinator_logs(self._attempt):
            self._mirror.publish_file(path)

    def last_state(self) -> str:
        """Returns the last state of the previous attempt: "lost" if the file still says "running", "none" if there is no file."""
        try:
            state = str(json.loads(self._path.read_text(encoding="utf-8"))["state"])
        except (FileNotFoundError, ValueError, KeyError):
            return "none"
        return "lost" if state == "running" else state


class Fits:
    """The mixtures that were fitted to the adapters of a round.

    Args:
        paths: The paths of the run.
        mirror: Publishes and fetches fits.
        ledger: Records each fit.
        are_asked_for: Whether the configuration asks for fits. If not, `find` returns None.
    """

    def __init__(self, paths: RunPaths, mirror: AnyMirror, ledger: Ledger, *, are_asked_for: bool) -> None:
        self._paths, self._mirror, self._ledger, self._are_asked_for = paths, mirror, ledger, are_asked_for

    def find(self, round_index: int, adapters: Sequence[Adapter]) -> Mixture | None:
        """Returns the mixture that was fitted to exactly these adapters, or None."""
        path = self._paths.fitted(round_index)
        if not self._are_asked_for or not (path.is_file() or self._mirror.fetch_file(path)):
            return None
        fit = json.loads(path.read_text(encoding="utf-8"))
        if fit["adapters"] != {adapter.dataset: adapter.sha256 for adapter in adapters}:
            return None
        return Mixture(tuple(fit["weights"][adapter.dataset] for adapter in adapters), fit["scale"])

    def commit(self, round_index: int, adapters: Sequence[Adapter], facts: Mapping[str, Any]) -> None:
        """Commits a fit. `facts` holds weights (by data set), scale, and anything else to record."""
        path = self._paths.fitted(round_index)
        durable.write_json(path, {"adapters": {adapter.dataset: adapter.sha256 for adapter in adapters}, **facts})
        self._mirror.publish_file(path)
        self._ledger.record("fit", round=round_index, **facts)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
