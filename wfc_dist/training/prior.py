"""Bayesian low-rank factorization (Ugan, Pham and Waibel, arXiv 2510.18723): a prior near zero over the entries of A and B.

Every entry is N(mu, s^2) with s = softplus(rho). Training moves mu and rho, each micro-batch draws mu + s * eps, and mu is
written as the adapter. The penalty that is added to the mean token loss is

    beta * sum over factors of the mean over entries of KL(N(mu, s^2) || N(0, sigma^2))

Its normalization is that of the authors' code (enesyugan/continual-asr, loras/bnn_lora.py): beta means the same for every r. Its
start is theirs, too: the rho of lora_A are drawn between -5.5 and -4.5 (s between 0.004 and 0.011), those of lora_B are -50, so
B = 0 has no noise and the first updates that are drawn are zero. The logarithm takes s + 1e-6, so rho of B, whose s is 2e-22,
has no gradient that an optimizer sees: in effect B is a parameter without noise. The prior of lora_A is centred at zero too, not
at its initial value: A starts inside a prior of sigma 0.05, and directions that stay unused shall vanish from the product.
"""

import math

import torch
from peft import PeftModel
from torch.nn import functional

from wfc_dist.config.training import PriorConfig
from wfc_dist.seeds import derived_seed
from wfc_dist.training.model import lora_parameters

A_START, B_START = (-5.5, -4.5), -50.0
"""The interval that the first rho of lora_A are drawn from, and the first rho of lora_B."""
_SMALLEST = 1e-6


def gaussian_divergence(mu: torch.Tensor, s: torch.Tensor, sigma: float) -> torch.Tensor:
    """Returns KL(N(mu, s^2) || N(0, sigma^2)) = log(sigma / (s + 1e-6)) + (s^2 + mu^2) / (2 sigma^2) - 1/2, entry by entry.

    The 1e-6 is the authors', and no part of the divergence.
    """
    return math.log(sigma) - (s + _SMALLEST).log() + (s.square() + mu.square()) / (2 * sigma**2) - 0.5


def first_rho(key: str, mu: torch.Tensor, init_seed: int) -> torch.Tensor:
    """Returns the first rho of a factor, a pure function of `init_seed` and the PEFT key: drawn for lora_A, fixed for lora_B."""
    if "lora_B" in key:
        return torch.full(mu.shape, B_START, device=mu.device)
    generator = torch.Generator().manual_seed(derived_seed(init_seed, "rho", key))
    return torch.empty(mu.shape).uniform_(*A_START, generator=generator).to(mu.device)


class GaussianFactors(torch.nn.Module):
    """The spread of every entry of an adapter's factors; the means are the factors themselves.

    The factors are read at every call; they are no parameters of this module.
    """

    def __init__(self, model: PeftModel, config: PriorConfig, init_seed: int) -> None:
        super().__init__()
        self._config, self._means = config, lora_parameters(model)
        own_names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._own_names = [own_names[id(parameter)] for parameter in self._means.values()]
        self.rho = torch.nn.ParameterList([first_rho(key, mu, init_seed) for key, mu in self._means.items()])

    def spreads(self) -> dict[str, torch.nn.Parameter]:
        """Returns every rho by `rho/<PEFT key>`. They are trained and checkpointed, but no part of the adapter."""
        return {f"rho/{key}": rho for key, rho in zip(self._means, self.rho, strict=True)}

    def sample(self) -> dict[str, torch.Tensor]:
        """Draws the factors with torch's generator. Returns them by their name in the model, differentiable w.r.t. mu and rho."""
        pairs = zip(self._means.values(), self.rho, strict=True)
        drawn = [mu + functional.softplus(rho) * torch.randn_like(mu) for mu, rho in pairs]
        return dict(zip(self._own_names, drawn, strict=True))

    def penalty(self) -> torch.Tensor:
        """Returns beta * the divergence of all factors, a differentiable scalar."""
        pairs = zip(self._means.values(), self.rho, strict=True)
        means = [gaussian_divergence(mu, functional.softplus(rho), self._config.sigma).mean() for mu, rho in pairs]
        return self._config.beta * torch.stack(means).sum()
