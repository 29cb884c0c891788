"""The one check of a base before anything is done with it. Reads headers of weights and JSON files, no weights.

Transformers fills what a checkpoint lacks with random numbers and passes over what it does not know, both with a warning.
Here both are errors.
"""

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from wfc_dist import activity
from wfc_dist.errors import InputError
from wfc_dist.weights import adapter_config, base_chain, companions
from wfc_dist.weights.json_files import read_object, whole_number
from wfc_dist.weights.peft_folder import WRAPPERS
from wfc_dist.weights.tensor_files import TensorSpec, open_tensors

if TYPE_CHECKING:
    from transformers import WhisperConfig

Use = Literal["decode", "merge", "train"]
"""What a base is for: its texts, an update that is merged into it, or the training of adapters."""
logger = logging.getLogger(__name__)
_MOST = {
    "vocab_size": 1 << 20, "num_mel_bins": 1 << 10, "d_model": 1 << 15, "encoder_layers": 256, "decoder_layers": 256,
    "encoder_attention_heads": 1 << 10, "decoder_attention_heads": 1 << 10, "encoder_ffn_dim": 1 << 18,
    "decoder_ffn_dim": 1 << 18, "max_source_positions": 1500, "max_target_positions": 1 << 16,
}  # fmt: skip
"""The largest sizes that are believed: a model of more is not even laid out."""
_RATES = ("dropout", "attention_dropout", "activation_dropout", "encoder_layerdrop", "decoder_layerdrop")
_SAVE_AGAIN = "load the model, and save it again with save_pretrained of Transformers"


def resolve_root(model: str, revision: str | None = None, use: Use = "train") -> Path:
    """Returns the folder of a root model: `model` itself if it is one, else the hub's snapshot (safetensors only). Checks it.

    Raises:
        InputError: No such folder and no such model on the hub, or `check` refuses it.
    """
    if Path(model).is_dir():
        folder = Path(model).resolve()
    else:
        from huggingface_hub import snapshot_download

        with _asking_the_hub(model):
            folder = Path(snapshot_download(model, revision=revision, allow_patterns=["*.json", "*.txt", "*.safetensors"]))
    check(folder, use)
    return folder


@contextmanager
def _asking_the_hub(model: str) -> Iterator[None]:
    """Turns what the hub's library raises into InputError. Its requests have limits of their own."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        with activity.excused():
            yield
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"the model {model!r} is no folder and the hub did not give it ({type(error).__name__}); "
            "give a folder, or check the name, the network and HF_TOKEN"
        ) from error


def local_root(model: str, revision: str | None = None) -> Path | None:
    """Returns the folder of a root model that is whole on this machine, unchecked; None for another."""
    if Path(model).is_dir():
        return Path(model).resolve()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(model, revision=revision, local_files_only=True))
        is_whole = all(path.is_file() for path in base_chain.weight_map(folder).values())
    except (LocalEntryNotFoundError, HFValidationError, InputError):
        return None
    return folder if is_whole else None


def look_up_root(model: str, revision: str | None = None) -> None:
    """Fetches the small files of a hub model, config.json and tokenizer.json, and checks the first.

    Raises:
        InputError: No such model on the hub, or none that can be trained.
    """
    from huggingface_hub import hf_hub_download

    with _asking_the_hub(model):
        fetched = [Path(hf_hub_download(model, name, revision=revision)) for name in ("config.json", "tokenizer.json")]
    _read_config(fetched[0].parent)


def check(folder: Path, use: Use = "train") -> None:
    """Raises InputError unless a folder holds a complete Whisper checkpoint that can be used.

    Args:
        folder: Of the base.
        use: Texts are also had of an English-only model, and of one whose tensors lack the prefix `model.`, which Transformers
            adds. Training has prompts with a language, and the chain of bases has one name for each tensor.
    """
    if (folder / adapter_config.CONFIG).is_file():
        raise InputError(
            f"{folder} holds {adapter_config.CONFIG}, from which Transformers would load another base and an adapter; move that "
            "file away if the folder is a model, or give the adapter's own folder without model weights"
        )
    specs = base_chain.tensor_specs(folder)
    _check_shards(folder)
    config = _read_config(folder)
    _check_tensors(folder, _with_prefix(folder, specs, use), _expected_shapes(folder, config), config.tie_word_embeddings)
    tokens = companions.vocabulary(folder)
    _check_tokens(folder, tokens, config)
    companions.check_processor(folder, config.num_mel_bins)
    if filled := companions.check_generation(folder, tokens):
        logger.info("%s: %s come from the tokenizer, %s lacks them", folder, ", ".join(filled), companions.GENERATION)
    if companions.is_english_only(companions.read_generation(folder)[0], config.vocab_size):
        if use == "train":
            raise InputError(
                f"{folder} is an English-only model ({companions.GENERATION}: is_multilingual): its prompt names no language, "
                "with which adapters are trained; use the multilingual model of its size"
            )
    elif not companions.languages(tokens):
        raise InputError(f"{folder}: the tokenizer has no language token such as <|en|>; copy it from the model's original")


def _check_shards(folder: Path) -> None:
    """Raises InputError where Transformers would read a tensor from another file than the index says."""
    where = base_chain.weight_map(folder)
    files = sorted(set(where.values()))
    both = all((folder / name).is_file() for name in (base_chain.SINGLE, base_chain.INDEX))
    if both and files != [folder / base_chain.SINGLE]:
        raise InputError(
            f"{folder} holds both {base_chain.SINGLE} and {base_chain.INDEX}, which are two models; move one of the two away"
        )
    for path in files:
        with open_tensors(path) as file:  # looks at the layout of the whole file
            names = file.names()
        for name in names:
            if name not in where:
                raise InputError(f"{path} holds {name}, which {base_chain.INDEX} does not name; {_SAVE_AGAIN}")
            if where[name] < path:
                raise InputError(f"{path} holds {name}, which {base_chain.INDEX} reads from {where[name].name}; {_SAVE_AGAIN}")


def _read_config(folder: Path) -> "WhisperConfig":
    path = folder / "config.json"
    tree = read_object(path, "give the folder of a Whisper checkpoint")
    if tree.get("model_type") != "whisper":
        raise InputError(f"{path}: model_type is {tree.get('model_type')!r}; only Whisper models are adapted, give one")
    if tree.get("is_encoder_decoder") is False:
        raise InputError(f"{path}: is_encoder_decoder is false, every Whisper model is one; download it again")
    if tree.get("quantization_config"):
        raise InputError(f"{path}: the model is quantized (quantization_config); give the one that it was made from")
    for key, most in _MOST.items():
        if key in tree and not whole_number(tree[key], 1, most):
            raise InputError(
                f"{path}: {key} is {str(tree[key])[:40]}, an integer from 1 to {most} is expected; download it again"
            )
    for key in _RATES:
        if not isinstance(tree.get(key, 0), int | float) or not 0 <= tree.get(key, 0) <= 1:
            raise InputError(f"{path}: {key} is {str(tree[key])[:40]}, a number from 0 to 1 is expected; download it again")
    from transformers import WhisperConfig

    try:
        config = WhisperConfig.from_pretrained(folder)
    except Exception as error:  # Transformers has no class of its own for what a value of a wrong type leads to
        raise InputError(f"{path} cannot be read as a Whisper model: {error}; download it again") from error
    if config.max_source_positions != _MOST["max_source_positions"]:
        raise InputError(f"{path}: max_source_positions is {config.max_source_positions}; Whisper hears windows of 30 s, 1500")
    if not whole_number(config.pad_token_id, 0, config.vocab_size - 1):
        raise InputError(f"{path}: pad_token_id is {config.pad_token_id}, which is no token of the model; download it again")
    return config


def _expected_shapes(folder: Path, config: "WhisperConfig") -> dict[str, tuple[int, ...]]:
    from transformers import WhisperForConditionalGeneration

    try:
        with torch.device("meta"):
            model = WhisperForConditionalGeneration(config)
    except Exception as error:  # whatever sizes that do not fit together lead to
        raise InputError(f"{folder / 'config.json'} describes no model: {error}; download it again") from error
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _with_prefix(folder: Path, specs: Mapping[str, TensorSpec], use: Use) -> Mapping[str, TensorSpec]:
    """Returns specs under the names of the whole model, with its head."""
    for name in specs:
        if wrapped := [part for part in name.split(".") if part in WRAPPERS]:
            raise InputError(
                f"{folder}: {name} has the prefix {wrapped[0]} of a wrapper (torch.compile, data-parallel training); unwrap the "
                f"model before it is saved, or rename the tensors without {wrapped[0]}"
            )
    if any(name.startswith("model.") for name in specs):
        return specs
    if use != "decode" and any(name.startswith(("encoder.", "decoder.")) for name in specs):
        raise InputError(
            f"{folder}: {min(specs)} and others lack the prefix model. that the modules of adapters have; {_SAVE_AGAIN}, as a "
            "WhisperForConditionalGeneration"
        )
    return {name if name == base_chain.TIED else f"model.{name}": spec for name, spec in specs.items()}


def _check_tensors(folder: Path, there: Mapping[str, TensorSpec], expected: Mapping[str, tuple[int, ...]], is_tied: bool) -> None:
    missing = sorted(expected.keys() - there.keys() - ({base_chain.TIED} if is_tied else set()))
    extra = sorted(there.keys() - expected.keys())
    if missing or extra:
        what = f"{_some(missing)} missing" if missing else f"{_some(extra)} not in the model that config.json describes"
        raise InputError(f"{folder}: config.json and weights disagree: {what}; give a complete Whisper checkpoint")
    for name, spec in there.items():
        if 0 in spec.shape:
            raise InputError(
                f"{folder}: {name} is empty, {list(spec.shape)}: it was saved under ZeRO-3 without being gathered; gather the "
                "weights with DeepSpeed's zero_to_fp32.py"
            )
        if spec.shape != expected[name]:
            raise InputError(
                f"{folder}: config.json and weights disagree on {name}: its shape is {list(spec.shape)}, {list(expected[name])} "
                "is expected; give a complete Whisper checkpoint"
            )
        if not spec.dtype.is_floating_point:
            raise InputError(f"{folder}: {name} is {spec.dtype}; give a model in float32, float16 or bfloat16")
    if is_tied and base_chain.TIED in there:
        _check_tie(folder)


def _check_tie(folder: Path) -> None:
    """Raises InputError for an output layer of its own where config.json says that it is the embedding. Reads both tensors."""
    embedding = next(name for name in base_chain.weight_map(folder) if name.endswith("decoder.embed_tokens.weight"))
    one, other = (tensor for _, tensor in base_chain.read_tensors(folder, [base_chain.TIED, embedding]))
    if not torch.equal(one, other):
        raise InputError(
            f"{folder}: {base_chain.TIED} differs from {embedding}, config.json says that they are one; set tie_word_embeddings "
            "to false there, or take the tensor out"
        )


def _some(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:3])
    return f"{shown} and {len(names) - 3} more are" if len(names) > 3 else f"{shown} {'is' if len(names) == 1 else 'are'}"


def _check_tokens(folder: Path, tokens: Mapping[str, int], config: Any) -> None:
    if (last := max(tokens.values())) >= config.vocab_size:
        raise InputError(
            f"{folder}: the tokenizer has {last + 1} tokens, the model vocab_size {config.vocab_size}; they belong to different "
            "models, copy the tokenizer from the model's original"
        )
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    starts = [config.decoder_start_token_id]
    for key, ids, token in (("decoder_start_token_id", starts, companions.START), ("eos_token_id", ends, companions.END)):
        if tokens[token] not in ids:
            raise InputError(
                f"{folder / 'config.json'}: {key} is {getattr(config, key)}, the tokenizer has {token} at {tokens[token]}; they "
                "belong to different models, copy the tokenizer from the model's original"
            )
