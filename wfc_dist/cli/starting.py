"""The command `wfc init`: from data to a first configuration."""

from pathlib import Path
from typing import Annotated

import typer

from wfc_dist import log
from wfc_dist.errors import ConfigError


def add_to(app: typer.Typer) -> None:
    """Adds this command to `app`."""
    app.command()(init)


def init(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="Folder, manifest or hub id, such as google/fleurs:es_419.")
    ],
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="The configuration; by default NAME.yaml.")] = None,
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="Of the run; by default made of the data sets' names.")
    ] = "",
    model: Annotated[str, typer.Option("--model", metavar="MODEL", help="The base: hub id or folder.")] = "",
    language: Annotated[str, typer.Option("--language", metavar="LANG", help="Of data whose rows do not say it.")] = "",
) -> None:
    """Look at data, and write a commented configuration for it that `wfc audit`, `plan` and `run` take."""
    import shlex

    log.quiet_libraries()
    from rich.console import Console

    from wfc_dist.coordinator.starting import first_configuration, write_configuration
    from wfc_dist.reports.found import found_table

    if out is not None and out.exists():
        raise ConfigError(f"{out} is there already, and is not written over; choose another --out, or move it away")
    proposal = first_configuration(sources, name=name, model=model, language=language)
    console = Console(width=80)
    console.print(found_table(proposal.corpora))
    written = write_configuration(proposal, out or Path(f"{proposal.name}.yaml"))
    typer.echo(f"written: {written}")
    quoted = shlex.quote(str(written))
    is_open = any(corpus.is_silent and not corpus.language for corpus in proposal.corpora.values())
    first = f"  set what {quoted} marks with SET THIS\n" if is_open else ""
    typer.echo(f"next:\n{first}  wfc audit {quoted} --show 20\n  wfc plan {quoted}\n  wfc run {quoted}")
