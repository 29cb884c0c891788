"""Asks the ranks at work what they are doing, a few at a time, and finds those that hang. Waits for none."""

import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayError

from wfc_dist.activity import Activity
from wfc_dist.backends.hangs import Hang, Limits, RankState, hang_of

ASK_AT_ONCE = 8
"""Ranks asked each `ask_every_s`: messages a second do not grow with the number of ranks."""
PAUSED_S = 30.0
"""A longer time between two polls was none of the ranks."""
Key = TypeVar("Key", bound=Hashable)


@dataclass(eq=False)
class _Rank(Generic[Key]):
    """A rank at work.

    Attributes:
        key: Its work.
        rank: Its place in the gang.
        worker: Its actor.
        begun_s: When it got the work.
        asked_s: When it was asked what it has not answered yet; None where it owes no answer.
        still_s: For how long it had not moved when it answered last.
        said: Its last answer.
    """

    key: Key
    rank: int
    worker: Any
    begun_s: float
    asked_s: float | None = None
    still_s: float = 0.0
    said: Activity | None = None

    def state(self, now_s: float) -> RankState:
        return RankState(self.rank, 0.0 if self.asked_s is None else now_s - self.asked_s, self.still_s, self.said)


class Liveness(Generic[Key]):
    """The ranks at work, by the work that they do together.

    Args:
        limits: How long work may stand still.
        ask_every_s: Seconds between two times that some ranks are asked.
        on_report: Gets (work, rank, what the rank says) of every answer.
    """

    def __init__(self, limits: Limits, ask_every_s: float, on_report: Callable[[Key, int, Any], None] | None = None) -> None:
        self._limits, self._ask_every_s, self._on_report = limits, ask_every_s, on_report
        self._ranks: dict[Key, list[_Rank[Key]]] = {}
        self._to_ask: deque[_Rank[Key]] = deque()
        self._asked: dict[Any, _Rank[Key]] = {}
        self._asked_s, self._polled_s = float("-inf"), float("inf")

    def add(self, key: Key, workers: Sequence[Any]) -> None:
        """Adds work that has begun; its ranks are asked until `drop`."""
        now_s = time.monotonic()
        self._ranks[key] = [_Rank(key, rank, worker, now_s) for rank, worker in enumerate(workers)]
        self._to_ask.extend(self._ranks[key])

    def drop(self, key: Key) -> None:
        """Asks the ranks of this work no more. Does nothing for work that is not known."""
        self._ranks.pop(key, None)

    def poll(self) -> list[tuple[Key, Hang]]:
        """Takes in the answers that have come, asks the next ranks, and returns the work that hangs, which is dropped."""
        answered, _ = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0) if self._asked else ([], [])
        now_s = time.monotonic()
        if now_s - self._polled_s > PAUSED_S:
            self._begin_anew(now_s)
        self._polled_s = now_s
        for ref in answered:
            self._take(self._asked.pop(ref), ref, now_s)
        if now_s - self._asked_s < self._ask_every_s:
            return []
        self._asked_s = now_s
        self._ask(now_s)
        states = {key: [rank.state(now_s) for rank in ranks] for key, ranks in self._ranks.items()}
        hanging = [(key, hang) for key, of_work in states.items() if (hang := hang_of(of_work, self._limits))]
        for key, _ in hanging:
            self.drop(key)
        return hanging

    def _begin_anew(self, now_s: float) -> None:
        """Lets all time limits begin now: nobody has looked for a while, as where a scheduler suspends a whole job."""
        for rank in (rank for ranks in self._ranks.values() for rank in ranks):
            rank.begun_s, rank.still_s = now_s, 0.0
            rank.asked_s = None if rank.asked_s is None else now_s

    def _take(self, rank: "_Rank[Key]", ref: Any, now_s: float) -> None:
        rank.asked_s = None
        if rank not in self._ranks.get(rank.key, ()):
            return
        try:
            report = ray.get(ref)
        except RayError:
            return  # who waits for its work finds the lost one
        rank.said, rank.still_s = report.activity, min(report.activity.idle_s, now_s - rank.begun_s)
        self._to_ask.append(rank)
        if self._on_report:
            self._on_report(rank.key, rank.rank, report)

    def _ask(self, now_s: float) -> None:
        num_asked = 0
        while self._to_ask and num_asked < ASK_AT_ONCE:
            rank = self._to_ask.popleft()
            if rank in self._ranks.get(rank.key, ()):
                self._asked[rank.worker.report.remote()] = rank
                rank.asked_s = now_s
                num_asked += 1
