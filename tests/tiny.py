"""Tiny random Whisper checkpoints and tiny speech-like data sets, built locally, for tests where size is all that matters."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import torch
import yaml
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)
from transformers.models.whisper.tokenization_whisper import LANGUAGES

RATE = 16_000
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def make_tokenizer() -> WhisperTokenizer:
    """Returns a Whisper tokenizer over bytes, with every special token of the multilingual models."""
    vocab = {token: index for index, token in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = WhisperTokenizer(
        vocab=vocab, merges=[], unk_token="<|endoftext|>", bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )
    specials = ["<|endoftext|>", "<|startoftranscript|>", *[f"<|{code}|>" for code in LANGUAGES]]
    specials += ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": specials, "pad_token": "<|endoftext|>"})
    return tokenizer


def make_whisper(
    folder: Path, *, seed: int = 0, dtype: torch.dtype = torch.float32, d_model: int = 32, taciturn: bool = False
) -> Path:
    """Writes a complete, from_pretrained-able random Whisper (2 + 2 layers, 30 s windows) and returns its folder.

    A taciturn one ends every text at once, where what is decoded does not matter but time does.
    """
    tokenizer = make_tokenizer()
    languages = {f"<|{code}|>": tokenizer.convert_tokens_to_ids(f"<|{code}|>") for code in LANGUAGES}
    end, start = tokenizer.convert_tokens_to_ids("<|endoftext|>"), tokenizer.convert_tokens_to_ids("<|startoftranscript|>")
    config = WhisperConfig(
        vocab_size=len(tokenizer), num_mel_bins=80, d_model=d_model, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=2 * d_model, decoder_ffn_dim=2 * d_model,
        max_source_positions=1500, max_target_positions=448, pad_token_id=end, bos_token_id=end, eos_token_id=end,
        decoder_start_token_id=start, suppress_tokens=None, begin_suppress_tokens=None, dropout=0.0,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = WhisperForConditionalGeneration(config).to(dtype)
    if taciturn:
        model.model.decoder.embed_tokens.weight.data[end] = 0.1  # the padding token's row is zero
        model.model.decoder.layer_norm.bias.data[:] = 5  # logit 0.1 * 5 * d_model
    model.generation_config = GenerationConfig(
        decoder_start_token_id=start, eos_token_id=end, pad_token_id=end, bos_token_id=end, max_length=448,
        is_multilingual=True, lang_to_id=languages,
        task_to_id={task: tokenizer.convert_tokens_to_ids(f"<|{task}|>") for task in ("transcribe", "translate")},
        no_timestamps_token_id=tokenizer.convert_tokens_to_ids("<|notimestamps|>"),
        prev_sot_token_id=tokenizer.convert_tokens_to_ids("<|startofprev|>"), return_timestamps=False,
    )  # fmt: skip
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    (folder / "normalizer.json").write_text(json.dumps({"colour": "color"}))
    return folder


def make_dataset(
    folder: Path, *, seed: int, language: str = "en", train: int = 6, dev: int = 2, test: int = 3, duration_s: float = 1.0
) -> Path:
    """Writes {train,dev,test}.jsonl and FLAC files of noisy tones; the text spells the pitch."""
    rng = np.random.default_rng(seed)
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    for split, count in (("train", train), ("dev", dev), ("test", test)):
        rows = []
        for index in range(count):
            pitch = int(rng.integers(100, 900))
            seconds = duration_s * (1 + index % 3)
            wave = 0.1 * np.sin(2 * np.pi * pitch * np.arange(int(RATE * seconds)) / RATE)
            wave += 0.01 * rng.standard_normal(len(wave))
            name = f"audio/{split}-{index}.flac"
            sf.write(folder / name, wave.astype(np.float32), RATE)
            words = " ".join(DIGITS[int(digit)] for digit in str(pitch))
            text = f"{words} {split} {index}"
            rows.append({"audio_filepath": name, "duration": len(wave) / RATE, "text": text, "lang": language})
        with open(folder / f"{split}.jsonl", "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return folder


SPLITS = {"train": "train.jsonl", "dev": "dev.jsonl", "test": "test.jsonl"}


def make_config(root: Path, rounds: Sequence[Sequence[str]] = (("a", "b", "c"), ("d", "e")), **blocks: Mapping[str, Any]) -> Path:
    """Writes a tiny model, a tiny data set for every name, and a configuration over them; returns its path.

    Args:
        root: Folder for all of it; the run directory is root/runs/tiny.
        rounds: Data-set names of each round.
        blocks: Keys of top-level blocks to set, such as train={"max_steps": 3}.
    """
    make_whisper(root / "model", taciturn=True)
    names = [name for group in rounds for name in group]
    for seed, name in enumerate(names):
        make_dataset(root / name, seed=seed, language=("en", "es", "fr", "it", "ru")[seed % 5], test=2)
    tree: dict[str, Any] = {
        "run": {"name": "tiny", "dir": str(root / "runs")},
        "base": {"model": str(root / "model")},
        "datasets": {name: {"source": str(root / name), "splits": SPLITS} for name in names},
        "rounds": [list(group) for group in rounds],
        "lora": {"r": 4, "alpha": 8},
        "train": {"max_steps": 4, "lr": 1e-2, "warmup_steps": 1, "batch_size": 1, "gradient_accumulation": 2,
                  "packing": True, "checkpoint_every": 2},
        "cluster": {"backend": "in_process"},
        "evaluate": {"packing": True, "bootstrap_samples": 20},
    }  # fmt: skip
    for block, keys in blocks.items():
        tree[block] = {**tree.get(block, {}), **keys}
    path = root / "config.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path
