"""What lies beside the weights of a Whisper checkpoint: tokenizer, feature extractor and generation configuration."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wfc_dist.errors import InputError
from wfc_dist.weights.json_files import read_object, whole_number

if TYPE_CHECKING:
    from transformers import GenerationConfig

GENERATION = "generation_config.json"
END, START = "<|endoftext|>", "<|startoftranscript|>"
TASKS = ("transcribe", "translate")
NO_TIMESTAMPS, PREVIOUS = "<|notimestamps|>", "<|startofprev|>"
SPECIAL = (END, START, *(f"<|{task}|>" for task in TASKS), NO_TIMESTAMPS, PREVIOUS)
ENGLISH_VOCABULARY = 51864
"""Tokens of OpenAI's English-only models; the multilingual ones have one or two more."""

_COPIED = ("*.json", "*.txt", "*.model", "LICENSE*")
_NOT_COPIED = ("model.safetensors.index.json", "manifest.json", "root.json")
_EXTRACTORS = ("preprocessor_config.json", "processor_config.json")
_FEATURES: dict[str, object] = {
    "sampling_rate": 16_000, "n_fft": 400, "hop_length": 160, "chunk_length": 30, "dither": 0.0, "padding_side": "right",
    "padding_value": 0.0,
}  # fmt: skip
_COMPLETE = "copy the file from the model that this one was trained from"
_KEPT_IN_CONFIG = (
    "decoder_start_token_id",
    "eos_token_id",
    "bos_token_id",
    "pad_token_id",
    "suppress_tokens",
    "begin_suppress_tokens",
)


def vocabulary(folder: Path) -> dict[str, int]:
    """Returns token -> id of a checkpoint's tokenizer.

    Raises:
        InputError: No tokenizer, one that cannot be read, or one without Whisper's special tokens.
    """
    if not _has_tokenizer(folder):
        raise InputError(f"{folder} has no tokenizer: neither tokenizer.json nor vocab.json and merges.txt; {_COMPLETE}")
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "added_tokens.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            read_object(folder / name, _COMPLETE)
    from transformers import WhisperTokenizer

    try:
        found: dict[str, int] = WhisperTokenizer.from_pretrained(folder).get_vocab()
    except Exception as error:  # tokenizers raises nothing narrower
        raise InputError(f"{folder}: the tokenizer cannot be read ({error!r}); {_COMPLETE}") from error
    if missing := [token for token in SPECIAL if token not in found]:
        raise InputError(f"{folder}: the tokenizer has no {missing[0]}; it is not Whisper's, {_COMPLETE}")
    return found


def _has_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer.json").is_file() or all((folder / name).is_file() for name in ("vocab.json", "merges.txt"))


def languages(tokens: Mapping[str, int]) -> dict[str, int]:
    """Returns the language tokens (`<|es|>`) of a vocabulary and their ids."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    return {f"<|{code}|>": tokens[f"<|{code}|>"] for code in LANGUAGES if f"<|{code}|>" in tokens}


def check_processor(folder: Path, num_mel_bins: int) -> None:
    """Raises InputError unless tokenizer and feature extractor work together and make what the model and a run's data take."""
    there = [name for name in _EXTRACTORS if (folder / name).is_file()]
    if not there:
        raise InputError(f"{folder} has no feature extractor: preprocessor_config.json is missing; {_COMPLETE}")
    for name in there:
        read_object(folder / name, _COMPLETE)
    from transformers import WhisperProcessor

    path = folder / there[0]
    try:
        processor = WhisperProcessor.from_pretrained(folder)
        found = {key: getattr(processor.feature_extractor, key) for key in ("feature_size", *_FEATURES)}
    except Exception as error:  # TypeError, KeyError, OSError, ...: whatever the values in the file lead to
        raise InputError(f"{path}: the feature extractor cannot be made ({error!r}); {_COMPLETE}") from error
    for key, expected in {"feature_size": num_mel_bins, **_FEATURES}.items():
        if found[key] != expected:
            why = "the model's num_mel_bins" if key == "feature_size" else "that of Whisper"
            raise InputError(f"{path}: {key} is {str(found[key])[:40]}, {expected!r} is expected ({why}); {_COMPLETE}")
    try:
        processor.tokenizer([" a", ""], add_special_tokens=False)
    except Exception as error:  # as above
        raise InputError(f"{folder}: the tokenizer cannot be used ({error!r}): see tokenizer_config.json; {_COMPLETE}") from error


def is_english_only(generation: Mapping[str, Any], vocab_size: object) -> bool:
    """Says whether a model knows English alone: its prompt names neither language nor task."""
    return generation.get("is_multilingual") is False or vocab_size == ENGLISH_VOCABULARY


def read_generation(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Returns the generation configuration of a checkpoint, and the keys that were filled in.

    Early releases of Whisper have no such file, or one without the ids of languages and tasks. These come from the tokenizer.

    Raises:
        InputError: The file cannot be read, or what is missing is in no tokenizer.
    """
    path, config = folder / GENERATION, read_object(folder / "config.json", "give the folder of a Whisper checkpoint")
    if path.is_file():
        found = read_object(path, _COMPLETE)
    else:
        found = {key: config[key] for key in _KEPT_IN_CONFIG if config.get(key) is not None}
        found |= {"max_length": config.get("max_target_positions", 448), "return_timestamps": False}
    needed = ["decoder_start_token_id", "eos_token_id", "no_timestamps_token_id"]
    if not is_english_only(found, config.get("vocab_size")):
        needed += ["is_multilingual", "lang_to_id", "task_to_id"]
    missing = [key for key in needed if found.get(key) is None]
    return (found | _from_vocabulary(vocabulary(folder), missing) if missing else found), missing


def _from_vocabulary(tokens: Mapping[str, int], keys: list[str]) -> dict[str, Any]:
    values = {
        "decoder_start_token_id": tokens[START],
        "eos_token_id": tokens[END],
        "no_timestamps_token_id": tokens[NO_TIMESTAMPS],
        "is_multilingual": True,
        "lang_to_id": languages(tokens),
        "task_to_id": {task: tokens[f"<|{task}|>"] for task in TASKS},
    }
    return {"prev_sot_token_id": tokens[PREVIOUS]} | {key: values[key] for key in keys}


def generation_config(folder: Path) -> "GenerationConfig":
    """Returns the folder's generation configuration, which holds Whisper's language and task tokens; see `read_generation`."""
    from transformers import GenerationConfig

    found, filled = read_generation(folder)
    return GenerationConfig.from_dict(found) if filled else GenerationConfig.from_pretrained(folder)


def check_generation(folder: Path, tokens: Mapping[str, int]) -> list[str]:
    """Checks the generation configuration against the vocabulary; returns the keys that were filled in.

    Raises:
        InputError: An id is missing, has a wrong type, or is another one than the tokenizer's.
    """
    found, filled = read_generation(folder)
    path = folder / GENERATION

    def same(name: str, value: object, token: str) -> None:
        if not whole_number(value, 0, len(tokens)) or tokens.get(token) != value:
            raise InputError(
                f"{path}: {name} is {str(value)[:40]}, the tokenizer has {token} at {tokens.get(token)}; the two files belong to "
                f"different models, {_COMPLETE}"
            )

    same("decoder_start_token_id", found["decoder_start_token_id"], START)
    same("no_timestamps_token_id", found["no_timestamps_token_id"], NO_TIMESTAMPS)
    ends = found["eos_token_id"]
    for value in ends if isinstance(ends, list) and ends else [ends]:
        same("eos_token_id", value, END)
    if not isinstance(found.get("is_multilingual", False), bool):
        raise InputError(f"{path}: is_multilingual is {found['is_multilingual']!r}; write true or false")
    for key, token in (("lang_to_id", "{}"), ("task_to_id", "<|{}|>")):
        table = found.get(key, {})
        if (
            not isinstance(table, dict)
            or (key in found and not table)
            or (key == "task_to_id" and table and "transcribe" not in table)
        ):
            raise InputError(f"{path}: {key} is {str(table)[:40]}, an object with all of them is expected; {_COMPLETE}")
        for name, value in table.items():
            same(f"{key}.{name}", value, token.format(name))
    for key in ("suppress_tokens", "begin_suppress_tokens", "pad_token_id", "bos_token_id"):
        ids = [] if found.get(key) is None else found[key] if "suppress" in key else [found[key]]
        if not isinstance(ids, list) or not all(whole_number(value, -1, max(tokens.values())) for value in ids):
            raise InputError(f"{path}: {key} holds what is no token of the model; {_COMPLETE}")
    try:
        generation_config(folder)
    except Exception as error:  # Transformers has no class of its own for what a value of a wrong type leads to
        raise InputError(f"{path} cannot be read: {error}; {_COMPLETE}") from error
    return filled


def copy_companions(root: Path, out: Path) -> None:
    """Copies configuration, tokenizer and feature-extractor files of a checkpoint. Writes into `out`.

    A generation configuration of early releases is written with what `read_generation` fills in. A folder without a tokenizer,
    which is no base that `checkpoint.check` lets pass, is copied as it is.
    """
    for pattern in _COPIED:
        for path in sorted(root.glob(pattern)):
            if path.name not in _NOT_COPIED and not path.name.startswith("pytorch_model"):
                shutil.copyfile(path, out / path.name)
    found, filled = read_generation(root) if _has_tokenizer(root) else ({}, [])
    if filled:
        (out / GENERATION).write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for name in ("config.json", "tokenizer_config.json"):
        _drop_paths(out / name)


def _drop_paths(path: Path) -> None:
    """Removes from a configuration what names a place on the machine that saved it, such as `_name_or_path: /home/...`."""
    if not path.is_file():
        return
    config = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: value for key, value in config.items() if not (isinstance(value, str) and Path(value).is_absolute())}
    if kept != config:
        path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
