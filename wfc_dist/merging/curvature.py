"""The statistics of the loss around a finished adapter: their names, the methods that need them, the settings that measure them.

Importing this module loads neither torch nor ray. Shape letters are those of `factors`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Curvature:
    """The statistics of one module of one adapter, float32. A statistic that was not measured is None.

    Attributes:
        fisher_OI: (out, in), mean over windows of the squared gradient of the window's loss.
        inputs_II: (in, in), second moment of the module's inputs.
        outputs_OO: (out, out), second moment of the gradients of its outputs.
        fishernorm_: (), L2 norm of the Fisher information of all modules of the adapter, float64. It is computed from the file of
            statistics and not stored there.
    """

    fisher_OI: "torch.Tensor | None" = None
    inputs_II: "torch.Tensor | None" = None
    outputs_OO: "torch.Tensor | None" = None
    fishernorm_: "torch.Tensor | None" = None


FIELDS = {field.name.partition("_")[0]: field.name for field in fields(Curvature)}
"""Name of a statistic in files (`<module>.fisher`) -> field of `Curvature`."""
_FISHER, _KRONECKER = ("fisher",), ("inputs", "outputs")
NEEDED = {"fisher": _FISHER, "previous": _KRONECKER}
"""Input of a merge method (`catalog.INPUTS`) -> the statistics that it consists of."""
Choice = Literal["none", "fisher", "kronecker", "both"]
MEASURED: dict[Choice, tuple[str, ...]] = {"none": (), "fisher": _FISHER, "kronecker": _KRONECKER, "both": _FISHER + _KRONECKER}
"""Value of `train.curvature` -> the statistics that are measured and written."""


def choices_with(statistics: Sequence[str]) -> list[Choice]:
    """Returns the values of `train.curvature` that measure all of `statistics`, the smallest first."""
    return [choice for choice, measured in MEASURED.items() if set(statistics) <= set(measured)]


def shape_of(statistic: str, out_features: int, in_features: int) -> tuple[int, ...]:
    """Returns the shape of a statistic of a linear layer. The letters at the end of the field name give the shape."""
    sizes = {"O": out_features, "I": in_features}
    return tuple(sizes[letter] for letter in FIELDS[statistic].rpartition("_")[2])
