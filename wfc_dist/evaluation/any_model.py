"""Any model, in this process, without a run: `load_model` and `evaluate` of the public API."""

import os
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from wfc_dist import caller
from wfc_dist.config.schema import Config
from wfc_dist.data.sources import open_split
from wfc_dist.errors import ConfigError, InputError
from wfc_dist.evaluation import decoding
from wfc_dist.evaluation.hypotheses import Hypothesis, score_hypotheses
from wfc_dist.evaluation.metrics import Score
from wfc_dist.evaluation.normalize import spelling_table
from wfc_dist.evaluation.own_precision import with_own_precision
from wfc_dist.runs import layout
from wfc_dist.runs.handle import Run
from wfc_dist.runs.interim import newest_servable
from wfc_dist.runs.provenance import base_of_adapter
from wfc_dist.runs.remote import local_run
from wfc_dist.runs.root import bring_base
from wfc_dist.runs.whole import require_whole
from wfc_dist.storage.objects import is_url
from wfc_dist.weights import adapter_config, base_chain, checkpoint, companions, peft_folder
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
        InputError: `model` is none of these, an adapter whose base is missing, or damaged (see `weights.checkpoint`).
        IntegrityError: A base or an adapter of a run does not have the bytes that were committed; all of them are read.

    Example:
        >>> from wfc_dist import load_model
        >>> load_model("runs/demo").folder
        PosixPath('runs/demo/base-0002')
    """
    with caller.put_back():
        return _loaded(str(model))


def _loaded(name: str) -> LoadedModel:
    folder, adapter = _locate(name)
    factors = peft_folder.read_factors(adapter) if adapter else {}  # before the base, which may be large
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded: Any = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
    loaded.generation_config = companions.generation_config(folder)
    if adapter:
        loaded = with_adapter(loaded, factors, adapter)
    return LoadedModel(loaded.to(device).eval(), WhisperProcessor.from_pretrained(folder), folder)


def _locate(name: str) -> tuple[Path, Path | None]:
    """Returns the folder of a checkpoint, which is checked, and that of the adapter on top of it, if `name` is one."""
    folder = Path(name)
    if is_url(name):
        folder, mirror = local_run(name)
        if mirror is None:  # a file:// URL
            name = str(folder)
        else:
            bring_base(mirror, Run(folder).base().index)
    if layout.is_run(folder):
        newest = newest_servable(folder)
        require_whole(Path(newest.path) if newest.index or newest.num_pending else layout.RunPaths(folder).base(0))
        checkpoint.check(Path(newest.path), "decode")
        return Path(newest.path), None
    require_whole(folder)
    if (folder / adapter_config.CONFIG).is_file() and not base_chain.has_weights(folder):
        return _base_of(folder), folder
    return checkpoint.resolve_root(str(layout.model_pointed_to(folder) or name), use="decode"), None


def _base_of(adapter: Path) -> Path:
    """Returns the folder, checked, of the base that an adapter needs: that of its run, else what its configuration names."""
    config, base = adapter_config.read_config(adapter), base_of_adapter(adapter)
    if base is not None:
        run_dir, round_index = layout.adapter_place(adapter) or (adapter, 1)
        require_whole(layout.RunPaths(run_dir).base(round_index - 1))
        checkpoint.check(base, "decode")
        return base
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not name or not isinstance(name, str) or not isinstance(revision, str | None):
        raise InputError(f"{adapter / adapter_config.CONFIG}: base_model_name_or_path names no base; write its folder there")
    if name.startswith(".."):
        raise InputError(
            f"{adapter} names its base as {name}, which is a place in a run directory; load it from the run that made it"
        )
    return checkpoint.resolve_root(name, revision, "decode")


def evaluate(model: str | Path, config: Config, *, threads: int = 0) -> dict[str, Score]:
    """Scores a model on every test set of a configuration, decoded together.

    Args:
        model: As `load_model` takes it.
        config: Its test sets and its block `evaluate` are used.
        threads: CPU threads; 0 takes all cores.

    Returns:
        Test set -> score, in the order of the configuration. A rate of 0.25 is 25 %.

    Raises:
        ConfigError: The configuration has no test set.
        InputError: No such model, data that cannot be read or in a language that the model does not know, or a set without a
            reference token.

    Example:
        >>> from wfc_dist import evaluate, load_config
        >>> evaluate("runs/demo", load_config("configs/demo.yaml"))["es"].metric
        'wer'
    """
    found = decoded(model, config, threads)
    return {key: score_hypotheses(texts, config.evaluate.of(config.test_sets()[key]), found.spelling)
            for key, texts in found.texts.items()}  # fmt: skip


class Decoded(NamedTuple):
    """What a model wrote: test set -> its texts, and the spelling table that they are counted with."""

    texts: Mapping[str, Sequence[Hypothesis]]
    spelling: Mapping[str, str]


def decoded(model: str | Path, config: Config, threads: int) -> Decoded:
    """Decodes all test sets of a configuration. Arguments and errors are those of `evaluate`."""
    if not config.test_sets():
        name = next(iter(config.datasets))
        raise ConfigError(
            f"the configuration has no test set to score on; set datasets.{name}.splits.test, or name sets in evaluate.protected"
        )
    with caller.put_back():
        torch.set_num_threads(threads or os.cpu_count() or 1)
        sets, settings = config.test_sets(), with_own_precision(config).evaluate
        splits = {key: open_split(key, data, "test") for key, data in sets.items()}
        whisper, processor, folder = load_model(model)
        if settings.language == "given":
            check_languages(whisper, folder, {clip.language for split in splits.values() for clip in split.clips})
        texts = decoding.decode_sets(whisper, processor, list(splits.values()), settings, device=whisper.device)
        return Decoded(dict(zip(splits, texts, strict=True)), spelling_table(folder))


def check_languages(model: Any, folder: Path, languages: Set[str]) -> None:
    """Raises InputError for a language that the model's prompt cannot name; an English-only model would hear English."""
    settings = model.generation_config
    is_multilingual = getattr(settings, "is_multilingual", True)
    known = {token.strip("<|>") for token in settings.lang_to_id} if is_multilingual else {"en"}
    if unknown := sorted(languages - known):
        kind = "has no token for it" if is_multilingual else "is an English-only model"
        raise InputError(f"language {unknown[0]!r}: {folder} {kind}; use a model that knows the language")
