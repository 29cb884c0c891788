"""Hugging Face checkpoints that share nothing with a root: every tensor once, in one file or in shards."""

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors

from wfc_dist.evaluation import decoding
from wfc_dist.evaluation.any_model import load_model
from wfc_dist.evaluation.windows import Audio
from wfc_dist.exporting.formats import Options, Reader
from wfc_dist.weights import base_chain, companions
from wfc_dist.weights.tensor_files import TensorFileWriter, TensorSpec, write_order


def write(source: Path, out: Path, options: Options) -> str:
    """Writes a checkpoint (see `formats.Format`)."""
    if options.shard_size_bytes is None:
        base_chain.write_standalone(source, out)
    else:
        _write_shards(source, out, options.shard_size_bytes)
    return f"safetensors {safetensors.__version__}"


def shards(specs: Mapping[str, TensorSpec], size_bytes: int) -> list[list[str]]:
    """Returns names of tensors by shard, in order; a shard holds at most `size_bytes`, or one tensor that is larger."""
    found: list[list[str]] = []
    filled = size_bytes
    for name in sorted(specs):
        if not found or filled + specs[name].size_bytes > size_bytes:
            found.append([])
            filled = 0
        found[-1].append(name)
        filled += specs[name].size_bytes
    return found


def _write_shards(source: Path, out: Path, size_bytes: int) -> None:
    companions.copy_companions(source, out)
    where, specs = base_chain.weight_map(source), base_chain.tensor_specs(source)
    groups = shards(specs, size_bytes)
    index: dict[str, str] = {}
    for number, names in enumerate(groups, start=1):
        file = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        part = {name: specs[name] for name in names}
        writer = TensorFileWriter(out / file, part)
        for name in write_order(part):
            writer.write(name, base_chain.read_tensor(where[name], name))
        writer.close()
        index |= dict.fromkeys(names, file)
    total = sum(spec.size_bytes for spec in specs.values())
    text = json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=1, sort_keys=True)
    (out / base_chain.INDEX).write_text(text + "\n", encoding="utf-8")


def reader(folder: Path, options: Options) -> Reader:
    """Loads a checkpoint with Transformers (see `formats.Format`)."""
    model, processor, _ = load_model(folder)

    def transcribe(audio: Audio, language: str | None) -> str:
        text, _ = decoding.transcribe_clip(model, processor, audio, language)
        return text

    return transcribe
