"""Tiny random Whisper checkpoints and tiny speech-like data sets, built locally, for tests where size is all that matters."""

import json
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers.models.whisper.tokenization_whisper import LANGUAGES

RATE = 16_000


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


def make_whisper(folder: Path, *, seed: int = 0, dtype: torch.dtype = torch.float32, d_model: int = 32) -> Path:
    """Writes a complete, from_pretrained-able random Whisper (2 + 2 layers, 30 s windows) and returns its folder."""
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
            words = " ".join("zero one two three four five six seven eight nine".split()[int(d)] for d in str(pitch))
            text = f"{words} {split} {index}"
            rows.append({"audio_filepath": name, "duration": len(wave) / RATE, "text": text, "lang": language})
        with open(folder / f"{split}.jsonl", "w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return folder
