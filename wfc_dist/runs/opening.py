"""Opens a run for writing: locks it, checks that its configuration and data are unchanged, and reconciles it.

The small files of a run on object storage are fetched first.
"""

import contextlib
import fcntl
import logging
import os
import re
import socket
import stat
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import psutil

from wfc_dist.config import loading
from wfc_dist.config.schema import Config
from wfc_dist.config.training import leaves
from wfc_dist.errors import ConfigError, RunLockedError
from wfc_dist.runs import remote
from wfc_dist.runs.layout import (
    RunPaths,
    first_uncommitted,
    has_record,
    has_trained,
    is_of_a_beginning,
    read_record,
    request_stop,
)
from wfc_dist.runs.records import read_ledger, standing
from wfc_dist.runs.store import RunStore
from wfc_dist.storage import durable
from wfc_dist.storage.lock import held
from wfc_dist.storage.mirror import CONTROL, NO_MIRROR, AnyMirror, Mirror
from wfc_dist.storage.objects import Objects

logger = logging.getLogger(__name__)


def take_lock(file: IO[str], folder: Path) -> None:
    """Locks an open file of `folder` for as long as it stays open.

    Raises:
        BlockingIOError: Another process holds the lock.
        ConfigError: The file system does not support locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(0.1)  # `is_locked` of a process that only looks has the lock for a moment
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ConfigError(
            f"{folder}: its file system cannot lock files ({error.strerror}), so two processes could work on it at once; "
            "mount it with locks (Lustre: flock; NFS: with its lock service), or put run.dir elsewhere"
        ) from error


def is_locked(paths: RunPaths) -> bool:
    """Says whether a process holds the run's lock; also where that cannot be found out."""
    try:
        if not paths.lock.is_file():
            return False
        with open(paths.lock, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:  # it is held, or the file system has no locks
        return True
    return False


def stopped_process(pid: int) -> str:
    """Returns that a process of this machine is stopped (SIGSTOP, Ctrl-Z) and what to do, "" if it is not."""
    with contextlib.suppress(psutil.Error):
        if psutil.Process(pid).status() == psutil.STATUS_STOPPED:
            return f"process {pid} is stopped: `kill -CONT {pid}` lets it go on, `kill -KILL {pid}` ends it; then run again"
    return ""


@contextlib.contextmanager
def locked(paths: RunPaths) -> Iterator[IO[str]]:
    """Holds the run's lock. The system releases the lock when the process ends, even if it crashes.

    Raises:
        RunLockedError: Another process holds the lock; the message names the process.
        ConfigError: The file system does not support locks.
    """
    paths.run_dir.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(paths.lock) and not stat.S_ISREG(paths.lock.lstat().st_mode):
        raise ConfigError(f"{paths.lock} is no file, so that it locks nothing; remove it, and run the same command again")
    with open(paths.lock, "a+", encoding="utf-8") as file:
        try:
            take_lock(file, paths.run_dir)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            here = re.match(rf"`wfc run`, process (\d+) on {re.escape(socket.gethostname())} ", holder)
            remedy = (here and stopped_process(int(here[1]))) or "wait for it, or stop it with `wfc stop`"
            raise RunLockedError(f"{paths.run_dir} is in use by {holder}; {remedy}") from error
        file.seek(0)
        file.truncate()
        file.write(f"`wfc run`, process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        file.flush()
        yield file


def require_openable(config: Config, fingerprints: Mapping[str, str]) -> None:
    """Raises what `opened_for_writing` would raise, apart from the lock. Writes nothing.

    Raises:
        ConfigError: The run directory can't be made or is not a run, or the run has trained with another configuration or data.
        InputError, StorageError: Object storage refuses access, or does not answer.
    """
    paths, url = RunPaths(config.run_dir()), config.run_url()
    if url is not None:
        objects = Objects(url)
        _require_run_or_empty(objects, remote.read_run_id(objects))
        return
    _require_run_or_nothing(paths)
    if has_record(paths):
        _check_unchanged(paths, config, fingerprints, may_begin_anew=True)


def _require_run_or_nothing(paths: RunPaths) -> None:
    there = next(path for path in (paths.run_dir, *paths.run_dir.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        why = "cannot be written" if there.is_dir() else "is no folder"
        raise ConfigError(f"{paths.run_dir} cannot be made: {there} {why}; choose another run.dir")
    if paths.run_dir.is_dir() and not has_record(paths) and any(not is_of_a_beginning(path) for path in paths.run_dir.iterdir()):
        raise ConfigError(f"{paths.run_dir} is not empty and not a run; choose another run.name or run.dir")


def _require_run_or_empty(objects: Objects, run_id: str | None) -> dict[str, int]:
    """Returns name -> bytes of all objects. Raises ConfigError where there are some and none is a run's."""
    names = objects.list()
    if run_id is None and any(not name.startswith(f"{CONTROL}/") for name in names):
        raise ConfigError(f"{objects.url} is not empty and not a run; choose another run.name or run.dir")
    return names


@contextlib.contextmanager
def opened_for_writing(
    config: Config, fingerprints: Mapping[str, str], say: Callable[[str], None] = logger.warning
) -> Iterator[RunStore]:
    """Opens or creates the run of a configuration. The run is locked while the context lasts.

    Args:
        config: The resolved configuration.
        fingerprints: `<data set>/<split>` -> sha256 of its rows; must not change between attempts.
        say: Called with a message when a lock is waited for or taken over, or a run begins anew.

    Raises:
        ConfigError: The folder is not empty and not a run, or the run has trained with another configuration or other data.
        RunLockedError: Another process works on the run.
        InputError: Object storage refuses access.
    """
    paths, url = RunPaths(config.run_dir()), config.run_url()
    with contextlib.ExitStack() as stack:
        if url is None:
            _require_run_or_nothing(paths)
            stack.enter_context(locked(paths))
            yield _opened(paths, config, fingerprints, NO_MIRROR, lambda: None, say=say)
            return
        objects = Objects(url)
        with remote.opening(paths.run_dir):
            stack.enter_context(locked(paths))
            lock = stack.enter_context(held(objects, lambda reason: request_stop(paths, reason), say))
            mirror, names = _pulled(paths, objects)
        store = _opened(paths, config, fingerprints, mirror, lock.require, say=say)
        remote.sweep(mirror, names, store.going_on())
        yield store


def _pulled(paths: RunPaths, objects: Objects) -> tuple[Mirror, Collection[str]]:
    """Returns the mirror of a run, with all small files up to date, and the names of what was on object storage."""
    run_id = remote.read_run_id(objects)
    names = _require_run_or_empty(objects, run_id)
    mirror = Mirror(paths.run_dir, objects, run_id or uuid.uuid4().hex)
    mirror.adopt()
    if run_id is not None:
        remote.pull(mirror, names, checkpoints=False)
        remote.publish_unpublished(mirror, names)
    return mirror, names


def _opened(
    paths: RunPaths, config: Config, fingerprints: Mapping[str, str], mirror: AnyMirror, require_lock: Callable[[], None],
    *, say: Callable[[str], None],
) -> RunStore:  # fmt: skip
    more: dict[str, Any] = {"run_id": mirror.run_id} if isinstance(mirror, Mirror) else {}
    attempt = 1
    anew: list[str] = []
    remedy: dict[str, list[Any]] = {}
    if has_record(paths):
        recorded, anew = _check_unchanged(paths, config, fingerprints, may_begin_anew=not isinstance(mirror, Mirror))
        attempt = int(recorded["attempt"]) + 1
        config = config if anew else _as_settled(config, recorded)
        remedy = {} if anew else _remedy(recorded, config)
        more |= {key: recorded[key] for key in ("arrivals", "rolled_back_to") if key in recorded}
    store = RunStore(paths, config, attempt, mirror, require_lock)
    if anew:
        if any(key.startswith("base.") for key in anew):
            durable.remove_folder(paths.base(0))
        store.ledger.record("anew", changed=anew)
        say(f"{paths.run_dir}: nothing was trained, so that the run begins anew; changed: {', '.join(anew)}")
    record_config(store, fingerprints, more)
    durable.remove(paths.stop_file)
    store.reconcile()
    if remedy:
        store.ledger.record("changed", round=store.current_round(), keys=remedy)
    return store


def record_config(store: RunStore, fingerprints: Mapping[str, str], more: Mapping[str, Any]) -> None:
    """Writes RUN/config.json and its second copy: the configuration, the fingerprints of the data, the attempt, and `more`."""
    tree = {"config": store.config.model_dump(mode="json"), "config_sha256": loading.config_hash(store.config),
            "data": dict(fingerprints), "attempt": store.attempt}  # fmt: skip
    for path in (store.paths.config, store.paths.config_copy):
        durable.write_sealed(path, {**tree, **more})
        store.mirror.publish_file(path)


def settle_precision(store: RunStore, precision: str) -> None:
    """Puts a precision in the place of each `auto` in the configuration of a run, for good: a resume takes what is recorded."""
    store.config = store.config.with_precision(precision, precision)
    recorded = read_record(store.paths)
    more = {key: value for key, value in recorded.items() if key not in ("config", "config_sha256", "data", "attempt")}
    record_config(store, recorded["data"], more)


def _as_settled(config: Config, recorded: Mapping[str, Any]) -> Config:
    """Returns a configuration whose `auto` is what an earlier attempt has made of it (see `settle_precision`)."""
    return config.with_precision(*loading.parse(recorded["config"]).precisions)


def changed_since(paths: RunPaths, config: Config) -> tuple[dict[str, Any], list[str]]:
    """Returns the record of a run, and the keys that differ in `config`, without those that a resume may change."""
    recorded = read_record(paths)
    # Parsed, so that keys that are newer than the run get their defaults.
    at_start = loading.parse(recorded["config"], str(paths.config)).model_dump(mode="json")
    return recorded, loading.changed_keys(at_start, _as_settled(config, recorded).model_dump(mode="json"))


def _check_unchanged(
    paths: RunPaths, config: Config, fingerprints: Mapping[str, str], *, may_begin_anew: bool
) -> tuple[dict[str, Any], list[str]]:
    """Returns what a run recorded, and the keys and data that changed although the run may go on: it has trained nothing."""
    recorded, changed = changed_since(paths, config)
    other = sorted(key for key, value in recorded["data"].items() if fingerprints.get(key) != value)
    if may_begin_anew and "arrivals" not in recorded and not has_trained(paths):
        return recorded, [*changed, *(f"the data of {key}" for key in other)]
    if (kept := recorded.get("rolled_back_to")) is not None and not has_trained(paths, kept):
        changed = [key for key in changed if not _is_of_later_rounds(key, recorded["config"], config, kept)]
    if has_failed(paths):
        changed = [key for key in changed if not leaves("remedy", key, Config)]
    if changed:
        raise ConfigError(
            f"{paths.run_dir} was started with another configuration; changed: {', '.join(changed)}. "
            "Set them back to go on, or choose another run.name for a new run"
        )
    if other:
        raise ConfigError(
            f"{paths.run_dir}: the data has changed since the run began: {', '.join(other)}. "
            "Restore it to go on, or choose another run.name for a new run"
        )
    return recorded, []


def _remedy(recorded: Mapping[str, Any], config: Config) -> dict[str, list[Any]]:
    """Returns key -> its value before and now, for each key that is changed because a round has failed."""
    before, now = loading.parse(recorded["config"]).model_dump(mode="json"), config.model_dump(mode="json")
    keys = [key for key in loading.changed_keys(before, now) if leaves("remedy", key, Config)]
    return {key: [_at(before, key), _at(now, key)] for key in keys}


def _at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def has_failed(paths: RunPaths) -> bool:
    """Returns whether an attempt has failed in the round that comes next, so that its remedy may change the configuration."""
    index = first_uncommitted(paths)
    lines = standing(read_ledger(paths.ledger, leave_out=True))
    return any(line["event"] == "failed" and line["round"] == index for line in lines)


def _is_of_later_rounds(key: str, recorded: Mapping[str, Any], config: Config, kept: int) -> bool:
    """Says whether a changed key has no part in the first `kept` rounds, so that it may change after a rollback to them."""
    block, _, rest = key.partition(".")
    if block == "rounds":
        return loading.parse(recorded).round_list()[:kept] == config.round_list()[:kept]
    if block == "datasets":
        return rest.partition(".")[0] not in recorded["datasets"]
    return block in ("lora", "train", "centralize")
