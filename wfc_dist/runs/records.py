"""What a run says of itself beside what it commits: its ledger, its status, and the mixtures that were fitted."""

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
    """RUN/ledger.jsonl, append-only: what was committed, and what else happened, in order.

    Args:
        path: The file.
        mirror: Publishes every line.
        attempt: Written into every line.
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
        """Appends a line about a committed folder, with those of its facts that are short enough."""
        self.record(event, **more, **{key: value for key, value in facts.items() if key not in _LONG_FACTS})

    def lines(self, *, repair: bool = False) -> list[dict[str, Any]]:
        """Returns all lines; `repair` cuts off a last line that a crash tore."""
        return durable.read_json_lines(self._path, repair=repair)


class StatusFile:
    """RUN/status.json: how the run stands. It says to schedulers what the exit code says.

    Args:
        paths: Of the run.
        mirror: Publishes the file, and the coordinator's logs with it.
        attempt: Written into the file.
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
        """Makes the coordinator's logs of this attempt visible; the other processes publish their own."""
        for path in self._paths.coordinator_logs(self._attempt):
            self._mirror.publish_file(path)

    def last_state(self) -> str:
        """Returns how the attempt before this one ended: one that is still "running" was "lost", without a file "none"."""
        try:
            state = str(json.loads(self._path.read_text(encoding="utf-8"))["state"])
        except (FileNotFoundError, ValueError, KeyError):
            return "none"
        return "lost" if state == "running" else state


class Fits:
    """The mixtures that were fitted to the adapters of a round.

    Args:
        paths: Of the run.
        mirror: Publishes a fit, and brings one here.
        ledger: Records a fit.
        are_asked_for: Whether the configuration asks for fits; without, none is looked for.
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
        """Makes a fit exist. `facts` holds weights (by data set), scale, and what else is worth recording."""
        path = self._paths.fitted(round_index)
        durable.write_json(path, {"adapters": {adapter.dataset: adapter.sha256 for adapter in adapters}, **facts})
        self._mirror.publish_file(path)
        self._ledger.record("fit", round=round_index, **facts)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
