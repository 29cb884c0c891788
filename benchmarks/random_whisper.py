"""Random Whisper checkpoints of any size and generated speech: for work whose cost does not depend on the words."""

import json
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)
from transformers.models.whisper.tokenization_whisper import LANGUAGES

RATE_HZ = 16_000
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def make_tokenizer(num_words: int = 0) -> WhisperTokenizer:
    """Returns a Whisper tokenizer over bytes, with every special token of the multilingual models.

    Args:
        num_words: Tokens that no text is encoded to and that a random model may write: they fill up a larger vocabulary.
    """
    names = [*sorted(ByteLevel.alphabet()), *(f"w{number:05d}" for number in range(num_words))]
    tokenizer = WhisperTokenizer(
        vocab={token: index for index, token in enumerate(names)},
        merges=[],
        unk_token="<|endoftext|>",
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
    )
    specials = ["<|endoftext|>", "<|startoftranscript|>", *[f"<|{code}|>" for code in LANGUAGES]]
    specials += ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": specials, "pad_token": "<|endoftext|>"})
    return tokenizer


def make_whisper(
    folder: Path, *, seed: int = 0, dtype: torch.dtype = torch.float32, d_model: int = 32, ffn: int = 0,
    layers: tuple[int, int] = (2, 2), heads: int = 2, num_mel_bins: int = 80, vocab_size: int = 0, positions: int = 448,
    taciturn: bool = False,
    device: torch.device | str = "cpu",
) -> Path:  # fmt: skip
    """Writes a complete, from_pretrained-able random Whisper (30 s windows) and returns its folder.

    Args:
        folder: Where to.
        seed: Seed of the weights.
        dtype: Data type of the weights.
        d_model, ffn, layers, heads, num_mel_bins: The shape; `ffn` is 2 * d_model by default, `layers` are (encoder, decoder).
        vocab_size: Tokens; by default those of the bytes and the special ones.
        positions: The longest text, in tokens, with its prompt.
        taciturn: The model ends every text at once, where what is decoded does not matter but time does.
        device: Where the weights are drawn; they are not the same on every device.
    """
    tokenizer = make_tokenizer()
    if vocab_size:
        tokenizer = make_tokenizer(vocab_size - len(tokenizer))
    languages = {f"<|{code}|>": tokenizer.convert_tokens_to_ids(f"<|{code}|>") for code in LANGUAGES}
    ids: Any = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|startoftranscript|>"])
    end, start = ids
    config = WhisperConfig(
        vocab_size=len(tokenizer), num_mel_bins=num_mel_bins, d_model=d_model, encoder_layers=layers[0], decoder_layers=layers[1],
        encoder_attention_heads=heads, decoder_attention_heads=heads, encoder_ffn_dim=ffn or 2 * d_model,
        decoder_ffn_dim=ffn or 2 * d_model, max_source_positions=1500, max_target_positions=positions, pad_token_id=end,
        bos_token_id=end, eos_token_id=end, decoder_start_token_id=start, suppress_tokens=None, begin_suppress_tokens=None,
        dropout=0.0,
    )  # fmt: skip
    torch.manual_seed(seed)
    with torch.device(device):
        model: Any = WhisperForConditionalGeneration(config)
    model.to(dtype)
    if taciturn:
        model.model.decoder.embed_tokens.weight.data[end] = 0.1  # the padding token's row is zero
        model.model.decoder.layer_norm.bias.data[:] = 5  # logit 0.1 * 5 * d_model
    model.generation_config = GenerationConfig(
        decoder_start_token_id=start, eos_token_id=end, pad_token_id=end, bos_token_id=end, max_length=positions,
        is_multilingual=True, lang_to_id=languages,
        task_to_id={task: tokenizer.convert_tokens_to_ids(f"<|{task}|>") for task in ("transcribe", "translate")},
        no_timestamps_token_id=tokenizer.convert_tokens_to_ids("<|notimestamps|>"),
        prev_sot_token_id=tokenizer.convert_tokens_to_ids("<|startofprev|>"), return_timestamps=False,
    )  # fmt: skip
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=num_mel_bins).save_pretrained(folder)
    (folder / "normalizer.json").write_text(json.dumps({"colour": "color"}))
    return folder


def make_speech(folder: Path, clips: Mapping[str, int], *, seed: int, language: str, seconds: tuple[float, float]) -> Path:
    """Writes SPLIT.jsonl and 16-bit WAV files of noisy tones, and returns the folder; a text has about a word a second.

    Args:
        folder: Where to.
        clips: Split -> number of clips.
        seed: Seed of lengths, tones and texts.
        language: Whisper language code.
        seconds: Shortest and longest clip; lengths are uniform between them.
    """
    rng = np.random.default_rng(seed)
    (folder / "audio").mkdir(parents=True)
    for split, count in clips.items():
        rows = []
        for index in range(count):
            name = f"audio/{split}-{index}.wav"
            length_s = _write_tone(folder / name, rng, float(rng.uniform(*seconds)))
            text = " ".join(DIGITS[digit] for digit in rng.integers(10, size=max(1, round(length_s))))
            rows.append({"audio_filepath": name, "duration": length_s, "text": text, "lang": language})
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def _write_tone(path: Path, rng: np.random.Generator, seconds: float) -> float:
    num_samples = int(seconds * RATE_HZ)
    tone = 0.1 * np.sin(2 * np.pi * rng.uniform(100, 900) * np.arange(num_samples) / RATE_HZ)
    samples = 32767 * (tone + 0.01 * rng.standard_normal(num_samples))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(samples.astype("<i2").tobytes())
    return num_samples / RATE_HZ
