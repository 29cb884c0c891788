"""A Whisper with an adapter from outside around its layers: for decoding, not for training."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from wfc_dist.errors import InputError
from wfc_dist.merging.factors import Factors

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import WhisperForConditionalGeneration


def with_adapter(model: "WhisperForConditionalGeneration", factors: Mapping[str, Factors], folder: Path) -> "PeftModel":
    """Returns `model` with an adapter around its linear layers.

    The factors are read as for merging, so that both accept the same adapters; PEFT's own reader would run the regular
    expressions of a foreign adapter_config.json.

    Args:
        model: Gets the layers in place.
        factors: Module -> factors, from `read_factors`.
        folder: Of the adapter, for messages.

    Raises:
        InputError: The adapter is one of another model.
    """
    from peft import LoraConfig, get_peft_model

    layers = dict(model.named_modules())
    for name, item in factors.items():
        layer, shape = layers.get(name), (item.b_OR.shape[0], item.a_RI.shape[1])
        if not isinstance(layer, torch.nn.Linear) or tuple(layer.weight.shape) != shape:
            raise InputError(f"{folder}: {name} is no linear layer of {list(shape)} in the base; it was made for another model")
    adapted = get_peft_model(model, LoraConfig(r=1, lora_alpha=1, target_modules=list(factors), init_lora_weights=False))
    layers = dict(adapted.get_base_model().named_modules())
    for name, item in factors.items():
        layer, device = layers[name], layers[name].weight.device
        layer.lora_A["default"].weight = torch.nn.Parameter(item.a_RI.to(device), requires_grad=False)
        layer.lora_B["default"].weight = torch.nn.Parameter(item.b_OR.to(device), requires_grad=False)
        layer.r["default"], layer.scaling["default"] = len(item.a_RI), item.scaling
    return adapted
