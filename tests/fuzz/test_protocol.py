"""The protocol of a round, whoever dies, is late or comes twice: the same bytes, each adapter and base once, nothing left behind.

`WFC_TEST_ALL_CRASHES=1` tries a death before every change of the disk, and all sequences of three events.
"""

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import protocol
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from protocol import DISK, ROUNDS, World, finish, lose, may_die, merge, sequences

from wfc_dist.errors import GangFailedError, WfcError

ALL = bool(os.environ.get("WFC_TEST_ALL_CRASHES"))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return protocol.make_reference(tmp_path_factory.mktemp("protocol") / "root")


@pytest.fixture
def new(world: World) -> World:
    """A run that has not begun."""
    shutil.rmtree(world.paths.run_dir, ignore_errors=True)
    return world


def test_a_run_without_faults(new: World) -> None:
    new.run()
    new.check_end()


def test_a_death_before_any_change_of_the_disk(new: World) -> None:
    with may_die(None):
        new.run()
    num_changes = DISK.num_changes
    assert num_changes > 150
    for at in range(1, num_changes + 1) if ALL else (5, 13, 15, *range(29, num_changes + 1, 17)):
        shutil.rmtree(new.paths.run_dir)
        with may_die(at):
            new.run()
        assert DISK.is_dead
        new.check()
        new.run()
        new.check_end()


def test_a_death_while_the_death_before_is_repaired(new: World) -> None:
    for first in range(20, 200, 20 if ALL else 60):
        for second in range(3, 60, 6 if ALL else 25):
            shutil.rmtree(new.paths.run_dir, ignore_errors=True)
            for at in (first, second):
                with may_die(at):
                    new.run()
                new.check()
            new.run()
            new.check_end()


def test_all_sequences_of_events(new: World) -> None:
    found = list(sequences(3 if ALL else 2))
    assert len(found) == (625 if ALL else 50)
    with new.attempt():
        pass
    begun = shutil.copytree(new.paths.run_dir, new.root / "begun", symlinks=True)
    for events in found:
        shutil.rmtree(new.paths.run_dir)
        shutil.copytree(begun, new.paths.run_dir, symlinks=True)
        protocol.happen(new, events)
        new.run()
        new.check_end()
    shutil.rmtree(begun)


class Protocol(RuleBasedStateMachine):
    """A run of two rounds, whose attempts end and begin in any way, with results in any order."""

    world: World

    @initialize()
    def begin(self) -> None:
        shutil.rmtree(self.world.paths.run_dir, ignore_errors=True)
        self.context: Any = None
        self.store: Any = None
        self.deaths = 0

    def act(self, dies_at: int | None, what: Any) -> None:
        """Does something in the attempt that is open, which a death or an error ends."""
        with may_die(dies_at):
            what()
        if DISK.is_dead:
            self.deaths += 1
            self.close()

    def close(self) -> None:
        if self.context is not None:
            self.context.__exit__(None, None, None)
        self.context = self.store = None

    @precondition(lambda self: self.store is None)
    @rule(dies_at=st.none() | st.integers(1, 30))
    def open(self, dies_at: int | None) -> None:
        self.context = self.world.attempt()

        def enter() -> None:
            self.store = self.context.__enter__()

        with may_die(dies_at):
            enter()
        if DISK.is_dead:
            self.context = self.store = None
        else:
            self.world.check_ledger()

    @precondition(lambda self: self.store is not None and self.names())
    @rule(data=st.data(), dies_at=st.none() | st.integers(1, 16), kind=st.sampled_from(["finish", "lose", "twice", "late"]))
    def result(self, data: st.DataObject, dies_at: int | None, kind: str) -> None:
        base, name = self.world.base(self.store), data.draw(st.sampled_from(self.names()))
        attempt = data.draw(st.integers(1, self.store.attempt))

        def come() -> None:
            if kind == "lose":
                lose(self.store, base, name)
            elif kind == "late":
                protocol.come_late(self.store, base, name, attempt)
            else:
                for _ in range(2 if kind == "twice" else 1):
                    finish(self.store, base, name)

        self.act(dies_at, come)

    @precondition(lambda self: self.store is not None and self.world.base(self.store).index)
    @rule(data=st.data(), dies_at=st.none() | st.integers(1, 16))
    def result_of_a_merged_round(self, data: st.DataObject, dies_at: int | None) -> None:
        base = self.store.base(self.world.base(self.store).index - 1)
        name, attempt = data.draw(st.sampled_from(ROUNDS[base.index])), data.draw(st.integers(1, self.store.attempt))
        self.act(dies_at, lambda: protocol.come_late(self.store, base, name, attempt))

    @precondition(lambda self: self.store is not None and self.is_whole())
    @rule(dies_at=st.none() | st.integers(1, 60))
    def average(self, dies_at: int | None) -> None:
        self.act(dies_at, lambda: merge(self.store, self.world.base(self.store)))

    @precondition(lambda self: self.store is not None and self.names() and not self.is_whole())
    @rule(data=st.data())
    def quarantine(self, data: st.DataObject) -> None:
        base = self.world.base(self.store)
        there = self.store.finished_adapters(base)
        for name in (name for name in self.names() if name not in there):
            self.store.quarantine.add(base.index + 1, name, GangFailedError("it failed"), "", "h")
        with pytest.raises(WfcError, match="it failed"):
            merge(self.store, base)
        self.close()

    @precondition(lambda self: self.store is not None)
    @rule()
    def stop(self) -> None:
        self.store.stop("asked to")
        with pytest.raises(WfcError, match="asked to"):
            self.store.raise_if_stopped("now")
        self.close()

    def names(self) -> tuple[str, ...]:
        """Returns the data sets of the round that is not merged yet; none after the last."""
        index = self.world.base(self.store).index
        return ROUNDS[index] if index < len(ROUNDS) else ()

    def is_whole(self) -> bool:
        """Says whether all adapters of the round are there."""
        names = self.names()
        return bool(names) and {*names} <= self.store.finished_adapters(self.world.base(self.store)).keys()

    @invariant()
    def nothing_contradicts(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        self.close()
        self.world.run()
        self.world.check_end()


def test_any_life_of_a_run(new: World) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    Protocol.world = new
    examples, steps = (200, 25) if ALL else (8, 14)
    how = settings(max_examples=examples, stateful_step_count=steps, derandomize=True, deadline=None, database=None,
                   suppress_health_check=list(HealthCheck))  # fmt: skip
    run_state_machine_as_test(Protocol, settings=how)


def test_a_contradiction_is_seen(new: World) -> None:
    new.run()
    folder = Path(new.paths.base(1))
    (folder / "manifest.json").write_text((folder / "manifest.json").read_text().replace('"mean"', '"mode"'))
    with pytest.raises(WfcError, match="damaged"):
        new.check()
