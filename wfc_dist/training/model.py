"""The adapter on the frozen base: how it is built, what its parameters are, and the checks that nothing else is trained."""

import contextlib
import hashlib
import math
import re
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import WhisperConfig, WhisperForConditionalGeneration

from wfc_dist.config.training import LoraConfig
from wfc_dist.errors import ConfigError, IntegrityError, TrainingError
from wfc_dist.training.tail import RightFactor, Rotation, tail_of_module
from wfc_dist.weights import checkpoint
from wfc_dist.weights.base_chain import tensor_specs
from wfc_dist.weights.hashing import content_sha256
from wfc_dist.weights.peft_folder import PREFIX
from wfc_dist.weights.warm_base import WarmBase

_DROPOUTS = ("dropout", "attention_dropout", "activation_dropout", "encoder_layerdrop", "decoder_layerdrop", "layerdrop")


def build(warm: WarmBase, lora: LoraConfig, init_seed: int) -> PeftModel:
    """Returns a new adapter around the warm base, in eval mode apart from LoRA's own dropout.

    lora_B is zero. lora_A is a pure function of `init_seed` and the module's name: adapters of one round start from the same
    point on every rank, whatever else has drawn random numbers. With variant full the factor on the weight's smaller side is a
    `Unit` and the other is zero: their product is the update of the whole weight. With variant cssvd lora_B is a `Rotation` of
    the weight's last singular directions, by zero. The base shares storage with `warm`.

    Raises:
        ConfigError: See `attach`.
    """
    model = attach(warm.model(), lora, warm.tensors, warm.base.path)
    units: dict[int, Unit] = {}  # one for all layers of a width
    for name, layer in lora_layers(model).items():
        if lora.variant == "full":
            _train_whole_weight_(layer, units)
        elif lora.variant == "cssvd":
            tail = tail_of_module(warm, name, layer.r["default"])
            layer.lora_A["default"], layer.lora_B["default"] = RightFactor(tail.right_RI), Rotation(tail.left_OR)
        else:
            init_lora_a_(factor(layer, "lora_A"), init_seed, name)
            torch.nn.init.zeros_(factor(layer, "lora_B"))
    _silence_base_(model)
    check_trainable(model)
    return model


def attach(base: WhisperForConditionalGeneration, lora: LoraConfig, tensor_names: Container[str], path: str) -> PeftModel:
    """Returns `base` with PEFT's LoRA layers around the modules that `lora.target_modules` names.

    Args:
        base: Gets the layers in place.
        lora: What to adapt.
        tensor_names: Tensors of the base's checkpoint.
        path: Folder of the base.

    Raises:
        ConfigError: `lora.target_modules` matches nothing, or something that is no linear layer of the checkpoint; or
            `lora.tail` leaves nothing to rotate.
    """
    with torch.random.fork_rng(devices=[]):  # PEFT's own draws must not move the generators
        try:
            model = get_peft_model(base, _peft_config(lora, base))
        except (ValueError, re.error) as error:  # a text is a pattern
            raise ConfigError(f"lora.target_modules {lora.target_modules!r} does not fit {path}: {error}") from error
    model.peft_config["default"].base_model_name_or_path = path  # PEFT takes it from the model, which has none
    for name, layer in lora_layers(model).items():
        linear = layer.get_base_layer()
        if not isinstance(linear, torch.nn.Linear) or f"{name}.weight" not in tensor_names:
            raise ConfigError(f"lora.target_modules: {name} is no linear layer of its own; choose q_proj, v_proj, fc1, ...")
        if lora.variant == "cssvd" and lora.rank(linear.weight.shape) < 2:
            raise ConfigError(
                f"lora.tail {lora.tail:g} of the {min(linear.weight.shape)} directions of {name} is fewer than two, and one "
                "cannot turn alone; raise lora.tail"
            )
    return model


def adapted_modules(folder: Path, lora: LoraConfig) -> dict[str, tuple[int, ...]]:
    """Returns module -> (out, in) of every linear layer that `build` adapts. Reads only the headers of the weights.

    Raises:
        ConfigError: See `attach`. InputError: `folder` holds no Whisper checkpoint that can be trained on.
    """
    checkpoint.check(folder)
    specs = tensor_specs(folder)
    return {name: specs[f"{name}.weight"].shape for name in lora_layers(_on_meta(folder, lora, specs))}


def described_adapter(folder: Path, lora: LoraConfig) -> dict[str, Any]:
    """Returns the content of adapter_config.json of every adapter that is trained against the base in `folder`.

    Raises:
        ConfigError: See `attach`.
    """
    return adapter_config(_on_meta(folder, lora, tensor_specs(folder)))


def _on_meta(folder: Path, lora: LoraConfig, tensor_names: Container[str]) -> PeftModel:
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(WhisperConfig.from_pretrained(folder))
        return attach(model, lora, tensor_names, str(folder))


def _peft_config(lora: LoraConfig, base: torch.nn.Module) -> PeftLoraConfig:
    r, alpha, exceptions = lora.r, lora.alpha, {}
    if lora.variant in ("full", "cssvd"):
        layers = {name: layer for name, layer in base.named_modules() if isinstance(layer, torch.nn.Linear)}
        sizes = {name: max(lora.rank(layer.weight.shape), 1) for name, layer in layers.items()}
        r = alpha = max(sizes.values())  # in every Whisper model: its width, or the tail of it
        exceptions = {name: size for name, size in sizes.items() if size != r}
    return PeftLoraConfig(
        r=r,
        lora_alpha=int(alpha) if float(alpha).is_integer() else alpha,  # type: ignore[arg-type]
        rank_pattern=exceptions,
        alpha_pattern=dict(exceptions),
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        use_rslora=lora.variant == "rslora",
        bias="none",
    )


def init_lora_a_(weight_RI: torch.Tensor, init_seed: int, module: str) -> None:
    """Fills lora_A with uniform(-1/sqrt(in), 1/sqrt(in)), PEFT's default distribution, drawn on the CPU for this module."""
    seed = int.from_bytes(hashlib.sha256(f"{init_seed}:{module}".encode()).digest()[:8], "big") >> 1
    bound = 1 / math.sqrt(weight_RI.shape[1])
    drawn = torch.empty(weight_RI.shape).uniform_(-bound, bound, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        weight_RI.copy_(drawn)


class Unit(torch.nn.Identity):
    """The identity in the place of a factor. It has no parameter, is neither trained nor sharded, and computes nothing.

    A PEFT file holds `weight`, (size, size), as the factor.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        super().__init__()
        self.register_buffer("weight", torch.eye(size, device=device))


def _train_whole_weight_(layer: LoraLayer, units: dict[int, Unit]) -> None:
    linear = layer.get_base_layer()
    assert isinstance(linear, torch.nn.Linear)
    out_features, in_features = linear.weight.shape
    fixed, trained = ("lora_A", "lora_B") if in_features <= out_features else ("lora_B", "lora_A")
    weight, size = factor(layer, trained), min(out_features, in_features)
    if size not in units:
        units[size] = Unit(size, weight.device)
    getattr(layer, fixed)["default"] = units[size]
    torch.nn.init.zeros_(weight)


def _silence_base_(model: PeftModel) -> None:
    # The rates go to zero too: gradient checkpointing sets `training` on layers again.
    for module in model.modules():
        if not isinstance(module, torch.nn.Dropout):
            for name in _DROPOUTS:
                if isinstance(getattr(module, name, None), float):
                    setattr(module, name, 0.0)
    model.eval()
    train_mode_(model, training=True)


def check_trainable(model: torch.nn.Module) -> int:
    """Returns the number of trained parameters. Raises TrainingError unless exactly the LoRA factors are trained, in float32."""
    expected = {id(parameter): parameter for parameter in lora_parameters(model).values()}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad != (id(parameter) in expected):
            state = "is not trained" if id(parameter) in expected else "would be trained"
            raise TrainingError(f"{name} {state}; an adapter trains its LoRA factors and nothing else")
        if parameter.requires_grad and parameter.dtype != torch.float32:
            raise TrainingError(f"{name} is {parameter.dtype}; LoRA factors are trained in float32 whatever the base is")
    if not expected:
        raise TrainingError("the adapter has no trainable parameter; check lora.target_modules")
    return sum(parameter.numel() for parameter in expected.values())


def whisper(model: PeftModel) -> WhisperForConditionalGeneration:
    """Returns the Whisper inside, whose layers stay adapted."""
    base = model.get_base_model()
    assert isinstance(base, WhisperForConditionalGeneration)
    return base


def adapter_config(model: PeftModel) -> dict[str, Any]:
    """Returns the content of adapter_config.json as PEFT writes it, with sets as sorted lists."""
    base = whisper(model)
    config = model.peft_config["default"].to_dict() | {
        "inference_mode": True,
        "auto_mapping": {"base_model_class": type(base).__name__, "parent_library": type(base).__module__},
    }
    plain = {key: getattr(value, "value", value) for key, value in config.items()}  # enumerations
    return {key: sorted(value) if isinstance(value, set) else value for key, value in plain.items()}


def lora_layers(model: torch.nn.Module) -> dict[str, LoraLayer]:
    """Returns the adapted layers by their name in the base's checkpoint, in name order."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)}
    return {name.rpartition(PREFIX)[2]: layers[name] for name in sorted(layers)}


def factor(layer: LoraLayer, side: str) -> torch.Tensor:
    """Returns the weight of `lora_A` or `lora_B` of an adapted layer: a parameter, or what stands in the place of one."""
    weight = getattr(layer, side)["default"].weight
    assert isinstance(weight, torch.Tensor)
    return weight


def _factors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {
        f"{PREFIX}{name}.{side}.weight": factor(layer, side)
        for name, layer in lora_layers(model).items()
        for side in ("lora_A", "lora_B")
    }


def lora_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Returns the trained factors by their key in a PEFT file (`base_model.model.<module>.lora_A.weight`), in name order.

    What a `Rotation` trains has the key `base_model.model.<module>.lora_B.skew` in its factor's place.
    """
    rotations = {f"{PREFIX}{name}.lora_B.skew": item.skew for name, item in _rotations(model).items()}
    return rotations | {key: weight for key, weight in _factors(model).items() if isinstance(weight, torch.nn.Parameter)}


def _rotations(model: torch.nn.Module) -> dict[str, Rotation]:
    found = {name: layer.lora_B["default"] for name, layer in lora_layers(model).items()}
    return {name: item for name, item in found.items() if isinstance(item, Rotation)}


def fixed_factors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Returns the factors that are not trained, by PEFT key, on the CPU.

    They are the identities of variant full and lora_A of variant cssvd, otherwise none.
    """
    fixed = {key: weight for key, weight in _factors(model).items() if not weight.requires_grad}
    return {key: weight.to("cpu", copy=True) for key, weight in fixed.items()}


def stored_factors(model: torch.nn.Module, trained: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns both factors of every layer by PEFT key, on the CPU, as the PEFT file holds them.

    Args:
        model: From `build`; what is not trained is read from it.
        trained: Key of `lora_parameters` -> values. Those of a `Rotation` become its factor, computed in float64.
    """
    stored = {**trained, **fixed_factors(model)}
    for name, rotation in _rotations(model).items():
        skew = stored.pop(f"{PREFIX}{name}.lora_B.skew")
        stored[f"{PREFIX}{name}.lora_B.weight"] = rotation.of(skew.detach().double()).float().cpu()
    return stored


def copy_values_(parameters: Mapping[str, torch.nn.Parameter], values: Mapping[str, torch.Tensor]) -> None:
    """Copies values into parameters, by key. Raises IntegrityError unless the keys are the same."""
    if parameters.keys() != values.keys():
        raise IntegrityError(f"adapter state does not fit the model: {sorted(parameters.keys() ^ values.keys())[0]}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])


@contextlib.contextmanager
def base_alone(model: torch.nn.Module) -> Iterator[None]:
    """Computes without the adapter while the context lasts.

    PEFT's own way also switches `requires_grad`, on which the gradient hooks of DDP and DeepSpeed depend.
    """
    layers: list[Any] = list(lora_layers(model).values())
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


def train_mode_(model: torch.nn.Module, *, training: bool) -> None:
    """Switches LoRA's dropout on or off; the base stays in eval mode."""
    for layer in lora_layers(model).values():
        layer.lora_dropout.train(training)


def checkpoint_activations_(model: PeftModel) -> None:
    """Has activations computed again in the backward pass: less memory, about a third more time."""
    whisper(model).gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False):
            module.training = True  # Transformers checkpoints only layers in training mode; their children stay in eval


def base_seal(warm: WarmBase, model: torch.nn.Module) -> str:
    """Returns a sha256 over the base tensors that training comes near: adapted weights and embeddings, from their last hashes."""
    adapted = {f"{name}.weight" for name in lora_layers(model)}
    chosen = sorted(name for name in warm.tensors if name in adapted or "embed" in name)
    return content_sha256({name: warm.sha256(name) for name in chosen})


def check_seal(warm: WarmBase, model: torch.nn.Module, seal: str, where: str) -> None:
    """Raises IntegrityError if the warm base differs from what it was when `base_seal` returned `seal`. Hashes it anew."""
    warm.forget_hashes()
    if base_seal(warm, model) != seal:
        warm.forget_hashes()
        raise IntegrityError(f"{where}: training changed the frozen base in memory; restart the trainer and report this")
