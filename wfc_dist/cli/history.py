"""The commands of `wfc` that edit a run's history: rollback, forget, remerge, gc."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wfc_dist import log
from wfc_dist.cli import terminal
from wfc_dist.cli.models import Run, options_of
from wfc_dist.errors import InputError

if TYPE_CHECKING:
    from wfc_dist.coordinator.history import Branch

Name = Annotated[str | None, typer.Option("--name", help="Name of the new run, which lies beside the old one.")]
Retrain = Annotated[bool, typer.Option("--retrain", help="Leave out later adapters; `wfc run` trains them against the new base.")]


def add_to(app: typer.Typer) -> None:
    """Adds these commands to `app`."""
    for command in (rollback, forget, remerge, gc):
        app.command()(command)


def rollback(run: Run, to: Annotated[int, typer.Option("--to", metavar="N", help="Index of the base to go back to.")]) -> None:
    """Go back to base N; later rounds are moved aside, and `wfc run` goes on from there, also with other later rounds."""
    from wfc_dist.coordinator.history import rollback as go_back

    aside = go_back(run, to)
    typer.echo(f"{run} is at base {to}; " + (f"the later rounds are in {aside}" if aside else "there was no later round"))
    typer.echo("`wfc run` goes on from it; until it has trained, lora, train, centralize and later rounds may change")


def forget(
    run: Run,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="The data set to take out.")],
    name: Name = None,
    *,
    retrain: Retrain = False,
) -> None:
    """Make a new run whose bases are merged without one data set. The old run stays."""
    log.quiet_libraries()
    from wfc_dist.coordinator import history

    branch = history.forget(run, dataset, name=name, retrain=retrain)
    if branch.grafted:
        typer.echo(
            f"trained against bases that held {dataset}, and merged as they are: {_listed(branch.grafted)}. What they took over "
            "from it is not undone; --retrain trains them again"
        )
    else:
        typer.echo(f"no adapter in {branch.path} was trained against a base that held {dataset}")
    _tell(branch)


def remerge(
    run: Run,
    round_index: Annotated[int, typer.Option("--round", metavar="N", help="The round (1-based).")],
    method: Annotated[str | None, typer.Option(help="Merge method, as of `wfc average`; that of the run by default.")] = None,
    option: Annotated[list[str] | None, typer.Option("--option", metavar="KEY=VALUE", help="Of the method; repeatable.")] = None,
    weights: Annotated[str | None, typer.Option(help="uniform, hours, or NAME=NUMBER,...")] = None,
    *,
    norm: Annotated[str | None, typer.Option(help="own or mean.")] = None,
    scale: Annotated[float | None, typer.Option(help="Factor of the update.")] = None,
    name: Name = None,
    retrain: Retrain = False,
) -> None:
    """Make a new run in which the adapters of one round are merged another way. The old run stays."""
    log.quiet_libraries()
    from wfc_dist.coordinator import history

    asked = {
        "method": method,
        "options": options_of(option) if option else None,
        "weights": options_of(weights.split(",")) if weights and "=" in weights else weights,
        "norm": norm,
        "scale": scale,
    }
    given = {key: value for key, value in asked.items() if value is not None}
    if not given:
        raise InputError("nothing was asked to change; give --method, --option, --weights, --norm or --scale")
    branch = history.remerge(run, round_index, given, name=name, retrain=retrain)
    if branch.grafted:
        typer.echo(f"trained against other bases than those of this branch, and merged as they are: {_listed(branch.grafted)}")
    _tell(branch)


def gc(run: Run, free: Annotated[bool, typer.Option("--free", help="Remove it; by default it is only shown.")] = False) -> None:
    """Show what no base and no coming round of a run needs, or remove it."""
    from wfc_dist.coordinator.garbage import collect_garbage
    from wfc_dist.reports.status import garbage_table

    found = collect_garbage(run, free=free)
    terminal.console().print(garbage_table(Path(run), found))
    total = f"{sum(item.num_bytes for item in found) / 1e6:,.1f} MB"
    typer.echo(f"{total} freed" if free else f"{total}; --free removes it" if found else "nothing to remove")


def _listed(adapters: "list[tuple[str, int]]") -> str:
    return ", ".join(f"{dataset} of round {round_index}" for dataset, round_index in adapters)


def _tell(branch: "Branch") -> None:
    if branch.left_out:
        typer.echo(f"left out: {_listed(branch.left_out)}")
    typer.echo(
        f"base {branch.base.index} ({branch.base.sha256[:12]}) in {branch.path}; base {branch.same} is the last of old bytes"
    )
    typer.echo(f"wfc run {branch.config}   # scores the new bases and goes on")
