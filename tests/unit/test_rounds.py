"""The algorithm over fakes that crash anywhere: the same call goes on, nothing finished is done again."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from wfc_dist.rounds import Adapter, Base, StagedBase, run_rounds

ROUNDS = [["a", "b", "c"], ["d", "e"]]


class Crash(Exception):
    pass


@dataclass
class World:
    """Everything a run does, in memory; `bases` and `adapters` survive a crash, as a disk does."""

    bases: dict[int, Base] = field(default_factory=lambda: {0: Base(0, "root", "0")})
    adapters: dict[tuple[str, str], Adapter] = field(default_factory=dict)
    scored: set[tuple[int, str]] = field(default_factory=set)
    done: list[str] = field(default_factory=list)
    crash_at: int = -1

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
            made[name] = self.adapters[base.sha256, name] = Adapter(name, name, name, base.sha256, 1.0)
        return made

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
