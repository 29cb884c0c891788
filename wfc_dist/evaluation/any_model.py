"""Evaluates or transcribes with any model, in this process and without a run: `wfc evaluate` and `wfc transcribe`."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from wfc_dist.config.schema import Config
from wfc_dist.data.audio_files import AudioFile, decode
from wfc_dist.data.sources import open_split
from wfc_dist.errors import InputError
from wfc_dist.evaluation import decoding
from wfc_dist.evaluation.hypotheses import score_hypotheses
from wfc_dist.evaluation.normalize import spelling_table
from wfc_dist.runs import layout
from wfc_dist.runs.interim import newest_servable
from wfc_dist.runs.remote import local_run
from wfc_dist.runs.root import bring_base
from wfc_dist.storage.objects import is_url
from wfc_dist.weights import base_chain, peft_folder


def open_model(name: str) -> tuple[Any, WhisperProcessor, Path]:
    """Returns (model in eval mode, processor, checkpoint folder).

    Args:
        name: A run directory or its URL (its newest base), a base, a PEFT adapter, or a model on the hub.

    Raises:
        InputError: `name` is none of these, or an adapter whose base is missing.
    """
    folder, adapter = Path(name), None
    if is_url(name):
        folder, mirror = local_run(name)
        assert mirror is not None, "a URL has a mirror"
        bring_base(mirror, layout.latest_base(folder).index)
    if (folder / "config.json").is_file() and (folder / "ledger.jsonl").is_file():
        folder = Path(newest_servable(folder).path)
    elif (folder / peft_folder.CONFIG).is_file():
        adapter, base = folder, peft_folder.read_config(folder).get("base_model_name_or_path")
        folder = base_chain.resolve_root(str(base))
    else:
        folder = _pointer(folder) or base_chain.resolve_root(name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(adapter))
    return model.to(device).eval(), WhisperProcessor.from_pretrained(folder), folder


def _pointer(folder: Path) -> Path | None:
    """Returns the checkpoint folder that a run's base-0000 points to; None for other folders."""
    manifest = folder / "manifest.json"
    target = json.loads(manifest.read_text(encoding="utf-8")).get("model_path") if manifest.is_file() else None
    return folder.parent / target if target else None  # relative in a mirror


def transcribe_files(name: str, paths: Sequence[Path], language: str | None) -> Iterator[tuple[Path, str]]:
    """Yields (path, text) for audio files of any length. Raises InputError if a file is missing or no audio."""
    if missing := [path for path in paths if not path.is_file()]:
        raise InputError(f"no such audio file: {missing[0]}")
    model, processor, _ = open_model(name)
    for path in paths:
        yield path, decoding.transcribe(model, processor, decode(AudioFile(str(path))), language)


def evaluate_model(name: str, config: Config, *, threads: int, say: Callable[[str], None]) -> list[Table]:
    """Scores a model on every test set of a configuration, decoded together, says each rate, and returns the table."""
    torch.set_num_threads(threads or os.cpu_count() or 1)
    splits = {key: open_split(key, data, "test") for key, data in config.test_sets().items()}
    model, processor, folder = open_model(name)
    evaluate = config.evaluate
    table = Table(title=f"{name}: {evaluate.metric.upper()} %, {evaluate.normalizer} normalizer", title_justify="left")
    for column in ("set", evaluate.metric.upper(), f"{100 * evaluate.confidence:g} % interval", "clips"):
        table.add_column(column)
    decoded = decoding.decode_sets(model, processor, list(splits.values()), evaluate, device=model.device)
    for key, said in zip(splits, decoded, strict=True):
        score = score_hypotheses(said, evaluate, spelling_table(folder))
        interval = f"{100 * score.low:.1f} .. {100 * score.high:.1f}" if score.low is not None and score.high is not None else "-"
        table.add_row(key, f"{100 * score.rate:.1f}", interval, str(score.num_clips))
        say(f"{key}: {100 * score.rate:.1f} %")
    return [table]
