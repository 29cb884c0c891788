"""ONNX, which onnxruntime loads: written by optimum-onnx in an environment of its own, which needs an older Transformers."""

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from wfc_dist.errors import ConfigError, InputError
from wfc_dist.evaluation.windows import Audio
from wfc_dist.exporting import programs
from wfc_dist.exporting.formats import Options, Reader
from wfc_dist.weights import base_chain

_WRITTEN = ("encoder_model.onnx", "decoder_model_merged.onnx", "tokenizer.json", "preprocessor_config.json")
"""What programs load. optimum-onnx leaves out a tokenizer that it cannot read, and ends well."""
_INSTALL = "pip install 'optimum-onnx[onnxruntime]' accelerate"
_VERSIONS = """if True:
    from importlib.metadata import version
    print(", ".join(f"{name} {version(name)}" for name in ("optimum-onnx", "onnxruntime")))
"""
_TRANSCRIBE = """if True:
    import json, sys
    import numpy
    from optimum.onnxruntime import ORTModelForSpeechSeq2Seq
    from transformers import WhisperProcessor
    folder, samples, language = sys.argv[1:]
    model = ORTModelForSpeechSeq2Seq.from_pretrained(folder)
    processor = WhisperProcessor.from_pretrained(folder)
    features = processor(numpy.load(samples), sampling_rate=16_000, return_tensors="pt").input_features
    asked = dict(language=language or None, task="transcribe") if model.generation_config.is_multilingual else {}
    tokens = model.generate(features, num_beams=1, do_sample=False, **asked)
    print(json.dumps(processor.batch_decode(tokens, skip_special_tokens=True)[0]))
"""


def write(source: Path, out: Path, options: Options) -> str:
    """Converts a checkpoint (see `formats.Format`).

    Raises:
        ConfigError: No converter is named, or its environment lacks optimum-onnx or onnxruntime.
        InputError: There is no such converter, or it failed; holds its last lines.
        HungError: The converter hangs.
    """
    python = _python(options)
    made_by = _run([str(python), "-I", "-c", _VERSIONS], str(python))
    if made_by.returncode:
        said = (made_by.stderr.splitlines() or [f"exit code {made_by.returncode}"])[-1]
        raise ConfigError(f"--converter {options.converter}: run `{_INSTALL}` in that environment ({said})")
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f"{out.name}.onnx-") as scratch:
        base_chain.write_standalone(source, Path(scratch), "float32")  # which is what the graph is made of
        _name_special_tokens(Path(scratch) / "tokenizer_config.json")
        command = [str(python), "-I", "-m", "optimum.commands.optimum_cli", "export", "onnx", "--model", scratch]
        done = _run([*command, "--task", "automatic-speech-recognition-with-past", str(out)], str(options.converter))
    lacking = [name for name in _WRITTEN if not (out / name).is_file()]
    if done.returncode or lacking:
        what = f"failed with exit code {done.returncode}" if done.returncode else f"wrote no {', '.join(lacking)}"
        raise InputError(f"{options.converter} {what}:\n{done.stderr[-2000:]}")
    return made_by.stdout.strip()


def _name_special_tokens(path: Path) -> None:
    """Gives the special tokens the name that they have before Transformers 5, which alone reads them as a list of this name."""
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if isinstance(config.get("extra_special_tokens"), list):
        config["additional_special_tokens"] = config.pop("extra_special_tokens")
        path.write_text(json.dumps(config, indent=1, ensure_ascii=False), encoding="utf-8")


def reader(folder: Path, options: Options) -> Reader:
    """Transcribes with onnxruntime, in the converter's environment (see `formats.Format`)."""
    python = _python(options)

    def transcribe(audio: Audio, language: str | None) -> str:
        with tempfile.TemporaryDirectory() as scratch:
            np.save(samples := Path(scratch) / "samples.npy", audio)
            done = _run([str(python), "-I", "-c", _TRANSCRIBE, str(folder), str(samples), language or ""], "onnxruntime")
        if done.returncode:
            raise InputError(f"onnxruntime cannot use {folder}: exit code {done.returncode}\n{done.stderr[-2000:]}")
        return str(json.loads(done.stdout.splitlines()[-1])).strip()

    return transcribe


def _python(options: Options) -> Path:
    """Returns the Python of the environment whose `optimum-cli` or Python is `--converter`; a link to it is not followed."""
    if options.converter is None:
        raise ConfigError(f"--to onnx needs --converter PATH: the optimum-cli of an environment with `{_INSTALL}`")
    found = options.converter if options.converter.name.startswith("python") else options.converter.with_name("python")
    if not options.converter.is_file() or not found.is_file():
        raise InputError(
            f"--converter {options.converter}: no such file, or no Python beside it; name the environment's optimum-cli"
        )
    return found.absolute()


def _run(command: Sequence[str], name: str) -> subprocess.CompletedProcess[str]:
    environment: Mapping[str, str] = {**os.environ, "HF_HUB_OFFLINE": "1"}  # everything is in the folder
    return programs.run(command, name, environment)
