import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from wfc_dist.config.training import LoraConfig, TrainConfig
from wfc_dist.errors import ConfigError, InputError, IntegrityError, TrainingError
from wfc_dist.rounds import Base
from wfc_dist.training import model as models
from wfc_dist.training.engine import check_precision
from wfc_dist.training.loss import TokenLoss
from wfc_dist.training.model import adapted_modules, build, check_trainable, copy_values_, lora_parameters
from wfc_dist.weights.warm_base import WarmBase

LORA = LoraConfig(r=4, alpha=8, dropout=0.0)


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.make_whisper(tmp_path_factory.mktemp("base"))
    config = json.loads((folder / "config.json").read_text())
    rates = {"dropout": 0.5, "attention_dropout": 0.5, "activation_dropout": 0.5, "encoder_layerdrop": 0.5}
    (folder / "config.json").write_text(json.dumps(config | rates | {"decoder_layerdrop": 0.5}))
    return folder


@pytest.fixture
def warm(base_folder: Path) -> WarmBase:
    return WarmBase(Base(0, str(base_folder), "sha"))


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 200, (2, 6), generator=generator)
    labels[1, 4:] = -100
    return {"input_features": torch.randn(2, 80, 3000, generator=generator), "labels": labels}


def test_lora_a_depends_on_seed_and_module_only(warm: WarmBase) -> None:
    torch.manual_seed(0)
    first = lora_parameters(build(warm, LORA, 5))
    torch.manual_seed(1)
    narrower = lora_parameters(build(warm, LORA.model_copy(update={"target_modules": ["v_proj"]}), 5))
    other = lora_parameters(build(warm, LORA, 6))

    assert 0 < len(narrower) < len(first)
    assert all(torch.equal(first[name], value) for name, value in narrower.items())
    assert not any(torch.equal(first[name], other[name]) for name in first if "lora_A" in name)
    assert len({first[name].sum().item() for name in first if "lora_A" in name}) == len(first) // 2
    assert all(not value.any() for name, value in first.items() if "lora_B" in name)


def test_building_draws_no_random_numbers(warm: WarmBase) -> None:
    before = torch.get_rng_state()

    build(warm, LORA, 5)

    assert torch.equal(torch.get_rng_state(), before)


def test_the_base_is_shared_not_copied(warm: WarmBase) -> None:
    layers = models.lora_layers(build(warm, LORA, 5))

    for name, layer in layers.items():
        assert layer.get_base_layer().weight.data_ptr() == warm.tensors[f"{name}.weight"].data_ptr()


def test_exactly_the_factors_are_trained(warm: WarmBase) -> None:
    model = build(warm, LORA, 5)

    assert check_trainable(model) == 12 * 2 * 4 * 32  # 12 matrices of 32 x 32, r = 4


def test_a_trained_base_weight_is_refused(warm: WarmBase) -> None:
    model = build(warm, LORA, 5)
    models.whisper(model).model.encoder.conv1.bias.requires_grad_(True)

    with pytest.raises(TrainingError, match=r"conv1.bias would be trained"):
        check_trainable(model)


def test_a_frozen_or_half_precision_factor_is_refused(warm: WarmBase) -> None:
    model = build(warm, LORA, 5)
    parameter = next(iter(lora_parameters(model).values()))

    parameter.requires_grad_(False)
    with pytest.raises(TrainingError, match="is not trained"):
        check_trainable(model)
    parameter.requires_grad_(True)
    parameter.data = parameter.data.bfloat16()
    with pytest.raises(TrainingError, match="float32"):
        check_trainable(model)


@pytest.mark.parametrize(
    ("target_modules", "message"),
    [
        (["no_such"], "does not fit"),
        (".*(", "does not fit"),
        (["q_proj", "conv1"], "conv1"),
        (["embed_tokens"], "embed_tokens"),
        (["proj_out"], "proj_out"),
    ],
)
def test_targets_that_cannot_be_averaged_are_refused(
    base_folder: Path, warm: WarmBase, target_modules: list[str] | str, message: str
) -> None:
    lora = LORA.model_copy(update={"target_modules": target_modules})
    with pytest.raises(ConfigError, match=message) as trained:
        build(warm, lora, 5)
    with pytest.raises(ConfigError) as planned:
        adapted_modules(base_folder, lora)
    assert str(planned.value) == str(trained.value)


@pytest.mark.parametrize("variant", ["lora", "full", "cssvd"])
@pytest.mark.parametrize(
    ("target_modules", "num_adapted"),
    [
        ("all-linear", 32),  # 2 layers of 6 (encoder), 2 of 10 (decoder); not proj_out, which is tied
        (["q_proj", "v_proj"], 12),
        (r".*decoder.*\.(q_proj|fc1)", 6),
        (["model.encoder.layers.1.fc1"], 1),
    ],
)
def test_what_is_adapted_is_known_without_the_weights(
    base_folder: Path, warm: WarmBase, target_modules: list[str] | str, num_adapted: int, variant: str
) -> None:
    lora = LORA.model_copy(update={"target_modules": target_modules, "variant": variant})
    shapes = adapted_modules(base_folder, lora)
    built = models.lora_layers(build(warm, lora, 5))
    assert len(shapes) == num_adapted
    assert shapes == {name: tuple(layer.get_base_layer().weight.shape) for name, layer in built.items()}


def test_a_configuration_of_another_model_is_refused(base_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to(base_folder / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(json.loads((base_folder / "config.json").read_text()) | {"d_model": 64}))
    with pytest.raises(InputError, match=r"config.json and weights disagree on model.decoder.embed_positions"):
        adapted_modules(tmp_path, LORA)
    (tmp_path / "model.safetensors").unlink()
    shutil.copy(base_folder / "config.json", tmp_path)
    wrapped = {f"_orig_mod.{name}": tensor for name, tensor in load_file(base_folder / "model.safetensors").items()}
    save_file(wrapped, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"_orig_mod.model.decoder.embed_positions.weight has the prefix _orig_mod of a wrapper"):
        adapted_modules(tmp_path, LORA)
    (tmp_path / "config.json").write_text("no json")
    with pytest.raises(InputError, match=r"config.json cannot be read: .*give the folder of a Whisper checkpoint"):
        adapted_modules(tmp_path, LORA)


def test_targets_may_be_a_regular_expression(warm: WarmBase) -> None:
    model = build(warm, LORA.model_copy(update={"target_modules": r".*decoder.*\.(q_proj|fc1)"}), 5)

    assert {name.split(".")[1] for name in models.lora_layers(model)} == {"decoder"}


def test_rslora_scales_by_the_root_of_r(warm: WarmBase) -> None:
    model = build(warm, LORA.model_copy(update={"variant": "rslora"}), 5)

    assert next(iter(models.lora_layers(model).values())).scaling["default"] == 8 / 4**0.5
    assert models.adapter_config(model)["use_rslora"] is True


def test_the_base_drops_nothing_whatever_its_configuration(warm: WarmBase) -> None:
    loss = TokenLoss(build(warm, LORA, 5), "fp32")
    models.checkpoint_activations_(loss.model)  # puts layers in training mode

    first, second = loss(**batch()), loss(**batch())

    assert torch.equal(first, second)


def test_lora_dropout_is_on_in_training_only(warm: WarmBase) -> None:
    model = build(warm, LORA.model_copy(update={"dropout": 0.5}), 5)
    for name, value in lora_parameters(model).items():
        if "lora_B" in name:
            torch.nn.init.ones_(value)
    loss = TokenLoss(model, "fp32")

    assert not torch.equal(loss(**batch()), loss(**batch()))
    models.train_mode_(model, training=False)
    assert torch.equal(loss(**batch()), loss(**batch()))


def test_loss_is_whispers_own_summed_over_tokens(warm: WarmBase) -> None:
    model = build(warm, LORA, 5)
    models.whisper(model).eval()

    summed = TokenLoss(model, "fp32")(**batch())

    own = model(**batch()).loss  # mean over the ten labels
    assert summed.shape == (2,)
    torch.testing.assert_close(summed.sum() / 10, own)  # two orders of summation


def test_autocast_leaves_factors_and_gradients_in_float32(warm: WarmBase) -> None:
    model = build(warm, LORA, 5)

    TokenLoss(model, "bf16")(**batch()).sum().backward()

    assert {value.grad.dtype for value in lora_parameters(model).values() if value.grad is not None} == {torch.float32}


def test_a_half_precision_base_trains_float32_factors(base_folder: Path) -> None:
    warm = WarmBase(Base(0, str(base_folder), "sha"), dtype=torch.bfloat16)
    model = build(warm, LORA, 5)

    loss = TokenLoss(model, "bf16")(**batch())

    assert loss.dtype == torch.float32
    assert check_trainable(model) > 0


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradient_checkpointing_recomputes_layers_and_nothing_below_the_first_adapter(
    warm: WarmBase, checkpointing: bool
) -> None:
    model = build(warm, LORA, 5)
    if checkpointing:
        models.checkpoint_activations_(model)
    calls = []
    for layer in models.whisper(model).model.decoder.layers:
        layer.fc1.register_forward_hook(lambda *_: calls.append(1))
    front_end = []
    models.whisper(model).model.encoder.conv2.register_full_backward_hook(lambda *_: front_end.append(1))

    TokenLoss(model, "fp32")(**batch()).sum().backward()

    assert len(calls) == (4 if checkpointing else 2)  # two layers
    assert not front_end


def test_gradient_checkpointing_does_not_change_gradients(warm: WarmBase) -> None:
    plain, recomputing = build(warm, LORA, 5), build(warm, LORA, 5)
    models.checkpoint_activations_(recomputing)

    for model in (plain, recomputing):
        TokenLoss(model, "fp32")(**batch()).sum().backward()

    expected = lora_parameters(plain)
    assert all(torch.equal(value.grad, expected[name].grad) for name, value in lora_parameters(recomputing).items())


def test_a_changed_base_breaks_the_seal(warm: WarmBase) -> None:
    model = build(warm, LORA, 5)
    seal = models.base_seal(warm, model)
    models.check_seal(warm, model, seal, "round 1")

    next(iter(models.lora_layers(model).values())).get_base_layer().weight.data.view(-1)[0] += 1e-3

    with pytest.raises(IntegrityError, match="round 1: training changed the frozen base"):
        models.check_seal(warm, model, seal, "round 1")


def test_parameters_of_another_adapter_are_refused(warm: WarmBase) -> None:
    model = build(warm, LORA, 5)

    with pytest.raises(IntegrityError, match="does not fit"):
        copy_values_(lora_parameters(model), {"base_model.model.other.lora_A.weight": torch.zeros(4, 32)})


@pytest.mark.parametrize(
    ("train", "device", "message"),
    [
        (TrainConfig(precision="fp16"), "cpu", "fp16 needs a GPU"),
        (TrainConfig(precision="auto"), "cpu", "auto is decided when a run starts"),
        (TrainConfig(precision="fp16", strategy="zero2"), "cuda", "ddp only"),
    ],
)
def test_precisions_that_cannot_be_are_refused(train: TrainConfig, device: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_precision(train, torch.device(device))
