"""When is work a hang? Pure: what the ranks said is given in, and which of them hangs comes out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from wfc_dist.activity import Activity
from wfc_dist.config.cluster import ClusterConfig
from wfc_dist.errors import HungError

LEAST_S = 600.0
"""The least limit of `auto`: a hang is rare, and a large model on a slow disk is no hang."""
TIMES_SLOWEST = 10.0
"""`auto` waits for so many times the longest time between two moves of the same work."""
_STARTING = "starting"


@dataclass(frozen=True)
class Limits:
    """How long work may stand still.

    Attributes:
        configured: `cluster.hang_timeout_s`.
        start_s: `cluster.start_timeout_s`, which work may take at least until its first step.
    """

    configured: float | Literal["auto"] = "auto"
    start_s: float = 0.0

    @classmethod
    def of(cls, cluster: ClusterConfig) -> "Limits":
        """Returns the limits of a configuration."""
        return cls(cluster.hang_timeout_s, cluster.start_timeout_s)

    def silence_s(self) -> float:
        """Returns for how many seconds a process may say nothing that says something again and again, whatever it works at."""
        return LEAST_S if self.configured == "auto" else self.configured

    def limit_s(self, activities: Sequence[Activity]) -> float:
        """Returns for how many seconds work may stand still whose ranks said this; ranks wait for one another."""
        slowest_s = max((activity.slowest_s for activity in activities), default=0.0)
        limit_s = max(LEAST_S, TIMES_SLOWEST * slowest_s) if self.configured == "auto" else self.configured
        is_steady = any(activity.is_steady for activity in activities)
        return limit_s if is_steady else max(limit_s, self.start_s)


@dataclass(frozen=True)
class RankState:
    """What is known of one rank.

    Attributes:
        rank: Its world rank.
        silent_s: Seconds since the question that it has not answered; 0 where it owes no answer.
        still_s: Seconds for which its work had not moved when it answered last; 0 before.
        said: Its last answer; None before.
    """

    rank: int
    silent_s: float
    still_s: float
    said: Activity | None = None

    def words(self) -> str:
        """Returns what is wrong with the rank, in words."""
        said = self.said or Activity()
        where = f"in {said.doing or _STARTING} after step {said.step}" if said.step else f"in {said.doing or _STARTING}"
        file = f", reading {said.reading}" if said.reading else ""
        if self.silent_s > 0:
            return f"has not answered for {self.silent_s:.0f} s, last seen {where}{file}"
        return f"has not moved for {self.still_s:.0f} s {where}{file}"


@dataclass(frozen=True)
class Hang:
    """Work that hangs.

    Attributes:
        state: The rank to which that is due.
        limit_s: The limit that it has passed.
    """

    state: RankState
    limit_s: float

    def error(self, work: str, host: str, who: str = "", *, has_key: bool = True) -> HungError:
        """Returns the error that names the work, the rank (or `who`), its host and what it was at.

        `has_key` says whether a configuration sets the limit.
        """
        look = "at the file and its mount" if self.state.said and self.state.said.reading else "at that host"
        who = who or f"rank {self.state.rank}"
        if not has_key:
            return HungError(f"{work}: {who} on {host} {self.state.words()}; look {look}, then run the same command")
        return HungError(
            f"{work}: {who} on {host} {self.state.words()}; look {look}, "
            f"or raise cluster.hang_timeout_s (now {self.limit_s:.0f} s) if it is only slow"
        )

    def facts(self) -> dict[str, object]:
        """Returns what the ledger keeps: rank, step, phase and file."""
        said = self.state.said or Activity()
        facts: dict[str, object] = {"rank": self.state.rank, "step": said.step, "phase": said.doing or _STARTING}
        return facts | ({"file": said.reading} if said.reading else {})


def hang_of(states: Sequence[RankState], limits: Limits) -> Hang | None:
    """Returns the hang of a gang whose ranks wait for one another; None while it may be only slow.

    A rank that stops makes the others stand still, too. So a rank that has been silent for half the limit is named first; then
    one that reads a file, since the others do not wait while they read; then the one with the least steps.
    """
    limit_s = limits.limit_s([state.said for state in states if state.said is not None])
    if not any(max(state.silent_s, state.still_s) >= limit_s for state in states):
        return None
    silent = [state for state in states if state.silent_s >= limit_s / 2]
    if silent:
        return Hang(max(silent, key=lambda state: (state.silent_s, -state.rank)), limit_s)
    still = [state for state in states if state.said is not None]
    reading = [state for state in still if state.said and state.said.reading_s >= limit_s / 2]
    return Hang(min(reading or still, key=lambda state: (state.said.step if state.said else 0, state.rank)), limit_s)
