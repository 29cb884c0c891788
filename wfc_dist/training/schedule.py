"""Learning rates as pure functions of the step, so that a checkpoint needs no state of the schedule."""

import math

from wfc_dist.config.training import TrainConfig


def lr_at(step: int, train: TrainConfig) -> float:
    """Returns the learning rate of optimizer step `step`, counted from 1.

    Linear warm-up to `train.lr` at step `warmup_steps` = w, then with T = `max_steps`:

        inverse_sqrt   lr * sqrt(w / step)                              (w = 1 without warm-up)
        inverse_step   lr * w / step                                    (w = 1 without warm-up)
        cosine         lr * (1 + cos(pi * (step - w) / (T + 1 - w))) / 2, so that the last step is not wasted on 0
        constant       lr
    """
    warmup = train.warmup_steps
    if step < warmup:
        return train.lr * step / warmup
    if train.schedule == "inverse_sqrt":
        return train.lr * math.sqrt(max(warmup, 1) / step)
    if train.schedule == "inverse_step":
        return train.lr * max(warmup, 1) / step
    if train.schedule == "cosine":
        return train.lr * (1 + math.cos(math.pi * (step - warmup) / (train.max_steps + 1 - warmup))) / 2
    return train.lr
