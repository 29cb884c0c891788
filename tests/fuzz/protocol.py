"""Rounds over a real run directory, store, centralizer and coordinator, whose process may die before any change of the disk.

Only trainers are made up: an adapter is a small one, given by the name of its data set. So the bytes of every base are known.
"""

import contextlib
import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import tiny
import torch

from wfc_dist.backends.jobs import centralize_job
from wfc_dist.centralize import collectives
from wfc_dist.centralize.rank import centralize_rank
from wfc_dist.config.loading import load_config
from wfc_dist.coordinator.reading_back import CheckedCentralizer
from wfc_dist.coordinator.repair import repair_rounds
from wfc_dist.coordinator.verify import verify_run
from wfc_dist.progress import Display
from wfc_dist.rounds import Adapter, Base, StagedBase, run_rounds
from wfc_dist.runs.layout import RunPaths
from wfc_dist.runs.opening import opened_for_writing
from wfc_dist.runs.records import read_ledger
from wfc_dist.runs.root import ensure_root
from wfc_dist.runs.store import RunStore
from wfc_dist.storage import durable
from wfc_dist.weights import peft_folder

ROUNDS = (("a", "b", "c"), ("d", "e", "f"))
DATA = {f"{name}/train": name for names in ROUNDS for name in names}
MODULES = ("model.encoder.layers.0.self_attn.q_proj", "model.decoder.layers.0.self_attn.v_proj")
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"}


class Crash(BaseException):
    """The process dies: nothing that it does from here on reaches the disk."""


@dataclass
class _Disk:
    """What changes the disk, counted; the process dies before change number `dies_at`. Hooks of Python stay for ever."""

    is_watched: bool = False
    dies_at: int | None = None
    num_changes: int = 0
    is_dead: bool = False

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_watched:
            return
        is_change = event in CHANGES
        if event == "open":
            path, _, flags = arguments
            is_change = isinstance(path, str) and bool(flags & (os.O_WRONLY | os.O_RDWR)) and not path.startswith("/dev/")
        if not is_change:
            return
        self.num_changes += 1
        if self.is_dead or self.num_changes == self.dies_at:
            self.is_dead = True
            raise Crash


DISK = _Disk()
sys.addaudithook(DISK.hook)


@contextlib.contextmanager
def may_die(at: int | None) -> Iterator[None]:
    """Lets this process die before its change number `at` of the disk, counted from 1; a death ends the context."""
    DISK.is_watched, DISK.dies_at, DISK.num_changes, DISK.is_dead = True, at, 0, False
    try:
        yield
    except Crash:
        pass
    finally:
        DISK.is_watched = False


def make_config(root: Path) -> Path:
    """Writes a tiny root model and the configuration of two rounds of three data sets."""
    return tiny.make_config(root, ROUNDS)


@dataclass
class World:
    """A run directory, and what is done to it.

    Attributes:
        root: Holds the configuration and the run directory.
        reference: Base index -> file -> sha256 of a run without faults; empty while that is made.
    """

    root: Path
    reference: dict[int, dict[str, str]] = field(default_factory=dict)

    @property
    def paths(self) -> RunPaths:
        """Returns the paths of the run."""
        return RunPaths(self.root / "runs" / "tiny")

    @contextlib.contextmanager
    def attempt(self) -> Iterator[RunStore]:
        """Opens the run as `wfc run` does, in a process of another number, for as long as the context lasts."""
        config = load_config(self.root / "config.yaml")
        _PIDS.append(_PIDS[-1] + 1)
        with mock.patch.object(os, "getpid", lambda: _PIDS[-1]), opened_for_writing(config, DATA, lambda said: None) as store:
            ensure_root(store)
            if store.attempt > 1:
                repair_rounds(store, lambda said: None)
            yield store

    def base(self, store: RunStore) -> Base:
        """Returns the last committed base."""
        base = store.base(store.paths.last_base())
        assert base is not None
        return base

    def run(self, trainers: "Trainers | None" = None) -> Base:
        """Runs the algorithm to its end, with the given trainers."""
        with self.attempt() as store:
            trainers = trainers or Trainers()
            trainers.store = store
            base = run_rounds(ROUNDS, store, trainers, CheckedCentralizer(store, trainers, lambda said: None), trainers)
            store.status.write("done", "", 0)
            return base

    def check(self) -> None:
        """Raises AssertionError where something on the disk contradicts itself or the reference, whoever died when."""
        for index, files in self.reference.items():
            if durable.is_committed(self.paths.base(index)):
                assert files_of(self.paths, index) == files, f"base {index} has other bytes"
        for folder in self.paths.all_adapters():
            assert durable.verify_folder(folder)["sha256"] == sha256_of(folder.name)

    def check_ledger(self) -> None:
        """Raises AssertionError where the ledger of a run that was opened says other than the disk, or says it twice."""
        lines = read_ledger(self.paths.ledger)
        adapters = [(line["round"], line["dataset"], line["sha256"]) for line in lines if line["event"] == "adapter"]
        there = sorted((int(path.parts[-3][-4:]), path.name, sha256_of(path.name)) for path in self.paths.all_adapters())
        assert sorted(adapters) == there, "each adapter is committed once"
        bases = [(line["round"], line["sha256"]) for line in lines if line["event"] == "base"]
        assert [index for index, _ in bases] == list(range(self.paths.last_base() + 1)), "each base is committed once"
        recorded = [durable.read_manifest(self.paths.base(index))["sha256"] for index, _ in bases]  # type: ignore[index]
        assert [sha256 for _, sha256 in bases] == recorded

    def check_end(self) -> None:
        """Raises AssertionError unless both rounds are done, with the reference's bytes, and nothing unfinished is left."""
        self.check()
        self.check_ledger()
        assert self.paths.last_base() == len(ROUNDS)
        left = [path.relative_to(self.paths.run_dir).as_posix() for path in self.paths.run_dir.rglob("*tmp*")]
        assert not left, f"left behind: {left}"
        assert verify_run(self.paths.run_dir, display=Display(plain=True)).damaged == {}


@dataclass
class Trainers:
    """Trainers that are done at once, and the real centralizer. Scores nothing."""

    store: RunStore | None = None

    def broadcast(self, base: Base) -> None:
        """See `rounds.Trainers`."""

    def factorize(self, base: Base, datasets: Sequence[str]) -> dict[str, Adapter]:
        """See `rounds.Trainers`."""
        assert self.store is not None
        return {name: finish(self.store, base, name) for name in datasets}

    def centralize(self, base: Base, adapters: Sequence[Adapter]) -> StagedBase:
        """See `rounds.Centralizer`."""
        assert self.store is not None
        staged = centralize_rank(centralize_job(self.store, base, list(adapters)), collectives.Group())
        assert staged is not None
        return staged

    def score(self, base: Base, adapters: Sequence[Adapter] = ()) -> None:
        """See `rounds.Scorer`."""


def _state(name: str) -> dict[str, torch.Tensor]:
    generator, state = torch.Generator().manual_seed(ord(name)), {}
    for module in MODULES:
        state[f"{peft_folder.PREFIX}{module}.lora_A.weight"] = torch.randn(2, 32, generator=generator)
        state[f"{peft_folder.PREFIX}{module}.lora_B.weight"] = torch.randn(32, 2, generator=generator)
    return state


_PIDS = [100_000]
_SHA256: dict[str, str] = {}


def sha256_of(name: str) -> str:
    """Returns the sha256 of the adapter that a data set makes."""
    if name not in _SHA256:
        _SHA256[name] = peft_folder.adapter_sha256(_state(name))
    return _SHA256[name]


def write_result(folder: Path, name: str) -> dict[str, Any]:
    """Writes what the training of a data set leaves in its folder, and returns the facts that it reports."""
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"], "bias": "none"}
    sha256 = peft_folder.write_peft(folder, _state(name), config)
    return {"sha256": sha256, "hours": 1.0, "steps": 3, "host": "h"}


def finish(store: RunStore, base: Base, name: str) -> Adapter:
    """Trains and commits one adapter."""
    staged = store.stage_adapter(base, name)
    return store.commit_adapter(base, name, staged, write_result(staged, name))


def lose(store: RunStore, base: Base, name: str) -> None:
    """A gang dies in the middle of its last write: its staging folder stays."""
    write_result(store.stage_adapter(base, name), name)


def come_late(store: RunStore, base: Base, name: str, attempt: int) -> None:
    """A gang of an earlier attempt has finished, and its result is taken now, whatever has happened meanwhile."""
    staged = durable.staging_path(store.paths.adapter(base.index + 1, name), attempt)
    store.commit_adapter(base, name, staged, write_result(staged, name))


def merge(store: RunStore, base: Base) -> Base:
    """Averages the adapters of the round and commits the next base."""
    present = store.quorum(base, ROUNDS[base.index], store.finished_adapters(base))
    return store.commit(CheckedCentralizer(store, Trainers(store), lambda said: None).centralize(base, present))


def files_of(paths: RunPaths, index: int) -> dict[str, str]:
    """Returns file -> sha256 of a base and of the delta that made it, without the cards, which tell of the attempt."""
    folders = [paths.base(index), *([paths.delta(index)] if index else [])]
    return {
        f"{folder.name}/{name}": fact["sha256"]
        for folder in folders for name, fact in durable.verify_folder(folder)["files"].items() if name != "README.md"
    }  # fmt: skip


def happen(world: World, events: Sequence[tuple[str, str]]) -> None:
    """Lets events come to the first round that is not merged, each (kind, data set); after a death the next attempt goes on.

    `die` is a process that dies in the middle of a commit, `late` a result of the first attempt, `twice` two results of one.
    """
    left = list(events)
    while left:
        with may_die(None), world.attempt() as store:
            base = world.base(store)
            while left:
                kind, name = left.pop(0)
                if kind == "die":
                    DISK.num_changes, DISK.dies_at = 0, _IN_COMMIT[len(left) % len(_IN_COMMIT)]
                    finish(store, base, name)
                    DISK.dies_at = None  # it was committed before, which took fewer changes
                elif kind == "lose":
                    lose(store, base, name)
                elif kind == "late":
                    come_late(store, base, name, attempt=1)
                else:
                    for _ in range(2 if kind == "twice" else 1):
                        finish(store, base, name)
        world.check()


_IN_COMMIT = (9, 6, 12, 3)
"""Changes of the disk, of about 14, before which a process dies that trains and commits an adapter."""
KINDS = ("finish", "die", "lose", "late", "twice")


def sequences(length: int) -> Iterator[tuple[tuple[str, str], ...]]:
    """Yields all sequences of events of a round, one of those that differ only in which data set is which."""
    names = ROUNDS[0]
    for chosen in itertools.product(range(len(names)), repeat=length):
        if all(one <= max(chosen[:place], default=-1) + 1 for place, one in enumerate(chosen)):
            for kinds in itertools.product(KINDS, repeat=length):
                yield tuple(zip(kinds, (names[one] for one in chosen), strict=True))


def make_reference(root: Path) -> World:
    """Returns the world of a run without faults, whose bytes are the reference of others."""
    make_config(root)
    world = World(root)
    world.run()
    world.reference = {index: files_of(world.paths, index) for index in range(len(ROUNDS) + 1)}
    return world
