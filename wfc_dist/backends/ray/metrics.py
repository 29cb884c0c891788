"""What the coordinator and the trainers tell Ray's metrics, which Prometheus reads at every node (docs/tracking.md)."""

import time

from ray.util.metrics import Counter, Gauge

from wfc_dist.training.job import Progress


class TrainerMetrics:
    """Gauges of the trainings of one gang; world_rank 0 has them.

    Args:
        run: Name of the run.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._step = _gauge("wfc_step", "Optimizer steps that are done")
        self._loss = _gauge("wfc_loss", "Training loss of the last step, per label token")
        self._speed = _gauge("wfc_audio_seconds_per_second", "Speech trained on per second of this attempt")
        self._waiting = _gauge("wfc_data_wait_share", "Share of the time in which the training waited for its data")
        self._saved = _gauge("wfc_last_checkpoint_time_seconds", "When the last checkpoint was taken, in seconds since the epoch")

    def update(self, dataset: str, progress: Progress) -> None:
        """Sets the gauges of a data set's training."""
        tags = {"run": self._run, "dataset": dataset}
        if progress.phase == "checkpoint":
            self._saved.set(time.time(), tags)
        self._step.set(progress.step, tags)
        self._loss.set(progress.loss, tags)
        self._speed.set(progress.speech_seconds_per_second, tags)
        self._waiting.set(progress.data_wait_share, tags)


class RoundMetrics:
    """What the coordinator knows of a round.

    Args:
        run: Name of the run.
        round_index: The round (1-based).
    """

    def __init__(self, run: str, round_index: int) -> None:
        self._run = run
        self._failures = Counter("wfc_trainer_failures", "Lost or failed trainers", tag_keys=("run", "dataset"))
        Gauge("wfc_round", "The round that is trained", tag_keys=("run",)).set(round_index, {"run": run})

    def failed(self, dataset: str) -> None:
        """Counts a trainer of a data set that was lost or has failed."""
        self._failures.inc(1, {"run": self._run, "dataset": dataset})


def _gauge(name: str, description: str) -> Gauge:
    return Gauge(name, description, tag_keys=("run", "dataset"))
