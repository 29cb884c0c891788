"""What the audit says of samples."""

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from wfc_dist.data.audio_files import AudioFile
from wfc_dist.data.signals import first_sound

RATE = 16_000
TONE = 0.3 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
CASES = {
    "a tone": (TONE, "FLOAT", set()),
    "two equal channels": (np.stack([TONE, TONE], 1), "PCM_16", set()),
    "two other channels": (np.stack([TONE, np.roll(TONE, 30)], 1), "PCM_16", set()),
    "anti-phase": (np.stack([TONE, -TONE], 1), "PCM_16", {"cancels"}),
    "anti-phase behind silence": (np.concatenate([np.zeros((RATE * 20, 2)), np.stack([TONE, -TONE], 1)]), "PCM_16", {"cancels"}),
    "digital silence": (np.zeros(RATE), "PCM_16", {"silent"}),
    "silence in two channels": (np.zeros((RATE, 2)), "FLOAT", {"silent"}),
    "a soft sound behind silence": (np.concatenate([np.zeros(RATE * 40), TONE]), "PCM_16", set()),
    "integers as floats": (TONE * 32768, "FLOAT", {"scale"}),
    "integers as doubles": (TONE * 32768, "DOUBLE", {"scale"}),
    "floats with overshoot": (TONE * 4, "FLOAT", {"clipped"}),
    "clipped": (np.clip(TONE * 10, -1, 1), "PCM_16", {"clipped"}),
    "NaN": (np.concatenate([TONE, [np.nan]]), "FLOAT", {"not_finite"}),
    "only NaN": (TONE * np.nan, "FLOAT", {"not_finite"}),
    "infinite": (np.concatenate([TONE, [np.inf]]), "DOUBLE", {"not_finite"}),
    "one peak at full scale": (np.concatenate([TONE, [1.0]]), "FLOAT", set()),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_odd_is_named(name: str, tmp_path: Path) -> None:
    samples, subtype, wanted = CASES[name]
    sf.write(tmp_path / "a.wav", samples, RATE, subtype=subtype)
    assert first_sound(AudioFile(str(tmp_path / "a.wav"))) == wanted
