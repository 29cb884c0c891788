"""Online mode: data sets arrive one by one; after each there is a base to serve, and every K of them are centralized.

    base t --factorize--> adapter --average of 1--> interim base, served at once
           --factorize--> adapter --average of 2--> interim base, served at once
           --factorize--> adapter --centralize----> base t+1 --broadcast--> the next K (here 3)

Adapters are trained against the last committed base, never against an interim one: base t+1 is the very base that `rounds`
makes of the same data sets, and what is served in between is what it would be if the round ended now.
Crash it anywhere; the same call goes on.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from wfc_dist.rounds import Adapter, Base, Scorer, StagedBase, Trainers


class Arrivals(Protocol):
    """The data sets, in the order in which they came."""

    def since(self, num_passed: int) -> Iterator[str]:
        """Yields the names after the first `num_passed`; waits for one that is not there yet, ends when the stream does."""


@runtime_checkable
class Centralizer(Protocol):
    """Averages adapters and merges the average into a base."""

    def centralize(self, base: Base, adapters: Sequence[Adapter]) -> StagedBase:
        """Returns base + average of `adapters`, summed in the order given: the next base."""

    def centralize_interim(self, base: Base, adapters: Sequence[Adapter]) -> StagedBase:
        """Returns the same sum, staged as an interim base."""


class Store(Protocol):
    """What has been committed; the only memory there is."""

    def newest_base(self) -> Base:
        """Returns the last committed base."""

    def base(self, index: int) -> Base | None:
        """Returns a committed base, or None."""

    def finished_adapters(self, base: Base) -> dict[str, Adapter]:
        """Returns the committed, verified adapters trained against `base`, by data set."""

    def interim(self, base: Base, adapters: Sequence[Adapter]) -> Base | None:
        """Returns the committed, verified interim base of exactly these adapters, or None."""

    def commit_interim(self, base: Base, adapters: Sequence[Adapter], staged: StagedBase) -> Base:
        """Makes an interim base exist."""

    def commit(self, staged: StagedBase) -> Base:
        """Makes the round exist."""

    def serve(self) -> None:
        """Points what is served to the newest base, interim or committed, and drops interim bases of rounds that are complete."""


def run_stream(
    arrivals: Arrivals, store: Store, trainers: Trainers, centralizer: Centralizer, scorer: Scorer, *, every: int
) -> Base:
    """Learns data sets as they arrive, or goes on with it, and returns the last committed base when the stream ends.

    Args:
        arrivals, store, trainers, centralizer, scorer: How the words are done.
        every: K, the number of adapters that make a base.
    """
    base = store.newest_base()
    store.serve()
    _score_what_was_cut_off(base, store, scorer)
    learned: list[Adapter] = []
    for name in arrivals.since(every * base.index):
        learned.append(store.finished_adapters(base).get(name) or trainers.factorize(base, [name])[name])
        if len(learned) < every:
            newest = store.interim(base, learned)
            newest = newest or store.commit_interim(base, learned, centralizer.centralize_interim(base, learned))
        else:
            newest = store.commit(centralizer.centralize(base, learned))
        store.serve()  # before anything is scored: nobody waits for that
        scorer.score(base, learned[-1:])
        scorer.score(base)  # on the new set as well: what would be served had one waited
        if not newest.num_pending:
            trainers.broadcast(newest)
            base, learned = newest, []
        scorer.score(newest)
    return base


def _score_what_was_cut_off(base: Base, store: Store, scorer: Scorer) -> None:
    """Scores the newest base, and what a crash right after its commit has left unscored of its round."""
    before = store.base(base.index - 1) if base.index else None
    if before is not None and not store.finished_adapters(base):  # later all of it was scored, before the next data set
        scorer.score(before, list(store.finished_adapters(before).values()))
        scorer.score(before)
    scorer.score(base)
