"""Base 0, the root model. It is found, hashed and recorded once, and verified whenever a run is resumed."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wfc_dist import log
from wfc_dist.errors import IntegrityError
from wfc_dist.runs import shapes
from wfc_dist.runs.layout import RunPaths, read_base
from wfc_dist.runs.store import RunStore
from wfc_dist.storage import durable
from wfc_dist.storage.mirror import AnyMirror, Mirror
from wfc_dist.weights import base_chain, checkpoint
from wfc_dist.weights.hashing import content_sha256

logger = logging.getLogger(__name__)
LINK = "root"  # in a mirror, a link to the root model on this node


def ensure_root(store: RunStore) -> None:
    """Commits base 0 as a pointer to the root model, or verifies that the root model is unchanged.

    If `base.dtype` differs from the data type of the root model, base 0 holds a cast copy, and later bases link to its files.
    Later bases are still computed from the uncast root model.

    Raises:
        InputError: The root model cannot be found or downloaded.
        IntegrityError: The root model has changed since the run began.
    """
    if _recorded(store):
        facts = store.manifest(0)
        link_root(store.mirror, facts)
        with log.span("verify_root", phase="loading"):
            base_chain.verify_root(Path(facts["root"]), facts["root_tensors"])
        return
    with log.span("open_root", phase="loading"):
        root = checkpoint.resolve_root(store.config.base.model, store.config.base.revision)
        staged = durable.staging_path(store.paths.base(0), store.attempt)
        facts = _root_facts(store, root, staged)
        sha256 = content_sha256(facts["tensors"])
        link_root(store.mirror, facts)
        store.commit_root(staged, sha256, facts)
    logger.info("base 0 is %s (%s)", store.config.base.model, sha256[:12])


def _recorded(store: RunStore) -> bool:
    """Returns whether base 0 is committed and intact. A damaged one is removed: it is only a record of the root model."""
    try:
        if store.base(0) is None:
            return False
        shapes.ROOT.require(store.manifest(0), store.paths.base(0), "it is recorded anew")
        return True
    except IntegrityError as error:
        logger.warning("base 0 is recorded anew: %s", error)
        durable.remove_folder(store.paths.base(0))
        return False


def _root_facts(store: RunStore, root: Path, staged: Path) -> dict[str, Any]:
    """Returns the facts to record about the root model. Writes a cast copy to `staged` if base.dtype needs one."""
    settings, is_remote = store.config.base, store.mirror.is_remote
    root_tensors = base_chain.hash_tensors(root)
    tensors = (tensor for _, tensor in base_chain.read_tensors(root)) if settings.dtype != "auto" else ()
    is_cast = any(tensor.is_floating_point() and tensor.dtype != base_chain.DTYPES[settings.dtype] for tensor in tensors)
    if is_cast:
        base_chain.write_standalone(root, staged, settings.dtype)
    shared, final = (staged, store.paths.base(0)) if is_cast else (root, root)
    in_mirror = final.name if is_cast else LINK
    return {
        "model": settings.model,
        "revision": settings.revision,
        "root": LINK if is_remote else str(root),
        "found": str(root),
        "root_tensors": root_tensors,
        "tensors": base_chain.hash_tensors(shared) if is_cast else root_tensors,
        "root_files": {path.name: durable.sha256_file(path) for path in sorted(set(base_chain.weight_map(shared).values()))},
        "model_path": in_mirror if is_remote else str(final.resolve() if is_cast else final),
    }


def link_root(mirror: AnyMirror, facts: Mapping[str, Any]) -> None:
    """Finds and verifies the root model on this node, and links to it as `root` in the mirror. Does nothing without a mirror.

    Args:
        mirror: The mirror of the run.
        facts: The facts of base 0: model, revision, the path on the coordinator, tensor hashes.

    Raises:
        InputError: The root model cannot be found or downloaded on this node.
        IntegrityError: This node has another model under that name.
    """
    if not isinstance(mirror, Mirror) or (mirror.folder / LINK).is_dir():
        return
    found = Path(facts["found"])
    root = found if found.is_dir() else checkpoint.resolve_root(facts["model"], facts["revision"])
    with log.span("verify_root", phase="loading"):
        base_chain.verify_root(root, facts["root_tensors"])
    durable.replace_link(mirror.folder / LINK, root)  # several processes of this node may do this at once


def bring_base(mirror: AnyMirror, index: int) -> None:
    """Brings a committed base to this node: fetches its own files, and links to the files of the root model here.

    Does nothing if the run directory is shared. Every process must call it before it reads the folder of a base.
    """
    if not isinstance(mirror, Mirror):
        return
    paths = RunPaths(mirror.folder)
    with log.span("fetch_base", phase="loading", base_index=index):
        _fetch_base(mirror, paths.base(0), None)
        entry = read_base(mirror.folder, 0)
        assert entry is not None, "base 0 was fetched"
        link_root(mirror, entry[1])
        if index:
            _fetch_base(mirror, paths.base(index), Path(entry[1]["model_path"]))


def _fetch_base(mirror: Mirror, folder: Path, shared: Path | None) -> None:
    if not mirror.fetch(folder, shared):
        raise IntegrityError(f"{folder.name} is not on {mirror.objects.url}: it was never committed; run `wfc run` again")


def forget_training(mirror: AnyMirror, index: int) -> None:
    """Removes leftovers of the trainings for base `index` from this node's mirror. The coordinator cleans only its own node."""
    if isinstance(mirror, Mirror) and index > 0:
        folder = RunPaths(mirror.folder).round(index)
        for path in (folder / "training", *folder.glob("adapters/*.tmp-*")):
            shutil.rmtree(path, ignore_errors=True)
