"""A soak: many short rounds in one process tree, with what its processes hold after each committed base.

    PYTHONPATH=tests python benchmarks/soak.py [--rounds 200] [--strategy ddp]

A real `wfc run` of a tiny random Whisper: Ray on this machine, two trainers of one thread, two data sets learned anew in each
round, two steps an adapter, every model scored. After each base: memory (PSS), files and threads by kind of process, objects
in Ray's store, bytes of the run directory and of Ray's session folder. Then the run is rolled back step by step, and
`wfc report`, `wfc status` and the start of an attempt (opening, and checking every round) are measured at each
length, in seconds of one processor.
"""

import argparse
import itertools
import os
import re
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from measuring import write_rows
from wfc_runs import REPO

from wfc_dist.config.loading import load_config
from wfc_dist.coordinator.history import rollback
from wfc_dist.coordinator.repair import repair_rounds
from wfc_dist.runs import layout
from wfc_dist.runs.opening import opened_for_writing

PLOT = REPO / "docs" / "images" / "soak.svg"
ROLES = {"ray::WorkerActor": "trainers", "ray::RankActor": "centralizer", "raylet": "raylet and store", "gcs_server": "gcs"}
"""How the command of a process begins -> its role; the first process is the coordinator, all others are Ray's own."""
COORDINATOR, OTHER = "coordinator", "other processes of Ray"
WARM = 10  # rounds until every library is loaded and every cache is full
POLL_S = 0.05


@dataclass
class Sample:
    """What is held after a committed base; `pss_mb`, `files` and `threads` are sums by role."""

    round_index: int
    seconds: float
    pss_mb: dict[str, float] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    threads: dict[str, int] = field(default_factory=dict)
    ray_objects: int = 0
    ray_store_bytes: int = 0
    run_bytes: int = 0
    session_bytes: int = 0


def make_config(folder: Path, num_rounds: int, strategy: str) -> Path:
    """Writes a tiny model, two tiny data sets and a configuration of `num_rounds` rounds over both; returns its path."""
    import tiny  # of tests/

    train = {"max_steps": 2, "checkpoint_every": 1, "gradient_accumulation": 1, "strategy": strategy}
    cluster = {"backend": "ray", "cpus_per_worker": 1, "threads_per_worker": 1}
    path = tiny.make_config(folder, [["a", "b"]], train=train, cluster=cluster, evaluate={"max_clips": 1})
    tree = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(tree | {"rounds": [["a", "b"]] * num_rounds}, sort_keys=False))
    return path


def soak(config: Path) -> list[Sample]:
    """Runs a configuration to its end; returns a sample after each base. Raises CalledProcessError if the run fails."""
    run_dir, begun_s, samples = load_config(config).run_dir(), time.monotonic(), list[Sample]()
    with (config.parent / "log").open("w") as log:
        process = psutil.Popen([sys.executable, "-m", "wfc_dist", "run", str(config), "--plain"], stdout=log, stderr=log)
        try:
            while process.poll() is None:
                last = layout.RunPaths(run_dir).last_base()
                if last > (samples[-1].round_index if samples else 0):
                    samples.append(sample(process, Sample(last, time.monotonic() - begun_s), run_dir))
                    print(f"  round {last}: {samples[-1].pss_mb}", file=sys.stderr, flush=True)
                time.sleep(POLL_S)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode:
        print((config.parent / "log").read_text()[-3000:], file=sys.stderr)
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return samples


def sample(coordinator: psutil.Process, into: Sample, run_dir: Path) -> Sample:
    """Fills a sample with what the coordinator and all its children hold."""
    raylet: list[str] = []
    for member in [coordinator, *coordinator.children(recursive=True)]:
        try:
            words = member.cmdline()
            role = COORDINATOR if member.pid == coordinator.pid else role_of(words)
            held = (member.memory_full_info().pss / 1e6, member.num_fds(), member.num_threads())
        except psutil.Error:  # it has ended
            continue
        raylet = words if role == ROLES["raylet"] else raylet
        sums: list[dict[str, Any]] = [into.pss_mb, into.files, into.threads]
        for kind, value in zip(sums, held, strict=True):
            kind[role] = round(kind.get(role, 0) + value, 1)
    given = dict(word.removeprefix("--").split("=", 1) for word in raylet if re.match(r"--[\w-]+=", word))
    if "gcs-address" in given:
        into.ray_objects, into.ray_store_bytes = objects_of(given["gcs-address"])
        into.session_bytes = size_of(Path(given["session_dir"]))
    into.run_bytes = size_of(run_dir)
    return into


def role_of(words: Sequence[str]) -> str:
    """Returns the role of a process by its command line."""
    name = words[0].rsplit("/", 1)[-1] if words else ""
    return next((role for start, role in ROLES.items() if name.startswith(start)), OTHER)


def objects_of(address: str) -> tuple[int, int]:
    """Returns how many references all processes of a Ray node hold, and the bytes used in its store."""
    import ray
    from ray._private import internal_api, state

    compiled: Any = ray._raylet
    found = state.GlobalState()
    found._initialize_global_state(compiled.GcsClientOptions.create(address, None, True, False))
    (node,) = [node for node in found.node_table() if node["Alive"]]
    stats: Any = internal_api.node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], include_memory_info=True)
    found.disconnect()
    return sum(len(worker.object_refs) for worker in stats.core_workers_stats), stats.store_stats.object_store_bytes_used


def size_of(folder: Path) -> int:
    """Returns the bytes on disk of all files below a folder, each hard link once."""
    done = subprocess.run(["du", "-s", "-B1", folder], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    return int(done.stdout.split()[0]) if done.stdout else 0


def times_by_length(config: Path, lengths: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Rolls a finished run back to each length, from the longest; yields the processor seconds of reading and opening it."""
    run_dir = load_config(config).run_dir()
    for length in sorted(lengths, reverse=True):
        if length < layout.RunPaths(run_dir).last_base():
            rollback(run_dir, length)
        yield {
            "measure": f"{length} rounds",
            "wfc_report_cpu_s": _cpu_s("report", run_dir),
            "wfc_status_cpu_s": _cpu_s("status", run_dir),
            "start_of_an_attempt_cpu_s": _opening_cpu_s(config),
            "report_mb": round((run_dir / "report" / "index.html").stat().st_size / 1e6, 2),
        }


def _cpu_s(*words: str | Path) -> float:
    before = os.times()
    subprocess.run([sys.executable, "-m", "wfc_dist", *map(str, words)], stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    used_s = after.children_user + after.children_system - before.children_user - before.children_system
    return round(used_s, 2)


def _opening_cpu_s(config: Path) -> float:
    begun_s, loaded = time.process_time(), load_config(config)
    with opened_for_writing(loaded, layout.read_record(layout.RunPaths(loaded.run_dir()))["data"]) as store:
        repair_rounds(store, print)
    return round(time.process_time() - begun_s, 2)


def growth(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Returns a row per measure: its median in the first warm rounds, in the last ones, and the slope between, by round."""
    size = min(20, max(1, (len(samples) - WARM) // 2))
    first, last = samples[WARM : WARM + size], samples[-size:]
    rounds = last[size // 2].round_index - first[size // 2].round_index

    def row(name: str, unit: str, values: Mapping[int, Any]) -> dict[str, Any]:
        start, end = (statistics.median(values[item.round_index] for item in part) for part in (first, last))
        return {"measure": f"{name}, {unit}", "at_first": round(start, 1), "at_last": round(end, 1),
                "per_round": round((end - start) / max(rounds, 1), 3)}  # fmt: skip

    kinds: Any = (("pss_mb", "MB"), ("files", "files"), ("threads", "threads"))
    roles = [COORDINATOR, *ROLES.values(), OTHER]
    rows = [
        row(role, unit, {item.round_index: getattr(item, kind).get(role, 0) for item in samples})
        for kind, unit in kinds for role in roles
    ]  # fmt: skip
    rows.append(row("Ray", "references held", {item.round_index: item.ray_objects for item in samples}))
    for name, key in (
        ("Ray's store", "ray_store_bytes"),
        ("Ray's session folder", "session_bytes"),
        ("run directory", "run_bytes"),
    ):
        rows.append(row(name, "MB", {item.round_index: getattr(item, key) / 1e6 for item in samples}))
    pace = {after.round_index: after.seconds - before.seconds for before, after in itertools.pairwise(samples)}
    return [*rows, row("a round", "seconds", pace | {samples[0].round_index: 0.0})]


def plot(samples: Sequence[Sample], path: Path) -> None:
    """Writes memory, files and disk against rounds."""
    import matplotlib as mpl

    from wfc_dist.reports.plots import STYLE, as_svg, grid_of

    with mpl.rc_context(STYLE):
        figure, (memory, files, disk) = grid_of(3, columns=3, width=3.2, height=2.8)
        rounds = [item.round_index for item in samples]
        for axes, kind, title in ((memory, "pss_mb", "memory (PSS), MB"), (files, "files", "open files")):
            for role in (COORDINATOR, *ROLES.values(), OTHER):
                axes.plot(rounds, [getattr(item, kind).get(role, 0) for item in samples], linewidth=1, label=role)
            axes.set(title=title, xlabel="round", ylim=(0, None))
        for key, label in (
            ("run_bytes", "run directory"),
            ("session_bytes", "Ray's session folder"),
            ("ray_store_bytes", "Ray's store"),
        ):
            disk.plot(rounds, [getattr(item, key) / 1e6 for item in samples], linewidth=1, label=label)
        disk.set(title="disk and store, MB", xlabel="round", ylim=(0, None))
        disk.legend()
        figure.legend(*memory.get_legend_handles_labels(), loc="outside lower center", ncols=6)
        path.write_text(as_svg(figure) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200, help=f"more than {2 * WARM}")
    parser.add_argument("--strategy", default="ddp", help="train.strategy")
    options = parser.parse_args()
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # so that this process may ask Ray, too
    with tempfile.TemporaryDirectory(prefix="wfc-soak-") as folder:
        config = make_config(Path(folder), options.rounds, options.strategy)
        samples = soak(config)
        lengths = [options.rounds // part for part in (1, 2, 4, 8)]
        times = list(times_by_length(config, lengths))[::-1]
    command = " ".join(["python", "benchmarks/soak.py", *sys.argv[1:]])
    plot(samples, PLOT)
    facts: dict[str, Any] = {"command": command, "model": "tiny random Whisper", "rounds": options.rounds}
    rows = growth(samples)
    question = f"what the processes hold in {options.rounds} rounds: at rounds {WARM + 1} to {WARM + 20}, and in the last 20"
    write_rows("soak", question, rows, **facts, plot=PLOT.name)
    write_rows("soak-times", "how long reading and opening a run take by its length", times, **facts)
    for item in [*rows, *times]:
        print("  ".join(f"{value}" for value in item.values()))


if __name__ == "__main__":
    main()
