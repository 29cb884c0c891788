"""Checkpoints to object storage while training goes on, and back when a training resumes on another node."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from wfc_dist import log
from wfc_dist.errors import IntegrityError, WfcError
from wfc_dist.runs.layout import checkpoint, checkpoint_steps
from wfc_dist.storage.mirror import AnyMirror
from wfc_dist.training.state import KEPT

logger = logging.getLogger(__name__)


def fetch_newest(folder: Path, metrics_file: Path | None, mirror: AnyMirror) -> None:
    """Fetches the newest published checkpoint and its metrics log, unless this node has a newer checkpoint.

    Only world rank 0 calls it. Does nothing where storage is shared.
    """
    if not mirror.is_remote:
        return
    here = max(checkpoint_steps(folder), default=-1)
    for step in checkpoint_steps(folder, mirror):
        if step < here:
            return
        try:
            mirror.fetch(checkpoint(folder, step))
        except IntegrityError as error:
            logger.warning("checkpoint passed over: %s", error)
            continue
        if step > here and metrics_file is not None:
            mirror.fetch_file(metrics_file)
        return


class Uploads:
    """Publishes checkpoints one after the other. One that still waits when a newer one comes is left out.

    Does nothing where storage is shared. The metrics log, which must reach at least as far, is published before each checkpoint.
    """

    def __init__(self, mirror: AnyMirror, metrics_file: Path | None) -> None:
        self._mirror, self._curve_file = mirror, metrics_file
        self._pool = ThreadPoolExecutor(1) if mirror.is_remote else None
        self._newest: Path | None = None

    def submit(self, folder: Path) -> None:
        """Queues a committed checkpoint. Does not wait."""
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
                for step in checkpoint_steps(folder.parent, self._mirror)[KEPT:]:
                    self._mirror.remove(checkpoint(folder.parent, step))
        except FileNotFoundError:
            logger.info("%s was pruned before it was published; a newer one follows", folder.name)
        except WfcError as error:
            logger.warning("checkpoint %s stays on this node: %s", folder.name, error)

    def close(self) -> None:
        """Waits until the last checkpoint is published."""
        if self._pool is not None:
            self._pool.shutdown()

    def finish(self, adapter: Path) -> None:
        """Publishes the finished adapter for the coordinator, and the whole metrics log. Checkpoints that wait are left out."""
        if self._pool is not None:
            self._newest = None
            self._pool.shutdown()
            self._mirror.publish_staged(adapter)
            if self._curve_file is not None:
                self._mirror.publish_file(self._curve_file)
