"""Base 0: the root model, found, hashed and recorded once; verified whenever a run goes on."""

import logging
from pathlib import Path

from wfc_dist import base_chain, durable, log
from wfc_dist.hashing import content_sha256
from wfc_dist.run_store import RunStore

logger = logging.getLogger(__name__)


def ensure_root(store: RunStore) -> None:
    """Commits base 0 as a pointer to the root model, or checks that the root is still what it was.

    When `base.dtype` is not the root's own, base 0 holds a cast copy, which later bases share files with;
    they are still computed from the root's own numbers.

    Raises:
        InputError: The root model cannot be had. IntegrityError: It changed since the run began.
    """
    if store.base(0) is not None:
        facts = store.manifest(0)
        with log.span("verify_root"):
            base_chain.verify_root(Path(facts["root"]), facts["root_tensors"])
        return
    settings = store.config.base
    with log.span("open_root"):
        root = base_chain.resolve_root(settings.model, settings.revision)
        root_tensors = base_chain.hash_tensors(root)
        staged = durable.staging_path(store.paths.base(0), store.attempt)
        cast = settings.dtype != "auto" and any(
            tensor.is_floating_point() and tensor.dtype != base_chain.DTYPES[settings.dtype]
            for _, tensor in base_chain.read_tensors(root)
        )
        if cast:
            base_chain.write_standalone(root, {}, staged, settings.dtype)
        shared = staged if cast else root
        tensors = base_chain.hash_tensors(shared) if cast else root_tensors
        files = sorted(set(base_chain.weight_map(shared).values()))
        facts = {
            "model": settings.model,
            "revision": settings.revision,
            "root": str(root),
            "root_tensors": root_tensors,
            "tensors": tensors,
            "root_files": {path.name: durable.sha256_file(path) for path in files},
            "model_path": str(store.paths.base(0).resolve() if cast else root),
        }
        store.commit_root(staged, content_sha256(tensors), facts)
    logger.info("base 0 is %s (%s)", settings.model, content_sha256(tensors)[:12])
