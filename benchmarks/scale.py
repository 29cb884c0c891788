"""The coordinator alone, at sizes no test machine has: hundreds of gangs, thousands of data sets, ten thousand adapters.

    python benchmarks/scale.py           writes results/scale.json; five minutes on two quiet cores
    python benchmarks/scale.py --plan --nodes 1000 --dollars 2.5      prints a run on paper (paper.py)

Real: `rounds.run_rounds`, the Ray backend's factorization, fleet, gangs, admission, placement and failure policy, the opened
run with its folders, manifests and ledger on the disk. Fake: Ray, the workers, the average and the clock (simulated_ray.py);
nothing is scored. One training in a hundred is lost with its process. A size is GANGS x ADAPTERS, each of a data set of its own.
The processor time of the fakes is subtracted. What Ray's own calls cost is measured apart, on one real node.
"""

import argparse
import asyncio
import contextlib
import io
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import paper
from measuring import Measured, in_fresh_processes, peak_bytes, write_rows
from rich.console import Console
from simulated_ray import NoScorer, SimulatedCentralizer, SimulatedRay, commit_root
from turbo import tensor_shapes

from wfc_dist.backends.ray.admission import Admission
from wfc_dist.backends.ray.cluster import connected, prepare_environment
from wfc_dist.backends.ray.factorization import Factorization
from wfc_dist.backends.ray.fleet import Fleet
from wfc_dist.backends.ray.nodes import Nodes
from wfc_dist.backends.ray.trainers import RayTrainers
from wfc_dist.config import loading
from wfc_dist.config.cluster import ClusterConfig
from wfc_dist.config.schema import Config
from wfc_dist.progress import Display
from wfc_dist.reports.status import status_table
from wfc_dist.rounds import Base, run_rounds
from wfc_dist.runs.handle import Run
from wfc_dist.runs.layout import RunPaths
from wfc_dist.runs.opening import opened_for_writing
from wfc_dist.runs.store import RunStore
from wfc_dist.storage import durable

MODEL = "whisper-large-v3-turbo"
SIZES = {
    "64 x 512": (64, 512, 512), "512 x 4,096": (512, 4096, 4096), "512 x 12,288": (512, 12_288, 4096),
    "10 x 1,000": (10, 1000, 10), "10 x 10,000": (10, 10_000, 10),
}  # fmt: skip
"""Gangs x adapters -> gangs, data sets, data sets of a round."""
RATIOS = {"512 x 12,288": "64 x 512", "10 x 10,000": "10 x 1,000"}
"""Which size is divided by which: in both a gang trains as many adapters a round."""
MEASURES = {
    "coordinator_ms_per_adapter": "coordinator, ms of processor time per adapter",
    "grown_kb_per_adapter": "peak memory beyond the start's, KB per adapter",
    "peak_mb": "peak memory, MB (Python with torch and Ray loaded: 410)",
    "messages_per_adapter": "messages to gangs per adapter",
    "progress_messages_per_s": "messages that ask for progress, per simulated second",
    "refs_per_adapter": "references that Ray is asked about, per adapter",
    "decision_ms_median": "a decision (look, admit, place, give out), median ms",
    "decision_ms_p99": "a decision, 99th percentile, ms",
    "placement_ms": "first placement of all gangs, ms",
    "idle_pass_ms": "a pass in which nothing happens (two a second), ms",
    "ledger_lines": "lines of the ledger",
    "ledger_bytes": "bytes of the ledger per adapter",
    "ledger_read_s": "the ledger read, s",
    "open_s": "a finished run opened and reconciled, s",
    "resume_s": "and all its rounds found committed, s",
    "status_table_s": "`wfc status`: read and drawn, s",
    "status_command_s": "`wfc status`: the command, s",
}
LOSE_EVERY = 100


def make_config(folder: Path, num_gangs: int, num_sets: int, round_size: int) -> Config:
    datasets = {f"set-{number:05d}": {"source": "none", "splits": {"train": "t"}} for number in range(num_sets)}
    return loading.parse(
        {
            "run": {"name": "run", "dir": str(folder)},
            "base": {"model": "simulated"},
            "datasets": datasets,
            "rounds": {"centralize_every": round_size},
            "cluster": {"gpus_per_worker": 1, "cpus_per_worker": 4, "max_trainers": num_gangs, "max_failures": 3},
        }
    )


def train_s(dataset: str) -> float:
    """Seconds of a training on the simulated clock."""
    return random.Random(dataset).uniform(30, 60)


@dataclass
class Costs:
    """Milliseconds of the coordinator alone: of each decision (what changed, who gets which set), of each pass in which nothing
    happened, and of the first placement of all gangs."""

    ray: SimulatedRay
    decisions: list[float] = field(default_factory=list)
    idle_passes: list[float] = field(default_factory=list)
    placement: list[float] = field(default_factory=list)
    _pass: tuple[float, int] | None = None

    def _now(self) -> float:
        return time.perf_counter() - self.ray.cpu_s

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Times the methods while the context lasts."""
        tick, start_idle, wait, open_fleet = Fleet.tick, Factorization._start_idle, Fleet.wait, Fleet.open

        def timed_tick(fleet: Fleet) -> None:
            start = self._now()
            tick(fleet)
            self.decisions.append(1e3 * (self._now() - start))

        def timed_start(factorization: Factorization) -> None:
            start = self._now()
            start_idle(factorization)
            self.decisions[-1] += 1e3 * (self._now() - start)

        def timed_wait(fleet: Fleet, refs: list[Any]) -> None:
            ended = self.ray.trained.total() + self.ray.calls["kill"]
            if self._pass and self._pass[1] == ended and len(refs) == len(fleet.gangs):
                self.idle_passes.append(1e3 * (self._now() - self._pass[0]))
            wait(fleet, refs)
            self._pass = (self._now(), ended)

        def timed_open(fleet: Fleet) -> None:
            start = self._now()
            open_fleet(fleet)
            self.placement.append(1e3 * (self._now() - start))

        with (
            mock.patch.object(Fleet, "tick", timed_tick),
            mock.patch.object(Factorization, "_start_idle", timed_start),
            mock.patch.object(Fleet, "wait", timed_wait),
            mock.patch.object(Fleet, "open", timed_open),
        ):
            yield


def run_all(store: RunStore, ray: SimulatedRay) -> Base:
    """Runs, or goes on with, all rounds of an opened run on simulated machines."""
    names = dict(tensor_shapes(MODEL))
    changed = [name for name in names if name.endswith(("q_proj.weight", "v_proj.weight"))]
    commit_root(store, list(names))
    display = Display(plain=True)
    display.console = Console(file=io.StringIO(), width=120)
    store.status.write("running")
    with ray.installed():
        admission = Admission(store.paths.run_dir, store.paths.shared_marker, root="", timeout_s=60)
        admission.require(ray.nodes)
        fleet = Fleet(store, display.say, Nodes(store, display, admission))
        centralizer = SimulatedCentralizer(store, ray, list(names), changed)
        trainers = RayTrainers(store, display, dict.fromkeys(store.config.datasets, 1.0), centralizer, fleet)  # type: ignore[arg-type]
        try:
            base = run_rounds(store.config.round_list(), store, trainers, centralizer, NoScorer())
        finally:
            fleet.shutdown()
    store.status.write("done")
    return base


@contextlib.contextmanager
def _progress(ray: SimulatedRay, num_adapters: int) -> Iterator[None]:
    """Shows on standard error how far the simulation is."""
    commit, start = RunStore.commit_adapter, time.monotonic()

    def told(store: RunStore, *arguments: Any) -> Any:
        done = ray.trained.total()
        if done % 100 == 0 or done == num_adapters:
            end = "\n" if done == num_adapters else ""
            told_s = f"{time.monotonic() - start:.0f} s"
            print(f"\r    {done} of {num_adapters} adapters, {told_s}", end=end, file=sys.stderr, flush=True)
        return commit(store, *arguments)

    with mock.patch.object(RunStore, "commit_adapter", told):
        yield


def _timed(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _resumed(config: Config, prints: dict[str, str], num_gangs: int, base: Base) -> tuple[float, float]:
    """Goes on with a finished run; returns the seconds until it is open, and until all of its rounds were found committed."""
    start = time.perf_counter()
    with opened_for_writing(config, prints) as store:
        opened_s = time.perf_counter() - start
        assert run_all(store, SimulatedRay(num_gangs, train_s)) == base
    return opened_s, time.perf_counter() - start


def measure(num_gangs: int, num_sets: int, round_size: int, folder: Path) -> dict[str, Any]:
    """Runs one size and returns what it cost."""
    config = make_config(folder, num_gangs, num_sets, round_size)
    prints = {f"{name}/train": "0" * 64 for name in config.datasets}
    ray = SimulatedRay(num_gangs, train_s, LOSE_EVERY)
    costs = Costs(ray)
    before_bytes = peak_bytes()
    with opened_for_writing(config, prints) as store, costs.watched(), _progress(ray, num_sets):
        cpu_s = time.process_time()
        base = run_all(store, ray)
        cpu_s = time.process_time() - cpu_s - ray.cpu_s
        run_dir = store.paths.run_dir
    grown_bytes = peak_bytes() - before_bytes
    opened_s, resumed_s = _resumed(config, prints, num_gangs, base)
    table_s = _timed(lambda: Console(file=io.StringIO(), width=120).print(status_table(Run(run_dir))))
    command = [sys.executable, "-m", "wfc_dist", "status", str(run_dir)]
    status_s = _timed(lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True))
    ledger = RunPaths(run_dir).ledger
    lines: list[Any] = []
    ledger_s = _timed(lambda: lines.extend(json.loads(line) for line in durable.read_lines(ledger)))
    messages = sum(ray.calls[name] for name in ("endpoint", "join_here", "load_base", "train", "node_facts", "request_stop"))
    decisions = sorted(costs.decisions)
    assert set(ray.trained.values()) == {1} and len(ray.trained) == num_sets
    return {
        "seconds": cpu_s,
        "peak_bytes": peak_bytes(),
        "coordinator_ms_per_adapter": round(1e3 * cpu_s / num_sets, 2),
        "grown_kb_per_adapter": round(grown_bytes / 1e3 / num_sets, 1),
        "peak_mb": round(peak_bytes() / 1e6),
        "messages_per_adapter": round(messages / num_sets, 2),
        "progress_messages_per_s": round(ray.calls["report"] / ray.now_s, 1),
        "refs_per_adapter": round(ray.calls["refs waited for"] / num_sets),
        "decision_ms_median": round(statistics.median(decisions), 2),
        "decision_ms_p99": round(decisions[int(0.99 * len(decisions))], 2),
        "placement_ms": round(costs.placement[0], 1),
        "idle_pass_ms": round(statistics.median(costs.idle_passes), 2) if costs.idle_passes else "-",
        "ledger_lines": len(lines),
        "ledger_bytes": round(ledger.stat().st_size / num_sets),
        "ledger_read_s": round(ledger_s, 3),
        "open_s": round(opened_s, 2),
        "resume_s": round(resumed_s, 2),
        "status_table_s": round(table_s, 2),
        "status_command_s": round(status_s, 2),
    }


def measure_ray() -> dict[str, Any]:
    """Returns what Ray's own calls cost the caller, on one node: milliseconds on the clock, and of its processor."""
    import ray

    def per_call(call: Callable[[], object], times: int) -> list[float]:
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(times):
            call()
        return [round(1e3 * spent / times, 2) for spent in (time.perf_counter() - start, time.process_time() - cpu)]

    class Actor:
        async def answer(self, after_s: float) -> None:
            await asyncio.sleep(after_s)

    prepare_environment(ClusterConfig())
    with connected(ClusterConfig()):
        actor: Any = ray.remote(Actor).options(max_concurrency=1000).remote()
        ray.get(actor.answer.remote(0))
        message = per_call(lambda: ray.get(actor.answer.remote(0)), 500)
        pending = [actor.answer.remote(600) for _ in range(512)]
        return {"message and answer": message, "512 references waited for": per_call(lambda: ray.wait(pending, timeout=0), 200)}


def rows(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Returns a row for each measure: its value at every size, and the larger over the smaller where both were measured."""
    found = {item.name: item.facts for item in measured}
    table = []
    for key, title in MEASURES.items():
        row: dict[str, Any] = {"measure": title}
        for size, facts in found.items():
            row[size] = facts[key]
            small = found.get(RATIOS.get(size, ""), {}).get(key)
            if size in RATIOS and RATIOS[size] in found:
                is_number = isinstance(small, int | float) and isinstance(facts[key], int | float) and small > 0
                row[f"over {RATIOS[size]}"] = round(facts[key] / small, 2) if is_number else "-"
        table.append(row)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--dir", help="where the runs are written, and removed; the system's temporary folder by default")
    parser.add_argument("--only", choices=SIZES, help=argparse.SUPPRESS)
    paper.add_options(parser)
    options = parser.parse_args()
    if options.plan:
        paper.show(options)
        return
    given = ["--dir", options.dir] if options.dir else []
    if options.only:
        with tempfile.TemporaryDirectory(dir=options.dir) as folder:
            print(json.dumps(measure(*SIZES[options.only], Path(folder))))
        return
    table = rows(in_fresh_processes(Path(__file__), options.sizes, 1, *given))
    for row in table:
        print("  ".join(f"{value:>12}" if i else f"{value:<64}" for i, value in enumerate(row.values())))
    command = " ".join(["python", "benchmarks/scale.py", *sys.argv[1:]])
    facts = {"ray_ms": measure_ray()}
    print(facts["ray_ms"])
    write_rows("scale", "scale: the coordinator alone, gangs x adapters", table, command=command, **facts)


if __name__ == "__main__":
    main()
