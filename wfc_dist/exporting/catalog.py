"""The formats of `wfc export` by name, and what each of them takes."""

from wfc_dist.errors import ConfigError, nearest
from wfc_dist.exporting import ctranslate2_format, ggml_format, onnx_format, safetensors_format
from wfc_dist.exporting.formats import Format, Options
from wfc_dist.runs.cards import TRANSFORMERS, Use

_FASTER_WHISPER = Use(
    "ctranslate2",
    (
        "```python",
        "from faster_whisper import WhisperModel",
        "",
        'segments, _ = WhisperModel("this folder").transcribe("speech.wav")',
        "```",
        "",
        "Append silence to clips shorter than 30 s: faster-whisper fills their features with zeros, which are no silence.",
    ),
)
_WHISPER_CPP = Use("whisper.cpp", ("```sh", "whisper-cli -m ggml-model.bin -l auto -f speech.wav", "```"))
_ONNX = Use(
    "onnx",
    (
        "```python",
        "from optimum.onnxruntime import ORTModelForSpeechSeq2Seq",
        "from transformers import WhisperProcessor",
        "",
        'model = ORTModelForSpeechSeq2Seq.from_pretrained("this folder")',
        'processor = WhisperProcessor.from_pretrained("this folder")',
        "```",
        "",
        "`encoder_model.onnx` and `decoder_model_merged.onnx` suffice; the other two decoders are the parts of the merged one.",
    ),
)

FORMATS = {
    "safetensors": Format(
        ("",), safetensors_format.write,
        safetensors_format.reader, TRANSFORMERS, ("shard_size_bytes",), is_exact=True,
    ),
    "ctranslate2": Format(
        ("float32", "float16", "int8", "int8_float16", "int8_float32"),
        ctranslate2_format.write, ctranslate2_format.reader, _FASTER_WHISPER,
    ),
    "ggml": Format(
        ("float16",), ggml_format.write, ggml_format.reader, _WHISPER_CPP, ("converter",)
    ),
    "onnx": Format(
        ("float32",), onnx_format.write, onnx_format.reader, _ONNX, ("converter",)
    ),
}  # fmt: skip


def resolve(name: str, options: Options) -> tuple[Format, Options]:
    """Returns a format and its complete options.

    Raises:
        ConfigError: No such format or quantization, or an option that the format does not read.
    """
    if name not in FORMATS:
        raise ConfigError(f"--to {name!r} is not {', '.join(FORMATS)}{nearest(name, FORMATS)}")
    found = FORMATS[name]
    quantization = options.quantization or found.quantizations[0]
    if quantization not in found.quantizations:
        choices = " or ".join(filter(None, found.quantizations)) or "nothing: the tensors stay as they are"
        raise ConfigError(f"--quantization {options.quantization!r}: {name} takes {choices}")
    for key, is_set in (("shard_size_bytes", options.shard_size_bytes), ("converter", options.converter)):
        if is_set is not None and key not in found.takes:
            flag = {"shard_size_bytes": "--shard-size", "converter": "--converter"}[key]
            raise ConfigError(f"{flag} is not read by --to {name}; leave it out")
    return found, Options(quantization, options.shard_size_bytes, options.converter)
