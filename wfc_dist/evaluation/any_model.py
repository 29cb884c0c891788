"""Any model, in this process, without a run: `load_model`, `transcribe` and `evaluate` of the public API."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from wfc_dist.config.schema import Config
from wfc_dist.data.audio_files import AudioFile, decode
from wfc_dist.data.sources import open_split
from wfc_dist.errors import InputError
from wfc_dist.evaluation import decoding
from wfc_dist.evaluation.hypotheses import score_hypotheses
from wfc_dist.evaluation.metrics import Score
from wfc_dist.evaluation.normalize import spelling_table
from wfc_dist.runs import layout
from wfc_dist.runs.handle import Run
from wfc_dist.runs.interim import newest_servable
from wfc_dist.runs.remote import local_run
from wfc_dist.runs.root import bring_base
from wfc_dist.storage.objects import is_url
from wfc_dist.weights import adapter_config, base_chain, peft_folder
from wfc_dist.weights.adapted_model import with_adapter


class LoadedModel(NamedTuple):
    """A model ready to decode.

    Attributes:
        model: In eval mode, float32, on the GPU where there is one; a `PeftModel` where an adapter was loaded.
        processor: Feature extractor and tokenizer.
        folder: The checkpoint folder it was loaded from; of an adapter that of its base.
    """

    model: Any
    processor: WhisperProcessor
    folder: Path


def load_model(model: str | Path) -> LoadedModel:
    """Loads any model that can be scored.

    Args:
        model: A run directory or the URL of one (its newest base), a base's folder, a PEFT adapter's folder, or a hub model.

    Returns:
        Model, processor and folder, to be unpacked or used by name.

    Raises:
        InputError: `model` is none of these, or an adapter whose base is missing.

    Example:
        >>> from wfc_dist import load_model
        >>> load_model("runs/demo").folder
        PosixPath('runs/demo/base-0002')
    """
    name = str(model)
    folder, adapter = Path(name), None
    if is_url(name):
        folder, mirror = local_run(name)
        assert mirror is not None, "a URL has a mirror"
        bring_base(mirror, Run(folder).base().index)
    if layout.is_run(folder):
        folder = Path(newest_servable(folder).path)
    elif (folder / adapter_config.CONFIG).is_file():
        adapter, base = folder, adapter_config.read_config(folder).get("base_model_name_or_path")
        folder = base_chain.resolve_root(str(base))
    else:
        folder = layout.model_pointed_to(folder) or base_chain.resolve_root(name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded: Any = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
    if adapter is not None:
        loaded = with_adapter(loaded, peft_folder.read_factors(adapter), adapter)
    return LoadedModel(loaded.to(device).eval(), WhisperProcessor.from_pretrained(folder), folder)


def transcribe(model: str | Path, files: Sequence[str | Path], *, language: str | None = None) -> Iterator[tuple[Path, str]]:
    """Yields (path, text) for audio files of any length, as each is decoded.

    Args:
        model: As `load_model` takes it.
        files: wav, flac, ogg, opus or mp3.
        language: Whisper language code; detected by default.

    Raises:
        InputError: A file that is missing or no audio (before the model is loaded), or no such model.

    Example:
        >>> from wfc_dist import transcribe
        >>> [path.name for path, text in transcribe("runs/demo", ["speech.flac"], language="en")]
        ['speech.flac']
    """
    paths = [Path(file) for file in files]
    if missing := [path for path in paths if not path.is_file()]:
        raise InputError(f"no such audio file: {missing[0]}")
    whisper, processor, _ = load_model(model)
    for path in paths:
        yield path, decoding.transcribe(whisper, processor, decode(AudioFile(str(path))), language)


def evaluate(model: str | Path, config: Config, *, threads: int = 0) -> dict[str, Score]:
    """Scores a model on every test set of a configuration, decoded together.

    Args:
        model: As `load_model` takes it.
        config: Its test sets and its block `evaluate` are used.
        threads: CPU threads; 0 takes all cores.

    Returns:
        Test set -> score, in the order of the configuration. A rate of 0.25 is 25 %.

    Raises:
        InputError: No such model, data that cannot be read, or a set without a reference token.

    Example:
        >>> from wfc_dist import evaluate, load_config
        >>> evaluate("runs/demo", load_config("configs/demo.yaml"))["es"].metric
        'wer'
    """
    torch.set_num_threads(threads or os.cpu_count() or 1)
    splits = {key: open_split(key, data, "test") for key, data in config.test_sets().items()}
    whisper, processor, folder = load_model(model)
    decoded = decoding.decode_sets(whisper, processor, list(splits.values()), config.evaluate, device=whisper.device)
    spelling = spelling_table(folder)
    return {key: score_hypotheses(said, config.evaluate, spelling) for key, said in zip(splits, decoded, strict=True)}
