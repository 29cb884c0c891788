"""Bayesian low-rank factorization (Ugan, Pham and Waibel, arXiv 2510.18723): a prior near zero over the entries of A and B.

Every entry is N(mu, s^2) with s = softplus(rho). Training moves mu and rho, each micro-batch draws mu + s * eps, and mu is
written as the adapter. The penalty that is added to the mean token loss is

    beta * sum over factors of the mean over entries of KL(N(mu, s^2) || N(0, sigma^2))

Its normalization is that of the authors' code: beta means the same for every r. The prior of lora_A is centred at zero too, not
at its initial value: A starts inside a prior of sigma 0.05, and directions that stay unused shall vanish from the product.
"""

import math

import torch
from peft import PeftModel
from torch.nn import functional

from wfc_dist.config.training import PriorConfig
from wfc_dist.training.model import lora_parameters

START = -5.0
"""First value of every rho, s = 0.0067; the authors' code draws it between -5.5 and -4.5."""


def gaussian_divergence(mu: torch.Tensor, s: torch.Tensor, sigma: float) -> torch.Tensor:
    """Returns KL(N(mu, s^2) || N(0, sigma^2)) = log(sigma / s) + (s^2 + mu^2) / (2 sigma^2) - 1/2, entry by entry."""
    return math.log(sigma) - s.log() + (s.square() + mu.square()) / (2 * sigma**2) - 0.5


class GaussianFactors(torch.nn.Module):
    """The spread of every entry of an adapter's factors; the means are the factors themselves.

    The factors are read at every call; they are no parameters of this module.
    """

    def __init__(self, model: PeftModel, config: PriorConfig) -> None:
        super().__init__()
        self._config, self._means = config, lora_parameters(model)
        own_names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._own_names = [own_names[id(parameter)] for parameter in self._means.values()]
        self.rho = torch.nn.ParameterList([torch.full(mu.shape, START, device=mu.device) for mu in self._means.values()])

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
