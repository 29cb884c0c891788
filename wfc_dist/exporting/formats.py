"""The formats of `wfc export`: each one writes a folder from a checkpoint, and reads it back to transcribe."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wfc_dist.errors import ConfigError, nearest
from wfc_dist.evaluation.windows import Audio
from wfc_dist.runs.cards import TRANSFORMERS, Use

Reader = Callable[[Audio, str | None], str]
"""Samples and Whisper's language code (None: detected) -> the text that the exported model writes."""


@dataclass(frozen=True)
class Options:
    """What a format may be asked for.

    Attributes:
        quantization: One of the format's; "" for its default.
        shard_size_bytes: The most that one file may hold; None for a single file.
        converter: whisper.cpp's convert-h5-to-ggml.py.
    """

    quantization: str = ""
    shard_size_bytes: int | None = None
    converter: Path | None = None


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        summary: For lists of formats.
        quantizations: What `quantization` may be; the first one is the default.
        write: (checkpoint folder, empty folder, options) -> who made the files, such as "ctranslate2 4.8".
        reader: (written folder) -> a function that transcribes with it.
        use: Who loads it, and how, for its card.
        takes: The options it reads, besides `quantization`.
        is_exact: The tensors are the same, so that another text is an error.
    """

    summary: str
    quantizations: tuple[str, ...]
    write: Callable[[Path, Path, Options], str]
    reader: Callable[[Path], Reader]
    use: Use
    takes: tuple[str, ...] = ()
    is_exact: bool = False


_FASTER_WHISPER = Use(
    "ctranslate2",
    (
        "```python",
        "from faster_whisper import WhisperModel",
        "",
        'segments, _ = WhisperModel("this folder").transcribe("speech.wav")',
        "```",
    ),
)
_WHISPER_CPP = Use("whisper.cpp", ("```sh", "whisper-cli -m ggml-model.bin -l auto -f speech.wav", "```"))


def formats() -> dict[str, Format]:
    """Returns the formats by name."""
    from wfc_dist.exporting import ctranslate2_format, ggml_format, safetensors_format

    return {
        "safetensors": Format(
            "one complete checkpoint for Transformers, in one file or in shards", ("",), safetensors_format.write,
            safetensors_format.reader, TRANSFORMERS, ("shard_size_bytes",), is_exact=True,
        ),
        "ctranslate2": Format(
            "for faster-whisper and CTranslate2", ("float32", "float16", "int8", "int8_float16", "int8_float32"),
            ctranslate2_format.write, ctranslate2_format.reader, _FASTER_WHISPER,
        ),
        "ggml": Format(
            "for whisper.cpp", ("float16", "float32"), ggml_format.write, ggml_format.reader, _WHISPER_CPP, ("converter",)
        ),
    }  # fmt: skip


_LEFT_OUT = {
    "onnx": "optimum-onnx 0.1 needs Transformers before 4.58, this package needs 5; export safetensors, and in an environment of "
    "its own run `optimum-cli export onnx --model DIR OUT`"
}


def resolve(name: str, options: Options) -> tuple[Format, Options]:
    """Returns a format and its complete options.

    Raises:
        ConfigError: No such format, a format that is left out (says why), or an option that the format does not read.
    """
    if name in _LEFT_OUT:
        raise ConfigError(f"--to {name}: {_LEFT_OUT[name]}")
    known = formats()
    if name not in known:
        raise ConfigError(f"--to {name!r} is not {', '.join(known)}{nearest(name, known)}")
    found = known[name]
    quantization = options.quantization or found.quantizations[0]
    if quantization not in found.quantizations:
        choices = " or ".join(filter(None, found.quantizations)) or "nothing: the tensors stay as they are"
        raise ConfigError(f"--quantization {options.quantization!r}: {name} takes {choices}")
    for key, is_set in (("shard_size_bytes", options.shard_size_bytes), ("converter", options.converter)):
        if is_set is not None and key not in found.takes:
            flag = {"shard_size_bytes": "--shard-size", "converter": "--converter"}[key]
            raise ConfigError(f"{flag} is not read by --to {name}; leave it out")
    return found, Options(quantization, options.shard_size_bytes, options.converter)
