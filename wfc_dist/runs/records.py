"""The records of a run beside its committed folders: ledger, status, and fitted mixtures."""

import json
import logging
import os
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wfc_dist import log
from wfc_dist.errors import IntegrityError
from wfc_dist.merging.mixtures import Mixture
from wfc_dist.rounds import Adapter
from wfc_dist.runs import shapes
from wfc_dist.runs.layout import RunPaths
from wfc_dist.storage import durable
from wfc_dist.storage.mirror import AnyMirror

logger = logging.getLogger(__name__)

_LONG_FACTS = (
    *("tensors", "changed", "links", "files", "schema", "root_files", "root_tensors"),
    *("gap_per_module", "update_norm_per_module", "dataset", "round", "config", "written"),
)
_FACTS_OF = {
    "base": ("round", "sha256"), "adapter": ("round", "dataset", "sha256"), "failed": ("round",), "rolled_back": ("to",),
    "quarantined": ("round", "dataset", "reason", "attempt"), "served": ("base", "num_pending", "age_s"),
}  # fmt: skip
"""Event -> facts that its readers use."""
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
            line = durable.seal({"time": _now(), "attempt": self._attempt, "event": event, **facts})
            durable.append_line(self._path, json.dumps(line, sort_keys=True))
            self._mirror.publish_file(self._path)

    def record_commit(self, event: str, facts: Mapping[str, Any], **more: Any) -> None:
        """Appends a line about a committed folder with its short facts. Long facts are in the manifest of the folder only."""
        self.record(event, **more, **{key: value for key, value in facts.items() if key not in _LONG_FACTS})

    def repair(self) -> bool:
        """Takes damaged lines out of the file, and an incomplete last line. Returns whether a line was damaged.

        The file as it was is kept beside it.
        """
        texts = durable.read_lines(self._path, repair=True)
        whole = [text for text in texts if _is_whole(text)]
        if len(whole) == len(texts):
            return False
        aside = self._path.with_name(f"{self._path.name}.damaged-{self._attempt}")
        os.replace(self._path, aside)
        durable.write_text(self._path, "".join(f"{text}\n" for text in whole))
        logger.warning("%s: %d lines are damaged and left out; the file as it was is %s",
                       self._path, len(texts) - len(whole), aside.name)  # fmt: skip
        return True

    def lines(self) -> list[dict[str, Any]]:
        """Returns all lines. Raises IntegrityError for a damaged one."""
        return read_ledger(self._path)


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
        durable.write_sealed(
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
        remedy = "the next attempt writes it anew"
        try:
            facts = durable.read_sealed(self._path, remedy)
            shapes.STATUS.require(facts, self._path, remedy)
        except (FileNotFoundError, IntegrityError) as error:
            if not isinstance(error, FileNotFoundError):
                logger.warning("how the attempt before ended is not known: %s", error)
            return "none"
        return "lost" if facts["state"] == "running" else str(facts["state"])


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
        remedy = "the round is fitted again"
        try:
            fit = durable.read_sealed(path, remedy)
            shapes.FIT.require(fit, path, remedy)
        except IntegrityError as error:
            logger.warning("%s", error)
            return None
        mine = {adapter.dataset: adapter.sha256 for adapter in adapters}
        if fit["adapters"] != mine or fit["weights"].keys() != mine.keys():
            return None
        return Mixture(tuple(fit["weights"][adapter.dataset] for adapter in adapters), fit["scale"])

    def commit(self, round_index: int, adapters: Sequence[Adapter], facts: Mapping[str, Any]) -> None:
        """Commits a fit. `facts` holds weights (by data set), scale, and anything else to record."""
        path = self._paths.fitted(round_index)
        durable.write_sealed(path, {"adapters": {adapter.dataset: adapter.sha256 for adapter in adapters}, **facts})
        self._mirror.publish_file(path)
        self._ledger.record("fit", round=round_index, **facts)


def read_ledger(path: Path, *, leave_out: bool = False) -> list[dict[str, Any]]:
    """Returns the lines of a ledger. Raises IntegrityError for a damaged one, unless they are left out."""
    lines = durable.read_lines(path)
    if leave_out:
        return [_line(text, "") for text in lines if _is_whole(text)]
    return [_line(text, f"{path}, line {number},") for number, text in enumerate(lines, start=1)]


def _line(text: str, where: str) -> dict[str, Any]:
    remedy = "`wfc run` takes it out, and writes the lines of committed folders anew"
    line = durable.unseal(text, where, remedy)
    shapes.LINE.require(line, where, remedy)
    if missing := [name for name in _FACTS_OF.get(line["event"], ()) if name not in line]:
        raise IntegrityError(f"{where} says nothing of {missing[0]}; {remedy}")
    return line


def standing(lines: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the lines that still hold.

    Those from before a run began anew do not, apart from base 0 if it stayed, nor do those of rounds that were rolled back.
    """
    held: list[dict[str, Any]] = []
    for line in lines:
        if line["event"] == "anew":
            stays = not any(key.startswith("base.") for key in line.get("changed", ()))
            held = [earlier for earlier in held if stays and earlier["event"] == "base"]
        elif line["event"] == "rolled_back":
            held = [earlier for earlier in held if earlier.get("round", 0) <= line["to"]]
        held.append(dict(line))
    return held


def _is_whole(text: str) -> bool:
    try:
        _line(text, "")
    except IntegrityError:
        return False
    return True


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
