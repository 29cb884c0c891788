"""Finds the newest checkpoint, and writes checkpoints on a thread of their own: training waits only for a copy in memory."""

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from wfc_dist import log
from wfc_dist.runs.layout import checkpoint
from wfc_dist.training import state
from wfc_dist.training.job import TrainingJob
from wfc_dist.training.uploads import Uploads, fetch_newest
from wfc_dist.training.world import World

logger = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one training. They are written one at a time.

    A killed training resumes from the last checkpoint that is committed, and repeats the steps after it. `uploads` gets every
    committed checkpoint.
    """

    def __init__(self, job: TrainingJob, uploads: Uploads) -> None:
        self._job, self._uploads = job, uploads
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._writing: Future[None] | None = None

    def newest(self, world: World) -> state.TrainingState | None:
        """Returns the state of the newest checkpoint of this training, or None. Every rank must call it."""
        folder, mirror, newest = Path(self._job.checkpoint_dir), self._job.mirror, None
        if world.world_rank == 0:
            fetch_newest(folder, Path(self._job.metrics_file) if self._job.metrics_file else None, mirror)
            newest = state.newest_step(folder, self._job.identity())
            if newest is not None:
                mirror.publish(checkpoint(folder, newest))  # for ranks on other nodes, if a crash left it unpublished
        step = int(world.from_first([-1 if newest is None else newest])[0])
        if step < 0:
            return None
        mirror.fetch(checkpoint(folder, step))
        logger.info("%s: resumes from step %d", self._job.where(), step)
        return state.load_state(folder, step)

    def submit(self, snapshot: state.TrainingState) -> None:
        """Queues `snapshot`, which nobody may change afterwards. Waits for the write before it, and raises its error."""
        self.wait()
        self._writing = self._pool.submit(self._write, snapshot)

    def _write(self, snapshot: state.TrainingState) -> None:
        job = self._job
        with log.span("write_checkpoint", phase="checkpoint", beside=True, dataset=job.dataset, step=snapshot.progress.step):
            self._uploads.submit(state.save_state(snapshot, Path(job.checkpoint_dir), job.identity(), job.attempt))

    def check(self) -> None:
        """Raises the error of a write that has failed. Does not wait."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Waits until the last state is on the disk. Raises the error of a write that has failed."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Waits for the last write and ignores its error."""
        self._pool.shutdown()
