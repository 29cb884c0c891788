"""Is weight decay a prior near zero? How much AdamW's decay shrinks a weight, beside how far the gradients move it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from wfc_dist.config.training import TrainConfig
from wfc_dist.merging.factors import Factors
from wfc_dist.training.model import init_lora_a_
from wfc_dist.training.schedule import lr_at


@dataclass(frozen=True)
class AdapterPrior:
    """The effect of decay and gradients on one adapter. Frobenius norms over all modules.

    Attributes:
        steps: Optimizer steps that made these weights.
        shrinkage: 1 - prod(1 - lr_t * weight_decay): the share that decay takes from a factor without gradient.
        lora_A_start: ||A_0||, the common initial value of the round's adapters.
        lora_A_moved: ||A - A_0||.
        lora_B_moved: ||B||; B starts at zero.
    """

    steps: int
    shrinkage: float
    lora_A_start: float
    lora_A_moved: float
    lora_B_moved: float


def adapter_prior(factors: Mapping[str, Factors], train: TrainConfig, steps: int, init_seed: int) -> AdapterPrior:
    """Returns the decay of one adapter (module -> factors) over `steps` steps, and how far its factors moved.

    `init_seed` is the seed of lora_A, the same for all adapters of a round.
    """
    start = moved_a = moved_b = 0.0
    for module, adapter in factors.items():
        start_RI = torch.empty_like(adapter.a_RI)
        init_lora_a_(start_RI, init_seed, module)
        start += float(start_RI.double().square().sum())
        moved_a += float((adapter.a_RI.double() - start_RI.double()).square().sum())
        moved_b += float(adapter.b_OR.double().square().sum())
    return AdapterPrior(steps, shrinkage(train, steps), math.sqrt(start), math.sqrt(moved_a), math.sqrt(moved_b))


def shrinkage(train: TrainConfig, steps: int) -> float:
    """Returns 1 - prod_{t=1..steps} (1 - lr_t * weight_decay), lr_t from the schedule."""
    return -math.expm1(math.fsum(_log_kept(step, train) for step in range(1, steps + 1)))


def shrinkage_curve(train: TrainConfig, steps: int, num_points: int = 60) -> list[tuple[int, float]]:
    """Returns (step, shrinkage up to this step) at step 0 and up to `num_points` later ones."""
    wanted = {round(index * steps / num_points) for index in range(num_points + 1)}
    points, log_kept = [(0, 0.0)], 0.0
    for step in range(1, steps + 1):
        log_kept += _log_kept(step, train)
        if step in wanted:
            points.append((step, -math.expm1(log_kept)))
    return points


def _log_kept(step: int, train: TrainConfig) -> float:
    decay = lr_at(step, train) * train.weight_decay
    return math.log1p(-decay) if decay < 1 else -math.inf  # beyond 1 AdamW flips the sign: nothing is left
