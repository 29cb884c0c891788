"""Brings the files of a run on object storage to its local mirror, to resume the run or to read it."""

import contextlib
import fcntl
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from wfc_dist.errors import InputError, IntegrityError
from wfc_dist.runs.layout import request_stop, require_run
from wfc_dist.storage import durable
from wfc_dist.storage.durable import MANIFEST
from wfc_dist.storage.lock import STOP
from wfc_dist.storage.mirror import CONTROL, OWN, Mirror, mirror_folder
from wfc_dist.storage.objects import Objects, at_once, is_url

logger = logging.getLogger(__name__)
_RECORDS = ("config.json", "config-copy.json")


@contextlib.contextmanager
def opening(folder: Path) -> Iterator[bool]:
    """Lets one process of this machine at a time fill a mirror. Yields whether a run works on the mirror already."""
    Mirror(folder, Objects("")).own()
    with open(folder / OWN / "opening", "a", encoding="utf-8") as door, open(folder / "lock", "a", encoding="utf-8") as lock:
        fcntl.flock(door, fcntl.LOCK_EX)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(lock, fcntl.LOCK_UN)
            yield False
        except BlockingIOError:
            yield True


def read_run_id(objects: Objects) -> str | None:
    """Returns the id of the run at a URL, or None if there is no run."""
    record = _remote_record(objects)
    return None if record is None else str(record["run_id"])


def _remote_record(objects: Objects) -> dict[str, Any] | None:
    """Returns config.json of the run at a URL, or its second copy where that is missing or damaged; None if there is no run."""
    damage: IntegrityError | None = None
    for name in _RECORDS:
        data = objects.read(name)
        if data is None:
            continue
        try:
            tree = durable.unseal(data, f"{objects.url}/{name}", "restore it from a backup")
            if "run_id" not in tree:
                raise InputError(
                    f"{objects.url} is a copy of a run directory, which only `wfc run` could have made a run on object storage; "
                    "copy it to a folder, and give the folder"
                )
            return tree
        except IntegrityError as error:
            logger.warning("%s", error)
            damage = damage or error
    if damage is not None:
        raise damage
    return None


def pull(mirror: Mirror, names: Mapping[str, int], *, checkpoints: bool) -> None:
    """Fetches all small files to the mirror: configuration, ledger, status, manifests, evaluations, metrics logs.

    Object storage holds the authoritative copy. A local folder with another manifest is removed.

    Args:
        mirror: The mirror, adopted.
        names: Name -> size in bytes of each object on object storage.
        checkpoints: Also fetch the manifests of checkpoints, so that they can be shown.
    """
    manifests = [name for name in names if name.endswith(f"/{MANIFEST}") and ".tmp-" not in name]
    at_once(lambda name: _pull_manifest(mirror, name), [name for name in manifests if checkpoints or "/training/" not in name])
    files = [name for name, size in names.items() if "/evaluation/" in name and _size(mirror.folder / name) != size]
    files += [name for name in names if "/training-curves/" in name and _size(mirror.folder / name) is None]
    files += [name for name in (*_RECORDS, "status.json") if name in names]
    at_once(lambda name: mirror.fetch_file(mirror.folder / name), files)
    _pull_ledger(mirror)


def _size(path: Path) -> int | None:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return None


def _pull_manifest(mirror: Mirror, name: str) -> None:
    data, path = mirror.objects.read(name), mirror.folder / name
    if data is None or (path.is_file() and path.read_bytes() == data):
        return
    durable.remove_folder(path.parent)
    durable.write_bytes(path, data)


def _pull_ledger(mirror: Mirror) -> None:
    path = mirror.folder / "ledger.jsonl"
    data = mirror.objects.read(path.name) or b""
    here = path.read_bytes() if path.is_file() else b""
    if here.startswith(data):
        return  # a crash may leave unpublished lines; the next line publishes them
    durable.write_bytes(path, data)


def publish_unpublished(mirror: Mirror, names: Collection[str]) -> None:
    """Publishes folders that were committed here but not published before a crash. Damaged folders are skipped."""
    for folder in _committed(mirror, "round-*/adapters/*", "round-*/delta", "base-*"):
        name = folder.relative_to(mirror.folder).as_posix()
        if f"{name}/{MANIFEST}" in names:
            continue
        try:
            durable.verify_folder(folder)
        except IntegrityError as error:
            logger.warning("not published: %s", error)
            continue
        logger.info("%s was committed but not published before; publishing it", name)
        mirror.publish(folder)
    evaluations = [path for path in mirror.folder.glob("round-*/evaluation/*/*") if not path.name.startswith(".")]
    at_once(mirror.publish_file, [path for path in evaluations if path.relative_to(mirror.folder).as_posix() not in names])


def _committed(mirror: Mirror, *patterns: str) -> list[Path]:
    found = [path.parent for pattern in patterns for path in sorted(mirror.folder.glob(f"{pattern}/{MANIFEST}"))]
    return [folder for folder in found if ".tmp-" not in folder.name]


def sweep(mirror: Mirror, names: Collection[str], may_go_on: Callable[[int, str], bool]) -> None:
    """Removes leftovers of killed attempts from object storage: staged folders, and checkpoints of finished trainings.

    Args:
        mirror: The mirror.
        names: What was on object storage when the run was opened.
        may_go_on: Says of a round (1-based) and a data set whether the training may still go on.
    """
    leftovers = [name for name in names if ".tmp-" in name or _is_of_a_finished_training(name, may_go_on)]
    mirror.objects.remove(*(name for name in leftovers if name.endswith(MANIFEST)))
    mirror.objects.remove(*(name for name in leftovers if not name.endswith(MANIFEST)))


def _is_of_a_finished_training(name: str, may_go_on: Callable[[int, str], bool]) -> bool:
    first, kind, dataset, *_ = [*name.split("/"), "", ""]
    index = first.removeprefix("round-")
    return kind == "training" and index.isdecimal() and not may_go_on(int(index), dataset)


def _folder_named(text: str) -> Path | None:
    """Returns the folder that a path or a file:// URL names; None for object storage, and for a run that is kept as there."""
    if not is_url(text):
        return Path(text)
    kind, _, path = text.partition("://")
    if kind not in ("file", "local") or not (folder := Path(path)).is_dir():
        return None
    return None if any(folder.glob(f"{CONTROL}/*")) else folder


def local_run(text: str) -> tuple[Path, Mirror | None]:
    """Returns the folder of a run on this machine, with all small files up to date, and its mirror if the run has a URL.

    `text` is a run directory or its URL. Raises InputError if there is no run at the URL.
    """
    if (here := _folder_named(text)) is not None:
        return here, None
    objects = Objects(text.rstrip("/"))
    tree = _remote_record(objects)
    if tree is None:
        raise InputError(f"{text} is not a run (it has no config.json); give the URL `run.dir/run.name`")
    cache_dir = tree["config"]["cluster"]["cache_dir"]
    cache = cache_dir if cache_dir and Path(cache_dir).is_dir() else None  # the cluster's cache folder may be missing here
    folder = mirror_folder(objects.url, cache, tree["config"]["run"]["name"])
    mirror = Mirror(folder, objects, tree["run_id"])
    with opening(folder) as is_live:
        if not is_live:  # if it is live, this machine writes the run and nothing elsewhere is newer
            mirror.adopt()
            pull(mirror, objects.list(), checkpoints=True)
    return folder, mirror


def whole_run(text: str) -> tuple[Path, Mirror | None]:
    """Does what `local_run` does, and also fetches the committed adapters, the deltas and the root model."""
    folder, mirror = local_run(text)
    if mirror is not None:
        from wfc_dist.runs.root import bring_base

        bring_base(mirror, 0)
        at_once(mirror.fetch, _committed(mirror, "round-*/adapters/*", "round-*/delta"))
    return folder, mirror


def ask_to_stop(text: str, reason: str) -> None:
    """Asks the process that works on a run to checkpoint and stop. `text` is a run directory or its URL."""
    if (folder := _folder_named(text)) is not None:
        request_stop(require_run(folder), reason)
        return
    objects = Objects(text.rstrip("/"))
    if read_run_id(objects) is None:
        raise InputError(f"{text} is not a run (it has no config.json); give the URL `run.dir/run.name`")
    objects.write(STOP, reason.encode())
