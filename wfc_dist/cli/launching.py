"""The commands of `wfc` that start runs on clusters, and hand out the files for it: launch, files."""

from pathlib import Path
from typing import Annotated

import typer

from wfc_dist.errors import InputError

launch_app = typer.Typer(no_args_is_help=True, help="Start, follow and stop runs on a Ray cluster or under Slurm.")
_HANDED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


def add_to(app: typer.Typer) -> None:
    """Adds these commands to `app`."""
    app.add_typer(launch_app, name="launch")
    app.command()(files)


@launch_app.command(context_settings=_HANDED_ON, add_help_option=False)
def ray(context: typer.Context) -> None:
    """Run a configuration as a job of a Ray cluster: submit, logs, status, stop (--help)."""
    from wfc_dist.launch import submit_ray

    raise typer.Exit(submit_ray.main(context.args, "wfc launch ray"))


@launch_app.command(context_settings=_HANDED_ON, add_help_option=False)
def slurm(context: typer.Context) -> None:
    """Submit a configuration to Slurm, and watch it to its end (--help)."""
    from wfc_dist.launch import submit_slurm

    raise typer.Exit(submit_slurm.main(context.args, "wfc launch slurm"))


@launch_app.command(context_settings=_HANDED_ON, add_help_option=False)
def spot_notice(context: typer.Context) -> None:
    """Wait on an AWS spot node for its two-minute notice, then drain the node (--help)."""
    from wfc_dist.launch import drain_on_spot_notice

    drain_on_spot_notice.main(context.args, "wfc launch spot-notice")


def files(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Such as slurm/round.sh, or slurm.")] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Write DIR/NAME, for each file.")] = None,
) -> None:
    """List the example configurations, batch scripts and cluster files that come along; print one, or write them."""
    from wfc_dist.launch import shipped

    chosen = shipped.selected(names) if names else shipped.all_files()
    if out is not None:
        for path in shipped.copy(chosen, out):
            typer.echo(path)
    elif not names:
        for name in chosen:
            typer.echo(name)
    elif len(chosen) == 1:
        typer.echo(next(iter(chosen.values())).read_text(encoding="utf-8"), nl=False)
    else:
        raise InputError(f"{', '.join(names)}: {len(chosen)} files; --out DIR writes them")
