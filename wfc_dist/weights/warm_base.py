"""One base held in memory for a whole run: what stays warm in a trainer between adapters and rounds."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperProcessor

from wfc_dist.errors import IntegrityError
from wfc_dist.rounds import Base
from wfc_dist.weights import base_chain, companions
from wfc_dist.weights.hashing import tensor_sha256


class WarmBase:
    """The tensors of a base, and fresh models that share them.

    A model for every adapter is built anew around the same storage, so nothing of one training leaks into the next
    and a changed base costs the changed tensors only.

    Attributes:
        base: Which base the tensors are now.
        tensors: Name -> tensor in `dtype` on `device`, as in the checkpoint files (tied copies left out).
    """

    def __init__(
        self,
        base: Base,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        on_read: Callable[[str, torch.Tensor], None] | None = None,
    ) -> None:
        """Reads a base from its folder; `on_read` is called with every name and tensor as stored, and raises to refuse it."""
        self.base, self.dtype, self.device = base, dtype, torch.device(device)
        self.tensors = {}
        self._hashes: dict[str, str] = {}
        for name, tensor in base_chain.read_tensors(Path(base.path)):
            if on_read:
                on_read(name, tensor)
            self.tensors[name] = self._own(tensor)
        # The same in every base of a run, and so not read again: a broadcast brings tensors only.
        self.processor = WhisperProcessor.from_pretrained(base.path)
        self._config = WhisperConfig.from_pretrained(base.path)
        self._generation_config = companions.generation_config(Path(base.path))

    def _own(self, tensor: torch.Tensor) -> torch.Tensor:
        wanted = self.dtype if tensor.is_floating_point() else tensor.dtype
        return tensor.to(device=self.device, dtype=wanted, copy=True)

    def sha256(self, name: str) -> str:
        """Returns the hash of a tensor in memory, as of the first time this was asked since it came or `forget_hashes`."""
        if name not in self._hashes:
            self._hashes[name] = tensor_sha256(self.tensors[name])
        return self._hashes[name]

    def forget_hashes(self) -> None:
        """Makes `sha256` look at the tensors again."""
        self._hashes.clear()

    def update_(self, base: Base, changed: Mapping[str, torch.Tensor], hashes: Mapping[str, str]) -> None:
        """Becomes `base` by taking its changed tensors.

        Args:
            base: The base these tensors belong to; its predecessor must be the one held now.
            changed: Name -> tensor in the checkpoint's dtype.
            hashes: Name -> sha256 recorded when the base was committed; each tensor is verified before it is taken.

        Raises:
            IntegrityError: A tensor is missing or is not the one that was committed.
        """
        for name, sha256 in hashes.items():
            if name not in changed or tensor_sha256(changed[name]) != sha256:
                raise IntegrityError(f"broadcast of base {base.index}: {name} did not arrive as it was committed")
        for name in hashes:
            self._hashes.pop(name, None)
            self.tensors[name].copy_(changed[name])
        self.base = base

    def model(self) -> WhisperForConditionalGeneration:
        """Returns a new frozen model in eval mode whose parameters share storage with `tensors`."""
        with torch.device("meta"):
            model = WhisperForConditionalGeneration(copy.deepcopy(self._config))
        missing, unexpected = model.load_state_dict(self.tensors, strict=False, assign=True)
        model.tie_weights()
        if unexpected or any(name != base_chain.TIED for name in missing):
            raise IntegrityError(f"{self.base.path}: config.json and weights disagree on {[*missing, *unexpected][:3]}")
        model.generation_config = copy.deepcopy(self._generation_config)
        model.eval()
        model.requires_grad_(False)
        return model
