"""Trainers that also finish the adapters which earlier rounds were committed without (`centralize.late: next_round`)."""

from collections.abc import Callable, Sequence
from pathlib import Path

from wfc_dist.rounds import Adapter, Base, Trainers
from wfc_dist.runs.grafts import graft, late_datasets
from wfc_dist.runs.store import RunStore
from wfc_dist.storage import durable


class LateTrainers:
    """Trainers (see `rounds.Trainers`) that hand in late adapters beside those of the round.

    Args:
        store: The opened run.
        trainers: Train what is asked of them.
        say: Gets a line for what is late.
    """

    def __init__(self, store: RunStore, trainers: Trainers, say: Callable[[str], None]) -> None:
        self._store, self._trainers, self._say = store, trainers, say

    def broadcast(self, base: Base) -> None:
        """See `rounds.Trainers`."""
        self._trainers.broadcast(base)

    def factorize(self, base: Base, datasets: Sequence[str]) -> dict[str, Adapter]:
        """See `rounds.Trainers`. Late adapters come first: the trainers hold `base` when the round's own are done."""
        late: dict[int, list[str]] = {}
        for dataset, index in late_datasets(self._store, base).items():
            if not durable.is_committed(self._store.paths.adapter(base.index + 1, dataset)):  # else it is there after a crash
                late.setdefault(index, []).append(dataset)
        found: dict[str, Adapter] = {}
        for index, names in late.items():
            found |= self._finished(index, names, base)
        return found | self._trainers.factorize(base, datasets)

    def _finished(self, index: int, names: Sequence[str], base: Base) -> dict[str, Adapter]:
        """Returns what could be finished of the late adapters of round `index`, as members of the round after `base`."""
        old = self._store.base(index - 1)
        assert old is not None, f"base {index - 1} is committed"
        adapters = self._store.finished_adapters(old, late=names)
        wanted = [name for name in names if name not in adapters and self._store.quarantine.may_retry(index, name)]
        if wanted:
            listed = f"{', '.join(wanted)} of round {index} {'is' if len(wanted) == 1 else 'are'} late"
            self._say(f"round {base.index + 1}: {listed}, and trained against base {old.index}")
            adapters |= self._trainers.factorize(old, wanted)
        return {name: graft(self._store, base, name, Path(adapters[name].path)) for name in names if name in adapters}
