"""Makes damaged parts of committed rounds anew from what is intact: delta and base of a round from its adapters, same bytes."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from wfc_dist.backends.jobs import centralize_job, merged_as
from wfc_dist.errors import IntegrityError
from wfc_dist.rounds import Adapter, Base
from wfc_dist.runs.layout import read_base
from wfc_dist.runs.store import RunStore
from wfc_dist.storage import durable

logger = logging.getLogger(__name__)


def repair_rounds(
    store: RunStore, say: Callable[[str], None], *, every_byte: bool = False, before: Callable[[int], None] = lambda index: None
) -> None:
    """Verifies the delta and the base of each committed round, and makes damaged ones anew.

    Args:
        store: The opened run, with its root.
        say: Gets a line for each round that is made anew.
        every_byte: Also hash the files of bases before the last one, from which nothing is made.
        before: Called with each round, once the rounds before it are whole.

    Raises:
        IntegrityError: A part is damaged, and what it is made from, too; the message names both.
    """
    for index in range(1, store.paths.last_base() + 1):
        before(index)
        if damage := store.damage(index, every_byte=every_byte):
            say(f"{damage}; round {index} is averaged and merged anew")
            remake_round(store, index, damage)


def remake_round(store: RunStore, index: int, damage: IntegrityError) -> None:
    """Averages and merges the adapters of a committed round again, and replaces the round's delta and base.

    Raises:
        IntegrityError: An adapter of the round is damaged, too, or the result is not what was committed.
    """
    from wfc_dist.centralize import collectives
    from wfc_dist.centralize.rank import centralize_rank
    from wfc_dist.centralize.readback import require_as_computed
    from wfc_dist.coordinator.reading_back import sources_of

    recorded = (store.recorded_base(index) or {}).get("sha256")
    before = read_base(store.paths.run_dir, index - 1)
    assert before is not None, f"base {index - 1} is committed"
    try:
        line = store.recorded_base(index) or {}
        names = line.get("weights") or store.config.round_list()[index - 1]
        adapters = [_adapter(store, before[0], name) for name in store.config.in_order(index, names)]
        job = centralize_job(store, before[0], adapters)
        job = merged_as(job, line, store) if "weights" in line else job  # the earliest versions recorded the sha256 only
        staged = centralize_rank(replace(job, past_deltas=job.past_deltas[: index - 1]), collectives.Group())
        assert staged is not None, "rank 0 gets the result"
        require_as_computed(staged, sources_of(store, index), store.tensor_hashes(before[0]))
    except IntegrityError as error:
        raise IntegrityError(
            f"{damage.message}. It cannot be made anew: {error.message}. Restore one of the two from a backup, then run again"
        ) from error
    if staged.sha256 != recorded:
        raise IntegrityError(
            f"{damage.message}. Made anew from its adapters, base {index} has sha256 {staged.sha256[:12]}, the run committed "
            f"{(recorded or 'nothing known')[:12]}: restore the damaged file from a backup, or use the libraries of the run"
        )
    store.replace_round(staged)
    logger.warning("round %d was made anew: %s", index, damage.message)


def _adapter(store: RunStore, base: Base, dataset: str) -> Adapter:
    folder: Path = store.paths.adapter(base.index + 1, dataset)
    store.mirror.fetch(folder)
    facts = durable.verify_folder(folder)
    return Adapter(dataset, str(folder), facts["sha256"], facts["base_sha256"], facts["hours"])
