"""Edits a run's history: back to a base, or a new run without a data set or with another merge. Loses nothing committed."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from wfc_dist.backends.jobs import centralize_job, merged_as
from wfc_dist.config import loading
from wfc_dist.config.schema import Config
from wfc_dist.errors import ConfigError, InputError, IntegrityError, RunLockedError
from wfc_dist.merging.factors import normalized
from wfc_dist.progress import Display
from wfc_dist.rounds import Adapter, Base
from wfc_dist.runs import layout
from wfc_dist.runs.grafts import graft
from wfc_dist.runs.handle import Run, open_run
from wfc_dist.runs.opening import is_locked, opened_for_writing, record_config
from wfc_dist.runs.root import ensure_root
from wfc_dist.runs.store import RunStore
from wfc_dist.storage import durable
from wfc_dist.storage.objects import is_url


@dataclass
class Branch:
    """A new run with an edited history.

    Attributes:
        path: Its run directory.
        config: The file with which `wfc run` scores its bases and goes on.
        base: Its last base.
        same: Index of its last base that has the bytes of the old run.
        grafted: (data set, round of the old run) of each adapter whose base is not the one it was trained against.
        left_out: The same, of each adapter of the old run that is not in the branch.
    """

    path: Path
    config: Path
    base: Base
    same: int = 0
    grafted: list[tuple[str, int]] = field(default_factory=list)
    left_out: list[tuple[str, int]] = field(default_factory=list)


def rollback(run: str | Path, to: int) -> Path | None:
    """Makes base `to` the last base of a run. Moves the later rounds, all that is in them, to a folder of the run.

    `wfc run` then trains round `to` + 1 again. Until it has, `rounds` after `to`, `lora`, `train` and `centralize` may change.

    Args:
        run: A run directory.
        to: Index of a committed base.

    Returns:
        The folder with the later rounds and bases, `RUN/rolled-back-<attempt>`; None if there was nothing to move.

    Raises:
        InputError: The run has no such base, or it is a stream or on object storage.
        RunLockedError: Another process works on the run.
    """
    opened = _editable(run)
    if not 0 <= to < opened.num_bases:
        raise InputError(f"{opened.path} has no base {to} to go back to; its bases are 0 to {opened.num_bases - 1}")
    recorded = layout.read_record(opened.paths)
    with opened_for_writing(opened.config_here(), recorded["data"]) as store:
        aside = store.paths.rolled_back(store.attempt)
        moved = _move_rounds_after(store, to, aside)
        store.ledger.record("rolled_back", to=to, aside=aside.name if moved else None)
        record_config(store, recorded["data"], {"rolled_back_to": to})
        store.status.write("interrupted", f"rolled back to base {to}; `wfc run` goes on from it", 0)
    return aside if moved else None


def _move_rounds_after(store: RunStore, to: int, aside: Path) -> bool:
    """Moves from the last round to the first, so that a crash in between leaves a run that is at a later base."""
    paths, indices = store.paths, [*range(to + 1, max(store.paths.last_base(), len(store.config.round_list())) + 1)]
    folders = [folder for index in reversed(indices) for folder in (paths.base(index), paths.round(index)) if folder.exists()]
    for folder in folders:
        aside.mkdir(exist_ok=True)
        os.replace(folder, aside / folder.name)
    first = layout.scored_as(Base(0, "", ""))  # round 1 keeps the scores of base 0
    kept = layout.RunPaths(aside).evaluation(*first)
    if to == 0 and kept.is_dir() and not paths.evaluation(*first).exists():
        shutil.copytree(kept, paths.evaluation(*first))
    return bool(folders)


def forget(
    run: str | Path, dataset: str, *, name: str | None = None, retrain: bool = False, display: Display | None = None
) -> Branch:
    """Merges the chain of bases again without one data set, into a new run. The old run stays as it is.

    The adapters of later rounds were trained against bases that held the data set. They are merged as they are and marked, or
    left out with `retrain`, so that `wfc run` trains them against the new bases. Only then nothing of the data set is left.

    Args:
        run: A run directory or its URL.
        dataset: The data set to forget.
        name: Name of the new run; by default <name of the run>-without-<data set>.
        retrain: End the branch with the first round that held the data set.
        display: Shows progress, on standard error by default.

    Raises:
        InputError: No round has learned the data set, or it cannot be taken out.
        ConfigError: The new run exists.
        RunLockedError: Another process makes the new run.
        IntegrityError: A part of the run is damaged, or an unchanged round gets other bytes.
    """
    opened = open_run(run, with_weights=True)
    rounds = opened.config.round_list()
    held = [index for index, names in _merged(opened) if dataset in names]
    mixes = [name for name, data in opened.config.datasets.items() if dataset in data.parts]
    if mixes:
        raise InputError(f"{dataset} is a part of {mixes[0]}, whose adapter has learned all its parts; forget {mixes[0]} instead")
    if not held:
        raise InputError(
            f"no merged round of {opened.path} has learned {dataset!r}; its bases hold {', '.join(_learned(opened))}"
        )
    if opened.config.train.replay:
        raise InputError(
            f"train.replay: later adapters of {opened.path} were trained on clips of {dataset}, too; run it again without"
        )
    if opened.config.train.curvature_at == "base":
        raise InputError(
            f"train.curvature_at: later adapters of {opened.path} have measured clips of {dataset}, too; run it again without"
        )
    plan = [_Merge(index, [name for name in names if name != dataset]) for index, names in _merged(opened)]
    plan = [merge for merge in plan if merge.datasets]
    if not plan:
        raise InputError(f"{opened.path} has learned nothing but {dataset}; base 0 is the model without it")
    changes: dict[str, Any] = {
        "run": {"name": name or f"{opened.config_here().run.name}-without-{dataset}"},
        "rounds": [names for names in ([name for name in names if name != dataset] for names in rounds) if names],
    }
    if isinstance(weights := opened.config.centralize.weights, dict):
        changes["centralize"] = {"weights": {name: weight for name, weight in weights.items() if name != dataset}}
    return _branch(opened, changes, plan, changed=held[0], retrain=retrain, display=display)


def remerge(
    run: str | Path,
    round_index: int,
    centralize: Mapping[str, Any],
    *,
    name: str | None = None,
    retrain: bool = False,
    display: Display | None = None,
) -> Branch:
    """Merges the adapters of one round another way, into a new run. The old run stays as it is.

    Args:
        run: A run directory or its URL.
        round_index: The round (1-based).
        centralize: Keys of the block `centralize` that change, such as {"method": "ties", "scale": 0.7}.
        name: Name of the new run; by default <name of the run>-<method>-from-<round>.
        retrain: End the branch with this round, so that `wfc run` trains the later ones against the new base. Otherwise the later
            adapters are merged as they are and marked, each round the way it was merged.
        display: Shows progress, on standard error by default.

    Raises:
        InputError: The run has no such round.
        ConfigError: A key or value of `centralize` is wrong, or the new run exists.
        IntegrityError: A part of the run is damaged, or an unchanged round gets other bytes.
    """
    opened = open_run(run, with_weights=True)
    if not 1 <= round_index < opened.num_bases:
        raise InputError(f"{opened.path} has not merged round {round_index}; its merged rounds are 1 to {opened.num_bases - 1}")
    merged = opened.config.centralize.model_dump(mode="json")
    if opened.config.centralize.is_fitted:  # what is not named stays as this round was merged
        facts = opened.base(round_index).facts
        merged |= {"weights": facts["weights"], "scale": facts["scale"]}
    if "method" in centralize and centralize["method"] != merged["method"]:
        merged["options"] = {}
    method = centralize.get("method", merged["method"])
    changes = {
        "run": {"name": name or f"{opened.config_here().run.name}-{method}-from-{round_index}"},
        "centralize": {**merged, **centralize},
    }
    if any(value == "fitted" for value in centralize.values()):
        raise InputError("weights and scale are fitted by decoding in a run; give numbers, or weights uniform or hours")
    plan = [_Merge(index, names, as_asked=index == round_index) for index, names in _merged(opened)]
    return _branch(opened, changes, plan, changed=round_index, retrain=retrain, display=display)


@dataclass(frozen=True)
class _Merge:
    """One merge of a branch: the round of the old run, its data sets, and whether the branch's configuration says how."""

    round_index: int
    datasets: Sequence[str]
    as_asked: bool = False


def _editable(run: str | Path) -> Run:
    """Opens a run that can be changed in place. Raises InputError for one that cannot."""
    if is_url(str(run)):
        raise InputError(f"{run} is on object storage; copy the run to a folder and roll that back, or make a branch of it")
    opened = open_run(run)
    if opened.arrived_s:
        raise InputError(f"{opened.path} is a stream, whose bases may be in use; start a new stream with the data sets to keep")
    return opened


def _learned(run: Run) -> list[str]:
    return list(dict.fromkeys(name for base in run.bases for name in base.adapters))


def _merged(run: Run) -> Iterator[tuple[int, list[str]]]:
    """Yields (round, its data sets in the order of summation) of each merged round; without those whose adapter was missing."""
    for index in range(1, run.num_bases):
        yield index, run.config.in_order(index, run.base(index).adapters)


def _branch(
    old: Run, changes: Mapping[str, Mapping[str, Any] | Sequence[Any]], plan: Sequence[_Merge], *, changed: int, retrain: bool,
    display: Display | None,
) -> Branch:  # fmt: skip
    """Makes the new run. `changed` is the first round of the old one that gets other bytes."""
    display = display or Display()
    config = _edited(old, changes)
    if config.run_url() is not None:
        raise ConfigError(f"run.dir {config.run.dir} is object storage; copy the run to a folder and make the branch of that")
    if config.run_dir().exists():
        if is_locked(layout.RunPaths(config.run_dir())):
            raise RunLockedError(f"{config.run_dir()} is written by another process; wait for it, or give another name")
        is_whole = layout.RunPaths(config.run_dir()).branch_config.is_file()
        cut_off = "" if is_whole else ", or remove it if it is a branch that was cut off"
        raise ConfigError(f"{config.run_dir()} exists; give another name for the new run{cut_off}")
    kept = [merge for merge in plan if not retrain or merge.round_index <= changed]
    with opened_for_writing(config, layout.read_record(old.paths)["data"], display.say) as store:
        store.ledger.record("branch", of_sha256=old.base().sha256, of=old.config.run.name, changed_round=changed)
        ensure_root(store)
        base = store.base(0)
        assert base is not None, "base 0 was committed"
        if base.sha256 != old.base(0).sha256:
            raise IntegrityError(
                f"{config.base.model} is not the model that {old.path} began with; restore it, then branch again"
            )
        branch = Branch(store.paths.run_dir, store.paths.branch_config, base)
        branch.left_out = _left_out(old, kept)
        builder = _Builder(old, store, branch)
        with display.working(f"merging {store.paths.run_dir}", len(kept), "rounds") as told:
            for number, merge in enumerate(kept, start=1):
                base = branch.base = builder.merge(base, merge)
                if merge.round_index < changed:
                    _require_same(old, merge.round_index, base)
                    branch.same = base.index
                told(number)
        _copy_scores(old, store, branch.same)
        durable.write_text(branch.config, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
        store.status.write("interrupted", f"a branch of {old.config.run.name}; `wfc run {branch.config}` goes on", 0)
    return branch


def _edited(old: Run, changes: Mapping[str, Any]) -> Config:
    tree = old.config_here().model_dump(mode="json")
    for key, value in changes.items():
        tree[key] = {**tree[key], **value} if isinstance(value, Mapping) else value
    return loading.parse(tree, "the branch's configuration")


def _left_out(old: Run, kept: Sequence[_Merge]) -> list[tuple[str, int]]:
    taken = {(name, merge.round_index) for merge in kept for name in merge.datasets}
    return [(name, index) for index, names in _merged(old) for name in names if (name, index) not in taken]


@dataclass(frozen=True)
class _Builder:
    """Commits rounds of the old run to the branch."""

    old: Run
    store: RunStore
    branch: Branch

    def merge(self, base: Base, merge: _Merge) -> Base:
        """Commits the adapters of one round of the old run and their merge; returns the new base."""
        from wfc_dist.centralize import collectives
        from wfc_dist.centralize.rank import centralize_rank
        from wfc_dist.centralize.readback import require_as_computed
        from wfc_dist.coordinator.reading_back import sources_of

        adapters = [self._copied(base, name, merge.round_index) for name in merge.datasets]
        facts, job = self.old.base(merge.round_index).facts, centralize_job(self.store, base, adapters)
        if not merge.as_asked:
            shares: Mapping[str, float] = facts["weights"]
            if set(merge.datasets) != set(shares):
                shares = dict(zip(merge.datasets, normalized([shares[name] for name in merge.datasets]), strict=True))
            job = merged_as(job, {**facts, "weights": shares}, self.store)
        staged = centralize_rank(job, collectives.Group())
        assert staged is not None, "rank 0 gets the result"
        require_as_computed(staged, sources_of(self.store, base.index + 1), self.store.tensor_hashes(base))
        return self.store.commit(staged)

    def _copied(self, base: Base, dataset: str, round_index: int) -> Adapter:
        """Commits a verified copy of an adapter. One of another base is marked with the base it was trained against."""
        found = self.old.adapter(round_index, dataset)
        if found is None:
            missing = self.old.paths.adapter(round_index, dataset)
            raise IntegrityError(
                f"{missing} is missing, so that its round cannot be merged another way; restore it from a backup"
            )
        adapter = graft(self.store, base, dataset, found.path)
        if _trained_against(adapter):
            self.branch.grafted.append((dataset, round_index))
        if (curve := self.old.paths.curve(round_index, dataset)).is_file():
            to = self.store.paths.curve(base.index + 1, dataset)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(curve, to)
        return adapter


def _trained_against(adapter: Adapter) -> str | None:
    against: str | None = (layout.read_adapter(Path(adapter.path)) or {}).get("trained_against")
    return against


def _require_same(old: Run, index: int, base: Base) -> None:
    committed = old.base(index).sha256
    if base.sha256 != committed:
        raise IntegrityError(
            f"round {index}, which does not change, gets sha256 {base.sha256[:12]}, and {old.path} has {committed[:12]}: "
            "run `wfc verify` on the old run, or use the libraries that made it"
        )


def _copy_scores(old: Run, store: RunStore, same: int) -> None:
    """Copies the scores of the bases that have the bytes of the old run, and of the adapters trained against them."""
    for scores in old.scores():
        base_index = scores.base_index if scores.kind == "base" else scores.round_index - 1
        place = store.paths.adapter(scores.round_index, scores.model)
        is_there = scores.kind == "base" or (scores.kind == "adapter" and durable.is_committed(place))
        if base_index is not None and base_index <= same and is_there:
            shutil.copytree(scores.path.parent, store.paths.evaluation(scores.round_index, scores.model))
