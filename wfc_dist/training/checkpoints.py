"""Checkpoints on their way to the disk, beside the training: it waits for a copy in memory only."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from wfc_dist import log
from wfc_dist.training import state
from wfc_dist.training.job import TrainingJob
from wfc_dist.training.uploads import Uploads


class Checkpoints:
    """Writes the states of one training on a thread of its own, one at a time.

    Until one is committed the one before it is what a killed training goes on from; its steps are then taken again.

    Args:
        job: Whose states they are.
        uploads: Gets each one that is committed.
    """

    def __init__(self, job: TrainingJob, uploads: Uploads) -> None:
        self._job, self._uploads = job, uploads
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._writing: Future[None] | None = None

    def submit(self, snapshot: state.TrainingState) -> None:
        """Has `snapshot` written, which nobody changes any more. Waits for the one before it, and raises that one's error."""
        self.wait()
        self._writing = self._pool.submit(self._write, snapshot)

    def _write(self, snapshot: state.TrainingState) -> None:
        job = self._job
        with log.span("write_checkpoint", phase="checkpoint", beside=True, dataset=job.dataset, step=snapshot.progress.step):
            self._uploads.submit(state.save_state(snapshot, Path(job.checkpoint_dir), job.identity(), job.attempt))

    def check(self) -> None:
        """Raises the error of a write that has failed; waits for nothing."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Returns when the last state is on the disk; raises the error that kept it from there."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Waits for the last write, whatever becomes of it."""
        self._pool.shutdown()
