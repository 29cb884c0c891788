"""The files of a stream in the run directory: interim bases, and a link to the base that is served."""

import os
from collections.abc import Sequence
from pathlib import Path

from wfc_dist import log
from wfc_dist.errors import IntegrityError
from wfc_dist.rounds import Adapter, Base
from wfc_dist.runs.handle import Run
from wfc_dist.runs.layout import read_interim
from wfc_dist.runs.store import RunStore
from wfc_dist.storage import durable


def newest_servable(run_dir: Path) -> Base:
    """Returns the newest base of a run: the largest interim base after the last commit, or the last committed base.

    Raises InputError if the folder is not a run, or if no base is committed.
    """
    run = Run(run_dir)
    last = run.base()
    bases = [Base(last.index, str(last.path), last.sha256)]
    for folder in run.paths.interims(last.index + 1):
        manifest = read_interim(folder)
        if manifest is not None and folder.name.removeprefix("interim-").isdecimal():
            bases.append(Base(last.index, str(folder), manifest["sha256"], len(manifest["adapters"])))
    return max(bases, key=lambda base: base.num_pending)


class StreamStore:
    """A run opened for a stream (see `stream.Store`).

    Args:
        store: The opened run.
        arrived_s: Data set -> arrival in seconds since the epoch. The caller adds each data set that arrives.
    """

    def __init__(self, store: RunStore, arrived_s: dict[str, float]) -> None:
        self._store, self._arrived_s = store, arrived_s
        self.base, self.finished_adapters = store.base, store.finished_adapters
        self.commit, self.commit_interim, self.quorum = store.commit, store.commit_interim, store.quorum
        lines = store.ledger.lines()
        self._told = {(line["base"], line["num_pending"]) for line in lines if line["event"] == "served"}

    def newest_base(self) -> Base:
        """See `stream.Store`."""
        base = self._store.base(Run(self._store.paths.run_dir).base().index)
        assert base is not None, "the base was found a moment ago"
        return base

    def interim(self, base: Base, adapters: Sequence[Adapter]) -> Base | None:
        """See `stream.Store`. A damaged interim base counts as missing; the next commit replaces it."""
        folder = self._store.paths.interim(base.index + 1, len(adapters))
        try:
            manifest = read_interim(folder)
            if manifest is None or manifest["adapters"] != {adapter.dataset: adapter.sha256 for adapter in adapters}:
                return None
            durable.verify_folder(folder, frozenset(manifest["links"]))  # the root's own files were verified at the start
        except IntegrityError:
            return None
        return Base(base.index, str(folder), manifest["sha256"], len(adapters))

    def serve(self) -> None:
        """See `stream.Store`. The link is replaced atomically. The ledger records the age of each data set at that time."""
        run_dir = self._store.paths.run_dir
        base = newest_servable(run_dir)
        path, link = Path(base.path), self._store.paths.serving
        target = path.relative_to(run_dir) if path.is_relative_to(run_dir) else path
        with log.span("serve", phase="recording", base_index=base.index):
            if not link.is_symlink() or Path(os.readlink(link)) != target:
                durable.replace_link(link, target)
            self._tell(base, link.lstat().st_mtime)
            for folder in self._store.paths.interims(base.index):  # left by the round that made this base
                durable.remove_folder(folder)

    def _tell(self, base: Base, since_s: float) -> None:
        if (base.index, base.num_pending) in self._told:
            return
        rounds, index = self._store.config.round_list(), base.index
        names = rounds[index][: base.num_pending] if base.num_pending else rounds[index - 1] if index else []
        ages_s = {name: round(since_s - self._arrived_s[name], 3) for name in names if name in self._arrived_s}
        facts = {"round": index + 1 if base.num_pending else index, "base": index, "num_pending": base.num_pending}
        self._store.ledger.record("served", **facts, sha256=base.sha256, age_s=ages_s)
        self._told.add((base.index, base.num_pending))


def staleness(run: Run) -> dict[str, tuple[float | None, float | None]]:
    """Returns data set -> seconds from its arrival until the first served base contains it, and until a committed base does.

    Data sets are in the order of arrival. A time is None if that has not happened. A run that is not a stream gives {}.
    """
    arrivals = run.arrived_s
    first: dict[str, float] = {}
    committed: dict[str, float] = {}
    for line in run.ledger():
        for name, age_s in line["age_s"].items() if line["event"] == "served" else ():
            first.setdefault(name, age_s)
            if not line["num_pending"]:
                committed.setdefault(name, age_s)
    names = [name for names in run.config.round_list() for name in names if name in arrivals]
    return {name: (first.get(name), committed.get(name)) for name in names}
