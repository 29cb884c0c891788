"""The commands of `wfc` that make or try models from what is on the disk: average, merge, rebuild, transcribe, try."""

from pathlib import Path
from typing import Annotated

import typer

import wfc_dist
from wfc_dist import activity, log
from wfc_dist.errors import EXIT_FAILED, InputError
from wfc_dist.merging import catalog

Run = Annotated[str, typer.Argument(metavar="RUN", help="Run directory or URL, run.dir/run.name.")]
_SEED = "Seed for methods that sample (dare). Each round's seed is stored in its manifest."
Out = Annotated[Path, typer.Option("--out", help="New folder; never written over.")]


def verify(
    run: Run,
    repair: Annotated[bool, typer.Option("--repair", help="Make damaged parts anew, with the committed bytes.")] = False,
    retrain: Annotated[
        bool,
        typer.Option("--retrain", help="With --repair, train adapters again whose weights are damaged: minutes to hours each."),
    ] = False,
    deep: Annotated[bool, typer.Option("--deep", help="Also compute each base again from the root and the deltas.")] = False,
) -> None:
    """Read every byte of a run against its checksums. Exit code 1 if something stays damaged."""
    if retrain and not repair:
        raise InputError("--retrain is a part of --repair; give both")
    log.quiet_libraries()
    from wfc_dist.coordinator.verify import verify_run

    found = verify_run(run, repair=repair, retrain=retrain, deep=deep)
    for name in found.repaired:
        typer.echo(f"repaired: {name}")
    for name, message in found.damaged.items():
        typer.echo(f"damaged: {name}: {message}")
    typer.echo(f"{found.num_checked} parts read, {len(found.damaged)} damaged")
    if found.damaged:
        raise typer.Exit(EXIT_FAILED)


def add_to(app: typer.Typer) -> None:
    """Adds these commands to `app`."""
    app.command(epilog="\b\nMethods:\n" + catalog.listing())(average)
    for command in (merge, rebuild, verify, transcribe):
        app.command()(command)
    app.command(name="try")(try_models)


def average(
    adapters: Annotated[list[Path], typer.Argument(metavar="ADAPTER...", help="PEFT LoRA folders, in the order of summation.")],
    out: Out,
    *,
    method: Annotated[str, typer.Option(help="One of the methods below.")] = "mean",
    option: Annotated[list[str] | None, typer.Option(metavar="NAME=NUMBER", help="An option of the method; repeatable.")] = None,
    weights: Annotated[str | None, typer.Option(help="Comma-separated, one per adapter; uniform by default.")] = None,
    norm: Annotated[str, typer.Option(help="own, or mean: every module's update at the norm `mean` would have.")] = "own",
    scale: Annotated[float, typer.Option(help="Factor of the update.")] = 1.0,
    seed: Annotated[int, typer.Option(help=_SEED)] = 0,
    past: Annotated[list[Path] | None, typer.Option(help="Delta of an earlier round (nesterov); repeat in order.")] = None,
    previous: Annotated[list[Path] | None, typer.Option(help="Adapter of the round before (ihr); repeat.")] = None,
) -> None:
    """Average adapters into a delta."""
    try:
        numbers = [float(word) for word in weights.split(",")] if weights else None
    except ValueError as error:
        raise InputError(f"--weights {weights!r} is not a list of numbers such as 0.5,0.3,0.2") from error
    typer.echo(
        wfc_dist.average(
            adapters, out, method=method, options=options_of(option or []), weights=numbers, norm=norm, scale=scale, seed=seed,
            past=past or [], previous=previous or [],
        )
    )  # fmt: skip


def options_of(assignments: list[str]) -> dict[str, float]:
    """Returns what `--option NAME=NUMBER` said."""
    try:
        return {name: float(number) for name, number in (word.split("=") for word in assignments)}
    except ValueError as error:
        raise InputError(f"--option {' '.join(assignments)!r} is not NAME=NUMBER, such as density=0.2") from error


def merge(
    base: Annotated[str, typer.Argument(metavar="BASE", help="Model folder or hub id.")],
    update: Annotated[Path, typer.Argument(metavar="DELTA|ADAPTER", help="From `wfc average`, a run's delta, or a PEFT folder.")],
    out: Out,
    revision: Annotated[str | None, typer.Option(help="Revision of a hub model.")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, float16 or bfloat16.")] = "auto",
) -> None:
    """Merge a delta or an adapter into a base."""
    typer.echo(wfc_dist.merge(base, update, out, revision=revision, dtype=dtype))


def rebuild(run: Run, base: Annotated[int, typer.Option("--base", help="Index of the base.")], out: Out) -> None:
    """Make a base again from the root and the deltas, bit for bit, as one complete checkpoint."""
    typer.echo(f"{out} {wfc_dist.rebuild(run, base, out).sha256}")


def transcribe(
    model: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="Run directory, base, adapter folder or hub model.")],
    audio: Annotated[list[str], typer.Argument(metavar="AUDIO...", help="Audio files, folders, or patterns in quotes.")],
    *,
    format: Annotated[str, typer.Option("--format", help="txt, srt, vtt, tsv or json.")] = "txt",
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Folder that gets a file for each recording.")] = None,
    timestamps: Annotated[str | None, typer.Option(help="segment or word; segment by default, txt has none.")] = None,
    task: Annotated[str, typer.Option(help="transcribe, or translate into English.")] = "transcribe",
    language: Annotated[str, typer.Option(help="Whisper's language code or name; auto detects it.")] = "auto",
) -> None:
    """Write what is said in recordings of any length, as text, subtitles, a table or JSON."""
    log.quiet_libraries()
    from wfc_dist.backends.watchdog import watched
    from wfc_dist.data.audio_paths import find_audio, output_names
    from wfc_dist.evaluation.transcripts import require_format
    from wfc_dist.progress import seconds_bar
    from wfc_dist.storage.durable import write_text

    kind, times = require_format(format, timestamps)
    found = find_audio(audio)
    targets = [None if out is None else out / name for name in output_names(found, kind)] if out else [None] * len(found)
    if out is None and len(found) > 1 and kind not in ("txt", "json"):
        raise InputError(f"--format {kind} of {len(found)} recordings: name a folder with --out")
    for folder in {target.parent for target in targets if target is not None}:
        folder.mkdir(parents=True, exist_ok=True)  # an error is told before anything is decoded
    with watched("transcribe"), seconds_bar() as told:
        paths = [path for path, _ in found]
        said = wfc_dist.transcribe(model, paths, language=language, task=task, timestamps=times, told=told)  # type: ignore[arg-type]
        for transcript, target in zip(said, targets, strict=True):
            with activity.excused():  # a pager may keep its reader waiting
                if target is not None:
                    write_text(target, transcript.written_as(kind))
                elif kind == "txt" and len(found) > 1:
                    typer.echo(f"{transcript.path}\t{transcript.text}")
                else:
                    typer.echo(transcript.written_as(kind), nl=False)


def try_models(
    models: Annotated[list[str], typer.Argument(metavar="RUN|MODEL...", help="Runs, bases, adapter folders or hub models.")],
    *,
    host: Annotated[str, typer.Option(help="Address to listen on. Any but loopback needs the token that is then made.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 7860,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address only.")] = False,
) -> None:
    """Open a local page: record or drop a clip, see what several models write, with the differing words marked."""
    log.quiet_libraries()
    from wfc_dist.tryout.serving import serve

    serve(models, host, port, typer.echo, opens_browser=not no_browser)
