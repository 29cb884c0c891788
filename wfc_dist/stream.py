"""Online mode: data sets arrive one by one; after each there is a base to serve, and every K of them are centralized.

    base t --factorize--> adapter --average of 1--> interim base, served at once
           --factorize--> adapter --average of 2--> interim base, served at once
           --factorize--> adapter --centralize----> base t+1 --broadcast--> the next K (here 3)

Adapters are trained against the last committed base, never against an interim one. So base t+1 is the same base that `rounds`
makes of the same data sets, and an interim base is the base that would be committed if the round ended there.
After a crash at any point the same call goes on.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from wfc_dist.rounds import Adapter, Base, Centralizer, RoundStore, Scorer, StagedBase, Trainers


class Arrivals(Protocol):
    """The data sets, in the order of arrival."""

    def since(self, num_passed: int) -> Iterator[str]:
        """Yields the names after the first `num_passed`, waits for those that have not arrived, and ends when the stream ends."""


@runtime_checkable
class StreamCentralizer(Centralizer, Protocol):
    """A centralizer that also makes interim bases."""

    def centralize_interim(self, base: Base, adapters: Sequence[Adapter]) -> StagedBase:
        """Returns the sum that `centralize` returns, staged as an interim base."""


class Store(RoundStore, Protocol):
    """The committed bases, interim bases and adapters, which are the only state of a stream."""

    def newest_base(self) -> Base:
        """Returns the last committed base."""

    def interim(self, base: Base, adapters: Sequence[Adapter]) -> Base | None:
        """Returns the committed, verified interim base of exactly these adapters, or None."""

    def commit_interim(self, base: Base, adapters: Sequence[Adapter], staged: StagedBase) -> Base:
        """Commits an interim base: it exists from then on."""

    def serve(self) -> None:
        """Serves the newest base, interim or committed, and removes the interim bases of complete rounds."""


def run_stream(
    arrivals: Arrivals, store: Store, trainers: Trainers, centralizer: StreamCentralizer, scorer: Scorer, *, every: int
) -> Base:
    """Learns data sets as they arrive, or goes on where an earlier call ended; returns the last committed base at the end.

    Args:
        arrivals, store, trainers, centralizer, scorer: Implementations of the verbs.
        every: K, the number of adapters that make a base.
    """
    base = store.newest_base()
    store.serve()
    _score_what_a_crash_left(base, store, scorer)
    learned: list[Adapter] = []
    for name in arrivals.since(every * base.index):
        finished = store.finished_adapters(base)
        learned += store.quorum(base, [name], finished if name in finished else trainers.factorize(base, [name]))
        if len(learned) < every:
            newest = store.interim(base, learned)
            newest = newest or store.commit_interim(base, learned, centralizer.centralize_interim(base, learned))
        else:
            newest = store.commit(centralizer.centralize(base, learned))
        store.serve()  # before scoring, which takes longer
        scorer.score(base, learned[-1:])
        scorer.score(base)  # on the new set as well: its error if nothing had been learned
        if not newest.num_pending:
            trainers.broadcast(newest)
            base, learned = newest, []
        scorer.score(newest)
    return base


def _score_what_a_crash_left(base: Base, store: Store, scorer: Scorer) -> None:
    """Scores the newest base, and those models of its round that a crash after the commit has left unscored."""
    before = store.base(base.index - 1) if base.index else None
    if before is not None and not store.finished_adapters(base):  # else they were scored before the next data set
        scorer.score(before, list(store.finished_adapters(before).values()))
        scorer.score(before)
    scorer.score(base)
