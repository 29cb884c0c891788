"""The commands of `wfc`. Heavy libraries are imported by the commands that need them: `--help` answers at once."""

from pathlib import Path
from typing import Annotated

import typer

import wfc_dist
from wfc_dist import log
from wfc_dist.cli import configuring, history, launching, models, sharing, starting, terminal
from wfc_dist.cli.configuring import ConfigPath, Overrides
from wfc_dist.cli.models import Run
from wfc_dist.cli.names import Commands
from wfc_dist.errors import EXIT_FAILED, InputError

app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output (`wfc config schema --of COMMAND`).")]
Plain = Annotated[bool, typer.Option("--plain", help="Lines instead of a live table, for logs.")]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version, and those of the libraries.")] = False,
) -> None:
    """Continual learning of speech models on clusters: factorize, centralize, broadcast, and the next round."""
    if version:
        import platform

        from wfc_dist.runs.environment import package_versions

        typer.echo(f"wfc_dist {wfc_dist.__version__}")
        libraries = {name: found for name, found in package_versions().items() if name != "wfc-dist"}
        typer.echo(", ".join(f"{name} {found}" for name, found in {"python": platform.python_version(), **libraries}.items()))
        raise typer.Exit


@app.command()
def run(config: ConfigPath, overrides: Overrides = None, plain: Plain = False) -> None:
    """Run all rounds, or go on where an earlier attempt stopped."""
    settings = wfc_dist.load_config(config, overrides or [])
    log.quiet_libraries()
    from wfc_dist.evaluation.matrix import read_matrix
    from wfc_dist.progress import Display
    from wfc_dist.reports.run import write_report
    from wfc_dist.reports.score_tables import summary_tables

    display = Display(plain=True if plain else None)
    base = wfc_dist.run(settings, display)
    for table in summary_tables(read_matrix(settings.run_dir()), display.console.width):
        display.console.print(table)
    display.say(f"report: {_published(write_report(settings.run_dir()), settings.run_dir(), settings.run_url())}")
    display.say(f"try it: wfc transcribe {settings.run_url() or settings.run_dir()} AUDIO...")
    typer.echo(base.path)


@app.command()
def doctor(
    config: Annotated[Path | None, typer.Argument(metavar="[CONFIG]", help="YAML file: also looks at what it needs.")] = None,
    overrides: Overrides = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
    network: Annotated[bool, typer.Option("--network", help="Also ask the hub.")] = False,
) -> None:
    """Check packages, GPU, machine, Ray, Slurm, storage and model, and say what to do. Exit code 1 if something is a problem."""
    from wfc_dist.doctor.run import diagnose

    raise typer.Exit(diagnose(config, overrides or [], json=json, may_ask=network))


@app.command()
def stream(
    config: ConfigPath,
    inbox: Annotated[Path, typer.Option("--inbox", metavar="DIR", help="Watched folder of files NAME.yaml.")],
    overrides: Overrides = None,
    *,
    poll: Annotated[float, typer.Option("--poll", help="Seconds between two looks.", min=0.1)] = 5.0,
    until_empty: Annotated[bool, typer.Option("--until-empty", help="End where nothing new is there.")] = False,
    plain: Plain = False,
) -> None:
    """Learn data sets as they arrive: a base to serve after each, a committed one every K; or go on with it."""
    log.quiet_libraries()
    from wfc_dist.coordinator.stream import stream as run_stream
    from wfc_dist.progress import Display
    from wfc_dist.reports.stream import stream_table
    from wfc_dist.runs.interim import newest_servable

    display = Display(plain=True if plain else None)
    run_dir = run_stream(config, overrides or [], inbox, display, None if until_empty else poll)
    if (table := stream_table(wfc_dist.open_run(run_dir))) is not None:
        display.console.print(table)
    typer.echo(newest_servable(run_dir).path)


@app.command()
def plan(config: ConfigPath, overrides: Overrides = None, json: Json = False) -> None:
    """Show placement, bytes and hours, on a running cluster also who goes where; start nothing."""
    log.quiet_libraries()
    from wfc_dist.backends.ray.cluster import address_of, prepare_environment
    from wfc_dist.backends.watchdog import watched
    from wfc_dist.coordinator.checks import check_start
    from wfc_dist.coordinator.plan import plan_run
    from wfc_dist.reports.plan import plan_table

    settings = wfc_dist.load_config(config, overrides or [])
    with watched("plan", settings.cluster):
        checked, console = check_start(settings), terminal.console()
    hours = checked.hours
    for warning in checked.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if json:
        _print_json("plan", plan_run(settings, hours))
        return
    console.print(plan_table(plan_run(settings, hours)))
    if settings.cluster.backend == "ray" and address_of(settings.cluster):
        prepare_environment(settings.cluster)
        from wfc_dist.backends.ray.live_plan import plan_live
        from wfc_dist.reports.plan import live_table

        console.print(live_table(plan_live(settings), settings, hours))


@app.command()
def audit(
    config: ConfigPath,
    overrides: Overrides = None,
    deep: Annotated[bool, typer.Option("--deep", help="Decode every clip.")] = False,
    show: Annotated[int, typer.Option(min=0, help="Show that many transcripts of a split that cleaning changes.")] = 0,
    json: Json = False,
) -> None:
    """Check every data set before a GPU is taken."""
    from wfc_dist.backends.watchdog import watched
    from wfc_dist.data.audit import audit as audit_data
    from wfc_dist.progress import counting
    from wfc_dist.reports.status import audit_table

    settings = wfc_dist.load_config(config, overrides or [])
    with watched("audit", settings.cluster), counting("rows checked") as told:
        report = audit_data(settings, deep=deep, show=show, told=told)
    if json:
        _print_json("audit", report)
    else:
        terminal.console().print(audit_table(report))
    report.raise_for_errors()


@app.command()
def status(
    run: Run,
    json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until the run ends; Ctrl-C leaves.")] = False,
) -> None:
    """Show how far a run is."""
    if watch and json:
        raise InputError("--watch shows a table that refreshes; leave out --json, or call `wfc status --json` again and again")
    if watch:
        from wfc_dist.reports.watching import watch_run

        watch_run(lambda: wfc_dist.open_run(run), terminal.console())
        return
    if json:
        _print_json("status", wfc_dist.open_run(run))
        return
    from wfc_dist.reports.status import status_table

    terminal.console().print(status_table(wfc_dist.open_run(run)))


@app.command()
def lineage(run: Run, json: Json = False) -> None:
    """Show the family tree of a run's bases: which data made this model."""
    if json:
        _print_json("lineage", wfc_dist.open_run(run))
        return
    from wfc_dist.reports.status import lineage_tree

    terminal.console().print(lineage_tree(wfc_dist.open_run(run)))


@app.command()
def report(
    run: Run,
    audio: Annotated[
        int, typer.Option(metavar="N", help="Put the audio of each set's N worst utterances into the page.", min=0)
    ] = 0,
) -> None:
    """Write RUN/report/index.html: what was learned and what was forgotten, with plots."""
    log.quiet_libraries()
    opened = wfc_dist.open_run(run, with_weights=True)  # the root's spelling table is part of every English score
    from wfc_dist.reports.run import write_report

    typer.echo(_published(write_report(opened.path, audio), opened.path, opened.url))


@app.command()
def analyze(
    run: Run,
    line: Annotated[int, typer.Option(metavar="N", help="Loss at N points of the last update, on the CPU; 0 leaves it out.")] = 0,
    clips: Annotated[int, typer.Option(min=1, help="Clips of each set for --line.")] = 16,
) -> None:
    """Say whether the method's mechanisms hold in a run: variance, Gaussianity, prior. Writes RUN/report/analysis."""
    log.quiet_libraries()
    opened = wfc_dist.open_run(run, with_weights=True)
    from wfc_dist.analysis.run import analyze_run
    from wfc_dist.reports.analysis import verdict_table, write_analysis

    analysis = analyze_run(opened, num_points=line, max_clips=clips)
    (page, numbers), console = write_analysis(opened.path, analysis), terminal.console()
    console.print(verdict_table(analysis))
    for verdict in analysis.rounds[-1].verdicts:
        console.print(verdict.sentence, markup=False)
    typer.echo(_published(page, opened.path, opened.url))  # and what lies beside it
    typer.echo(numbers)


@app.command()
def stop(run: Run) -> None:
    """Checkpoint everything and stop; `wfc run` goes on."""
    import getpass
    import socket

    from wfc_dist.runs.remote import ask_to_stop

    ask_to_stop(run, f"wfc stop by {getpass.getuser()} on {socket.gethostname()}")
    typer.echo(f"{run}: asked to stop; `wfc status` says when it has")


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="Run directory or URL, base, adapter folder or hub model.")],
    on: Annotated[Path, typer.Option("--on", metavar="CONFIG", help="Whose test sets and evaluate block are used.")],
    overrides: Overrides = None,
    *,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 0,
    explain: Annotated[
        bool, typer.Option("--explain", help="What the errors are, such as those at a change of language.")
    ] = False,
    json: Json = False,
) -> None:
    """Score any base, adapter or hub model on the test sets of a configuration."""
    from wfc_dist.backends.watchdog import watched

    settings = wfc_dist.load_config(on, overrides or [])
    log.quiet_libraries()
    from wfc_dist.evaluation.own_precision import with_own_precision

    settings = with_own_precision(settings)
    if explain:
        if json:
            raise InputError("--explain prints a table; leave --json out, which prints scores")
        from wfc_dist.evaluation.explained import explained
        from wfc_dist.reports.score_tables import explained_table

        with watched("evaluate", settings.cluster):
            errors = explained(model, settings, threads=threads)
        terminal.console().print(explained_table(model, settings, errors))
        return
    with watched("evaluate", settings.cluster):
        scores, console = wfc_dist.evaluate(model, settings, threads=threads), terminal.console()
    if json:
        _print_json("evaluate", model, settings, scores)
        return
    from wfc_dist.reports.score_tables import scores_table

    for name, score in scores.items():
        console.print(f"{name}: {100 * score.rate:.1f} %", markup=False)
    console.print(scores_table(model, settings, scores))


@app.command()
def compare(
    config: ConfigPath,
    overrides: Overrides = None,
    only: Annotated[list[str] | None, typer.Option("--only", metavar="SYSTEM", help="Just this system; repeatable.")] = None,
    plain: Plain = False,
    json: Json = False,
) -> None:
    """Run methods side by side on one sequence of data sets, or go on; table, plots and compare.json of what is done."""
    from wfc_dist.compare import settings
    from wfc_dist.errors import nearest

    comparison = settings.load(config, overrides or [])
    for name in only or []:
        if name not in comparison.systems:
            raise InputError(f"--only {name!r} is not a system{nearest(name, comparison.systems)}")
    log.quiet_libraries()
    from wfc_dist.compare import results
    from wfc_dist.compare.counts import COUNTS, write_counts
    from wfc_dist.compare.runner import run_all
    from wfc_dist.progress import Display
    from wfc_dist.reports import comparison as page

    display = Display(plain=True if plain else None)
    failures = run_all(comparison, display, only or [])
    counted = results.count(comparison)
    write_counts(comparison.folder / COUNTS, counted)
    rows = results.system_rows(counted)
    display.console.print(page.table(comparison, rows))
    written = page.write(comparison, rows, failures)
    typer.echo((written.parent / "compare.json").read_text(encoding="utf-8") if json else written)
    if failures:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def sweep(config: ConfigPath, overrides: Overrides = None, plain: Plain = False) -> None:
    """Run a grid of settings under Ray Tune, or go on; table, Pareto front, plots and compare.json of what is done."""
    from wfc_dist.compare import sweep as settings

    swept_over = settings.load(config, overrides or [])
    log.quiet_libraries()
    from wfc_dist.compare import results
    from wfc_dist.compare.counts import COUNTS, write_counts
    from wfc_dist.compare.tune import run_all
    from wfc_dist.progress import Display
    from wfc_dist.reports import comparison
    from wfc_dist.reports.sweep import swept

    display = Display(plain=True if plain else None)
    failures = run_all(swept_over, display)
    counted = results.count(swept_over.comparison)
    write_counts(swept_over.comparison.folder / COUNTS, counted)
    found = swept(swept_over, results.system_rows(counted))
    display.console.print(comparison.table(swept_over.comparison, found.rows, found.front))
    typer.echo(comparison.write(swept_over.comparison, found.rows, failures, found))
    if failures:
        raise typer.Exit(EXIT_FAILED)


configuring.add_to(app)
starting.add_to(app)
models.add_to(app)
sharing.add_to(app)
history.add_to(app)
launching.add_to(app)


def _published(page: Path, run_dir: Path, url: str | None) -> str:
    """Publishes a report, and the files beside it, of a run on object storage; returns where it is."""
    if url is None:
        return str(page)
    from wfc_dist.storage.objects import Objects

    for path in sorted(path for path in page.parent.iterdir() if path.is_file()):
        Objects(url).write(path.relative_to(run_dir).as_posix(), path.read_bytes())
    return f"{page} and {url}/{page.relative_to(run_dir).as_posix()}"


def _print_json(command: str, *facts: object) -> None:
    """Prints what `reports.as_json` makes of facts for a command."""
    from wfc_dist.reports import as_json

    typer.echo(as_json.text_of(getattr(as_json, f"{command}_json")(*facts)))
