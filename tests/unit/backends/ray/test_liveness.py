"""Who is asked when, and what follows from the answers, on a clock of the test's own."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayActorError

from wfc_dist.activity import Activity
from wfc_dist.backends.hangs import Limits
from wfc_dist.backends.ray import liveness
from wfc_dist.backends.ray.liveness import ASK_AT_ONCE, Liveness
from wfc_dist.backends.worker import Report

LIMIT_S = 60.0


@dataclass(eq=False)
class Worker:
    """A rank that makes a step a second until `stops_s`, and answers until `silent_s`."""

    clock: list[float]
    stops_s: float = 1e9
    silent_s: float = 1e9
    dies_s: float = 1e9
    num_asked: int = 0

    @property
    def report(self) -> Any:
        def remote() -> "Ref":
            self.num_asked += 1
            return Ref(self, self.clock[0])

        return SimpleNamespace(remote=remote)


@dataclass(eq=False)
class Ref:
    worker: Worker
    asked_s: float


@dataclass
class FakeRay:
    clock: list[float]
    answers: bool = field(default=True)

    def wait(self, refs: list[Ref], num_returns: int, timeout: float) -> tuple[list[Ref], list[Ref]]:
        done = [ref for ref in refs if self.answers and ref.asked_s < ref.worker.silent_s]
        return done, [ref for ref in refs if ref not in done]

    def get(self, ref: Ref) -> Report:
        now_s = self.clock[0]
        if now_s >= ref.worker.dies_s:
            raise RayActorError
        idle_s = max(0.0, now_s - ref.worker.stops_s)
        return Report(Activity(doing="train", step=int(min(now_s, ref.worker.stops_s)), idle_s=idle_s, is_steady=True))


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay([0.0])
    monkeypatch.setattr(liveness, "ray", fake)
    monkeypatch.setattr(liveness, "time", SimpleNamespace(monotonic=lambda: fake.clock[0]))
    return fake


def until(ray: FakeRay, watched: Liveness[str], end_s: float) -> list:
    found = []
    while ray.clock[0] < end_s:
        found += [(ray.clock[0], key, hang.state.rank) for key, hang in watched.poll()]
        ray.clock[0] += 0.5
    return found


def make(*gangs: tuple[str, list[Worker]]) -> Liveness[str]:
    watched: Liveness[str] = Liveness(Limits(LIMIT_S, 30.0), 0.5)
    for key, workers in gangs:
        watched.add(key, workers)
    return watched


def test_the_silent_rank_of_a_gang_is_found_once_and_the_other_gang_goes_on(ray: FakeRay) -> None:
    waiting, silent = Worker(ray.clock, stops_s=100.0), Worker(ray.clock, stops_s=100.0, silent_s=100.0)
    watched = make(("a", [waiting, silent]), ("b", [Worker(ray.clock)]))
    ((found_s, key, rank),) = until(ray, watched, 400.0)
    assert (key, rank) == ("a", 1) and LIMIT_S <= found_s - 100.0 <= LIMIT_S + 2.0


def test_a_dead_rank_is_left_to_those_who_wait_for_its_work(ray: FakeRay) -> None:
    assert until(ray, make(("a", [Worker(ray.clock, dies_s=50.0)])), 400.0) == []


def test_where_nobody_looked_for_a_while_the_limits_begin_anew(ray: FakeRay) -> None:
    """A scheduler suspends a whole job: nothing has moved, and no question is answered at once when it goes on."""
    worker = Worker(ray.clock, stops_s=10.0)
    watched = make(("a", [worker]))
    assert until(ray, watched, 20.0) == []
    ray.clock[0], ray.answers = 4000.0, False
    assert until(ray, watched, 4001.0) == []
    ray.answers = True
    assert until(ray, watched, 4030.0) == [], "it may have been suspended, too"
    ((found_s, _, _),) = until(ray, watched, 4200.0)
    assert found_s <= 4000.0 + LIMIT_S + 2.0


def test_work_that_was_idle_before_gets_the_whole_limit(ray: FakeRay) -> None:
    ray.clock[0] = 1000.0
    watched = make(("a", [Worker(ray.clock, stops_s=0.0)]))
    ((found_s, _, _),) = until(ray, watched, 1200.0)
    assert LIMIT_S <= found_s - 1000.0 <= LIMIT_S + 2.0


def test_messages_a_second_do_not_grow_with_the_ranks(ray: FakeRay) -> None:
    workers = [Worker(ray.clock) for _ in range(100)]
    watched = make(*((f"a{number}", [worker]) for number, worker in enumerate(workers)))
    assert until(ray, watched, 50.0) == []
    numbers = [worker.num_asked for worker in workers]
    assert sum(numbers) <= ASK_AT_ONCE * 100 and max(numbers) - min(numbers) <= 1, "each in turn"
