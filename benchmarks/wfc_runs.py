"""Real `wfc run`s to be measured: a short configuration made from another one, the command in its own process, its events."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import yaml

from wfc_dist.reports.timeline import Span, read_attempts
from wfc_dist.runs import layout
from wfc_dist.runs.layout import RunPaths

REPO = Path(__file__).resolve().parent.parent
DEMO = REPO / "configs" / "demo.yaml"
LIMIT_S = 1800.0  # for commands that take a minute or two


@dataclass(frozen=True)
class Ended:
    """A command that has ended well: when it began (seconds since the epoch), how long it took, and the most memory that any
    one of its processes held (VmHWM)."""

    began_s: float
    seconds: float
    peak_bytes: int


def short_config(source: Path, path: Path, rounds: Sequence[Sequence[str]], **blocks: Mapping[str, Any]) -> Path:
    """Writes a configuration to `path`, with the model and data of `source`, other rounds and nothing to score; returns `path`.

    Args:
        source: Configuration; its relative paths are the repository's.
        path: New file.
        rounds: Data-set names of each round.
        blocks: Keys of top-level blocks to set, such as train={"max_steps": 3}.
    """
    tree = yaml.safe_load(source.read_text(encoding="utf-8"))
    used = {name for names in rounds for name in names}
    tree["datasets"] = {name: _only_train(tree["datasets"][name]) for name in tree["datasets"] if name in used}
    tree["base"]["model"] = str(REPO / tree["base"]["model"])
    tree["evaluate"] = {}
    tree["rounds"] = [list(names) for names in rounds]
    for block, keys in blocks.items():
        tree[block] = {**tree.get(block, {}), **keys}
    path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    return path


def _only_train(dataset: Mapping[str, Any]) -> dict[str, Any]:
    return {**dataset, "source": str(REPO / dataset["source"]), "splits": {"train": dataset["splits"]["train"]}}


def run_together(commands: Sequence[Sequence[str | Path]], cpus: Sequence[int] | None = None) -> Ended:
    """Runs commands at the same time, to their ends; what they print goes to standard error.

    When one of them fails or takes longer than LIMIT_S, the others are asked to end (SIGTERM).

    Args:
        commands: Each with its arguments.
        cpus: The cores they may use; all by default.

    Raises:
        CalledProcessError: One of them failed.
        TimeoutExpired: One did not end.
    """
    before = os.sched_getaffinity(0)
    began_s, start = time.time(), time.monotonic()
    os.sched_setaffinity(0, cpus or before)  # inherited
    try:
        processes = [
            psutil.Popen([str(word) for word in words], stdout=sys.stderr, stdin=subprocess.DEVNULL) for words in commands
        ]
    finally:
        os.sched_setaffinity(0, before)
    peak = 0
    try:
        while any(process.poll() is None for process in processes):
            peak = max(peak, *map(_peak_bytes, processes))
            _require_well(processes, time.monotonic() - start)
            time.sleep(0.25)
        seconds = time.monotonic() - start
        _require_well(processes, seconds)
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
    return Ended(began_s, seconds, peak)


def _require_well(processes: Sequence[psutil.Popen], seconds: float) -> None:
    for process in processes:
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, process.args)
        if seconds > LIMIT_S and process.returncode is None:
            raise subprocess.TimeoutExpired(process.args, LIMIT_S)


def _peak_bytes(process: psutil.Popen) -> int:
    try:
        members = [process.pid, *(child.pid for child in process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return 0
    return max(map(_high_water_bytes, members))


def _high_water_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has ended
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def wfc_run(config: Path, folder: Path, cpus: Sequence[int] | None = None) -> tuple[Ended, Path]:
    """Runs `wfc run` to its end, in a run directory below `folder`; returns how it went and the run directory."""
    overrides = [f"run.dir={folder}", "run.name=measured"]
    ended = run_together([[sys.executable, "-m", "wfc_dist", "run", config, *overrides, "--plain"]], cpus)
    return ended, folder / "measured"


def read_spans(run_dir: Path, ended: Ended) -> list[Span]:
    """Returns the spans of a run of one attempt, in seconds since the command was started."""
    paths = [path for _, _, path in RunPaths(run_dir).all_events()]
    (timeline,) = read_attempts(run_dir).values()
    return _since(ended, timeline.spans, paths)


def events_spans(paths: Mapping[str, Path], ended: Ended) -> list[Span]:
    """Returns the spans of single events files, by the name of the process, in seconds since they were started."""
    with tempfile.TemporaryDirectory() as folder:
        logs = RunPaths(Path(folder)).logs(1, 1)
        logs.mkdir(parents=True)
        for name, path in paths.items():
            shutil.copy(path, layout.events_file(logs, name))
        return read_spans(Path(folder), ended)


def _since(ended: Ended, spans: Sequence[Span], paths: Iterable[Path]) -> list[Span]:
    first_s = min(json.loads(line)["time_s"] for path in paths for line in path.read_text().splitlines()) - ended.began_s
    return [replace(span, start_s=span.start_s + first_s, end_s=span.end_s + first_s) for span in spans]
