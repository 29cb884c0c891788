"""Makes damaged adapters of committed rounds anew: configuration and card from what is recorded, weights by training again."""

import contextlib
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from wfc_dist import caller, log
from wfc_dist.backends.in_process import InProcessBackend
from wfc_dist.backends.jobs import training_job
from wfc_dist.errors import IntegrityError, WfcError
from wfc_dist.progress import Display
from wfc_dist.rounds import Base
from wfc_dist.runs.provenance import describe_adapter
from wfc_dist.runs.records import standing
from wfc_dist.runs.root_model import CARD
from wfc_dist.runs.store import RunStore
from wfc_dist.storage import durable
from wfc_dist.training import model as models
from wfc_dist.weights import adapter_config, peft_folder

logger = logging.getLogger(__name__)
_OF_THE_FOLDER = ("files", "schema", "checksum", "dataset", "base_sha256")
_OF_THE_LINE = ("time", "attempt", "event", "checksum", "schema", "round", "dataset", "recovered")


def repair_adapters(store: RunStore, index: int, say: Callable[[str], None], *, retrain: bool = False) -> None:
    """Makes the damaged adapters of a committed round anew, where the result is what was committed.

    What can't be made anew stays as it is; the reason goes to `say` and to the log.

    Args:
        store: The opened run, with its root and the base before the round intact.
        index: The round, 1-based.
        say: Gets a line for each damaged adapter.
        retrain: Also train adapters again whose weights are damaged: minutes to hours each, in this process.
    """
    for dataset, sha256 in (store.recorded_base(index) or {}).get("adapters", {}).items():
        try:
            if damage := store.adapter_damage(index, dataset):
                say(f"round {index}: the adapter of {dataset} is damaged and is made anew")
                logger.warning("%s", damage)
                _remake(store, index, dataset, sha256, retrain=retrain)
        except WfcError as error:
            say(f"round {index}, {dataset}: {error.message}")
            logger.warning("the adapter of %s in round %d is not made anew: %s", dataset, index, error)


def _remake(store: RunStore, index: int, dataset: str, sha256: str, *, retrain: bool) -> None:
    """Replaces a damaged adapter. Raises IntegrityError when its weights are lost, or it is not what was committed."""
    base, folder = store.base(index - 1), store.paths.adapter(index, dataset)
    assert base is not None, f"base {index - 1} is committed"
    facts, files = _recorded(store, index, dataset, sha256)
    staged = store.stage_adapter(base, dataset)
    try:
        if intact := _intact(store, index, dataset, sha256, files):
            shutil.copytree(intact, staged, dirs_exist_ok=True, ignore=_made_anew)
        elif retrain:
            _train_again(store, base, dataset, staged, facts)
        else:
            raise IntegrityError(
                f"the weights in {folder} are damaged; base {index}, which holds them, stays as it is. `wfc verify RUN --repair "
                "--retrain` trains the adapter again, or restore the folder from a backup"
            )
        text = adapter_config.text(models.described_adapter(Path(base.path), store.config.lora))
        (staged / peft_folder.CONFIG).write_text(text, encoding="utf-8")
        describe_adapter(store.paths, store.config, staged, (index, dataset), base_sha256=base.sha256, facts=facts)
        _require_files(staged, files)
        store.replace_adapter(base, dataset, staged, facts)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _recorded(store: RunStore, index: int, dataset: str, sha256: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the facts of an adapter and the sha256 of its files, by the manifest; if that is damaged, facts by the ledger."""
    folder = store.paths.adapter(index, dataset)
    try:
        if manifest := durable.read_manifest(folder):
            files = {name: fact["sha256"] for name, fact in manifest["files"].items()}
            return {key: value for key, value in manifest.items() if key not in _OF_THE_FOLDER}, files
    except IntegrityError as error:
        logger.warning("%s; the ledger is read", error)
    for line in reversed(standing(store.ledger.lines())):
        if (line["event"], line.get("round"), line.get("dataset"), line.get("sha256")) == ("adapter", index, dataset, sha256):
            return {key: value for key, value in line.items() if key not in _OF_THE_LINE}, {}
    raise IntegrityError(f"{folder} has lost its manifest, and the ledger has no line of it; restore it from a backup")


def _made_anew(folder: str, names: Sequence[str]) -> list[str]:
    """Returns what is not copied from a damaged adapter: what is written from records, and pipes and the like."""
    written = (durable.MANIFEST, peft_folder.CONFIG, CARD)
    return [name for name in names if name in written or not ((path := Path(folder, name)).is_file() or path.is_dir())]


def _intact(store: RunStore, index: int, dataset: str, sha256: str, files: Mapping[str, str]) -> Path | None:
    """Returns where all that a training computes is intact: in the adapter's folder, or in the round it is a late member of."""
    rounds = sorted(range(1, store.paths.last_base() + 1), key=lambda other: other != index)
    for folder in (store.paths.adapter(other, dataset) for other in rounds):
        if folder != store.paths.adapter(index, dataset) and durable.is_committed(folder):
            store.mirror.fetch(folder)
        if _is_whole(folder, sha256, files):
            return folder
    return None


def _is_whole(folder: Path, sha256: str, files: Mapping[str, str]) -> bool:
    """Returns whether what a training computes is intact: the weights, and other files that are not written from records."""
    computed = {name: value for name, value in files.items() if name not in (peft_folder.CONFIG, CARD)}
    try:
        return peft_folder.folder_sha256(folder) == sha256 and all(
            durable.sha256_file(folder / name) == value for name, value in computed.items()
        )
    except (OSError, SafetensorError):
        return False


def _require_files(staged: Path, files: Mapping[str, str]) -> None:
    for name, value in files.items():
        if name != CARD and durable.sha256_file(staged / name) != value:  # the words of a card may change with the version
            raise IntegrityError(
                f"{name}, made anew, does not have the committed sha256 {value[:12]}; use the libraries of the run, or restore "
                "the adapter from a backup"
            )


def _train_again(store: RunStore, base: Base, dataset: str, staged: Path, facts: Mapping[str, Any]) -> None:
    """Trains an adapter again into `staged`, in this process. Raises IntegrityError if its weights are not the committed ones."""
    folder = store.paths.adapter(base.index + 1, dataset)
    if facts.get("trained_against"):
        raise IntegrityError(
            f"{folder} was trained against another base than that of its round; restore it from a backup, or from that base's run"
        )
    if store.config.cluster.workers_per_trainer > 1:
        raise IntegrityError(f"{folder} was trained by several processes, which --retrain cannot start; restore it from a backup")
    job = replace(training_job(store, base, dataset), output_dir=str(staged), metrics_file="")
    with caller.put_back(), log.put_back():
        backend = InProcessBackend(store, Display(plain=True))
        try:
            result = backend.train(base, job)
        finally:
            backend.shutdown()
            log.close()
            shutil.rmtree(store.paths.checkpoints(base.index + 1, dataset), ignore_errors=True)
            with contextlib.suppress(OSError):  # those of late data sets stay
                store.paths.training(base.index + 1).rmdir()
    if result.sha256 != facts["sha256"]:
        raise IntegrityError(
            f"{folder}: trained again, the adapter has sha256 {result.sha256[:12]}, and base {base.index + 1} holds "
            f"{facts['sha256'][:12]}; use the libraries and a processor like those of the run, or restore it from a backup"
        )
