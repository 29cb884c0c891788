"""`export` of the public API: one base of a run in another format, verified, written whole or not at all."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from wfc_dist import caller
from wfc_dist.errors import InputError, IntegrityError
from wfc_dist.exporting import catalog, safetensors_format, verification
from wfc_dist.exporting.formats import Format, Options
from wfc_dist.exporting.full_card import full_card
from wfc_dist.exporting.verification import Compared
from wfc_dist.runs.handle import Run, RunBase, open_run
from wfc_dist.runs.root import bring_base
from wfc_dist.runs.root_model import CARD
from wfc_dist.runs.whole import require_whole
from wfc_dist.storage import durable
from wfc_dist.storage.objects import is_url
from wfc_dist.weights import base_chain
from wfc_dist.weights.hashing import content_sha256

NUM_CLIPS = 4


class Exported(NamedTuple):
    """An exported model.

    Attributes:
        folder: Where it is.
        base: The base it was made of.
        made_by: The tool that wrote the files, with its version.
        compared: What both models wrote for every clip; empty where nothing was verified.
    """

    folder: Path
    base: RunBase
    made_by: str
    compared: Sequence[Compared]


def export(
    run: str | Path,
    to: str,
    out: str | Path,
    *,
    base: int | None = None,
    quantization: str = "",
    shard_size_bytes: int | None = None,
    converter: str | Path | None = None,
    clips: Sequence[str | Path] | None = None,
    language: str | None = None,
    verify: bool = True,
) -> Exported:
    """Exports one base of a run to another format, and transcribes clips with both. Writes the new folder `out`.

    Args:
        run: A run directory, or the URL of one.
        to: safetensors, ctranslate2, ggml or onnx.
        out: Must not exist, or be empty.
        base: Index of the base; the last one by default.
        quantization: Of ctranslate2: float32 (default), float16, int8, int8_float16 or int8_float32.
        shard_size_bytes: Of safetensors: the most that one file holds; one file by default.
        converter: Of ggml: whisper.cpp's models/convert-h5-to-ggml.py. Of onnx: the optimum-cli of an environment of its own.
        clips: Audio files of at most 30 s to verify with; by default the first clips of the run's test sets.
        language: Whisper's code of the language of `clips`; detected by default.
        verify: Whether clips are transcribed.

    Returns:
        The folder, the base, the tool, and what the models wrote.

    Raises:
        ConfigError: No such format or quantization, an option the format does not read, or a tool that is not installed.
        InputError: No such run, base or clip, or `out` is not empty.
        IntegrityError: The base is not the one that was committed, or an exact format wrote another text; `out` is not made.
        HungError: A program that converts or verifies hangs; `out` is not made, and another attempt may help.

    Example:
        >>> from wfc_dist import export
        >>> done = export("runs/demo", "safetensors", "exported", base=1)
        >>> [item.is_same for item in done.compared]
        [True, True, True, True]
    """
    options = Options(quantization, shard_size_bytes, None if converter is None else Path(converter))
    chosen, options = catalog.resolve(to, options)
    if is_url(str(out)):
        raise InputError(f"{out} is a URL; give a folder on this machine and copy it from there")
    opened, found = open_base(run, base)
    samples = []
    if verify:
        files = [Path(clip) for clip in clips or ()]
        samples = (
            verification.samples_of_files(files, language) if files else verification.samples_of_run(opened.config, NUM_CLIPS)
        )
    with durable.new_folder(Path(out), may_be_empty=True) as staged, caller.put_back():
        made_by = chosen.write(found.path, staged, options)
        readers = [safetensors_format.reader(found.path, options), chosen.reader(staged, options)] if samples else []
        compared = verification.compare(samples, *readers) if samples else []
        _require_exact(chosen, to, compared)
        copy = _about(to, options, made_by, compared)
        (staged / CARD).write_text(full_card(opened, found.index, copy, chosen.use), encoding="utf-8")
        for path in durable.files_in(staged):
            durable.fsync_path(path)
    return Exported(Path(out), found, made_by, compared)


def open_base(run: str | Path, index: int | None) -> tuple[Run, RunBase]:
    """Opens a run and one of its bases (None: the last), all of it on this machine and verified.

    Raises:
        InputError: No such run or base. IntegrityError: Its tensors are not the ones that were committed.
    """
    opened = open_run(run)
    if index is not None and not isinstance(index, int):
        raise InputError(f"base {index!r} is no index of a base; give 0, 1, ...")
    found = opened.base(index)
    bring_base(opened.mirror, found.index)
    if content_sha256(base_chain.hash_tensors(found.path)) != found.sha256:
        raise IntegrityError(
            f"{found.path} is not the base {found.index} that was committed; `wfc rebuild` makes that one from root and deltas"
        )
    require_whole(opened.paths.base(found.index))  # the tokenizer and the settings that go with the tensors
    return opened, found


def _require_exact(chosen: Format, name: str, compared: Sequence[Compared]) -> None:
    if chosen.is_exact and (other := [item for item in compared if not item.is_same]):
        raise IntegrityError(
            f"--to {name}: clip {other[0].clip} was {other[0].before!r} before and is {other[0].after!r} after; "
            "report this, the copy is not kept"
        )


def _about(to: str, options: Options, made_by: str, compared: Sequence[Compared]) -> list[str]:
    same = sum(item.is_same for item in compared)
    verified = f"Transcribed {len(compared)} clips before and after: the same text for {same} of them."
    return [
        f"- Format: {to}{f', {options.quantization}' if options.quantization else ''}, made by {made_by}.",
        f"- {verified if compared else 'Not verified: no clip was transcribed.'}",
    ]
