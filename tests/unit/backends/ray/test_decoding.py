"""The decoding loop tells how many sets are decoded, fractions included, also when a worker is lost."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayActorError

from wfc_dist.activity import Activity
from wfc_dist.backends.failure_policy import Failure
from wfc_dist.backends.ray import decoding, liveness
from wfc_dist.backends.ray.decoding import Decoding
from wfc_dist.backends.ray.fleet import Loss
from wfc_dist.backends.worker import Report
from wfc_dist.config.cluster import ClusterConfig
from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.config.schema import EvaluateConfig
from wfc_dist.errors import GangFailedError
from wfc_dist.evaluation.scoring import ScoreTask
from wfc_dist.rounds import Base

DATA = DatasetConfig(source="x")


@dataclass(eq=False)
class Ref:
    """An answer that is there once `ready_s` is over."""

    value: Any
    ready_s: float


@dataclass
class Worker:
    """A worker that needs 10 s a task, counts from its first task, and dies at `dies_s`."""

    clock: list[float]
    dies_s: float = 1e9
    begun_s: float = 0.0
    asked: int = field(default=0)

    @property
    def score(self) -> Any:
        def remote(task: ScoreTask) -> Ref:
            self.begun_s = self.clock[0]
            return Ref({name: [] for name in task.sets}, self.begun_s + 10)

        return SimpleNamespace(remote=remote)

    @property
    def report(self) -> Any:
        def remote() -> Ref:
            self.asked += 1
            dead = self.clock[0] >= self.dies_s
            share = (self.clock[0] - self.begun_s) / 10
            return Ref(RayActorError() if dead else Report(Activity(doing="evaluate"), decoded=share), self.clock[0])

        return SimpleNamespace(remote=remote)


@dataclass(eq=False)
class Gang:
    workers: list[Worker]


class FakeRay:
    def __init__(self, clock: list[float]) -> None:
        self.clock = clock

    def wait(self, refs: list[Ref], num_returns: int, timeout: float) -> tuple[list[Ref], list[Ref]]:
        assert len(set(map(id, refs))) == num_returns and timeout == 0
        done = [ref for ref in refs if ref.ready_s <= self.clock[0]]
        return done, [ref for ref in refs if ref not in done]

    @staticmethod
    def get(ref: Ref) -> Any:
        if isinstance(ref.value, Exception):
            raise ref.value
        return ref.value


def run(monkeypatch: pytest.MonkeyPatch, workers: list[Worker], clock: list[float], num_tasks: int) -> tuple[list[float], list]:
    """Returns what was told each second, and the tasks that were handed over."""
    for module in (decoding, liveness):
        monkeypatch.setattr(module, "ray", FakeRay(clock))
    monkeypatch.setattr(liveness.time, "monotonic", lambda: clock[0])

    def wait(_: object) -> None:
        clock[0] += 1

    gang = Gang(workers)
    fleet = SimpleNamespace(
        tick=lambda: None, ready=lambda: [gang], retire=lambda _: None, wait=wait, worked=lambda *_, **__: None
    )
    store = SimpleNamespace(raise_if_stopped=lambda _: None, config=SimpleNamespace(cluster=ClusterConfig()))
    tasks = [ScoreTask(Base(0, "b", "0"), None, {f"{n}a": DATA, f"{n}b": DATA}, EvaluateConfig()) for n in range(num_tasks)]
    told: list[float] = []
    done: list = []
    Decoding(store, fleet, lambda *_: None, tasks, lambda task, _: done.append(task), told=told.append).run()  # type: ignore[arg-type]
    return told, done


def test_it_tells_fractions_of_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    workers = [Worker(clock), Worker(clock)]
    told, done = run(monkeypatch, workers, clock, num_tasks=3)
    assert len(done) == 3 and told[-1] == 6
    assert told == sorted(told) and any(value % 2 for value in told), "there is something between whole tasks"
    assert sum(worker.asked for worker in workers) <= 2 * len(told) / decoding.ASK_EVERY_S + 4


def test_a_question_to_a_lost_worker_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    told, done = run(monkeypatch, [Worker(clock, dies_s=0.0), Worker(clock)], clock, num_tasks=2)
    assert len(done) == 2 and told[-1] == 4


@dataclass
class DyingWorker(Worker):
    """A worker of which the first `num_lost` tasks are lost."""

    num_lost: int = 0

    @property
    def score(self) -> Any:
        def remote(task: ScoreTask) -> Ref:
            self.num_lost -= 1
            return Ref(RayActorError() if self.num_lost >= 0 else {name: [] for name in task.sets}, self.clock[0])

        return SimpleNamespace(remote=remote)


@pytest.mark.parametrize(
    ("losses", "given_up"),
    [
        ([(Failure.EARLY, "x")] * 5, False),
        ([(Failure.NODE_GONE, "x"), (Failure.NODE_GONE, "y")] * 3, False),
        ([(Failure.CRASHED, "x")], False),
        ([(Failure.CRASHED, "x")] * 2, True),
        ([(Failure.EARLY, "x"), (Failure.EARLY, "y"), (Failure.EARLY, "y")], True),
    ],
)
def test_a_lost_task_is_decoded_again_and_failures_of_nodes_are_not_those_of_the_model(
    monkeypatch: pytest.MonkeyPatch, losses: list[tuple[Failure, str]], given_up: bool
) -> None:
    clock, left, done = [0.0], list(losses), []
    for module in (decoding, liveness):
        monkeypatch.setattr(module, "ray", FakeRay(clock))
    monkeypatch.setattr(liveness.time, "monotonic", lambda: clock[0])
    gang = Gang([DyingWorker(clock, num_lost=len(losses))])

    def lose(lost: Gang, last: dict[int, Ref], settle: Any) -> None:
        assert lost is gang and list(last) == [0]
        failure, node = left.pop(0)
        settle(Loss(failure, ImportError("torch"), node, f"host-{node}"))

    fleet = SimpleNamespace(tick=lambda: None, ready=lambda: [gang], retire=lambda _: None, wait=lambda _: None, lose=lose,
                            worked=lambda *_, **__: None)  # fmt: skip
    cluster = ClusterConfig(max_failures=1)
    store = SimpleNamespace(raise_if_stopped=lambda _: None, config=SimpleNamespace(cluster=cluster))
    task = ScoreTask(Base(0, "b", "0"), None, {"a": DATA}, EvaluateConfig())
    loop = Decoding(store, fleet, lambda *_: None, [task], lambda task, _: done.append(task), told=lambda _: None)  # type: ignore[arg-type]
    if given_up:
        with pytest.raises(GangFailedError, match=r"scoring base-0000 on host-. failed: ImportError: torch"):
            loop.run()
    else:
        loop.run()
        assert done == [task] and not left
