"""Variant full: training the adapter is training the weights, and what is written is a PEFT adapter like any other."""

from pathlib import Path

import pytest
import tiny
import torch
from peft import PeftModel
from transformers import WhisperConfig, WhisperForConditionalGeneration

from wfc_dist.compare.systems import LINEAR
from wfc_dist.config.training import LoraConfig
from wfc_dist.rounds import Base
from wfc_dist.training import curvature
from wfc_dist.training import model as models
from wfc_dist.training.ewc import ElasticWeights
from wfc_dist.training.loss import TokenLoss
from wfc_dist.training.model import build, lora_parameters
from wfc_dist.weights import peft_folder
from wfc_dist.weights.warm_base import WarmBase

FULL = LoraConfig(variant="full", dropout=0, target_modules=LINEAR)


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Width 32; fc1 is (16, 32) in the encoder, narrower than the model, and (64, 32) in the decoder, as in Whisper wider."""
    folder = tiny.make_whisper(tmp_path_factory.mktemp("base"))
    config = WhisperConfig.from_pretrained(folder, encoder_ffn_dim=16)
    torch.manual_seed(0)
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    return folder


@pytest.fixture
def warm(base_folder: Path) -> WarmBase:
    return WarmBase(Base(0, str(base_folder), "sha"))


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 200, (2, 6), generator=generator)
    return {"input_features": torch.randn(2, 80, 3000, generator=generator), "labels": labels}


def linear_layers(folder: Path) -> tuple[WhisperForConditionalGeneration, dict[str, torch.nn.Linear]]:
    whisper = WhisperForConditionalGeneration.from_pretrained(folder).eval().requires_grad_(False)
    layers = {name: layer for name, layer in whisper.named_modules() if isinstance(layer, torch.nn.Linear)}
    assert layers.pop("proj_out").weight is whisper.model.decoder.embed_tokens.weight
    return whisper, layers


def filled(warm: WarmBase) -> PeftModel:
    """Returns an adapter whose update is as large as the base's weights."""
    model, generator = build(warm, FULL, 5), torch.Generator().manual_seed(1)
    for value in lora_parameters(model).values():
        value.data = 0.05 * torch.randn(value.shape, generator=generator)
    return model


def write(model: PeftModel, folder: Path) -> str:
    folder.mkdir()
    return peft_folder.write_peft(folder, lora_parameters(model) | models.fixed_factors(model), models.adapter_config(model))


def test_every_entry_of_every_linear_layer_is_trained_and_nothing_else(warm: WarmBase, base_folder: Path) -> None:
    model = build(warm, FULL, 5)

    _, layers = linear_layers(base_folder)
    assert models.lora_layers(model).keys() == layers.keys()
    assert models.check_trainable(model) == sum(layer.weight.numel() for layer in layers.values())
    assert {name: layer.scaling["default"] for name, layer in models.lora_layers(model).items()} == dict.fromkeys(layers, 1.0)
    assert not any(value.any() for value in lora_parameters(model).values())
    assert len(models.fixed_factors(model)) == len(layers)


OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0),
}
TOLERANCES = {"sgd": 2e-6, "adamw": 1e-4}  # measured: 6e-7 and 2e-5, float32; AdamW divides small gradients by their own size


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_update_is_that_of_fine_tuning_the_weights(warm: WarmBase, base_folder: Path, tmp_path: Path, optimizer: str) -> None:
    model, (whisper, layers) = build(warm, FULL, 5), linear_layers(base_folder)
    whisper.double()  # its updates are so much smaller than its weights that float32 would lose their last digits
    before = {name: layer.weight.clone() for name, layer in layers.items()}
    weights = [layer.weight.requires_grad_() for layer in layers.values()]
    ours, theirs = OPTIMIZERS[optimizer](list(lora_parameters(model).values())), OPTIMIZERS[optimizer](weights)

    loss = TokenLoss(model, "fp32")
    for _ in range(3):
        (loss(**batch()).sum() / 12).backward()
        whisper(input_features=batch()["input_features"].double(), labels=batch()["labels"]).loss.backward()
        for item in (ours, theirs):
            item.step()
            item.zero_grad()

    write(model, tmp_path / "adapter")
    for name, found in peft_folder.read_factors(tmp_path / "adapter").items():
        delta, expected = found.scaling * found.b_OR.double() @ found.a_RI.double(), layers[name].weight - before[name]
        assert 0 < (delta - expected).norm() <= TOLERANCES[optimizer] * expected.norm(), name


def test_what_is_written_is_an_adapter_that_peft_reads(warm: WarmBase, base_folder: Path, tmp_path: Path) -> None:
    model = filled(warm)

    sha256 = write(model, tmp_path / "adapter")

    read = PeftModel.from_pretrained(WhisperForConditionalGeneration.from_pretrained(base_folder), tmp_path / "adapter").eval()
    expected = build(warm, FULL, 5)(**batch()).logits
    found, ours = read(**batch()).logits, model(**batch()).logits
    torch.testing.assert_close(found, ours, atol=1e-5, rtol=1e-4)  # PEFT multiplies by the identity
    assert (ours - expected).norm() > 0.1 * expected.norm()
    assert peft_folder.folder_sha256(tmp_path / "adapter") == sha256
    scalings = {name: layer.scaling["default"] for name, layer in models.lora_layers(read).items()}
    assert scalings == {name: item.scaling for name, item in peft_folder.read_factors(tmp_path / "adapter").items()}


def test_curvature_and_its_penalty_are_those_of_the_weights(warm: WarmBase) -> None:
    model = filled(warm)
    deltas = {key.split(".lora_")[0].removeprefix("base_model.model."): value for key, value in lora_parameters(model).items()}
    loss, window = TokenLoss(model, "fp32"), {key: value[:1] for key, value in batch().items()}
    cpu = torch.device("cpu")

    found = curvature.gather(loss, [window], ("fisher",), cpu, lambda: False)
    (loss(**window).sum() / 6).backward()

    assert found is not None
    fisher = {name: found[f"{name}.fisher"] for name in deltas}
    for name, delta in deltas.items():
        expected = delta.grad.square()  # of the whole weight, as the other factor is an identity
        assert (fisher[name] - expected).norm() <= 1e-4 * expected.norm(), name
    model.zero_grad()
    penalty = ElasticWeights(model, fisher, 3.0, cpu)()
    penalty.backward()
    assert float(penalty) == pytest.approx(
        1.5 * sum(float((fisher[name] * deltas[name] ** 2).sum()) for name in deltas), rel=1e-5
    )
    assert all(torch.allclose(deltas[name].grad, 3 * fisher[name] * deltas[name], rtol=1e-5, atol=0) for name in deltas)
