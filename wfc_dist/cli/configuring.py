"""The commands of `wfc config`: schema, docs, show."""

from pathlib import Path
from typing import Annotated

import typer

import wfc_dist
from wfc_dist.cli.names import Commands
from wfc_dist.errors import InputError

config_app = typer.Typer(
    cls=Commands, no_args_is_help=True, help="Show the configuration's reference or schema, or a resolved configuration."
)
ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file.")]


def _complete_override(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Returns what a shell offers for a `key.path=value`, with meanings of one line; typer reads [ as the begin of a style."""
    import textwrap

    from wfc_dist.config.completion import completions

    found = completions(incomplete, ctx.params.get("overrides") or (), ctx.params.get("config") or ctx.params.get("on"))
    return [(word, textwrap.shorten(meaning, 72, placeholder=" ...").replace("[", "\\[")) for word, meaning in found]


Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Such as train.lr=1e-4.", autocompletion=_complete_override),
]


def add_to(app: typer.Typer) -> None:
    """Adds these commands to `app`."""
    app.add_typer(config_app, name="config")


@config_app.command("schema")
def config_schema(
    of: Annotated[str | None, typer.Option("--of", metavar="COMMAND", help="Of what `wfc COMMAND --json` prints.")] = None,
) -> None:
    """Print the JSON schema of the configuration, or of what a command prints."""
    import json

    from wfc_dist.config import reference
    from wfc_dist.errors import nearest
    from wfc_dist.reports import as_json

    if of not in (None, *as_json.COMMANDS):
        raise InputError(f"--of {of!r} is no command whose JSON has a schema{nearest(str(of), as_json.COMMANDS)}")
    typer.echo(json.dumps(as_json.schema_of(of) if of else reference.json_schema(), indent=1))


@config_app.command("docs")
def config_docs(
    key: Annotated[str | None, typer.Argument(metavar="KEY", help="A block or a key, such as train or train.lr.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="A page of Markdown.")] = False,
) -> None:
    """Print what every key of the configuration takes and means, and what a resume may change."""
    import shutil

    from wfc_dist.config import reference

    chosen = reference.find(key) if key else reference.blocks()
    typer.echo(reference.as_markdown(chosen) if markdown else reference.as_text(chosen, shutil.get_terminal_size().columns))


@config_app.command("show")
def config_show(config: ConfigPath, overrides: Overrides = None) -> None:
    """Print the resolved configuration: the file, the overrides and every default."""
    import yaml

    typer.echo(yaml.safe_dump(wfc_dist.load_config(config, overrides or []).model_dump(mode="json"), sort_keys=False))
