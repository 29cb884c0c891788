"""EWC: value and gradient against float64 formulas; what of earlier rounds is refused."""

from pathlib import Path

import pytest
import tiny
import torch

from wfc_dist.config.training import LoraConfig
from wfc_dist.errors import InputError, IntegrityError
from wfc_dist.rounds import Base
from wfc_dist.storage import durable
from wfc_dist.training import curvature
from wfc_dist.training import model as models
from wfc_dist.training.ewc import ElasticWeights, sum_fisher
from wfc_dist.weights import peft_folder
from wfc_dist.weights.warm_base import WarmBase

CPU = torch.device("cpu")
ROUNDING = 1e-5  # relative; sums of a thousand products in float32 against float64


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> models.PeftModel:
    warm = WarmBase(Base(0, str(tiny.make_whisper(tmp_path_factory.mktemp("base"))), "sha"))
    model = models.build(warm, LoraConfig(r=4, alpha=12), 5)
    generator = torch.Generator().manual_seed(2)
    for value in models.lora_parameters(model).values():
        value.data = torch.randn(value.shape, generator=generator)
    return model


def fishers(model: models.PeftModel, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(32, 32, generator=generator) for name in models.lora_layers(model)}


def commit(folder: Path, fisher: dict[str, torch.Tensor]) -> Path:
    staged = durable.staging_path(folder, 1)
    (staged / peft_folder.WEIGHTS).write_bytes(b"not read")
    if fisher:
        curvature.write(staged, {f"{name}.fisher": value for name, value in fisher.items()})
    durable.commit_folder(staged, folder, {})
    return folder


def test_value_and_gradient_are_the_formulas(model: models.PeftModel) -> None:
    fisher, weight, scaling = fishers(model, 1), 7.0, 12 / 4
    model.zero_grad()

    penalty = ElasticWeights(model, fisher, weight, CPU)()
    penalty.backward()

    expected = 0.0
    for name, layer in models.lora_layers(model).items():
        a, b = (models.factor(layer, side) for side in ("lora_A", "lora_B"))
        a64, b64, f64 = a.detach().double(), b.detach().double(), fisher[name].double()
        stretched = weight * f64 * (scaling * b64 @ a64)  # the gradient w.r.t. delta
        expected += float((stretched * (scaling * b64 @ a64)).sum()) / 2
        torch.testing.assert_close(a.grad, (scaling * b64.T @ stretched).float(), rtol=ROUNDING, atol=1e-3)
        torch.testing.assert_close(b.grad, (scaling * stretched @ a64.T).float(), rtol=ROUNDING, atol=1e-3)
    assert float(penalty) == pytest.approx(expected, rel=ROUNDING)


def test_fishers_of_earlier_adapters_are_added(model: models.PeftModel, tmp_path: Path) -> None:
    first, second = fishers(model, 1), fishers(model, 2)
    folders = [commit(tmp_path / "a", first), commit(tmp_path / "b", second)]

    total = sum_fisher(folders)

    assert all(torch.equal(total[name], first[name].double() + second[name].double()) for name in first)
    assert total.keys() == first.keys()


def test_an_adapter_without_curvature_is_refused(model: models.PeftModel, tmp_path: Path) -> None:
    folders = [commit(tmp_path / "a", fishers(model, 1)), commit(tmp_path / "b", {})]

    with pytest.raises(InputError, match=r"b has no Fisher information.*train.curvature fisher in every round"):
        sum_fisher(folders)


def test_a_damaged_curvature_is_refused(model: models.PeftModel, tmp_path: Path) -> None:
    folder = commit(tmp_path / "a", fishers(model, 1))
    data = bytearray((folder / peft_folder.STATISTICS).read_bytes())
    data[-1] ^= 1
    (folder / peft_folder.STATISTICS).write_bytes(data)

    with pytest.raises(IntegrityError, match=peft_folder.STATISTICS):
        sum_fisher([folder])


def test_a_module_that_was_not_measured_is_refused(model: models.PeftModel) -> None:
    fisher = fishers(model, 1)
    name = sorted(fisher)[0]
    del fisher[name]

    with pytest.raises(InputError, match=f"did not measure {name}"):
        ElasticWeights(model, fisher, 1.0, CPU)
