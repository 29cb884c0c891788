"""What `precision: auto` is on this machine, where a model is scored without a run."""

import torch

from wfc_dist.config.schema import Config
from wfc_dist.runs.precision import decided, has_bf16


def with_own_precision(config: Config) -> Config:
    """Returns a configuration whose `precision: auto` is what suits this machine."""
    if "auto" not in config.precisions:
        return config
    precision, _ = decided({"this machine": has_bf16(use_gpu=torch.cuda.is_available())})
    return config.with_precision(precision, precision)
