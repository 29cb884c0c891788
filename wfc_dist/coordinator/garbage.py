"""What a run directory holds that no base, no adapter and no coming round needs: `wfc gc`."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wfc_dist.errors import InputError
from wfc_dist.runs import layout
from wfc_dist.runs.handle import Run, open_run
from wfc_dist.runs.late_results import awaited
from wfc_dist.runs.opening import locked
from wfc_dist.storage.objects import is_url


@dataclass(frozen=True)
class Garbage:
    """A file or folder that nothing needs.

    Attributes:
        path: Where it is.
        why: What it was.
        num_bytes: What its removal frees, in bytes; a file that something else links to frees nothing.
    """

    path: Path
    why: str
    num_bytes: int


def collect_garbage(run: str | Path, *, free: bool = False) -> list[Garbage]:
    """Returns what no base and no coming round of a run needs, and with `free` removes it.

    Bases, deltas, adapters, scores, logs and reports are needed: to load, to repair, to compare.

    Args:
        run: A run directory, on which no other process may work.
        free: Remove it.

    Raises:
        InputError: There is no run, or it is on object storage.
        RunLockedError: Another process works on the run.
    """
    if is_url(str(run)):
        raise InputError(f"{run} is on object storage, where `wfc run` removes what is not needed when it opens the run")
    opened = open_run(run)
    with locked(opened.paths):
        found = [Garbage(path, why, _num_bytes(path)) for path, why in _unneeded(opened)]
        for item in found if free else ():
            if item.path.is_dir() and not item.path.is_symlink():
                shutil.rmtree(item.path)
            else:
                item.path.unlink()
    return found


def _unneeded(run: Run) -> Iterator[tuple[Path, str]]:
    """Yields (path, what it was), none inside another."""
    paths, last = run.paths, run.paths.last_base()
    late = awaited(run.config, run.ledger(), last)
    for path in paths.all_rolled_back():
        yield path, "rounds that were rolled back"
    for path in paths.all_aside():
        yield path, "a damaged adapter or ledger, set aside" if "damaged" in path.name else "unfinished work of an attempt"
    for index in range(1, last + 1):
        training = paths.training(index)
        if index in late.values():
            folders = [folder for folder in training.glob("*") if late.get(folder.name) != index]
        else:
            folders = [training] if training.is_dir() else []
        for folder in folders:
            yield folder, "checkpoints of a merged round"
        for folder in paths.interims(index):
            if ".tmp-" not in folder.name and not layout.is_served(paths, folder):
                yield folder, "an interim base of a merged round"


def _num_bytes(path: Path) -> int:
    files = [path] if path.is_file() or path.is_symlink() else [file for file in path.rglob("*") if not file.is_dir()]
    return sum(stat.st_size for file in files if (stat := file.lstat()).st_nlink == 1)
