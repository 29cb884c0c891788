"""What a trainer gets, what it reports after a step, and what it returns. Plain data, so that Ray can pickle it."""

from dataclasses import dataclass
from typing import Any, Literal

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.config.schema import EvaluateConfig
from wfc_dist.config.training import LoraConfig, TrainConfig, marked
from wfc_dist.rounds import Base
from wfc_dist.storage.mirror import NO_MIRROR, AnyMirror


@dataclass(frozen=True)
class EarlierData:
    """The training data of an adapter of the round before.

    Attributes:
        dataset: Name of the data set.
        data: Where its splits are.
        data_seed: Seed of the data order of that adapter.
    """

    dataset: str
    data: DatasetConfig
    data_seed: int


@dataclass(frozen=True)
class TrainingJob:
    """One adapter to train.

    Attributes:
        round_index: 1-based; used in messages only.
        dataset: Name of the data set.
        data: Where its splits are.
        lora: The block `lora` of the configuration.
        train: The block `train`.
        evaluate: How dev error is measured (`early_stopping.metric: error`).
        init_seed: Seed of lora_A; the same for all adapters of a round, which start from the same point.
        data_seed: Seed of the data order, of SpecAugment and of dropout.
        base: The base that the adapter belongs to. The warm base must be this one.
        checkpoint_dir: Folder for step-<N>/ folders; shared by all ranks and all attempts.
        output_dir: Existing empty folder that gets the PEFT files.
        metrics_file: The metrics log, JSON lines (see `metrics_log`); "" writes none.
        stop_file: When this file exists, training writes a checkpoint and raises Interrupted; "" never exists.
        attempt: Number of this attempt; names staging folders.
        threads: CPU threads per rank. Another number gives other bytes.
        mirror: Object storage to which checkpoints, the adapter and the metrics log are published, and from which checkpoints
            are fetched.
        past_curvature: Adapter folders of earlier rounds, whose curvature `train.ewc` uses.
        earlier_data: Data of the round that made `base`, on which the curvature at the base is measured; () for base 0 and where
            it is measured at the adapter.
    """

    round_index: int
    dataset: str
    data: DatasetConfig
    lora: LoraConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    init_seed: int
    data_seed: int
    base: Base
    checkpoint_dir: str
    output_dir: str
    metrics_file: str
    stop_file: str
    attempt: int = 1
    threads: int = 1
    mirror: AnyMirror = NO_MIRROR
    past_curvature: tuple[str, ...] = ()
    earlier_data: tuple[EarlierData, ...] = ()

    def identity(self) -> dict[str, Any]:
        """Returns what a checkpoint must agree on with a job that resumes from it.

        `objective`, `lora.prior` and `lora.tail` are named only where they are used, so that a checkpoint whose identity lacks
        these keys stays valid for jobs that do not use them.
        """
        unused = self.lora.unused() | ({"prior"} if self.lora.prior is None else set())
        objective = self.train.model_dump(mode="json", include={"optimizer", "distillation", "ewc"}, exclude_defaults=True)
        return {
            "base_sha256": self.base.sha256,
            "dataset": self.dataset,
            "lora": self.lora.model_dump(mode="json", exclude=unused),
            "train": self.train.model_dump(mode="json", exclude=set(marked(TrainConfig, "state")), exclude_defaults=True),
            "init_seed": self.init_seed,
            "data_seed": self.data_seed,
        } | ({"objective": objective} if objective else {})

    def where(self) -> str:
        """Returns "round 1, data set fisher", for messages."""
        return f"round {self.round_index}, data set {self.dataset}"


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Attributes:
        step: Steps that are done.
        max_steps: `train.max_steps`; early stopping may end the training before.
        loss: Cross-entropy per label token of the last step.
        lr: Learning rate of the last step.
        speech_seconds_per_second: Seconds of speech trained on per second of this attempt, summed over ranks.
        phase: What the trainer does, or does next.
        data_wait_share: Share of the time of all attempts in which the training waited for its data, from 0 to 1.
    """

    step: int
    max_steps: int
    loss: float
    lr: float
    speech_seconds_per_second: float
    phase: Literal["train", "dev", "checkpoint"]
    data_wait_share: float = 0.0


@dataclass(frozen=True)
class TrainingResult:
    """A finished adapter.

    Attributes:
        sha256: Content hash of the adapter's tensors.
        hours: Hours of speech in the training split.
        steps: Optimizer steps taken, over all attempts.
        best_step: The step whose weights are in the adapter.
        dev_loss: Cross-entropy per label token of those weights on the dev split, if it was measured.
        dev_error: Error rate of those weights on the dev split, if it was measured.
        final_loss: Training loss of the last step.
        num_trainable: Number of trained parameters.
        seconds: Time spent in training steps, over all attempts.
        data_wait_s: Time spent waiting for the data of the steps, over all attempts.
        speech_seconds: Seconds of speech trained on, repetitions included, over all attempts.
        resumed_from: Step at which this attempt began; 0 for a fresh start.
    """

    sha256: str
    hours: float
    steps: int
    best_step: int
    dev_loss: float | None
    dev_error: float | None
    final_loss: float
    num_trainable: int
    seconds: float
    data_wait_s: float
    speech_seconds: float
    resumed_from: int
