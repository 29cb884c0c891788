"""Whether a base or an adapter of a run still has the bytes that were committed: asked by who loads it outside of its run."""

from pathlib import Path

from wfc_dist.errors import IntegrityError
from wfc_dist.runs import layout
from wfc_dist.runs.root_model import CARD
from wfc_dist.storage import durable
from wfc_dist.weights import base_chain


def require_whole(folder: Path) -> None:
    """Reads every byte of a base or an adapter of a run, apart from its card, which may be edited; does nothing elsewhere.

    Args:
        folder: Of a base, an interim base or an adapter; of base 0 the folder with its manifest.

    Raises:
        IntegrityError: A file is missing or is not the one that was committed; or the root model has changed.
    """
    run_dir = _run_of(folder)
    if run_dir is None or not durable.is_committed(folder):
        return
    try:
        durable.verify_folder(folder, leave_out=frozenset({CARD}))
    except IntegrityError as error:
        what = error.message.rpartition("; ")[0]
        raise IntegrityError(f"{what}; `wfc verify {run_dir} --repair` makes it anew") from error
    if layout.base_index(folder.name) == 0 and (entry := layout.read_base(run_dir, 0)) is not None:
        base_chain.verify_root(Path(entry[0].path), entry[1]["tensors"])


def _run_of(folder: Path) -> Path | None:
    """Returns the run directory that a folder is a base, an interim base or an adapter of; None for a folder elsewhere."""
    folder = folder.absolute()
    if (place := layout.adapter_place(folder)) is not None:
        return place[0]
    run_dir = folder.parent if layout.base_index(folder.name) is not None else folder.parent.parent
    is_base = run_dir == folder.parent or folder.name.startswith("interim-")
    return run_dir if is_base and layout.has_record(layout.RunPaths(run_dir)) else None
