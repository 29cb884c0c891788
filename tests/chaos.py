"""Random faults at random moments of small runs: `make chaos`. Each run is started again as its messages advise, to its end.

    PYTHONPATH=tests:benchmarks python tests/chaos.py --faults 20 --seed 1 --backend in_process ray

A fault ends in `same bytes`, or in what must not be: `other bytes`, `traceback`, `dead end` (no advice, or advice that does not
help), `damage left` (`wfc verify --deep` finds some at the end). The exit code is 1 if any did. It ends only processes that it
started.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import tiny
from processes import kill_tree, start_wfc, wfc

from wfc_dist import load_config, open_run
from wfc_dist.coordinator.verify import verify_run
from wfc_dist.errors import WfcError
from wfc_dist.progress import Display

MOST_STARTS = 6
LIMIT_S = 300
ADVICE = re.compile(r"wfc verify|run again|same command|goes on|run `wfc run`|anew|--repair", re.IGNORECASE)
ROUNDS = (("a", "b"), ("c",))


@dataclass(frozen=True)
class Result:
    """What became of one fault: kind, outcome, what was hit, and the seconds it cost beside a run without fault."""

    kind: str
    outcome: str
    target: str
    lost_s: float


def main() -> None:
    """Makes the faults, prints a table of kind x outcome x seconds lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=20, help="faults for each backend")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--backend", nargs="+", default=["in_process"], choices=["in_process", "ray"])
    parser.add_argument("--keep", type=Path, help="folder that keeps runs which did not end well")
    options = parser.parse_args()
    results = [result for backend in options.backend for result in faults(options.faults, options.seed, backend, options.keep)]
    print(table(results))
    sys.exit(any(result.outcome != "same bytes" for result in results))


def faults(number: int, seed: int, backend: str, keep: Path | None = None) -> Iterator[Result]:
    """Yields the result of each fault; the same seed makes the same choices."""
    with tempfile.TemporaryDirectory(prefix="wfc-chaos-") as folder:
        config = tiny.make_config(
            Path(folder), ROUNDS, evaluate={"max_clips": 1}, cluster={"backend": backend}, train={"max_steps": 4}
        )
        begun_s = time.monotonic()
        wfc("run", config, "--plain")
        usual_s = time.monotonic() - begun_s
        run_dir = load_config(config).run_dir()
        expected = open_run(run_dir).base().sha256
        for index in range(number):
            shutil.rmtree(run_dir)
            result = one_fault(config, run_dir, expected, usual_s, random.Random(f"{seed} {backend} {index}"))
            print(f"{backend} {index + 1}/{number}: {result.kind} {result.target}: {result.outcome}", file=sys.stderr, flush=True)
            if keep is not None and result.outcome != "same bytes":
                shutil.copytree(run_dir, keep / f"{backend}-{index + 1}", symlinks=True)
                shutil.copy(Path(folder) / "log", keep / f"{backend}-{index + 1}.log")
            yield result


def one_fault(config: Path, run_dir: Path, expected: str, usual_s: float, chance: random.Random) -> Result:
    """Starts a run, makes one fault at a random moment, and follows the advice to the end."""
    log, begun_s = config.parent / "log", time.monotonic()
    log.write_text("")
    process = start_wfc("run", config, "--plain", log=log)
    kind = chance.choice(list(KINDS))
    moment_s, end_s = chance.uniform(0.1, 1.0) * usual_s, begun_s + LIMIT_S
    while process.poll() is None and time.monotonic() - begun_s < moment_s:
        time.sleep(0.02)
    target = KINDS[kind](process, run_dir, chance)
    outcome = ending(process, config, log, end_s)
    lost_s = time.monotonic() - begun_s - usual_s
    return Result(kind, outcome or verdict(run_dir, expected), target, lost_s)


def ending(process: "subprocess.Popen[str]", config: Path, log: Path, end_s: float) -> str:
    """Starts the run again until it is done, as its messages advise. Returns what went wrong, or ""."""
    for _ in range(MOST_STARTS):
        try:
            code = process.wait(max(end_s - time.monotonic(), 1))
        except subprocess.TimeoutExpired:
            kill_tree(process)
            return "dead end"
        said = log.read_text()
        if "Traceback (most recent call last)" in said:
            return "traceback"
        if code == 0:
            return ""
        last = said.strip().splitlines()[-1] if said.strip() else ""
        if code > 0 and not ADVICE.search(last):
            return "dead end"
        if removed := re.search(r"remove (?:the folder )?(/\S+?)[,;]? and run again", last):
            shutil.rmtree(removed[1], ignore_errors=True)
        if "--repair" in last:
            wfc("verify", load_config(config).run_dir(), "--repair", check=False)
        log.write_text("")
        process = start_wfc("run", config, "--plain", log=log)
    kill_tree(process)
    return "dead end"


def verdict(run_dir: Path, expected: str) -> str:
    """Returns whether a run that says it is done holds the bytes of one without fault, in every file."""
    try:
        if open_run(run_dir).base().sha256 != expected:
            return "other bytes"
        damaged = verify_run(run_dir, deep=True, display=Display(plain=True)).damaged
    except WfcError as error:
        return f"damage left ({error.message})"
    return f"damage left ({', '.join(damaged)})" if damaged else "same bytes"


def kill(process: "subprocess.Popen[str]", run_dir: Path, chance: random.Random) -> str:
    """Kills the coordinator and all its processes."""
    return f"{kill_tree(process)} processes"


def kill_one(process: "subprocess.Popen[str]", run_dir: Path, chance: random.Random) -> str:
    """Kills one random process of the tree: coordinator, trainer, rank, raylet, GCS."""
    return _hit(process, chance, lambda member: member.kill())


def starve(process: "subprocess.Popen[str]", run_dir: Path, chance: random.Random) -> str:
    """Stops one random process for some seconds, then lets it go on."""

    def stop(member: psutil.Process) -> None:
        member.send_signal(signal.SIGSTOP)
        time.sleep(chance.uniform(1, 6))
        member.send_signal(signal.SIGCONT)

    return _hit(process, chance, stop)


def terminate(process: "subprocess.Popen[str]", run_dir: Path, chance: random.Random) -> str:
    """Asks the coordinator to stop, once or twice, by a signal of schedulers or of a keyboard."""
    number = chance.choice([signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
    for _ in range(chance.choice([1, 1, 2])):
        if process.poll() is None:
            process.send_signal(number)
            time.sleep(0.2)
    return number.name


def damage(process: "subprocess.Popen[str]", run_dir: Path, chance: random.Random) -> str:
    """Kills the run, then changes one bit of a random file, cuts it in half, or removes it."""
    kill_tree(process)
    files = sorted(path for path in run_dir.rglob("*") if path.is_file() and path.name != "lock") if run_dir.is_dir() else []
    if not files:
        return "nothing yet"
    path, how = chance.choice(files), chance.choice(["flip", "truncate", "remove"])
    data = bytearray(path.read_bytes())
    path.unlink()  # it may be a link to one of the root's files
    if how == "flip" and data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    if how != "remove":
        path.write_bytes(data[: len(data) // 2] if how == "truncate" else data)
    return f"{how} {path.relative_to(run_dir)}"


def _hit(process: "subprocess.Popen[str]", chance: random.Random, how: Callable[[psutil.Process], None]) -> str:
    try:
        root = psutil.Process(process.pid)
        members = sorted([root, *root.children(recursive=True)], key=lambda member: member.pid)
        member = chance.choice(members)
        name = member.name()
        how(member)
    except psutil.NoSuchProcess:
        return "gone already"
    return name


KINDS: dict[str, Callable[["subprocess.Popen[str]", Path, random.Random], str]] = {
    "kill": kill, "kill one": kill_one, "starve": starve, "terminate": terminate, "damage": damage,
}  # fmt: skip


def table(results: list[Result]) -> str:
    """Returns kind x outcome: how many, and the median of the seconds lost."""
    cells: dict[tuple[str, str], list[float]] = defaultdict(list)
    for result in results:
        cells[result.kind, result.outcome.partition(" (")[0]].append(result.lost_s)
    rows = [
        f"| {kind} | {outcome} | {len(lost)} | {sorted(lost)[len(lost) // 2]:.1f} |"
        for (kind, outcome), lost in sorted(cells.items())
    ]
    return "\n".join(["| fault | outcome | number | median seconds lost |", "|---|---|---|---|", *rows])


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
