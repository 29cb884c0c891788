"""Reads every byte of a run against its checksums, and makes anew what is damaged where that is possible."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from wfc_dist.centralize.offline import require_rebuilt
from wfc_dist.coordinator.adapter_repair import repair_adapters
from wfc_dist.coordinator.repair import repair_rounds
from wfc_dist.errors import EXIT_INTERRUPTED, IntegrityError, WfcError
from wfc_dist.evaluation.hypotheses import read_hypotheses
from wfc_dist.progress import Display
from wfc_dist.runs import layout, shapes
from wfc_dist.runs.handle import Run, open_run
from wfc_dist.runs.opening import opened_for_writing
from wfc_dist.runs.records import standing
from wfc_dist.runs.root import ensure_root
from wfc_dist.storage import durable
from wfc_dist.weights import base_chain


@dataclass
class Verification:
    """What a run was verified to hold.

    Attributes:
        num_checked: Number of folders and files that were read.
        damaged: Path, relative to the run -> what is wrong and what to do.
        repaired: Paths that were damaged and are intact now.
    """

    num_checked: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    repaired: list[str] = field(default_factory=list)


def verify_run(
    run: str | Path, *, repair: bool = False, retrain: bool = False, deep: bool = False, display: Display | None = None
) -> Verification:
    """Verifies all rounds of a run: records, the root model, bases, deltas, adapters, checkpoints, scores and hypotheses.

    Args:
        run: A run directory or its URL; with `repair` no other process may work on it.
        repair: Make damaged parts anew, with the bytes that were committed.
        retrain: With `repair`, also train merged adapters again whose weights are damaged.
        deep: Also compute each base again from the root and the deltas.
        display: Shows progress, on standard error by default.

    Returns:
        What was read, what is damaged, and what was repaired.

    Raises:
        InputError: There is no run.
        RunLockedError: `repair`, and another process works on the run.
    """
    display = display or Display()
    opened = open_run(run, with_weights=True)
    found = _verify(opened, deep, display, f"`wfc verify {opened.url or opened.path} --repair` makes it anew")
    if repair and found.damaged:
        before = found.damaged
        _repair(opened, [opened.path / name for name in before], display, retrain)
        more = "restore it from a backup" if retrain else "--retrain trains an adapter again, or restore it from a backup"
        found = _verify(opened, deep, display, f"what was tried stands above; {more}")
        found.repaired = sorted(before.keys() - found.damaged.keys())
    return found


def _verify(run: Run, deep: bool, display: Display, remedy: str) -> Verification:
    checks = list(_checks(run, deep))
    found = Verification(len(checks))
    with display.working(f"verifying {run.path}", len(checks), "parts") as told:
        for number, (path, check) in enumerate(checks, start=1):
            try:
                check()
            except WfcError as error:
                what, cut, _ = error.message.partition("; remove ")  # what a run says, which trains anew what no base holds
                found.damaged[path.relative_to(run.path).as_posix()] = f"{what}; {remedy}" if cut else error.message
            told(number)
    return found


def _checks(run: Run, deep: bool) -> Iterator[tuple[Path, Callable[[], object]]]:
    """Yields (path, what raises a WfcError if the path is damaged)."""
    paths = run.paths
    for record in (paths.config, paths.config_copy, paths.status):
        if record != paths.config_copy or record.is_file():  # runs of earlier versions have no copy
            yield record, partial(_verify_record, record)
    yield paths.ledger, partial(_verify_ledger, run)
    yield paths.base(0), partial(_verify_root, run)
    for index in range(1, paths.last_base() + 1):
        yield paths.delta(index), partial(durable.verify_folder, paths.delta(index))
        yield paths.base(index), partial(_verify_base, run, index)
        if deep:
            yield paths.base(index), partial(require_rebuilt, run, index)
    merged = _merged_adapters(run)
    for folder in merged:
        yield folder, partial(_verify_merged, folder)
    for folder in paths.all_adapters():
        yield folder, partial(_verify_adapter, folder)
    for folder in paths.all_checkpoints():
        if folder not in merged:
            yield folder, partial(_verify_checkpoint, run, folder)
    for scores in paths.all_scores():
        yield scores, partial(_verify_record, scores)
        for texts in sorted(scores.parent.glob("*.jsonl")):
            yield texts, partial(read_hypotheses, texts)


def _merged_adapters(run: Run) -> list[Path]:
    """Returns the folders of the adapters that a base holds, whether they are there or not."""
    merged = []
    for index in range(1, run.paths.last_base() + 1):
        with contextlib.suppress(WfcError):  # a damaged base is told apart
            merged += [run.paths.adapter(index, name) for name in run.base(index).adapters]
    return merged


def _verify_merged(folder: Path) -> None:
    try:
        durable.verify_folder(folder)
    except IntegrityError as error:
        what = error.message.partition("; ")[0]
        raise IntegrityError(
            f"{what}; a base holds this adapter, so that no run trains it again: `wfc verify RUN --repair` writes its "
            "configuration and card anew, and with --retrain its weights"
        ) from error


def _verify_record(path: Path) -> None:
    remedy = "`wfc run` writes it anew"
    try:
        durable.read_sealed(path, remedy)
    except FileNotFoundError as error:
        raise IntegrityError(f"{path} is missing; {remedy}") from error


def _verify_ledger(run: Run) -> None:
    recorded = {line["round"] for line in standing(run.ledger()) if line["event"] == "base"}
    if missing := [index for index in range(run.paths.last_base() + 1) if index not in recorded]:
        raise IntegrityError(f"{run.paths.ledger} has lost the line of base {missing[0]}; `wfc run` writes it anew")


def _verify_base(run: Run, index: int) -> None:
    if run.mirror.is_remote:
        run.mirror.fetch(run.paths.base(index), Path(run.base(0).facts["model_path"]))
    layout.read_base(run.path, index)  # what its readers use is there
    durable.verify_folder(run.paths.base(index))


def _verify_adapter(folder: Path) -> None:
    layout.read_adapter(folder, shapes.MERGEABLE)
    durable.verify_folder(folder)


def _verify_checkpoint(run: Run, folder: Path) -> None:
    run.mirror.fetch(folder)  # on object storage, where only the node that trains has its files
    durable.verify_folder(folder)


def _verify_root(run: Run) -> None:
    base = run.base(0)
    durable.verify_folder(run.paths.base(0))
    shapes.ROOT.require(base.facts, run.paths.base(0), "`wfc run` records it anew")
    base_chain.verify_root(Path(base.facts["root"]), base.facts["root_tensors"])


def _repair(run: Run, damaged: Iterable[Path], display: Display, retrain: bool) -> None:
    """Opens the run for writing, which repairs its records. Makes adapters and rounds anew, and removes what `wfc run` makes."""
    paths, recorded = run.paths, layout.read_record(run.paths)
    with opened_for_writing(run.config_here(), recorded["data"], display.say) as store:
        ensure_root(store)
        again = partial(repair_adapters, store, say=display.say, retrain=retrain)
        repair_rounds(store, display.say, every_byte=True, before=again)
        checkpoints = paths.all_checkpoints()
        evaluated = [file for scores in paths.all_scores() for file in scores.parent.iterdir()]
        for path in damaged:
            if path in checkpoints:
                durable.remove_folder(path)  # the training goes on from the checkpoint before
            elif path in evaluated:
                durable.remove(path)  # `wfc run` decodes and scores again
            elif path == paths.status:
                store.status.write("interrupted", "the state was lost; the same command goes on", EXIT_INTERRUPTED)
        store.ledger.record("repaired", paths=sorted(path.relative_to(run.path).as_posix() for path in damaged))
