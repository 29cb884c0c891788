"""The loss along the line base_{t-1} + alpha * delta_t: which alpha is best for the round's update?"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.config.schema import Config
from wfc_dist.data.batching import Batch, DevWindows
from wfc_dist.data.sources import SplitName, open_split
from wfc_dist.errors import InputError
from wfc_dist.merging.factors import AnyDelta
from wfc_dist.rounds import Base
from wfc_dist.training.loss import TokenLoss
from wfc_dist.training.model import build, train_mode_
from wfc_dist.weights import base_chain
from wfc_dist.weights.warm_base import WarmBase

logger = logging.getLogger(__name__)
END = 1.5
_BATCH = 4  # windows at a time


@dataclass(frozen=True)
class Line:
    """Cross-entropy per label token at points of the line.

    Attributes:
        round_index: The round of the update.
        alphas: The points. 0 is the base before the round, 1 the base after it.
        losses: Set -> loss at each point.
        splits: Set -> "dev" or "test".
        protected: Sets that no round trains on.
        max_clips: Most clips of a set.
    """

    round_index: int
    alphas: Sequence[float]
    losses: Mapping[str, Sequence[float]]
    splits: Mapping[str, str]
    protected: Sequence[str]
    max_clips: int

    def best(self, name: str) -> float:
        """Returns the alpha of a set's lowest loss."""
        losses = self.losses[name]
        return self.alphas[min(range(len(losses)), key=losses.__getitem__)]


def alphas(num_points: int) -> list[float]:
    """Returns `num_points` evenly spread over [0, 1.5]. Raises InputError for fewer than two."""
    if num_points < 2:
        raise InputError(f"--line {num_points}: a line has 2 points or more; 0 leaves it out")
    return [END * index / (num_points - 1) for index in range(num_points)]


def loss_along(config: Config, base: Base, delta_dir: Path, *, num_points: int, max_clips: int) -> Line:
    """Returns the loss of every set of the configuration along the line, on this machine's CPU.

    Args:
        config: The run's; its data must be on this machine.
        base: The base before the round.
        delta_dir: Folder of the round's update.
        num_points: Points of the line, 2 or more.
        max_clips: Most clips of a set.

    Raises:
        InputError: Data is missing, a set has neither a dev nor a test split, or there are too few points.
    """
    points, warm = alphas(num_points), WarmBase(base)
    protected = list(config.evaluate.protected)
    batches: dict[str, list[Batch]] = {}
    splits: dict[str, str] = {}
    for name, data in {**config.datasets, **config.evaluate.protected}.items():
        splits[name], batches[name] = _batches(name, data, config, warm, max_clips)
    model = build(warm, config.lora, 0)  # its lora_B is zero: the base itself, in the shape that TokenLoss wants
    train_mode_(model, training=False)
    loss = TokenLoss(model.requires_grad_(False), "fp32")
    delta = base_chain.read_delta(delta_dir)
    start = {module: warm.tensors[f"{module}.weight"].clone() for module in delta}
    losses: dict[str, list[float]] = {name: [] for name in batches}
    for alpha in points:
        move_(warm.tensors, start, delta, alpha)
        for name, of_set in batches.items():
            losses[name].append(token_loss(loss, of_set))
        logger.info("alpha %.2f: %s", alpha, ", ".join(f"{name} {values[-1]:.3f}" for name, values in losses.items()))
    return Line(base.index + 1, points, losses, splits, protected, max_clips)


def _batches(name: str, data: DatasetConfig, config: Config, warm: WarmBase, max_clips: int) -> tuple[str, list[Batch]]:
    split: SplitName = "dev" if "dev" in data.splits else "test"
    if split not in data.splits:
        raise InputError(f"{name}: no dev and no test split to measure the loss on; leave --line out")
    limit = min(max_clips, data.max_clips or max_clips)
    clips = open_split(name, data.model_copy(update={"max_clips": limit}), split)
    windows = DevWindows(clips, config.train, warm.processor)
    size = min(_BATCH, len(windows.windows))
    return split, [windows.batch(index, size, 0, 1) for index in range(windows.num_batches(size, 1))]


def move_(
    tensors: Mapping[str, torch.Tensor], start: Mapping[str, torch.Tensor], delta: Mapping[str, AnyDelta], alpha: float
) -> None:
    """Sets every module's weight to start + alpha * delta, summed in float64."""
    for module, update in delta.items():
        tensors[f"{module}.weight"].copy_(start[module].double() + alpha * update.dense())


@torch.no_grad()
def token_loss(loss: TokenLoss, batches: Sequence[Batch]) -> float:
    """Returns the cross-entropy per label token over all batches, summed in float64."""
    total = sum(float(loss(**batch).double().sum()) for batch in batches)
    return total / sum(int((batch["labels"] >= 0).sum()) for batch in batches)
