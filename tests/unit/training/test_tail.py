"""Variant cssvd: an adapter turns the smallest singular directions of the weights, and is a PEFT adapter like any other."""

from pathlib import Path

import pytest
import tiny
import torch
from peft import PeftModel
from transformers import WhisperForConditionalGeneration

from wfc_dist.compare.systems import LINEAR
from wfc_dist.config.training import LoraConfig
from wfc_dist.errors import ConfigError
from wfc_dist.merging import merge_method
from wfc_dist.rounds import Base
from wfc_dist.training import curvature
from wfc_dist.training import model as models
from wfc_dist.training.ewc import ElasticWeights
from wfc_dist.training.loss import TokenLoss
from wfc_dist.training.model import build, lora_parameters
from wfc_dist.training.tail import Rotation, tail_of
from wfc_dist.weights import peft_folder
from wfc_dist.weights.warm_base import WarmBase

CSSVD = LoraConfig(variant="cssvd", dropout=0, target_modules=LINEAR)
NUM_DIRECTIONS = 12  # 0.4 of 32


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_whisper(tmp_path_factory.mktemp("base"))


@pytest.fixture
def warm(base_folder: Path) -> WarmBase:
    return WarmBase(Base(0, str(base_folder), "sha"))


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 200, (1, 6), generator=generator)
    return {"input_features": torch.randn(1, 80, 3000, generator=generator), "labels": labels}


def filled(warm: WarmBase, seed: int = 1) -> PeftModel:
    model, generator = build(warm, CSSVD, 5), torch.Generator().manual_seed(seed)
    for value in lora_parameters(model).values():
        value.data = 0.3 * torch.randn(value.shape, generator=generator)
    return model


def write(model: PeftModel, folder: Path) -> str:
    folder.mkdir()
    return peft_folder.write_peft(folder, models.stored_factors(model, lora_parameters(model)), models.adapter_config(model))


def authors_weight(weight_OI: torch.Tensor, skew: torch.Tensor) -> torch.Tensor:
    """Returns U diag(sigma) V'^T, the last columns of V multiplied by (I - 2 K)^T, with the signs of `tail_of`."""
    u, sigma, right = torch.linalg.svd(weight_OI.double(), full_matrices=False)
    signs = right.gather(1, right.abs().argmax(1, keepdim=True)).sign()
    u, v = u * signs.T, (right * signs).T
    rows, columns = torch.triu_indices(NUM_DIRECTIONS, NUM_DIRECTIONS, 1)
    upper = torch.zeros(NUM_DIRECTIONS, NUM_DIRECTIONS, dtype=torch.float64).index_put((rows, columns), skew)
    turn = torch.eye(NUM_DIRECTIONS, dtype=torch.float64) - 2 * (upper - upper.T)
    return u @ torch.diag(sigma) @ torch.cat([v[:, :-NUM_DIRECTIONS], v[:, -NUM_DIRECTIONS:] @ turn.T], dim=1).T


def test_only_the_turns_are_trained_and_they_begin_at_nothing(warm: WarmBase) -> None:
    model = build(warm, CSSVD, 5)

    layers = models.lora_layers(model)
    assert models.check_trainable(model) == len(layers) * NUM_DIRECTIONS * (NUM_DIRECTIONS - 1) // 2
    assert {layer.scaling["default"] for layer in layers.values()} == {1.0}
    stored = models.stored_factors(model, lora_parameters(model))
    assert len(stored) == 2 * len(layers)
    assert not any(value.any() for key, value in stored.items() if "lora_B" in key)


def test_update_and_gradients_are_those_of_the_authors_weight(warm: WarmBase, base_folder: Path, tmp_path: Path) -> None:
    model = filled(warm)
    whisper = WhisperForConditionalGeneration.from_pretrained(base_folder).eval().requires_grad_(False).double()
    layers = {name: layer for name, layer in whisper.named_modules() if name in models.lora_layers(model)}
    skews = {name: lora_parameters(model)[f"base_model.model.{name}.lora_B.skew"].detach().double().requires_grad_()
             for name in layers}  # fmt: skip
    before = {name: layer.weight.clone() for name, layer in layers.items()}
    turned = {f"{name}.weight": authors_weight(before[name], skew) for name, skew in skews.items()}

    (TokenLoss(model, "fp32")(**batch()).sum() / 6).backward()
    inputs = {"input_features": batch()["input_features"].double(), "labels": batch()["labels"]}
    torch.func.functional_call(whisper, turned, (), inputs).loss.backward()

    write(model, tmp_path / "adapter")
    for name, found in peft_folder.read_factors(tmp_path / "adapter").items():
        delta, expected = found.b_OR.double() @ found.a_RI.double(), turned[f"{name}.weight"].detach() - before[name]
        assert found.scaling == 1 and (delta - expected).norm() <= 1e-6 * expected.norm(), name
        gradient, theirs = lora_parameters(model)[f"base_model.model.{name}.lora_B.skew"].grad, skews[name].grad
        assert gradient is not None and theirs is not None
        assert (gradient - theirs).norm() <= 1e-4 * theirs.norm() + 1e-9, name  # k_proj: softmax hides a part of its gradient


def test_what_is_written_is_an_adapter_that_peft_reads(warm: WarmBase, base_folder: Path, tmp_path: Path) -> None:
    model = filled(warm)

    sha256 = write(model, tmp_path / "adapter")

    read = PeftModel.from_pretrained(WhisperForConditionalGeneration.from_pretrained(base_folder), tmp_path / "adapter").eval()
    untrained = build(warm, CSSVD, 5)(**batch()).logits
    found, ours = read(**batch()).logits, model(**batch()).logits
    torch.testing.assert_close(found, ours, atol=1e-5, rtol=1e-4)
    assert (ours - untrained).norm() > 0.01 * untrained.norm()
    assert peft_folder.folder_sha256(tmp_path / "adapter") == sha256


def test_the_mean_of_adapters_is_the_turn_by_the_mean_of_their_numbers(warm: WarmBase, tmp_path: Path) -> None:
    adapters = [filled(warm, seed) for seed in (1, 2)]
    for index, model in enumerate(adapters):
        write(model, tmp_path / str(index))
    read = [peft_folder.read_factors(tmp_path / str(index)) for index in (0, 1)]
    means = {key: (value + lora_parameters(adapters[1])[key]) / 2 for key, value in lora_parameters(adapters[0]).items()}
    expected = models.stored_factors(adapters[0], means)

    for name in read[0]:
        found = merge_method("mean")([item[name] for item in read], [0.5, 0.5]).dense().double()
        wanted = expected[f"base_model.model.{name}.lora_B.weight"].double() @ expected[
            f"base_model.model.{name}.lora_A.weight"
        ].double()  # fmt: skip
        assert (found - wanted).norm() <= 1e-6 * wanted.norm(), name


def test_the_penalty_of_earlier_rounds_follows_the_turn(warm: WarmBase) -> None:
    model, cpu = filled(warm), torch.device("cpu")
    found = curvature.gather(TokenLoss(model, "fp32"), [batch()], ("fisher",), cpu, lambda: False)
    assert found is not None
    fisher = {name: found[f"{name}.fisher"] for name in models.lora_layers(model)}
    penalty = ElasticWeights(model, fisher, 3.0, cpu)
    first = float(penalty().detach())

    for value in lora_parameters(model).values():
        value.data *= 2
    penalty().backward()

    assert float(penalty().detach()) == pytest.approx(4 * first, rel=1e-4)
    assert all(value.grad is not None and value.grad.any() for value in lora_parameters(model).values())


def test_directions_are_found_again_when_the_weight_changes(warm: WarmBase) -> None:
    name = "model.encoder.layers.0.fc1"
    before, again = (models.factor(models.lora_layers(build(warm, CSSVD, 5))[name], "lora_A") for _ in range(2))
    assert before is again

    warm.tensors[f"{name}.weight"].mul_(torch.linspace(1, 2, 32))
    warm.forget_hashes()

    after = models.factor(models.lora_layers(build(warm, CSSVD, 5))[name], "lora_A")
    assert torch.equal(after, tail_of(warm.tensors[f"{name}.weight"], NUM_DIRECTIONS).right_RI)
    assert not torch.equal(after, before)


@pytest.mark.parametrize("shape", [(20, 30), (30, 20)], ids=str)
def test_the_large_directions_stay_as_they_are(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(4)
    weight = torch.randn(shape, generator=generator, dtype=torch.float64)
    tail = tail_of(weight, 8)
    delta = Rotation(tail.left_OR).of(torch.randn(28, generator=generator, dtype=torch.float64)) @ tail.right_RI.double()

    left, _, right = torch.linalg.svd(weight, full_matrices=False)
    assert (left[:, :12].T @ delta).norm() < 1e-6 * delta.norm() and (delta @ right[:12].T).norm() < 1e-6 * delta.norm()


def test_a_second_round_begins_like_the_authors_second_task_while_turns_are_small() -> None:
    """The authors keep U and sigma and turn V along with the weights; here the turned weights are decomposed again."""
    generator, size = torch.Generator().manual_seed(6), 40
    weight, gradient = (torch.randn(100, 120, generator=generator, dtype=torch.float64) for _ in range(2))
    skew = torch.randn(size * (size - 1) // 2, generator=generator, dtype=torch.float64)
    tail = tail_of(weight, size)
    left, right = tail.left_OR.double(), tail.right_RI.double()

    def first_step(left_OR: torch.Tensor, right_RI: torch.Tensor) -> torch.Tensor:
        slope = left_OR.T @ gradient @ right_RI.T
        return left_OR @ (slope.T - slope) @ right_RI

    cosines = []
    for scale in (1e-4, 5e-2):
        delta = Rotation(tail.left_OR).of(scale * skew) @ right
        again = tail_of(weight + delta, size)
        turned = right + torch.linalg.lstsq(left, delta).solution
        pair = first_step(left, turned), first_step(again.left_OR.double(), again.right_RI.double())
        cosines.append(float(torch.cosine_similarity(*(step.flatten() for step in pair), dim=0)))
    assert cosines[0] > 0.999 and 0 < cosines[1] < 0.9


def test_a_tail_of_one_direction_is_refused(warm: WarmBase) -> None:
    with pytest.raises(
        ConfigError, match=r"lora.tail 0.04 of the 32 directions of model.decoder.layers.0.encoder_attn.k_proj is"
    ):
        build(warm, CSSVD.model_copy(update={"tail": 0.04}), 5)
