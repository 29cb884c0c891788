"""Continual SSVD (Vander Eeckt and Van hamme, arXiv 2606.09342): the smallest singular directions of a weight are rotated.

    W = U diag(sigma) V^T,   U_k, sigma_k, V_k the last k = int(tail * min(out, in)) directions
    delta = U_k diag(sigma_k) (-2 K) V_k^T = B A,   K = -K^T,   B = U_k diag(sigma_k) (-2 K),   A = V_k^T

I - 2 K is the rotation (I - K)(I + K)^-1 to first order, as in the authors' code (StevenVdEeckt/pecl-for-asr 9fcfad8,
ssvdolib.py, knowledge_preserved_mode, rotation_only). The k (k - 1) / 2 numbers above the diagonal of K are trained; they begin
at zero.
Letters of shapes: O out features, I in features, R the k directions.
"""

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch.nn import functional

from wfc_dist.weights.warm_base import WarmBase


@dataclass(frozen=True)
class Tail:
    """The last singular directions of a weight, float32.

    Attributes:
        left_OR: U_k diag(sigma_k).
        right_RI: V_k^T.
    """

    left_OR: torch.Tensor
    right_RI: torch.Tensor


_KNOWN: WeakKeyDictionary[WarmBase, dict[tuple[str, int], tuple[str, Tail]]] = WeakKeyDictionary()
"""Base -> (module, k) -> hash of the weight and its tail. The dev set and the next adapters have the same weights."""


def tail_of(weight_OI: torch.Tensor, num_directions: int) -> Tail:
    """Returns the last `num_directions` singular directions of a weight.

    They are found in float64 on the CPU. The largest entry of each right vector is positive, so that two machines agree on the
    signs.
    """
    u_OM, sigma_M, v_MI = torch.linalg.svd(weight_OI.detach().to("cpu", torch.float64), full_matrices=False)
    u_OR, sigma_R, v_RI = u_OM[:, -num_directions:], sigma_M[-num_directions:], v_MI[-num_directions:]
    largest_R1 = v_RI.gather(1, v_RI.abs().argmax(1, keepdim=True))
    sign_R = torch.where(largest_R1[:, 0] < 0, -1.0, 1.0).double()
    return Tail((u_OR * (sigma_R * sign_R)).float().contiguous(), (v_RI * sign_R[:, None]).float().contiguous())


def tail_of_module(warm: WarmBase, module: str, num_directions: int) -> Tail:
    """Returns the last singular directions of a module of the warm base, on its device; those of a known weight are kept."""
    name = f"{module}.weight"
    known, sha256 = _KNOWN.setdefault(warm, {}), warm.sha256(name)
    if known.get((module, num_directions), ("",))[0] != sha256:
        tail = tail_of(warm.tensors[name], num_directions)
        kept = Tail(tail.left_OR.to(warm.device), tail.right_RI.to(warm.device))
        known[module, num_directions] = sha256, kept
    return known[module, num_directions][1]


class RightFactor(torch.nn.Module):
    """A = V_k^T in the place of lora_A. It has no parameter and is not trained."""

    def __init__(self, right_RI: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", right_RI)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Returns the inputs (..., I) in the directions, (..., R)."""
        return functional.linear(inputs, self.get_buffer("weight"))


class Rotation(torch.nn.Module):
    """B = U_k diag(sigma_k) (-2 K) in the place of lora_B. Its parameter `skew` is K above the diagonal, row by row."""

    def __init__(self, left_OR: torch.Tensor) -> None:
        super().__init__()
        num_directions = left_OR.shape[1]
        self.register_buffer("left", left_OR)
        self.register_buffer("places", torch.triu_indices(num_directions, num_directions, 1, device=left_OR.device))
        self.skew = torch.nn.Parameter(torch.zeros(num_directions * (num_directions - 1) // 2, device=left_OR.device))

    @property
    def weight(self) -> torch.Tensor:
        """Returns B (O, R), differentiable with regard to `skew`."""
        return self.of(self.skew)

    def of(self, skew: torch.Tensor) -> torch.Tensor:
        """Returns the B (O, R) of other numbers, in their dtype and on the device of `left`."""
        left_OR, places = self.get_buffer("left").to(skew.dtype), self.get_buffer("places")
        upper_RR = left_OR.new_zeros(left_OR.shape[1], left_OR.shape[1]).index_put(
            (places[0], places[1]), skew.to(left_OR.device)
        )
        return left_OR @ (2 * (upper_RR.T - upper_RR))

    def forward(self, directions: torch.Tensor) -> torch.Tensor:
        """Returns the update's outputs (..., O) of inputs in the directions (..., R)."""
        return functional.linear(directions, self.weight)
