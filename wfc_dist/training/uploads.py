"""Checkpoints on their way to object storage, beside the training; and back, when it goes on elsewhere."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from wfc_dist import log
from wfc_dist.errors import IntegrityError, WfcError
from wfc_dist.storage.mirror import AnyMirror
from wfc_dist.training.state import KEPT, steps

logger = logging.getLogger(__name__)


def fetch_newest(folder: Path, metrics_file: Path | None, mirror: AnyMirror) -> None:
    """Brings the newest published checkpoint here, unless a newer one is here, and the metrics log that belongs to it.

    World rank 0 only. Does nothing where storage is shared.
    """
    if not mirror.is_remote:
        return
    here = max(steps(folder), default=-1)
    for step in _published(folder, mirror):
        if step < here:
            return
        try:
            mirror.fetch(folder / f"step-{step}")
        except IntegrityError as error:
            logger.warning("checkpoint passed over: %s", error)
            continue
        if step > here and metrics_file is not None:
            mirror.fetch_file(metrics_file)
        return


def _published(folder: Path, mirror: AnyMirror) -> list[int]:
    names = [name.removeprefix("step-") for name in mirror.folders(folder)]
    return sorted((int(name) for name in names if name.isdigit()), reverse=True)


class Uploads:
    """Publishes checkpoints one after the other; one that is overtaken by a newer one while it waits is left out.

    Args:
        mirror: Where to; without object storage nothing happens.
        metrics_file: Published before each checkpoint: it must reach as far.
    """

    def __init__(self, mirror: AnyMirror, metrics_file: Path | None) -> None:
        self._mirror, self._curve_file = mirror, metrics_file
        self._pool = ThreadPoolExecutor(1) if mirror.is_remote else None
        self._newest: Path | None = None

    def submit(self, folder: Path) -> None:
        """Queues a committed checkpoint and returns at once."""
        if self._pool is not None:
            self._newest = folder
            self._pool.submit(self._publish, folder)

    def _publish(self, folder: Path) -> None:
        if folder != self._newest:
            return
        try:
            with log.span("publish_checkpoint", phase="recording", beside=True, folder=folder.name):
                if self._curve_file is not None:
                    self._mirror.publish_file(self._curve_file)
                self._mirror.publish(folder)
                for step in _published(folder.parent, self._mirror)[KEPT:]:
                    self._mirror.remove(folder.parent / f"step-{step}")
        except FileNotFoundError:
            logger.info("%s was pruned before it was published; a newer one follows", folder.name)
        except WfcError as error:
            logger.warning("checkpoint %s stays on this node: %s", folder.name, error)

    def close(self) -> None:
        """Waits for the last one."""
        if self._pool is not None:
            self._pool.shutdown()

    def finish(self, adapter: Path) -> None:
        """Publishes the finished adapter for the coordinator, and the whole metrics log; checkpoints that wait are left out."""
        if self._pool is not None:
            self._newest = None
            self._pool.shutdown()
            self._mirror.publish_staged(adapter)
            if self._curve_file is not None:
                self._mirror.publish_file(self._curve_file)
