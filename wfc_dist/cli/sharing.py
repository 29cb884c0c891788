"""The commands of `wfc` that hand models on, or look at two of them: export, push, diff."""

import re
from pathlib import Path
from typing import Annotated

import typer

import wfc_dist
from wfc_dist import log
from wfc_dist.cli import terminal
from wfc_dist.cli.models import Run
from wfc_dist.errors import ConfigError

Base = Annotated[int | None, typer.Option("--base", metavar="N", help="Index of the base; the last one by default.")]
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


def add_to(app: typer.Typer) -> None:
    """Adds these commands to `app`."""
    for command in (export, push, diff):
        app.command()(command)


def size_bytes(text: str) -> int:
    """Returns the bytes that a size such as 2GB, 500MB or 1000 is. Raises ConfigError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)B?", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if size < 1:
        raise ConfigError(f"--shard-size {text!r} is no size such as 2GB or 500MB")
    return size


def export(
    run: Run,
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="safetensors, ctranslate2, ggml or onnx.")],
    out: Annotated[Path, typer.Option("--out", help="New or empty folder.")],
    base: Base = None,
    *,
    quantization: Annotated[str, typer.Option(help="ctranslate2: float32, float16, int8, int8_float16 or int8_float32.")] = "",
    shard_size: Annotated[str | None, typer.Option(help="safetensors: the most that a file holds, such as 2GB.")] = None,
    converter: Annotated[
        Path | None, typer.Option(help="ggml: whisper.cpp's models/convert-h5-to-ggml.py; onnx: an optimum-cli.")
    ] = None,
    clip: Annotated[list[Path] | None, typer.Option(metavar="AUDIO", help="Verify with this clip; repeatable.")] = None,
    language: Annotated[str | None, typer.Option(help="Whisper language code of the clips; detected by default.")] = None,
    verify: Annotated[bool, typer.Option(help="Transcribe clips before and after; by default of the run's test sets.")] = True,
) -> None:
    """Write a base in the format of another program, and transcribe the same clips with both."""
    log.quiet_libraries()
    from wfc_dist.backends.watchdog import watched

    with watched("export"):
        done = wfc_dist.export(
            run, to, out, base=base, quantization=quantization, converter=converter, clips=clip, language=language,
            verify=verify, shard_size_bytes=None if shard_size is None else size_bytes(shard_size),
        )  # fmt: skip
    same = sum(item.is_same for item in done.compared)
    for item in done.compared:
        if not item.is_same:
            typer.echo(f"{item.clip}: another text\n  before: {item.before}\n  after:  {item.after}", err=True)
    verdict = f"the same text for {same} of {len(done.compared)} clips" if done.compared else "not verified"
    typer.echo(f"base {done.base.index} by {done.made_by}: {verdict}", err=True)
    typer.echo(done.folder)


def push(
    run: Run,
    repo: Annotated[str, typer.Argument(metavar="REPO", help="OWNER/NAME on the hub.")],
    base: Base = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List files and sizes, send nothing.")] = False,
    private: Annotated[bool, typer.Option("--private", help="Make the repository private, where it is new.")] = False,
    shard_size: Annotated[str | None, typer.Option(help="The most that a file holds, such as 5GB.")] = None,
) -> None:
    """Send a base, as one complete checkpoint with its card, to a repository on the hub."""
    log.quiet_libraries()
    from wfc_dist.exporting import push as pushing

    size = None if shard_size is None else size_bytes(shard_size)
    sent = pushing.push(run, repo, base=base, private=private, dry_run=dry_run, shard_size_bytes=size)
    for name, num_bytes in sent.files.items():
        typer.echo(f"{num_bytes:>15,}  {name}", err=True)
    verdict = "sent in one commit" if sent.url else "nothing was sent"
    typer.echo(f"base {sent.base.index}, {sum(sent.files.values()):,} bytes in {len(sent.files)} files: {verdict}", err=True)
    typer.echo(sent.url or repo)


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="Run directory or URL, base, checkpoint folder or hub model.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Likewise.")],
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
    show: Annotated[int, typer.Option(min=0, help="Show that many tensors.")] = 20,
) -> None:
    """Say which tensors differ between two models, by how much, and the error by test set where it was scored."""
    import json

    from wfc_dist.exporting.diff import diff as compare_models
    from wfc_dist.reports.difference import tables

    found = compare_models(a, b)
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=1))
        return
    for table in tables(found, show):
        terminal.console().print(table)
