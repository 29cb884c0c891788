"""The algorithm over fakes that crash anywhere: the same call goes on, nothing finished is done again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wfc_dist.rounds import Adapter, Base, StagedBase, run_rounds

ROUNDS = [["a", "b", "c"], ["d", "e"]]


class Crash(Exception):
    pass


class Missing(Exception):
    pass


@dataclass
class World:
    """Everything a run does, in memory; `bases` and `adapters` survive a crash, as a disk does."""

    bases: dict[int, Base] = field(default_factory=lambda: {0: Base(0, "root", "0")})
    adapters: dict[tuple[str, str], Adapter] = field(default_factory=dict)
    scored: set[tuple[int, str]] = field(default_factory=set)
    done: list[str] = field(default_factory=list)
    crash_at: int = -1
    failing: frozenset[str] = frozenset()
    quorum_of: int = 99

    def act(self, what: str) -> None:
        if len(self.done) == self.crash_at:
            raise Crash
        self.done.append(what)

    def base(self, index: int) -> Base | None:
        return self.bases.get(index)

    def finished_adapters(self, base: Base) -> dict[str, Adapter]:
        return {name: adapter for (sha256, name), adapter in self.adapters.items() if sha256 == base.sha256}

    def factorize(self, base: Base, datasets: Sequence[str]) -> dict[str, Adapter]:
        made = {}
        for name in datasets[::-1]:  # the last one finishes first
            self.act(f"train {name} on {base.sha256}")
            if name in self.failing:
                continue
            made[name] = self.adapters[base.sha256, name] = Adapter(name, name, name, base.sha256, 1.0)
        return made

    def quorum(self, base: Base, datasets: Sequence[str], adapters: Mapping[str, Adapter]) -> list[Adapter]:
        present = [adapters[name] for name in datasets if name in adapters]
        if len(present) < min(self.quorum_of, len(datasets)):
            raise Missing
        return present

    def centralize(self, base: Base, adapters: Sequence[Adapter]) -> StagedBase:
        self.act("centralize")
        return StagedBase(base.index + 1, "", "", base.sha256 + "+" + "".join(item.sha256 for item in adapters), {})

    def commit(self, staged: StagedBase) -> Base:
        self.act("commit")
        self.bases[staged.index] = Base(staged.index, "", staged.sha256)
        return self.bases[staged.index]

    def broadcast(self, base: Base) -> None:
        self.act(f"broadcast {base.index}")

    def score(self, base: Base, adapters: Sequence[Adapter] = ()) -> None:
        for name in [item.dataset for item in adapters] or ["base"]:
            if (base.index, name) not in self.scored:
                self.act(f"score {name} on {base.index}")
                self.scored.add((base.index, name))


def test_all_rounds_in_order() -> None:
    world = World()
    last = run_rounds(ROUNDS, world, world, world, world)
    assert last.sha256 == "0+abc+de"  # data-set order, though c was trained first
    assert world.scored == {(0, "base"), (1, "base"), (2, "base"), *((0, n) for n in "abc"), *((1, n) for n in "de")}
    assert world.done.index("broadcast 1") < world.done.index("train e on 0+abc")


@pytest.mark.parametrize("crash_at", range(22))
def test_a_crash_anywhere_costs_no_finished_work(crash_at: int) -> None:
    world = World(crash_at=crash_at)
    try:
        run_rounds(ROUNDS, world, world, world, world)
    except Crash:
        world.crash_at = -1
        run_rounds(ROUNDS, world, world, world, world)
    assert world.bases[2].sha256 == "0+abc+de"
    for kind in ("train", "commit", "score"):
        once = [what for what in world.done if what.startswith(kind)]
        assert len(once) == {"train": 5, "commit": 2, "score": 8}[kind]


def test_a_finished_run_does_nothing() -> None:
    world = World()
    run_rounds(ROUNDS, world, world, world, world)
    before = [what for what in world.done if not what.startswith("broadcast")]
    run_rounds(ROUNDS, world, world, world, world)
    assert [what for what in world.done if not what.startswith("broadcast")] == before


def attempt(world: World, crash_at: int = -1) -> str | None:
    """Runs until the end, a crash or a missing quorum; returns the sha256 of the last base if the run ended well."""
    world.crash_at = len(world.done) + crash_at if crash_at >= 0 else -1
    try:
        return run_rounds(ROUNDS, world, world, world, world).sha256
    except (Crash, Missing):
        return None


NAMES = [name for names in ROUNDS for name in names]
ATTEMPTS = st.lists(st.tuples(st.frozensets(st.sampled_from(NAMES)), st.integers(1, 3), st.integers(0, 25)), max_size=6)


@given(attempts=ATTEMPTS)
def test_who_is_in_a_base_is_settled_once_and_nothing_finished_is_done_again(
    attempts: list[tuple[frozenset[str], int, int]],
) -> None:
    world, seen = World(), dict[int, str]()
    for failing, quorum_of, crash_at in [*attempts, (frozenset(), 99, -1)]:
        world.failing, world.quorum_of = failing, quorum_of
        ended = attempt(world, crash_at)
        for index, base in world.bases.items():
            assert seen.setdefault(index, base.sha256) == base.sha256, "a committed base never changes"
            merged = base.sha256.split("+")[index] if index else ""
            assert list(merged) == sorted(merged) and (not index or merged), "in the order of the data sets, and at least one"
            assert all((base_sha, name) in world.adapters for base_sha, name in merged_into(base, index))
    assert ended == world.bases[2].sha256, "when nothing fails any more, the run ends"
    trained = [what for what in world.done if what.startswith("train")]
    for sha256, name in world.adapters:
        assert trained.count(f"train {name} on {sha256}") >= 1
    committed = [what for what in world.done if what == "commit"]
    assert len(committed) == 2


def merged_into(base: Base, index: int) -> list[tuple[str, str]]:
    """Returns (sha256 of the base before, data set) of each adapter that the last round of a base has merged."""
    before, _, merged = base.sha256.rpartition("+")
    return [(before, name) for name in merged] if index else []
