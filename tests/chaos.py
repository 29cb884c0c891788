"""Random faults at random moments of small runs: `make chaos`. Each run is started again as its messages advise, to its end.

    PYTHONPATH=tests:benchmarks python tests/chaos.py --faults 20 --seed 1 --backend in_process ray in_process+s3 ray+s3

Runs have two or three rounds; `+s3` keeps them on a real S3 API on loopback, whose objects are damaged as well. A fault ends in
`same bytes`, if need be `same bytes, repaired` by `wfc verify --repair`, or in what must not be: `other bytes`, `traceback`,
`dead end` (no advice, or advice that does not help), `damage left` (`wfc verify --deep` finds some at the end), `process left`.
The exit code is 1 if any did. It ends only processes that it started.
"""

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
import pytest
import tiny
import yaml
from processes import kill_tree, start_wfc, wfc
from s3_server import BUCKET, s3_server

from wfc_dist import load_config, open_run
from wfc_dist.coordinator.verify import verify_run
from wfc_dist.errors import WfcError
from wfc_dist.progress import Display
from wfc_dist.storage.objects import Objects

MOST_STARTS = 6
LIMIT_S = 600
HANG_S = 30
ADVICE = re.compile(r"wfc verify|run (?:it )?again|same command|goes on|run `wfc run`|anew|--repair", re.IGNORECASE)
ROUNDS = (("a", "b"), ("c",), ("d",))
BACKENDS = ("in_process", "ray", "in_process+s3", "ray+s3")


@dataclass(frozen=True)
class Result:
    """What became of one fault: kind, outcome, what was hit, the seconds it cost beside a run without fault, and where."""

    kind: str
    outcome: str
    target: str
    lost_s: float
    backend: str = "in_process"
    num_rounds: int = 2


@dataclass
class Faulty:
    """A run that faults are made in.

    Attributes:
        config: Its configuration.
        run_dir: Its folder; of a run on object storage the mirror.
        url: Where it lies: the folder, or a URL.
        log: What the commands print.
        process: The attempt that works.
        hit: The processes that were there at the fault.
    """

    config: Path
    run_dir: Path
    url: str
    log: Path
    process: "subprocess.Popen[str]" = field(init=False)
    hit: list[psutil.Process] = field(default_factory=list)

    def start(self) -> None:
        """Starts the next attempt; `log` holds what it says and nothing else."""
        self.log.write_text("")
        self.process = start_wfc("run", self.config, "--plain", log=self.log)

    def objects(self) -> Objects | None:
        """Returns what lies on object storage; None of a run in a folder."""
        return Objects(self.url) if "://" in self.url else None


def main() -> None:
    """Makes the faults, prints a table of kind x outcome x seconds lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=20, help="faults for each backend")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--backend", nargs="+", default=["in_process"], choices=BACKENDS)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no fault later")
    parser.add_argument("--results", type=Path, help="file that gets a line of JSON for each fault")
    parser.add_argument("--keep", type=Path, help="folder that keeps runs which did not end well")
    options = parser.parse_args()
    end_s, results = time.monotonic() + 60 * options.minutes, []
    with contextlib.ExitStack() as stack:
        if any(backend.endswith("+s3") for backend in options.backend):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wfc-chaos-s3-")))
            os.environ.update(stack.enter_context(s3_server(folder)).environment)
        waiting = [stack.enter_context(contextlib.closing(faults(options.faults, options.seed, backend, options.keep)))
                   for backend in options.backend]  # fmt: skip
        while waiting and time.monotonic() < end_s:
            backend = waiting.pop(0)
            result = next(backend, None)
            if result is not None:
                waiting.append(backend)
                results.append(result)
                if options.results:
                    with open(options.results, "a", encoding="utf-8") as file:
                        file.write(json.dumps(asdict(result)) + "\n")
    print(table(results))
    sys.exit(any(not is_good(result.outcome) for result in results))


def faults(number: int, seed: int, backend: str, keep: Path | None = None) -> Iterator[Result]:
    """Yields the result of each fault; the same seed makes the same choices. Every kind comes once in so many faults.

    For a backend on object storage the environment names a started `s3_server`.
    """
    with tempfile.TemporaryDirectory(prefix="wfc-chaos-") as made:
        folder = Path(made)
        store = f"s3://{BUCKET}/{folder.name}" if backend.endswith("+s3") else str(folder / "runs")
        config = make_config(folder, backend.partition("+")[0], store)
        usual_s, expected = usual(Faulty(config, load_config(config).run_dir(), f"{store}/tiny", folder / "log"))
        for index in range(number):
            num_rounds, run_dir = 2 + index % 2, load_config(config).run_dir()
            run = Faulty(config.with_name(f"{num_rounds}.yaml"), run_dir, f"{store}/tiny", folder / "log")
            remove(run)
            kinds = list(KINDS)
            random.Random(f"{seed} {backend} {index // len(kinds)}").shuffle(kinds)
            kind, chance = kinds[index % len(kinds)], random.Random(f"{seed} {backend} {index}")
            target, outcome, lost_s = one_fault(run, kind, usual_s[num_rounds], expected[num_rounds], chance)
            print(f"{backend} {index + 1}/{number}: {num_rounds} rounds, {kind} {target}: {outcome}", file=sys.stderr, flush=True)
            if keep is not None and not is_good(outcome):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copytree(run_dir, keep / f"{backend}-{index + 1}", symlinks=True)
                shutil.copy(run.log, keep / f"{backend}-{index + 1}.log")
            yield Result(kind, outcome, target, lost_s, backend, num_rounds)


def make_config(folder: Path, backend: str, store: str) -> Path:
    """Writes 3.yaml, a run of three rounds, and 2.yaml, the same without the last; returns the path of 3.yaml."""
    cluster = {"backend": backend, "hang_timeout_s": HANG_S, "start_timeout_s": 180, "cache_dir": str(folder / "cache")}
    train = {"max_steps": 4}
    path = tiny.make_config(folder, ROUNDS, run={"dir": store}, evaluate={"max_clips": 1}, cluster=cluster, train=train)
    tree = yaml.safe_load(path.read_text())
    (folder / "3.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    (last,) = tree["rounds"].pop()
    del tree["datasets"][last]
    (folder / "2.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    return folder / "3.yaml"


def usual(run: Faulty) -> tuple[dict[int, float], dict[int, str]]:
    """Makes a run of three rounds without fault. Returns number of rounds -> its seconds (of two: in proportion), sha256."""
    begun_s = time.monotonic()
    wfc("run", run.config, "--plain")
    taken_s = time.monotonic() - begun_s
    bases = open_run(run.run_dir).bases
    return {2: taken_s * 0.75, 3: taken_s}, {index: bases[index].sha256 for index in (2, 3)}


def remove(run: Faulty) -> None:
    """Removes all of a run."""
    shutil.rmtree(run.run_dir, ignore_errors=True)
    if remote := run.objects():
        remote.remove(*remote.list())


def one_fault(run: Faulty, kind: str, usual_s: float, expected: str, chance: random.Random) -> tuple[str, str, float]:
    """Starts a run, makes one fault at a random moment, follows the advice. Returns what was hit, the outcome, seconds lost."""
    begun_s = time.monotonic()
    run.start()
    moment_s, end_s = chance.uniform(0.1, 1.1) * usual_s, begun_s + LIMIT_S
    while run.process.poll() is None and time.monotonic() - begun_s < moment_s:
        time.sleep(0.02)
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(run.process.pid)
        run.hit = sorted([root, *root.children(recursive=True)], key=lambda member: member.pid)
    target = KINDS[kind](run, chance)
    outcome = ending(run, end_s)
    lost_s = time.monotonic() - begun_s - usual_s
    outcome = outcome or verdict(run, expected)
    _, left = psutil.wait_procs(run.hit, timeout=30)
    for member in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            target += f", left: {member.name()}"
            member.kill()
    return target, "process left" if left and is_good(outcome) else outcome, lost_s


def is_good(outcome: str) -> bool:
    """Says whether nothing was lost."""
    return outcome in ("same bytes", "same bytes, repaired")


def ending(run: Faulty, end_s: float) -> str:
    """Starts the run again until it is done, as its messages advise. Returns what went wrong, or ""."""
    for _ in range(MOST_STARTS):
        try:
            code = run.process.wait(max(end_s - time.monotonic(), 1))
        except subprocess.TimeoutExpired:
            kill_tree(run.process)
            return "dead end (it goes on for too long)"
        said = run.log.read_text()
        if "Traceback (most recent call last)" in said:
            return "traceback"
        if code == 0:
            return ""
        last = said.strip().splitlines()[-1] if said.strip() else ""
        if code > 0 and not ADVICE.search(last):
            return f"dead end ({last})"
        if follow(run, last):
            return "traceback"
        run.start()
    kill_tree(run.process)
    return "dead end (started too often)"


def follow(run: Faulty, advice: str) -> bool:
    """Removes and repairs what a message tells to; returns whether a traceback came of it."""
    if removed := re.search(r"remove (?:the folder )?((?:\w+:/)?/\S+?)[,;]? and run again", advice):
        if "://" in removed[1]:
            remote = Objects(removed[1])
            remote.remove(*remote.list())
        shutil.rmtree(removed[1], ignore_errors=True)
    if "--repair" not in advice:
        return False
    retrain = ["--retrain"] if "--retrain" in advice else []
    with tempfile.TemporaryDirectory() as home:
        return "Traceback" in wfc("verify", run.url, "--repair", *retrain, check=False, HOME=home).stderr


def verdict(run: Faulty, expected: str) -> str:
    """Returns whether a run that says it is done holds the bytes of one without fault, in every file and object.

    What no run reads any more, such as an adapter that is merged, may be damaged still: `wfc verify` says so, and repairs it.
    """
    if open_run(run.run_dir).base().sha256 != expected:
        return "other bytes"
    with tempfile.TemporaryDirectory() as home:  # where a machine without this mirror would have its own
        first = verified(run, home)
        if not first:
            return "same bytes"
        done = wfc("verify", run.url, "--repair", "--retrain", check=False, HOME=home)
        if "Traceback" in done.stderr:
            return "traceback"
        left = verified(run, home)
        if left or open_run(run.run_dir).base().sha256 != expected:
            return f"damage left ({left or first})"
    return "same bytes, repaired"


def verified(run: Faulty, home: str) -> str:
    """Returns what `wfc verify --deep` finds damaged, "" if nothing."""
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HOME", home)
            return ", ".join(verify_run(run.url, deep=True, display=Display(plain=True)).damaged)
    except WfcError as error:
        return error.message


def kill(run: Faulty, chance: random.Random) -> str:
    """Kills the coordinator and all its processes; of some runs on object storage also loses the machine's mirror."""
    number = kill_tree(run.process)
    if run.objects() and chance.random() < 0.5:
        shutil.rmtree(run.run_dir, ignore_errors=True)
        return f"{number} processes and the mirror"
    return f"{number} processes"


def kill_one(run: Faulty, chance: random.Random) -> str:
    """Kills one random process of the tree: coordinator, trainer, rank, raylet, GCS."""
    return _hit(run, chance, lambda member: member.kill())


def starve(run: Faulty, chance: random.Random) -> str:
    """Stops one random process for some seconds, then lets it go on."""

    def stop(member: psutil.Process) -> None:
        member.send_signal(signal.SIGSTOP)
        time.sleep(chance.uniform(1, 6))
        member.send_signal(signal.SIGCONT)

    return _hit(run, chance, stop)


def hang(run: Faulty, chance: random.Random) -> str:
    """Stops one random process for ever. Nothing watches the coordinator: that one is killed by hand, with its processes."""

    def stop(member: psutil.Process) -> None:
        member.send_signal(signal.SIGSTOP)
        if member.pid == run.process.pid:
            time.sleep(3)
            kill_tree(run.process)

    return _hit(run, chance, stop)


def terminate(run: Faulty, chance: random.Random) -> str:
    """Asks the coordinator or its whole group to stop, once or twice, by a signal of schedulers or of a keyboard."""
    number, to_group = chance.choice([signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP]), chance.random() < 0.5
    for _ in range(chance.choice([1, 1, 2])):
        if run.process.poll() is None:
            (os.killpg if to_group else os.kill)(run.process.pid, number)
            time.sleep(0.2)
    return f"{number.name} to the group" if to_group else number.name


def flip(data: bytes, chance: random.Random) -> bytes:
    """Returns the data with one other bit."""
    if not data:
        return data
    changed = bytearray(data)
    changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def truncate(data: bytes, chance: random.Random) -> bytes:
    """Returns the begin of the data, at times nothing."""
    return data[: chance.choice([0, len(data) // 2, len(data) - 1])]


def damage(change: Callable[[bytes, random.Random], bytes] | None) -> "Callable[[Faulty, random.Random], str]":
    """Returns a fault that kills the run, then changes a random file or object, or removes it if there is no change.

    Each kind of file is as likely as another, however many there are of it.
    """

    def make(run: Faulty, chance: random.Random) -> str:
        kill_tree(run.process)
        remote = run.objects() if chance.random() < 0.6 else None
        if remote:
            names = sorted(remote.list())
        else:
            names = sorted(path.relative_to(run.run_dir).as_posix() for path in run.run_dir.rglob("*") if path.is_file())
        if not names:
            return "nothing yet"
        kinds = defaultdict(list)
        for name in names:
            kinds[re.sub(r"\b[a-d]\b", "X", re.sub(r"\d+|\b[0-9a-f]{12,}", "N", name))].append(name)
        name = chance.choice(kinds[chance.choice(sorted(kinds))])
        if remote:
            data = remote.read(name) or b""
            remote.remove(name) if change is None else remote.write(name, change(data, chance))
            return f"object {name}"
        path = run.run_dir / name
        data = path.read_bytes()
        path.unlink()  # it may be a link to one of the root's files
        if change is not None:
            path.write_bytes(change(data, chance))
        return name

    return make


def _hit(run: Faulty, chance: random.Random, how: Callable[[psutil.Process], None]) -> str:
    try:
        names = {member: member.name() for member in run.hit}
        name = chance.choice(sorted(set(names.values()))) if names else ""
        member = chance.choice([member for member in run.hit if names[member] == name])
        how(member)
    except (psutil.NoSuchProcess, IndexError):
        return "gone already"
    return f"{name}, the coordinator" if member.pid == run.process.pid else name


KINDS: dict[str, Callable[[Faulty, random.Random], str]] = {
    "kill": kill, "kill one": kill_one, "starve": starve, "hang": hang, "terminate": terminate,
    "flip": damage(flip), "truncate": damage(truncate), "remove": damage(None),
}  # fmt: skip


def table(results: list[Result]) -> str:
    """Returns kind x outcome in Markdown: how many, on which backends, and the median and most of the seconds lost."""
    cells: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        cells[result.kind, result.outcome.partition(" (")[0]].append(result)
    rows = []
    for (kind, outcome), cell in sorted(cells.items()):
        lost = sorted(result.lost_s for result in cell)
        where = ", ".join(f"{backend} {number}" for backend, number in sorted(Counter(result.backend for result in cell).items()))
        rows.append(f"| {kind} | {outcome} | {len(cell)} | {where} | {lost[len(lost) // 2]:.0f} | {lost[-1]:.0f} |")
    head = "| fault | outcome | number | of them on | median seconds lost | most |"
    return "\n".join([head, "|---|---|---|---|---|---|", *rows])


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
