"""Tiny random Whisper checkpoints and tiny speech-like data sets, built locally, for tests where size is all that matters."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import yaml
from random_whisper import DIGITS, make_tokenizer, make_whisper
from random_whisper import RATE_HZ as RATE

__all__ = ["make_config", "make_dataset", "make_tokenizer", "make_whisper"]


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
        "evaluate": {"packing": True},
    }  # fmt: skip
    for block, keys in blocks.items():
        tree[block] = {**tree.get(block, {}), **keys}
    path = root / "config.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path
