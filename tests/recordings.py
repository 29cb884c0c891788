"""Recordings of tones: the pitch that is heard tells which stretch, channel or file was read."""

from pathlib import Path

import numpy as np
import soundfile as sf

from wfc_dist.config.datasets import DatasetConfig
from wfc_dist.data.sources import Split, open_split

PITCHES = (300, 500, 700)


def tone(pitch: float, seconds: float = 1.0, rate: int = 16_000) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write(path: Path, samples: np.ndarray | float, rate: int = 16_000, **how: str) -> Path:
    """Writes samples, or a second of a pitch, making the folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, samples if isinstance(samples, np.ndarray) else tone(samples), rate, **how)
    return path


def write_long(path: Path, **how: str) -> Path:
    """Writes three seconds, one of each pitch."""
    return write(path, np.concatenate([tone(pitch) for pitch in PITCHES]), **how)


def write_call(path: Path, **how: str) -> Path:
    """Writes two channels of three seconds: the pitches, and on channel 1 the pitches and a thousand more."""
    left, right = (np.concatenate([tone(pitch + more) for pitch in PITCHES]) for more in (0, 1000))
    return write(path, np.stack([left, right], axis=1), **how)


def pitch_of(samples: np.ndarray) -> int:
    """Returns the loudest pitch, rounded to 10 Hz; a mixture of channels is quieter than a tone and gives 0."""
    spectrum = np.abs(np.fft.rfft(samples)) * 2 / len(samples)
    loudest = int(np.argmax(spectrum))
    return round(loudest * 16_000 / len(samples), -1) if spectrum[loudest] > 0.2 else 0  # type: ignore[return-value]


def opened(source: Path, split: str = "train", **keys) -> Split:
    """Opens the training split of a data set in English."""
    return open_split("set", DatasetConfig(source=str(source), language="en", splits={"train": split}, **keys), "train")


def heard(split: Split) -> list[tuple[str, float, int]]:
    """Returns (text, seconds decoded, pitch) of every clip, and checks that the seconds are those that the clip states."""
    found = []
    for index, clip in enumerate(split.clips):
        samples = split.audio(index)
        assert abs(len(samples) / 16_000 - clip.duration_s) < 0.01, clip
        found.append((clip.text, round(len(samples) / 16_000, 2), pitch_of(samples)))
    return found
