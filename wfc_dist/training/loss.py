"""The loss of a training step: cross-entropy summed over tokens, and what distillation and a prior make of it."""

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
from peft import PeftModel
from torch.nn import functional
from transformers.models.whisper.modeling_whisper import shift_tokens_right

from wfc_dist.config.training import DistillationConfig
from wfc_dist.training.distillation import divergence
from wfc_dist.training.model import base_alone, lora_parameters, whisper
from wfc_dist.training.prior import GaussianFactors


class TokenLoss(torch.nn.Module):
    """Whisper with an adapter, from a batch to its summed cross-entropy. DDP and DeepSpeed wrap this module.

    Autocast is entered in here, not by the wrappers: their own mixed precision would keep LoRA factors, or their gradients on
    the wire, in half precision.

    Args:
        model: From `build`.
        precision: fp32, bf16 or fp16.
        distillation: Mixes in the divergence from the base alone (see `distillation`); None computes the cross-entropy only.
        prior: Draws the factors anew in every call (see `prior`); None takes them as they are.
    """

    def __init__(
        self,
        model: PeftModel,
        precision: str,
        distillation: DistillationConfig | None = None,
        prior: GaussianFactors | None = None,
    ) -> None:
        super().__init__()
        self.model, self.distillation, self.prior = model, distillation, prior
        self.autocast_dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]

    def forward(self, input_features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Returns the token loss of every window, summed: cross-entropy, or what distillation makes of it.

        Args:
            input_features: (B, n_mels, frames).
            labels: (B, L), -100 where nothing is learned.

        Returns:
            (B,) float32.
        """
        base = whisper(self.model)
        pad, start = base.config.pad_token_id, base.config.decoder_start_token_id
        assert isinstance(pad, int) and isinstance(start, int)
        inputs = {"input_features": input_features.to(base.dtype), "decoder_input_ids": shift_tokens_right(labels, pad, start)}
        teacher = None
        if self.distillation is not None:
            with torch.no_grad(), base_alone(self.model), self._autocast(labels.device):
                teacher = self.model(**inputs, use_cache=False).logits
        with self._autocast(labels.device):
            logits = self._adapted(inputs).logits
        losses = functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="none")
        summed = losses.view(labels.shape).sum(dim=1)
        if self.distillation is None or teacher is None:
            return summed
        weight, kl = self.distillation.weight, divergence(teacher, logits, labels, self.distillation.temperature)
        return (1 - weight) * summed + weight * kl

    def trained_parameters(self) -> dict[str, torch.nn.Parameter]:
        """Returns all that the optimizer moves: the factors by PEFT key, then the spreads of a prior by `rho/<PEFT key>`."""
        return lora_parameters(self.model) | (self.prior.spreads() if self.prior is not None else {})

    def _adapted(self, inputs: Mapping[str, torch.Tensor]) -> Any:
        if self.prior is None:
            return self.model(**inputs, use_cache=False)
        return torch.func.functional_call(self.model, self.prior.sample(), (), {**inputs, "use_cache": False})

    def _autocast(self, device: torch.device) -> contextlib.AbstractContextManager[object]:
        if self.autocast_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=self.autocast_dtype)
