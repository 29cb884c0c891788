"""Elastic weight consolidation (Kirkpatrick et al., arXiv 1612.00796), online (Schwarz et al., arXiv 1805.06370).

    penalty = weight / 2 * sum over modules and entries of F * delta^2,   delta = scaling * B @ A

The update is measured from the latest base, on which the adapter is trained. F is the sum of the Fisher information of all
adapters of earlier rounds. Letters of shapes: O out features, I in features, R rank.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from wfc_dist.errors import InputError
from wfc_dist.storage import durable
from wfc_dist.storage.objects import at_once
from wfc_dist.training.job import TrainingJob
from wfc_dist.training.model import factor, lora_layers
from wfc_dist.weights import peft_folder
from wfc_dist.weights.tensor_files import TensorFile


def read_fisher(folder: Path) -> dict[str, torch.Tensor]:
    """Returns module -> Fisher information (out, in) of a committed adapter, float64.

    Raises:
        InputError: The adapter has no Fisher information.
        IntegrityError: The folder differs from what was committed.
    """
    names = durable.verify_folder(folder, skip=frozenset(peft_folder.FILES))["files"]
    fishers: dict[str, torch.Tensor] = {}
    if peft_folder.STATISTICS in names:
        with TensorFile(folder / peft_folder.STATISTICS) as file:
            keys = [key for key in file.names() if key.endswith(".fisher")]
            fishers = {key.removesuffix(".fisher"): file.read(key).double() for key in keys}
    if not fishers:
        raise InputError(
            f"{folder} has no Fisher information in {peft_folder.STATISTICS}: train.ewc needs "
            "train.curvature fisher in every round"
        )
    return fishers


def sum_fisher(folders: Sequence[Path]) -> dict[str, torch.Tensor]:
    """Returns module -> Fisher information summed over adapters in the order given, float64. Raises as `read_fisher`."""
    total = read_fisher(folders[0])
    for folder in folders[1:]:
        fisher = read_fisher(folder)
        total = {name: total[name] + fisher[name] for name in total.keys() & fisher.keys()}
    return total


class ElasticWeights:
    """The penalty of an adapter for leaving the base. Keeps F in float32 on the device of the factors.

    Args:
        model: The adapter; its factors are read at every call.
        fisher: Module -> F, for every adapted module.
        weight: `train.ewc.weight`.
        device: Where the factors are.

    Raises:
        InputError: F is missing for an adapted module.
    """

    def __init__(self, model: torch.nn.Module, fisher: Mapping[str, torch.Tensor], weight: float, device: torch.device) -> None:
        layers = lora_layers(model)
        if missing := sorted(layers.keys() - fisher.keys()):
            raise InputError(f"train.ewc: earlier rounds did not measure {missing[0]}; keep lora.target_modules as they were")
        self._weight = weight
        self._modules = [
            (layer, layer.scaling["default"], fisher[name].to(device, torch.float32)) for name, layer in layers.items()
        ]

    def __call__(self) -> torch.Tensor:
        """Returns the penalty, a scalar that is differentiable w.r.t. the factors."""
        terms = [
            (fisher_OI * (scaling * factor(layer, "lora_B") @ factor(layer, "lora_A")).square()).sum()
            for layer, scaling, fisher_OI in self._modules
        ]
        return self._weight / 2 * torch.stack(terms).sum()


def elastic_weights(job: TrainingJob, model: torch.nn.Module, device: torch.device) -> ElasticWeights:
    """Returns the penalty of a job with `train.ewc`; fetches and verifies its `past_curvature`. Every rank must call it."""
    assert job.train.ewc is not None
    folders = [Path(folder) for folder in job.past_curvature]
    at_once(job.mirror.fetch, folders)
    return ElasticWeights(model, sum_fisher(folders), job.train.ewc.weight, device)
