"""What fits on this machine: which device, how many windows at a time. For a first configuration; `room` checks what is set."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from wfc_dist.config.training import TrainConfig
from wfc_dist.coordinator.room import least_bytes, memory_bytes
from wfc_dist.runs.precision import HALF, has_bf16

_FRAMES, _LABELS = 1500, 448
_VALUES_A_LAYER = 34
"""Values that the backward pass keeps a position and layer, in widths of the model, with fused attention (arXiv 2205.05198)."""
_USED = 0.6
"""The share of the memory that an estimate may fill: kernels, fragments and the decoding of audio need the rest."""
MOST_WINDOWS = 8
_USUAL: dict[str, tuple[int, int, int]] = {
    "tiny": (384, 4, 4), "base": (512, 6, 6), "small": (768, 12, 12), "medium": (1024, 24, 24), "turbo": (1280, 32, 4),
    "large": (1280, 32, 32),
}  # fmt: skip
"""Whisper's sizes: width, layers of the encoder, layers of the decoder. Source: arXiv 2212.04356, table 1."""
_VOCABULARY = 51_866


@dataclass(frozen=True)
class Machine:
    """What there is to compute with.

    Attributes:
        num_cores: Of this machine.
        memory_bytes: Of the machine or its container.
        gpu_bytes: Memory of each GPU.
        has_bf16: Whether the GPUs, or without any the CPU, calculate in bfloat16 themselves.
    """

    num_cores: int
    memory_bytes: int
    gpu_bytes: tuple[int, ...] = ()
    has_bf16: bool = False


@dataclass(frozen=True)
class ModelSize:
    """Width and layers of a Whisper."""

    width: int
    encoder_layers: int
    decoder_layers: int

    @property
    def num_parameters(self) -> int:
        """About how many parameters it has."""
        layers = 12 * self.encoder_layers + 16 * self.decoder_layers
        return layers * self.width**2 + (_VOCABULARY + 2000) * self.width

    def window_bytes(self, precision: str) -> float:
        """About what the backward pass of one window keeps."""
        layers = _FRAMES * self.encoder_layers + 2 * _LABELS * self.decoder_layers
        values = layers * _VALUES_A_LAYER * self.width + 6 * _FRAMES * self.width
        return values * (2 if precision in HALF else 4) + 3 * 4 * _LABELS * _VOCABULARY


def this_machine() -> Machine:
    """Returns what this machine has. Loads torch."""
    import torch

    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = tuple(int(torch.cuda.get_device_properties(index).total_memory) for index in range(num_gpus))
    return Machine(os.cpu_count() or 1, memory_bytes(), gpus, has_bf16(use_gpu=bool(gpus)))


def model_size(model: str, root: Path | None) -> ModelSize | None:
    """Returns the size of a model: by its config.json where that is here, else by its name; None if neither says it."""
    if root is not None:
        try:
            facts = json.loads((root / "config.json").read_text(encoding="utf-8"))
            return ModelSize(int(facts["d_model"]), int(facts["encoder_layers"]), int(facts["decoder_layers"]))
        except (OSError, ValueError, LookupError, TypeError):
            return None
    name = model.rpartition("/")[2].lower()
    return next((ModelSize(*sizes) for word, sizes in _USUAL.items() if word in name), None)


def windows_that_fit(size: ModelSize, train: TrainConfig, num_trained: int, memory: int) -> int:
    """Returns how many windows a worker trains at a time in so many bytes, at most MOST_WINDOWS; 0 where not even one fits."""
    left = _USED * memory - least_bytes(train, size.num_parameters, num_trained)
    return min(MOST_WINDOWS, max(int(left // size.window_bytes(train.precision)), 0))
