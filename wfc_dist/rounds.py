"""The algorithm: factorize, centralize, broadcast, score, then the next round. After a crash at any point the same call goes on.

    base 0 --factorize--> K adapters --centralize--> base 1 --broadcast--> round 2 ...

The other modules of the package implement these verbs, or support or report on them. Source: arXiv 2506.16574.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Base:
    """The shared frozen model after `index` rounds.

    Attributes:
        index: Number of rounds merged into the base; 0 is the root model itself.
        path: Folder that loads with `WhisperForConditionalGeneration.from_pretrained`.
        sha256: Hash of the tensors (names, dtypes, shapes, bytes), independent of their layout in files.
        num_pending: Adapters of the next round that are merged already; above 0 for an interim base (see `stream`).
    """

    index: int
    path: str
    sha256: str
    num_pending: int = 0


@dataclass(frozen=True)
class Adapter:
    """One finished LoRA adapter, which one data set has trained against one base.

    Attributes:
        dataset: Name of the data set.
        path: PEFT folder, loads with `PeftModel.from_pretrained`.
        sha256: Hash of the tensors.
        base_sha256: The base of the training; the adapter may be merged into no other.
        hours: Hours of speech in the training split, for `centralize.weights: hours`.
    """

    dataset: str
    path: str
    sha256: str
    base_sha256: str
    hours: float


@dataclass(frozen=True)
class StagedBase:
    """A new base and the delta that made it, written but not yet committed."""

    index: int
    path: str
    delta_path: str
    sha256: str
    facts: Mapping[str, Any]


class Trainers(Protocol):
    """K trainer gangs (worker groups) that stay warm from round to round."""

    def broadcast(self, base: Base) -> None:
        """Brings `base` to every warm trainer, which verifies its hashes."""

    def factorize(self, base: Base, datasets: Sequence[str]) -> dict[str, Adapter]:
        """Trains and commits one adapter per data set against `base`, in parallel. One that keeps failing is left out."""


class Centralizer(Protocol):
    """Averages adapters and merges the average into a base."""

    def centralize(self, base: Base, adapters: Sequence[Adapter]) -> StagedBase:
        """Returns base + average of `adapters`, summed in the order given."""


class RoundStore(Protocol):
    """The committed bases and adapters, which are the only state of a run."""

    def base(self, index: int) -> Base | None:
        """Returns a committed base, or None."""

    def finished_adapters(self, base: Base) -> dict[str, Adapter]:
        """Returns the committed, verified adapters trained against `base`, by data set."""

    def quorum(self, base: Base, datasets: Sequence[str], adapters: Mapping[str, Adapter]) -> Sequence[Adapter]:
        """Returns the adapters of a round, in the order of its data sets. Raises the error of a missing one if too many are."""

    def commit(self, staged: StagedBase) -> Base:
        """Commits the next base: the round exists from then on."""


class Scorer(Protocol):
    """Measures what was learned and what was forgotten; scores no model twice."""

    def score(self, base: Base, adapters: Sequence[Adapter] = ()) -> None:
        """Scores adapters on top of `base`, or without adapters the base itself, on every test set."""


def run_rounds(
    rounds: Sequence[Sequence[str]], store: RoundStore, trainers: Trainers, centralizer: Centralizer, scorer: Scorer
) -> Base:
    """Runs all rounds (data sets in the order of summation), or goes on where an earlier call ended; returns the last base."""
    base = store.base(0)
    assert base is not None, "base 0 is committed when a run is opened"
    scorer.score(base)
    for datasets in rounds:
        adapters = store.finished_adapters(base)  # resume inside a round
        next_base = known = store.base(base.index + 1)
        if next_base is None:
            adapters |= trainers.factorize(base, [name for name in datasets if name not in adapters])
            present = store.quorum(base, datasets, adapters)  # all of them, unless the configuration asks for less
            next_base = store.commit(centralizer.centralize(base, present))  # the round exists, and who is in it is settled
        scorer.score(base, [adapters[name] for name in datasets if name in adapters])  # a lost one is in its base already
        if known is None:
            trainers.broadcast(next_base)
        scorer.score(next_base)
        base = next_base
    return base
