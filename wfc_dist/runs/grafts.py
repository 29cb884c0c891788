"""Adapters that are merged into another base than the one they were trained against: of a branch, or late ones of a quorum.

A late adapter is one whose round was committed without it (`centralize.quorum`). With `centralize.late: next_round` it is trained
against the base of its round all the same, and a copy of it becomes a member of a later round. The manifest of the copy says
`trained_against`, and the base that merges it says `grafted`.
"""

import shutil
from pathlib import Path

from wfc_dist.rounds import Adapter, Base
from wfc_dist.runs.late_results import awaited
from wfc_dist.runs.store import RunStore
from wfc_dist.storage import durable

_OF_THE_FOLDER = ("files", "schema", "checksum", "dataset", "base_sha256", "trained_against", "late")
"""Facts in an adapter's manifest that its place in a run decides."""


def late_datasets(store: RunStore, base: Base) -> dict[str, int]:
    """Returns data set -> its round, of those that the round after `base` folds in (see `awaited`), in the order of summation."""
    late = awaited(store.config, store.ledger.lines(), base.index)
    return {name: late[name] for name in store.config.in_order(base.index + 1, late)} if late else {}


def graft(store: RunStore, base: Base, dataset: str, folder: Path) -> Adapter:
    """Commits a verified copy of an adapter to the round after `base`. One of another base says what it was trained against.

    Raises:
        IntegrityError: The adapter is damaged.
    """
    manifest = durable.verify_folder(folder)
    staged = store.stage_adapter(base, dataset)
    shutil.copytree(folder, staged, dirs_exist_ok=True)
    (staged / durable.MANIFEST).unlink()
    facts = {key: value for key, value in manifest.items() if key not in _OF_THE_FOLDER}
    against = manifest.get("trained_against", manifest["base_sha256"])
    if against != base.sha256:
        facts["trained_against"] = against
    return store.commit_adapter(base, dataset, staged, facts)
