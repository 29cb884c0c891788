"""The Bayesian prior: divergence against torch.distributions in float64, samples, and what is trained."""

from pathlib import Path

import pytest
import tiny
import torch
from torch.distributions import Normal, kl_divergence

from wfc_dist.config.training import LoraConfig, PriorConfig
from wfc_dist.rounds import Base
from wfc_dist.training import model as models
from wfc_dist.training.loss import TokenLoss
from wfc_dist.training.prior import GaussianFactors, first_rho, gaussian_divergence
from wfc_dist.weights.warm_base import WarmBase

LORA = LoraConfig(r=4, alpha=8, dropout=0.0)
ROUNDING = 1e-5  # relative; float32 against float64


@pytest.fixture
def loss(tmp_path: Path) -> TokenLoss:
    model = models.build(WarmBase(Base(0, str(tiny.make_whisper(tmp_path)), "sha")), LORA, 5)
    return TokenLoss(model, "fp32", prior=GaussianFactors(model, PriorConfig(sigma=0.2, beta=0.5), 5))


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "input_features": torch.randn(2, 80, 3000, generator=generator),
        "labels": torch.randint(0, 200, (2, 6), generator=generator),
    }


def test_the_divergence_is_that_of_two_gaussians() -> None:
    mu, s = torch.linspace(-1, 1, 7, dtype=torch.float64), torch.linspace(0.01, 2, 7, dtype=torch.float64)

    expected = kl_divergence(Normal(mu, s), Normal(torch.zeros_like(mu), torch.full_like(mu, 0.3)))

    difference = (gaussian_divergence(mu, s, 0.3) - expected).abs()
    assert (difference <= 1.01e-6 / s).all() and difference.max() > 0.9e-4, "the authors' 1e-6 beside s"


def authors_start(rows: int, columns: int, is_b: bool) -> tuple[torch.Tensor, float]:
    """enesyugan/continual-asr 4e71122, loras/bnn_lora.py, in float64: the first sigma of a factor of this shape, and its
    divergence from N(0, 0.2^2) with mu = 0, a mean over the entries. A draws log sigma between -5.5 and one more, B has -50."""
    log_sigma = torch.full((rows, columns), -50.0, dtype=torch.float64)
    if not is_b:
        log_sigma.uniform_(-5.5, -5.5 + 1)
    sigma = torch.log1p(log_sigma.exp())
    divergence = torch.log(torch.tensor(0.2).double()) - torch.log(sigma + 1e-6) + sigma**2 / (2 * 0.2**2) - 0.5
    return sigma, float(divergence.sum() / divergence.numel())


def test_the_start_is_that_of_the_authors_code(loss: TokenLoss) -> None:
    assert loss.prior is not None
    torch.manual_seed(0)
    for key, rho in loss.prior.spreads().items():
        sigma, divergence = authors_start(*rho.shape, is_b="lora_B" in key)
        found = torch.log1p(rho.detach().double().exp())
        zero = torch.zeros_like(found)
        if "lora_B" in key:
            assert torch.equal(found, sigma)
        else:
            assert rho.min() >= -5.5 and rho.max() <= -4.5 and float(rho.detach().std()) == pytest.approx(12**-0.5, rel=0.2)
        assert float(gaussian_divergence(zero, found, 0.2).mean()) == pytest.approx(
            divergence, abs=0.3
        )  # a standard error is 0.04 or less


def test_the_first_updates_that_are_drawn_are_zero_and_those_of_other_seeds_differ(loss: TokenLoss) -> None:
    assert loss.prior is not None
    drawn = list(loss.prior.sample().values())
    sizes = {key: float(value.detach().abs().max()) for key, value in zip(loss.prior.spreads(), drawn, strict=True)}
    assert all(size < 1e-20 for key, size in sizes.items() if "lora_B" in key)
    key = next(key for key in loss.prior.spreads() if "lora_A" in key)
    mu = models.lora_parameters(loss)[key.removeprefix("rho/")]
    assert torch.equal(first_rho(key, mu, 5), first_rho(key, mu, 5)) and not torch.equal(
        first_rho(key, mu, 5), first_rho(key, mu, 6)
    )


def test_an_optimizer_does_not_move_the_spread_of_b(loss: TokenLoss) -> None:
    assert loss.prior is not None
    optimizer = torch.optim.AdamW(loss.prior.rho.parameters(), lr=1e-3, weight_decay=0.0)
    before = {key: rho.detach().clone() for key, rho in loss.prior.spreads().items()}
    for _ in range(3):
        optimizer.zero_grad()
        (loss(**batch()).sum() + loss.prior.penalty()).backward()
        optimizer.step()
    for key, rho in loss.prior.spreads().items():
        assert torch.equal(rho.detach(), before[key]) == ("lora_B" in key), key


def test_value_and_gradient_of_the_penalty(loss: TokenLoss) -> None:
    assert loss.prior is not None
    penalty = loss.prior.penalty()
    penalty.backward()

    expected = 0.0
    trained = loss.trained_parameters()
    for key, mu in models.lora_parameters(loss).items():
        rho = trained[f"rho/{key}"]
        m, p = mu.detach().double(), rho.detach().double()
        s = torch.log1p(p.exp())
        expected += 0.5 * (torch.log(0.2 / (s + 1e-6)) + (s**2 + m**2) / (2 * 0.2**2) - 0.5).mean()
        by_s = (s / 0.2**2 - 1 / (s + 1e-6)) * torch.sigmoid(p)
        torch.testing.assert_close(mu.grad, (0.5 * m / 0.2**2 / m.numel()).float(), rtol=ROUNDING, atol=1e-9)
        torch.testing.assert_close(rho.grad, (0.5 * by_s / m.numel()).float(), rtol=ROUNDING, atol=1e-9)
    assert float(penalty) == pytest.approx(float(expected), rel=ROUNDING)


def test_a_loss_is_that_of_the_factors_drawn(loss: TokenLoss) -> None:
    assert loss.prior is not None
    torch.manual_seed(4)
    drawn = loss(**batch()).detach()
    torch.manual_seed(4)
    for parameter, value in zip(models.lora_parameters(loss).values(), loss.prior.sample().values(), strict=True):
        parameter.data = value.detach()

    fixed = TokenLoss(loss.model, "fp32")(**batch())

    torch.testing.assert_close(drawn, fixed.detach(), rtol=0, atol=0)


def test_samples_have_the_mean_and_the_spread(loss: TokenLoss) -> None:
    assert loss.prior is not None
    with torch.no_grad():
        for rho in loss.prior.rho:
            rho.fill_(0.5)
    torch.manual_seed(1)

    draws = [torch.cat([value.flatten() for value in loss.prior.sample().values()]).detach() for _ in range(20)]

    means = torch.cat([value.detach().flatten() for value in models.lora_parameters(loss).values()])
    deviations = torch.stack(draws) - means
    # 61,440 draws: standard errors of mean and spread are s / 248 and s / 350, and four of them are allowed.
    assert abs(float(deviations.mean())) < 4 * 0.974 / 248
    assert float(deviations.std()) == pytest.approx(0.974077, abs=4 * 0.974 / 350)


def test_means_and_spreads_are_trained_and_only_the_means_are_the_adapter(loss: TokenLoss) -> None:
    loss(**batch()).sum().backward()

    trained = loss.trained_parameters()
    assert all(value.grad is not None and value.grad.any() for name, value in trained.items() if "lora_B" in name)
    assert all(value.grad is not None for value in trained.values())
    assert {id(value) for value in loss.parameters() if value.requires_grad} == {id(value) for value in trained.values()}
    assert TokenLoss(loss.model, "fp32").trained_parameters().keys() == models.lora_parameters(loss).keys()
    assert models.check_trainable(loss.model) * 2 == sum(value.numel() for value in trained.values())
