"""Whether a finished adapter has diverged: numbers that are not finite, or an update out of proportion to the base."""

from collections.abc import Mapping
from pathlib import Path

import torch

from wfc_dist.errors import TrainingError
from wfc_dist.weights import peft_folder
from wfc_dist.weights.warm_base import WarmBase

_REMEDY = "lower train.lr, lengthen train.warmup_steps, or train in bf16 or fp32"


def check_finite(adapter: Mapping[str, torch.Tensor], where: str) -> None:
    """Raises TrainingError if a number of an adapter is not finite. `where` names the training in the message."""
    if bad := [name for name, values in adapter.items() if not torch.isfinite(values).all()]:
        raise TrainingError(f"{where}: {bad[0]} is not finite after the last step; {_REMEDY}")


def check_size(folder: Path, warm: WarmBase, limit: float | None, where: str) -> None:
    """Raises TrainingError if the update of a PEFT folder is larger than `limit` times the weights that it changes.

    Args:
        folder: The adapter.
        warm: The base that it was trained against.
        limit: The value of `train.max_update_ratio`; None is no limit.
        where: Names the training in the message.
    """
    if limit is None:
        return
    ratio = peft_folder.update_ratio(folder, warm.tensors)
    if not ratio <= limit:
        raise TrainingError(
            f"{where}: the update is {ratio:.3g} times the weights that it changes, more than "
            f"train.max_update_ratio = {limit:g}; {_REMEDY}"
        )
