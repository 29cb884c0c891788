"""Distillation: the loss against a float64 formula, and a teacher that is the base and nothing else."""

import numpy as np
import pytest
import tiny
import torch
from transformers.models.whisper.modeling_whisper import shift_tokens_right

from wfc_dist.config.training import DistillationConfig, LoraConfig
from wfc_dist.rounds import Base
from wfc_dist.training import model as models
from wfc_dist.training.distillation import divergence
from wfc_dist.training.loss import TokenLoss
from wfc_dist.weights.warm_base import WarmBase

LORA = LoraConfig(r=4, alpha=8, dropout=0.5)
ROUNDING = 1e-5  # relative; float32 softmax over some 400 tokens against float64, measured 1e-7
CANCELLATION = 5e-6  # absolute; a small divergence is the difference of logarithms near 6, measured 4.4e-7


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> WarmBase:
    return WarmBase(Base(0, str(tiny.make_whisper(tmp_path_factory.mktemp("base"))), "sha"))


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 200, (2, 6), generator=generator)
    labels[1, 4:] = -100
    return {"input_features": torch.randn(2, 80, 3000, generator=generator), "labels": labels}


def adapted(warm: WarmBase) -> models.PeftModel:
    """Returns an adapter that does something, in eval mode: without dropout a loss can be computed twice."""
    model = models.build(warm, LORA, 5)
    for name, value in models.lora_parameters(model).items():
        if "lora_B" in name:
            torch.nn.init.constant_(value, 0.3)
    models.train_mode_(model, training=False)
    return model


def formula(teacher: torch.Tensor, student: torch.Tensor, labels: torch.Tensor, temperature: float) -> np.ndarray:
    def softmax(logits: torch.Tensor) -> np.ndarray:
        powers = np.exp(logits.detach().double().numpy() / temperature)
        return powers / powers.sum(-1, keepdims=True)

    p, q = softmax(teacher), softmax(student)
    return temperature**2 * ((p * np.log(p / q)).sum(-1) * (labels != -100).numpy()).sum(1)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_divergence_is_the_formula(temperature: float) -> None:
    generator = torch.Generator().manual_seed(1)
    teacher, student = (3 * torch.randn(2, 6, 50, generator=generator) for _ in range(2))
    labels = batch()["labels"]

    found = divergence(teacher, student, labels, temperature)

    np.testing.assert_allclose(found.numpy(), formula(teacher, student, labels, temperature), rtol=ROUNDING)


@pytest.mark.parametrize(("weight", "temperature"), [(0.0, 1.0), (0.3, 1.0), (0.3, 2.0), (1.0, 1.0)])
def test_the_loss_mixes_cross_entropy_and_divergence_from_the_base(warm: WarmBase, weight: float, temperature: float) -> None:
    model, data = adapted(warm), batch()
    plain = TokenLoss(model, "fp32")(**data).detach().double().numpy()
    texts = shift_tokens_right(data["labels"], warm._config.pad_token_id, warm._config.decoder_start_token_id)
    inputs = {"input_features": data["input_features"], "decoder_input_ids": texts}
    with torch.no_grad():
        teacher, student = warm.model()(**inputs).logits, model(**inputs).logits

    mixed = TokenLoss(model, "fp32", DistillationConfig(weight=weight, temperature=temperature))(**data)

    expected = (1 - weight) * plain + weight * formula(teacher, student, data["labels"], temperature)
    np.testing.assert_allclose(mixed.detach().numpy(), expected, rtol=ROUNDING, atol=CANCELLATION)


def test_an_adapter_that_does_nothing_is_not_distilled(warm: WarmBase) -> None:
    loss = TokenLoss(models.build(warm, LORA, 5), "fp32", DistillationConfig(weight=1.0))  # lora_B is zero

    assert not loss(**batch()).any()


def test_the_teacher_draws_no_dropout_and_leaves_the_adapter_trained(warm: WarmBase) -> None:
    loss = TokenLoss(models.build(warm, LORA, 5), "fp32", DistillationConfig())
    torch.manual_seed(1)
    loss(**batch()).sum().backward()
    after = torch.get_rng_state()
    torch.manual_seed(1)
    TokenLoss(loss.model, "fp32")(**batch())

    assert torch.equal(torch.get_rng_state(), after)
    assert models.check_trainable(loss.model) > 0
    assert all(value.grad is not None for value in models.lora_parameters(loss).values())


def test_the_adapter_is_back_after_a_teacher_that_failed(warm: WarmBase) -> None:
    model = adapted(warm)
    with pytest.raises(RuntimeError, match="mid-way"), models.base_alone(model):
        raise RuntimeError("mid-way")

    assert not any(layer.disable_adapters for layer in models.lora_layers(model).values())
