"""GGML, which whisper.cpp loads: written by whisper.cpp's own script, models/convert-h5-to-ggml.py.

The script reads files that today's checkpoints do not have: the vocabulary as vocab.json and added_tokens.json, and OpenAI's
mel filters. They are made from tokenizer.json and the feature extractor, in a folder that is removed afterwards.
"""

import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from wfc_dist.errors import ConfigError, InputError
from wfc_dist.evaluation.windows import Audio
from wfc_dist.exporting import programs
from wfc_dist.exporting.formats import Options, Reader
from wfc_dist.storage.durable import sha256_file
from wfc_dist.weights import base_chain

MODEL = "ggml-model.bin"


def write(source: Path, out: Path, options: Options) -> str:
    """Converts a checkpoint (see `formats.Format`).

    Raises:
        ConfigError: No converter is named.
        InputError: There is no such script, or the script failed; holds its last lines.
        HungError: The script hangs.
    """
    if options.converter is None:
        raise ConfigError("--to ggml needs --converter PATH: models/convert-h5-to-ggml.py of whisper.cpp")
    if not options.converter.is_file():
        raise InputError(f"--converter {options.converter}: no such file; name whisper.cpp's models/convert-h5-to-ggml.py")
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f"{out.name}.ggml-") as scratch:
        checkpoint, openai, made = (Path(scratch) / name for name in ("checkpoint", "openai", "made"))
        for folder in (checkpoint, openai / "whisper" / "assets", made):
            folder.mkdir(parents=True)
        base_chain.write_standalone(source, checkpoint, "float32")  # numpy has no bfloat16
        _write_vocabulary(checkpoint)
        _write_mel_filters(checkpoint, openai / "whisper" / "assets" / "mel_filters.npz")
        command = [sys.executable, str(options.converter), str(checkpoint), str(openai), str(made)]
        done = programs.run(command, str(options.converter))
        files = list(made.iterdir())
        if done.returncode or len(files) != 1:
            raise InputError(f"{options.converter} failed with exit code {done.returncode}:\n{done.stderr[-2000:]}")
        files[0].rename(out / MODEL)
    return f"whisper.cpp's {options.converter.name} (sha256 {sha256_file(options.converter)[:12]})"


def _write_vocabulary(checkpoint: Path) -> None:
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    added = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    plain = {token: index for token, index in tokenizer["model"]["vocab"].items() if token not in added}
    (checkpoint / "vocab.json").write_text(json.dumps(plain, ensure_ascii=False), encoding="utf-8")
    (checkpoint / "added_tokens.json").write_text(json.dumps(added, ensure_ascii=False), encoding="utf-8")


def _write_mel_filters(checkpoint: Path, path: Path) -> None:
    from transformers import WhisperFeatureExtractor

    filters = WhisperFeatureExtractor.from_pretrained(checkpoint).mel_filters  # (bins, mels), as OpenAI's but for the order
    arrays: dict[str, Any] = {f"mel_{filters.shape[1]}": np.ascontiguousarray(filters.T, dtype=np.float32)}
    np.savez(path, **arrays)


_TRANSCRIBE = """if True:
    import sys
    import numpy
    from pywhispercpp.model import Model
    model = Model(sys.argv[1], redirect_whispercpp_logs_to=None)
    options = dict(no_timestamps=True, no_context=True, single_segment=True, temperature_inc=0.0)
    segments = model.transcribe(numpy.load(sys.argv[2]), language=sys.argv[3], **options)
    print(" ".join(segment.text.strip() for segment in segments))
"""


def reader(folder: Path, options: Options) -> Reader:
    """Transcribes with whisper.cpp, in a process of its own: a model that it does not like ends the process.

    Raises ConfigError when whisper.cpp's Python package is not installed.
    """
    if importlib.util.find_spec("pywhispercpp") is None:
        raise ConfigError("verifying needs whisper.cpp for Python; run `pip install pywhispercpp`, or add --no-verify")

    def transcribe(audio: Audio, language: str | None) -> str:
        with tempfile.TemporaryDirectory() as scratch:
            np.save(samples := Path(scratch) / "samples.npy", audio)
            command = [sys.executable, "-c", _TRANSCRIBE, str(folder / MODEL), str(samples), language or "auto"]
            done = programs.run(command, "whisper.cpp")
        if done.returncode:
            raise InputError(f"whisper.cpp cannot use {folder / MODEL}: exit code {done.returncode}\n{done.stderr[-2000:]}")
        return done.stdout.strip()

    return transcribe
