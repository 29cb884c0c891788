"""The online algorithm over fakes that crash anywhere: something is always served, nothing finished is done again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from wfc_dist.rounds import Adapter, Base, StagedBase, run_rounds
from wfc_dist.stream import StreamCentralizer, run_stream

NAMES = "abcdefgh"


class Crash(Exception):
    pass


@dataclass
class World:
    """Everything a stream does, in memory; what is committed survives a crash, as a disk does."""

    names: str = NAMES
    bases: list[Base] = field(default_factory=lambda: [Base(0, "root", "0")])
    interims: dict[str, Base] = field(default_factory=dict)
    adapters: dict[tuple[str, str], Adapter] = field(default_factory=dict)
    served: list[str] = field(default_factory=list)
    scored: set[tuple[str, str, int]] = field(default_factory=set)
    done: list[str] = field(default_factory=list)
    num_arrived: int = 0
    crash_at: int = -1

    def act(self, what: str) -> None:
        if len(self.done) == self.crash_at:
            raise Crash
        self.done.append(what)

    def since(self, num_passed: int) -> Iterator[str]:
        for number, name in enumerate(self.names, start=1):
            self.num_arrived = max(self.num_arrived, number)
            if number > num_passed:
                yield name

    def newest_base(self) -> Base:
        return self.bases[-1]

    def base(self, index: int) -> Base | None:
        return self.bases[index] if index < len(self.bases) else None

    def finished_adapters(self, base: Base) -> dict[str, Adapter]:
        return {name: adapter for (sha256, name), adapter in self.adapters.items() if sha256 == base.sha256}

    def quorum(self, base: Base, datasets: Sequence[str], adapters: Mapping[str, Adapter]) -> list[Adapter]:
        return [adapters[name] for name in datasets]

    def factorize(self, base: Base, datasets: Sequence[str]) -> dict[str, Adapter]:
        assert not base.num_pending, "nothing is trained against an interim base"
        for name in datasets:
            self.act(f"train {name}")
            self.adapters[base.sha256, name] = Adapter(name, name, name, base.sha256, 1.0)
        return {name: self.adapters[base.sha256, name] for name in datasets}

    def centralize(self, base: Base, adapters: Sequence[Adapter]) -> StagedBase:
        self.act("centralize")
        return StagedBase(base.index + 1, "", "", base.sha256 + "+" + "".join(item.sha256 for item in adapters), {})

    def centralize_interim(self, base: Base, adapters: Sequence[Adapter]) -> StagedBase:
        return self.centralize(base, adapters)

    def interim(self, base: Base, adapters: Sequence[Adapter]) -> Base | None:
        return self.interims.get(base.sha256 + "+" + "".join(item.sha256 for item in adapters))

    def commit_interim(self, base: Base, adapters: Sequence[Adapter], staged: StagedBase) -> Base:
        self.act("commit interim")
        self.interims[staged.sha256] = Base(base.index, "", staged.sha256, len(adapters))
        return self.interims[staged.sha256]

    def commit(self, staged: StagedBase) -> Base:
        self.act("commit")
        self.bases.append(Base(staged.index, "", staged.sha256))
        return self.bases[-1]

    def serve(self) -> None:
        self.act("serve")
        newest = max([*self.bases, *self.interims.values()], key=lambda base: (base.index, base.num_pending))
        self.served += [newest.sha256] if newest.sha256 not in self.served[-1:] else []

    def broadcast(self, base: Base) -> None:
        self.act(f"broadcast {base.index}")

    def score(self, base: Base, adapters: Sequence[Adapter] = ()) -> None:
        for name in [item.dataset for item in adapters] or ["base"]:
            key = (base.sha256, name, 0 if base.num_pending or adapters else self.num_arrived)  # a base on all sets so far
            if key not in self.scored:
                self.act(f"score {name} on {base.sha256}")
                self.scored.add(key)


def stream(world: World, every: int = 3) -> Base:
    assert isinstance(world, StreamCentralizer)
    return run_stream(world, world, world, world, world, every=every)


def test_something_newer_is_served_after_every_arrival() -> None:
    world = World()
    last = stream(world)
    assert world.served == ["0", "0+a", "0+ab", "0+abc", "0+abc+d", "0+abc+de", "0+abc+def", "0+abc+def+g", "0+abc+def+gh"]
    assert last == world.bases[2]


def test_the_bases_are_those_of_a_run() -> None:
    streamed, run = World("abcdef"), World("abcdef")
    stream(streamed)
    run_rounds(["abc", "def"], run, run, run, run)
    assert streamed.bases == run.bases


def test_with_one_adapter_a_base_nothing_is_interim() -> None:
    world = World("abc")
    stream(world, every=1)
    assert not world.interims and world.served == ["0", "0+a", "0+a+b", "0+a+b+c"]


def test_what_is_served_comes_before_what_is_scored() -> None:
    world = World("abc")
    stream(world)
    after = world.done[world.done.index("commit interim") + 1 :]
    assert after[:4] == ["serve", "score a on 0", "score base on 0", "score base on 0+a"]
    assert world.done.index("broadcast 1") < world.done.index("score base on 0+abc")


def whole() -> World:
    world = World()
    stream(world)
    return world


@pytest.mark.parametrize("crash_at", range(len(whole().done)))
def test_a_crash_anywhere_costs_no_finished_work(crash_at: int) -> None:
    expected, world = whole(), World(crash_at=crash_at)
    with pytest.raises(Crash):
        stream(world)
    world.crash_at = -1
    stream(world)
    assert (world.bases, world.interims, world.served) == (expected.bases, expected.interims, expected.served)
    assert expected.scored <= world.scored
    for kind in ("train", "commit"):
        assert sorted(what for what in world.done if what.startswith(kind)) == sorted(
            what for what in expected.done if what.startswith(kind)
        )


def test_a_stream_goes_on_with_what_has_arrived_since() -> None:
    world = World("abcd")
    stream(world)
    world.names = NAMES
    stream(world)
    assert world.bases == whole().bases and world.served == whole().served
