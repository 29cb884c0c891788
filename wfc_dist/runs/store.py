"""Commits results to the run directory. `layout` has the paths; `records` writes ledger and status."""

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wfc_dist import log
from wfc_dist.config.schema import Config
from wfc_dist.errors import IntegrityError, Interrupted, WfcError
from wfc_dist.rounds import Adapter, Base, StagedBase
from wfc_dist.runs import late_results, shapes
from wfc_dist.runs.cards import base_card
from wfc_dist.runs.layout import RunPaths, first_uncommitted, read_adapter, read_base, read_record, request_stop
from wfc_dist.runs.provenance import describe_adapter, describe_base
from wfc_dist.runs.quarantine import Quarantine
from wfc_dist.runs.records import Fits, Ledger, StatusFile, standing
from wfc_dist.runs.root_model import CARD, describe_root
from wfc_dist.runs.shared_cache import Pool, adapter_identity
from wfc_dist.storage import durable
from wfc_dist.storage.mirror import NO_MIRROR, AnyMirror

logger = logging.getLogger(__name__)


def _is_same_file(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except FileNotFoundError:
        return False


class RunStore:
    """A run directory opened for writing by one process at a time. Use `opening.opened_for_writing` to open it.

    Args:
        paths: The paths of the run.
        config: The resolved configuration.
        attempt: Number of this attempt, from 1.
        mirror: Publishes each commit if the run is on object storage.
        require_lock: Raises RunLockedError if another process has taken the run over. It is called before each commit.

    Attributes:
        staged: A base that is decoded before it is committed; None most of the time.
        scale_factor: Factor of the scale of the next merge, which the gate lowers.
    """

    def __init__(
        self,
        paths: RunPaths,
        config: Config,
        attempt: int,
        mirror: AnyMirror = NO_MIRROR,
        require_lock: Callable[[], None] = lambda: None,
    ) -> None:
        self.paths, self.config, self.attempt, self.mirror = paths, config, attempt, mirror
        self.pool = Pool(Path(config.run.pool)) if config.run.pool else None
        self.ledger, self.status = Ledger(paths.ledger, mirror, attempt), StatusFile(paths, mirror, attempt)
        self.quarantine = Quarantine(self.ledger, config.centralize.quorum)
        self.fits = Fits(paths, mirror, self.ledger, are_asked_for=config.centralize.is_fitted)
        self._require_lock = require_lock
        self._current_round = 1
        self._stops_by_itself = False
        self.staged: StagedBase | None = None
        self.scale_factor = 1.0

    def base(self, index: int) -> Base | None:
        """Returns a committed base, or None. Raises IntegrityError if its files are damaged.

        If a later base is committed, only names and sizes are checked. A trainer that loads the base verifies its tensors.
        """
        entry = read_base(self.paths.run_dir, index)
        if entry is None:
            return None
        base, manifest = entry
        shared = Path(self.manifest(0)["model_path"]) if index else None
        is_past = index > 0 and durable.is_committed(self.paths.base(index + 1))  # base 0 holds files that others link to
        self._verified(self.paths.base(index), manifest["files"] if is_past else self._shared_files(index, manifest), shared)
        return base

    def _shared_files(self, index: int, manifest: Mapping[str, Any]) -> list[str]:
        """Returns the names of the links in a base that are files of the root still, which is verified apart."""
        links, folder = manifest.get("links", {}), self.paths.base(index)
        shared = Path(self.manifest(0)["model_path"]) if links else folder
        return [name for name, target in links.items() if _is_same_file(folder / name, shared / Path(target).name)]

    def _verified(self, folder: Path, skip: Iterable[str] = (), shared: Path | None = None) -> None:
        self.mirror.fetch(folder, shared)
        try:
            durable.verify_folder(folder, frozenset(skip))
        except IntegrityError as error:
            if not self.mirror.discard(folder):
                raise
            logger.warning("%s is fetched again: %s", folder, error)
            self.mirror.fetch(folder, shared)

    def _commit(self, staged: Path, final: Path, facts: Mapping[str, Any], known: Mapping[str, str] | None = None) -> None:
        self._require_lock()
        durable.commit_folder(staged, final, facts, known)
        self.mirror.publish(final)

    def current_round(self) -> int:
        """Returns the index (1-based) of the first round without a committed base; that of the last round if all have one."""
        self._current_round = first_uncommitted(self.paths, self._current_round)  # the index only grows
        return min(self._current_round, len(self.config.round_list()))

    def log_dir(self) -> Path:
        """Returns the folder of this attempt's logs of the current round, absolute because workers start in other folders."""
        return self.paths.logs(self.current_round(), self.attempt).absolute()

    def stop(self, reason: str, *, by_itself: bool = False) -> None:
        """Asks every trainer to checkpoint and stop (see `request_stop`).

        `by_itself` says that nobody has asked for it: status.json will say so, and the scripts of slurm/ requeue the job.
        """
        self._stops_by_itself |= by_itself and self.stop_reason() is None
        request_stop(self.paths, reason)

    def end_facts(self) -> dict[str, bool]:
        """Returns what status.json says of a run that is interrupted, besides its message: whether the run stopped by itself."""
        return {"by_itself": True} if self._stops_by_itself else {}

    def stop_reason(self) -> str | None:
        """Returns why the run was asked to stop, or None if it was not."""
        try:
            text = durable.read_regular(self.paths.stop_file, "it asks the run to stop")
        except FileNotFoundError:
            return None
        except IntegrityError as error:
            return error.message
        return text.decode(errors="replace").strip() or "stop file"

    def raise_if_stopped(self, when: str) -> None:
        """Raises Interrupted if the run was asked to stop. `when` is part of the message, such as "while scoring"."""
        if (reason := self.stop_reason()) is not None:
            raise Interrupted(f"{reason}: stopped {when}; the same command goes on")

    def manifest(self, index: int) -> dict[str, Any]:
        """Returns the manifest of a committed base: tensor hashes, diagnostics, weights, adapters."""
        entry = read_base(self.paths.run_dir, index)
        assert entry is not None, f"base {index} is committed"
        return entry[1]

    def tensor_hashes(self, base: Base) -> dict[str, str]:
        """Returns tensor name -> sha256 of a committed base or interim base, or of the one in `staged`."""
        if self.staged is not None and base.path == self.staged.path:
            return dict(self.staged.facts["tensors"])
        manifest = durable.read_manifest(Path(base.path)) if base.num_pending else self.manifest(base.index)
        assert manifest is not None, f"{base.path} is committed"
        return dict(manifest["tensors"])

    def commit_root(self, staged: Path, sha256: str, facts: Mapping[str, object]) -> None:
        """Commits base 0, a pointer to the root model."""
        self._require_recorded(0, sha256)
        root = describe_root({**facts, "sha256": sha256})
        durable.write_text(staged / CARD, base_card(self.config, root, [], []))
        self._commit(staged, self.paths.base(0), {**facts, "sha256": sha256})
        self.ledger.record("base", round=0, sha256=sha256)
        self._prune(0)

    def finished_adapters(self, base: Base, late: Collection[str] = ()) -> dict[str, Adapter]:
        """Returns the committed adapters of the round after `base`. A damaged adapter is moved aside with a warning.

        If that round has its base, its adapters are merged already and are not verified again. Those that came after the base are
        no part of the round: only those of the data sets in `late` are returned, verified.
        """
        found, are_needed = {}, not durable.is_committed(self.paths.base(base.index + 1))
        for name, manifest in self._committed_adapters(base.index + 1):
            folder = self.paths.adapter(base.index + 1, name)
            if manifest.get("late") and name not in late:
                continue
            try:
                if are_needed or name in late:
                    self._verified(folder)
            except IntegrityError as error:
                self._set_aside(folder, error)
                continue
            found[name] = Adapter(
                name, str(folder), manifest["sha256"], manifest["base_sha256"], manifest["hours"]
            )  # the centralizer refuses an adapter of another base, and names both
        rounds = self.config.round_list()
        if self.pool is not None and are_needed and base.index < len(rounds):
            found |= self._from_pool(base, [name for name in rounds[base.index] if name not in found])
        return found

    def _from_pool(self, base: Base, datasets: Sequence[str]) -> dict[str, Adapter]:
        assert self.pool is not None
        taken = {}
        for dataset in datasets:
            staged = self.stage_adapter(base, dataset)
            facts = self.pool.take_adapter(self._identity(base, dataset), staged)
            if facts is None:
                shutil.rmtree(staged)
                continue
            known = {key: value for key, value in facts.items() if key not in ("files", "schema", "dataset", "base_sha256")}
            taken[dataset] = self.commit_adapter(base, dataset, staged, known | {"from_pool": True})
        return taken

    def _identity(self, base: Base, dataset: str) -> dict[str, Any]:
        fingerprints = read_record(self.paths)["data"]
        earlier = [sha256 for index in range(1, base.index + 1) for sha256 in self.manifest(index)["adapters"].values()]
        return adapter_identity(self.config, fingerprints, base, dataset, earlier)

    def stage_adapter(self, base: Base, dataset: str) -> Path:
        """Returns an empty folder, to which a trainer writes its PEFT files."""
        return durable.staging_path(self.paths.adapter(base.index + 1, dataset), self.attempt)

    def commit_adapter(self, base: Base, dataset: str, staged: Path, facts: Mapping[str, Any]) -> Adapter:
        """Commits a trained adapter. `facts` holds sha256, hours and anything else to record.

        The first result of a data set counts. A later one, of a gang that was given up or of an earlier attempt, is removed, and
        the adapter that is there is returned. An adapter whose round has a base without it says that it is `late`.

        Raises:
            WfcError: The round has a base without the data set, and no later round folds the adapter in. It is removed, and the
                ledger says so.
        """
        final = self.paths.adapter(base.index + 1, dataset)
        if (there := self._committed_against(base, dataset)) is not None:
            logger.info("round %d: a second result of %s comes late and is left out", base.index + 1, dataset)
            shutil.rmtree(staged, ignore_errors=True)
            self.mirror.remove(staged)
            return there
        if late_results.is_late(self.paths, base.index + 1, dataset):
            self._require_use(base.index + 1, dataset, staged, facts)
            facts = {**facts, "late": True}
        with log.span("commit_adapter", phase="recording", dataset=dataset):
            if self.mirror.is_remote:  # the trainer runs on another node and has published its files
                self.mirror.fetch(staged)
                (staged / durable.MANIFEST).unlink(missing_ok=True)  # needed for the transfer only
                self.mirror.fetch_file(self.paths.curve(base.index + 1, dataset))
            describe_adapter(self.paths, self.config, staged, (base.index + 1, dataset), base_sha256=base.sha256, facts=facts)
            self._commit(staged, final, {**facts, "dataset": dataset, "base_sha256": base.sha256})
            if self.pool is not None and not facts.keys() & {"from_pool", "trained_against"}:
                self.pool.put_adapter(self._identity(base, dataset), final)
            self.mirror.remove(staged)
            self.ledger.record_commit("adapter", facts, round=base.index + 1, dataset=dataset)
        return Adapter(dataset, str(final), facts["sha256"], base.sha256, facts["hours"])

    def _require_use(self, round_index: int, dataset: str, staged: Path, facts: Mapping[str, Any]) -> None:
        reason = late_results.no_use_of(self.config, self.ledger.lines(), round_index, dataset)
        if reason is not None:
            shutil.rmtree(staged, ignore_errors=True)
            self.mirror.remove(staged)
            self.ledger.record("left_out", round=round_index, dataset=dataset, sha256=facts["sha256"], reason=reason)
            raise WfcError(f"round {round_index}, {dataset}: a result comes late and is left out: {reason}")

    def _committed_against(self, base: Base, dataset: str) -> Adapter | None:
        """Returns the committed adapter of a data set against `base`; None if there is none, or a damaged one."""
        final = self.paths.adapter(base.index + 1, dataset)
        try:
            manifest = read_adapter(final, shapes.MERGEABLE)
        except IntegrityError:
            return None
        if manifest is None or manifest["base_sha256"] != base.sha256:
            return None
        return Adapter(dataset, str(final), manifest["sha256"], base.sha256, manifest["hours"])

    def stage_base(self, index: int, num_pending: int = 0) -> tuple[Path, Path]:
        """Returns empty folders for the delta of round `index` and for its base; interim if `num_pending` is not 0."""
        final = self.paths.interim(index, num_pending) if num_pending else self.paths.base(index)
        return durable.staging_path(self.paths.delta(index), self.attempt), durable.staging_path(final, self.attempt)

    def quorum(self, base: Base, datasets: Sequence[str], adapters: Mapping[str, Adapter]) -> list[Adapter]:
        """See `rounds.RoundStore`: `centralize.quorum` of them must be there. Raises the error of who is missing.

        Late adapters of earlier rounds follow those of the round, and do not count for the quorum.
        """
        present = self.quarantine.present(base.index + 1, datasets, adapters)
        if self.config.centralize.late == "never":
            return present
        late = [name for name in self.config.in_order(base.index + 1, adapters) if name not in datasets]
        return present + [adapters[name] for name in late]

    def merged_in(self, index: int) -> list[str]:
        """Returns the data sets whose adapters are in the base of a round (1-based), in order; the round's if it has no base."""
        entry = read_base(self.paths.run_dir, index)
        return self.config.in_order(index, entry[1]["adapters"]) if entry else self.config.round_list()[index - 1]

    def _with_record(self, staged: StagedBase) -> StagedBase:
        """Returns a staged base whose facts say who is not in it, what the gate said, and who is from another base."""
        names, recorded = self.config.round_list()[staged.index - 1], self.recorded_base(staged.index) or {}
        missing = self.quarantine.missing(staged.index, names, staged.facts["adapters"]) | staged.facts.get("missing", {})
        found = {name: durable.read_manifest(self.paths.adapter(staged.index, name)) for name in staged.facts["adapters"]}
        kept = {
            "missing": recorded.get("missing") or missing,
            "gate": recorded.get("gate") or staged.facts.get("gate"),
            "grafted": {name: facts["trained_against"] for name, facts in found.items() if facts and "trained_against" in facts},
        }
        return replace(staged, facts={**staged.facts, **{key: value for key, value in kept.items() if value}})

    def commit(self, staged: StagedBase) -> Base:
        """Commits a round: its delta, then its base, then the line in the ledger. Then removes its checkpoints."""
        staged = self._with_record(staged)
        delta, final = self.paths.delta(staged.index), self.paths.base(staged.index)
        self._require_recorded(staged.index, staged.sha256)
        with log.span("commit_base", phase="merging"):
            self._commit_delta(staged)
            self._commit_overlay(staged, final, delta=delta.relative_to(self.paths.run_dir).as_posix())
            self.ledger.record_commit("base", staged.facts, round=staged.index, sha256=staged.sha256)
        self._prune(staged.index)
        for checkpoints in self._ended(staged.index):
            self.mirror.remove(checkpoints)
        self.status.publish_logs()
        return Base(staged.index, str(final), staged.sha256)

    def damage(self, index: int, *, every_byte: bool = False) -> IntegrityError | None:
        """Returns what is wrong with the delta of a committed round or with its base; None if nothing is.

        Args:
            index: Index of the round, 1-based.
            every_byte: Also hash the files of a base that has a later one (see `base`).
        """
        try:
            self._verified(self.paths.delta(index))
            if self.base(index) is None:
                raise IntegrityError(f"{self.paths.base(index)} has lost its {durable.MANIFEST}")
            if every_byte:
                durable.verify_folder(self.paths.base(index), frozenset(self._shared_files(index, self.manifest(index))))
        except IntegrityError as error:
            return error
        return None

    def adapter_damage(self, index: int, dataset: str) -> IntegrityError | None:
        """Returns what is wrong with an adapter of a committed round (1-based); None if nothing is."""
        try:
            self._verified(self.paths.adapter(index, dataset))
        except IntegrityError as error:
            return error
        return None

    def recorded_base(self, index: int) -> dict[str, Any] | None:
        """Returns the line of the ledger with which a base was committed: sha256, weights, method; None if it was not."""
        lines = [line for line in standing(self.ledger.lines()) if line["event"] == "base" and line["round"] == index]
        return lines[-1] if lines else None

    def _require_recorded(self, index: int, sha256: str) -> None:
        """Raises IntegrityError where a base that later ones build on would be replaced by another one."""
        recorded = (self.recorded_base(index) or {}).get("sha256")
        if recorded not in (None, sha256) and durable.is_committed(self.paths.base(index + 1)):
            raise IntegrityError(
                f"base {index} was committed with sha256 {str(recorded)[:12]}, and base {index + 1} builds on it; made anew, it "
                f"has {sha256[:12]}: restore {self.paths.base(index)} from a backup, or use the libraries and the root of the run"
            )

    def replace_round(self, staged: StagedBase) -> None:
        """Replaces delta and base of a committed round by the same ones, made anew, and records that."""
        staged = self._with_record(staged)
        delta, final = self.paths.delta(staged.index), self.paths.base(staged.index)
        self._commit_delta(staged)
        self._commit_overlay(staged, final, delta=delta.relative_to(self.paths.run_dir).as_posix())
        self.ledger.record("remade", round=staged.index, sha256=staged.sha256)
        self._prune(staged.index)  # what a repair that was killed has left

    def replace_adapter(self, base: Base, dataset: str, staged: Path, facts: Mapping[str, Any]) -> None:
        """Replaces an adapter of a committed round by the same one, made anew and described, and records that."""
        final = self.paths.adapter(base.index + 1, dataset)
        self._commit(staged, final, {**facts, "dataset": dataset, "base_sha256": base.sha256})
        self.ledger.record("remade", round=base.index + 1, dataset=dataset, sha256=facts["sha256"])

    def commit_interim(self, base: Base, adapters: Sequence[Adapter], staged: StagedBase) -> Base:
        """Commits an interim base, which merges the first adapters of a round into `base`. Its delta is not kept."""
        final = self.paths.interim(staged.index, len(adapters))
        with log.span("commit_interim", phase="merging"):
            self._commit_overlay(staged, final)
            facts = {"dataset": adapters[-1].dataset, "num_adapters": len(adapters), "sha256": staged.sha256}
            self.ledger.record("interim", round=staged.index, **facts)
        shutil.rmtree(staged.delta_path, ignore_errors=True)
        return Base(base.index, str(final), staged.sha256, len(adapters))

    def _commit_delta(self, staged: StagedBase) -> None:
        self._commit(
            Path(staged.delta_path), self.paths.delta(staged.index), {"round": staged.index}, staged.facts.get("written")
        )

    def _commit_overlay(self, staged: StagedBase, final: Path, **more: Any) -> None:
        facts = {**staged.facts, "sha256": staged.sha256, **more}
        links, written = facts["links"], facts.pop("written", {})  # these files were hashed while they were written
        files = self.manifest(0)["root_files"]
        known = {link: files[Path(path).name] for link, path in links.items()}
        facts["links"] = {link: Path(path).name for link, path in links.items()}  # without the folder of this machine
        describe_base(self.paths, self.config, Path(staged.path), staged.index - 1, facts)
        self._commit(Path(staged.path), final, facts, known | written)

    def _prune(self, round_index: int) -> None:
        for checkpoints in self._ended(round_index):
            shutil.rmtree(checkpoints, ignore_errors=True)
            with contextlib.suppress(OSError):  # it holds those of others, or it is gone
                checkpoints.parent.rmdir()
        folder, base = self.paths.round(round_index), self.paths.base(round_index)
        # Only this round: jobs that outlive their coordinator may still write files of the next one.
        for pattern in ("*.tmp-*", "*/*.tmp-*", "*/*/.*.tmp-*"):
            for leftover in folder.glob(pattern):
                if "damaged" not in leftover.name:
                    durable.remove(leftover)
        for leftover in base.parent.glob(f"{base.name}.tmp-*"):
            durable.remove(leftover)

    def _ended(self, index: int) -> list[Path]:
        """Returns the folders of checkpoints from which no training goes on once base `index` is committed."""
        if index == 0 or self.config.centralize.late == "never":
            return [self.paths.training(index)]
        lines = self.ledger.lines()
        before, after = (late_results.awaited(self.config, lines, base) for base in (index - 1, index))
        here = self.config.round_list()[index - 1]
        own = [self.paths.checkpoints(index, name) for name in here if after.get(name) != index]
        late = [self.paths.checkpoints(at, name) for name, at in before.items() if after.get(name) != at]
        return late + (own if len(own) < len(here) else [self.paths.training(index)])

    def going_on(self) -> Callable[[int, str], bool]:
        """Returns what says of a round (1-based) and a data set whether its training may go on: without a base yet, or late."""
        lines = self.ledger.lines()
        bases = {line["round"] for line in standing(lines) if line["event"] == "base"}
        late = late_results.awaited(self.config, lines, max(bases, default=0))
        return lambda round_index, dataset: round_index not in bases or late.get(dataset) == round_index

    def reconcile(self) -> None:
        """Repairs the ledger after a crash: removes an incomplete last line and damaged lines, adds lines for committed folders.

        A round is complete if the ledger has a line for its base. Only the last complete round, whose leftovers may still be
        there, and the later rounds are read, unless a line was damaged. So the work does not grow with the length of the run.
        """
        for path in (self.paths.config, self.paths.config_copy, self.paths.status, self.paths.ledger, self.paths.progress):
            for leftover in path.parent.glob(f".{path.name}.tmp-*"):  # of processes that died while they wrote it
                leftover.unlink(missing_ok=True)
        is_damaged = self.ledger.repair()
        lines = standing(self.ledger.lines())
        known = {(line["event"], line.get("round"), line.get("dataset"), line.get("sha256")) for line in lines}
        recorded = {line["round"] for line in lines if line["event"] == "base" and not is_damaged}
        last = first_uncommitted(self.paths) - 1
        first = next((index for index in range(last + 1) if index not in recorded), last)
        for index in range(max(first, 0), len(self.config.round_list()) + 1):
            for name, manifest in self._committed_adapters(index) if index not in recorded else ():
                if ("adapter", index, name, manifest["sha256"]) not in known:
                    self.ledger.record_commit("adapter", manifest, round=index, dataset=name, recovered=True)
            entry = self._readable_base(index)
            if entry and ("base", index, None, entry[0].sha256) not in known:
                self.ledger.record_commit("base", entry[1], round=index, recovered=True)
            if entry:
                self._prune(index)

    def _readable_base(self, index: int) -> tuple[Base, dict[str, Any]] | None:
        try:
            return read_base(self.paths.run_dir, index)
        except IntegrityError as error:  # damage is seen to once the run is open
            logger.warning("%s", error)
            return None

    def _committed_adapters(self, round_index: int) -> Iterator[tuple[str, dict[str, Any]]]:
        for folder in sorted(self.paths.adapters(round_index).glob("*")):
            if ".tmp-" in folder.name:  # a damaged adapter that was moved aside keeps its manifest
                continue
            try:
                manifest = read_adapter(folder, shapes.MERGEABLE)
            except IntegrityError as error:
                self._set_aside(folder, error)
                continue
            if manifest is not None:
                yield folder.name, manifest

    def _set_aside(self, folder: Path, error: IntegrityError) -> None:
        """Moves a damaged adapter out of the way: it is trained again, unless a base holds its round already."""
        aside = folder.with_name(f"{folder.name}.tmp-damaged-{self.attempt}")
        os.replace(folder, aside)
        logger.warning("the adapter %s is damaged and moved to %s: %s", folder.name, aside.name, error)
