"""CTranslate2, which faster-whisper loads: written by CTranslate2's own converter for Transformers."""

from pathlib import Path
from typing import Any

import numpy as np

from wfc_dist.data.audio_files import RATE_HZ
from wfc_dist.errors import ConfigError
from wfc_dist.evaluation.windows import Audio
from wfc_dist.exporting.formats import Options, Reader

_COPIED = ("tokenizer.json", "preprocessor_config.json")
"""faster-whisper reads them beside the model."""


def write(source: Path, out: Path, options: Options) -> str:
    """Converts a checkpoint (see `formats.Format`). Raises ConfigError when CTranslate2 is not installed."""
    try:
        import ctranslate2
        from ctranslate2.converters import TransformersConverter
    except ImportError as error:
        raise ConfigError(f"--to ctranslate2 needs CTranslate2 ({error}); run `pip install 'wfc-dist[ct2]'`") from error
    copied = [name for name in _COPIED if (source / name).is_file()]
    converter = TransformersConverter(str(source), copy_files=copied)
    converter.convert(str(out), quantization=options.quantization, force=True)  # `out` exists, and is empty
    return f"ctranslate2 {ctranslate2.__version__}"


def reader(folder: Path, options: Options) -> Reader:
    """Loads the model with faster-whisper (see `formats.Format`). Raises ConfigError when faster-whisper is not installed."""
    try:
        from faster_whisper import WhisperModel
    except ImportError as error:
        raise ConfigError(f"verifying needs faster-whisper ({error}); run `pip install 'wfc-dist[ct2]'`") from error
    whole_window = 30 * RATE_HZ
    model: Any = WhisperModel(str(folder), device="cpu", compute_type="default", local_files_only=True)

    def transcribe(audio: Audio, language: str | None) -> str:
        # Shorter audio gets features of 0 behind its own, which is no silence, and the model may write another text.
        padded = np.pad(audio, (0, max(0, whole_window - len(audio))))
        segments, _ = model.transcribe(
            padded, language=language, beam_size=1, best_of=1, temperature=0.0, without_timestamps=True,
            condition_on_previous_text=False, no_speech_threshold=None, log_prob_threshold=None,
            compression_ratio_threshold=None,
        )  # fmt: skip
        return " ".join(segment.text.strip() for segment in segments)

    return transcribe
