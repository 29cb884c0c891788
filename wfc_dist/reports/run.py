"""Writes RUN/report/index.html: what a run learned, what the run forgot, what the errors are, and where the time went."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wfc_dist.errors import WfcError
from wfc_dist.evaluation.continual import FIGURES, Change, Estimate, Summary, summarize
from wfc_dist.evaluation.intervals import FEW_UNITS
from wfc_dist.evaluation.matrix import ScoredModel, ScoreMatrix, read_matrix
from wfc_dist.evaluation.rates import RateReader
from wfc_dist.reports import plots
from wfc_dist.reports.errors import errors_section
from wfc_dist.reports.gate import gate_section, has_gate
from wfc_dist.reports.headline import headline
from wfc_dist.reports.html import render
from wfc_dist.reports.lineage import lineage_section, round_anchor
from wfc_dist.reports.pieces import Cell, HtmlTable, Part, Section, heat, range_of
from wfc_dist.reports.reproduction import environment_section, reproduction_section
from wfc_dist.reports.score_tables import ESTIMATES, caption, estimate_number
from wfc_dist.reports.tables import between, chance, set_title
from wfc_dist.reports.timeline import IDLE, Timeline, read_attempts
from wfc_dist.reports.utterances import utterances_section
from wfc_dist.runs.handle import Run
from wfc_dist.storage import durable

_LEDGER_ROWS = 300
_CURVES = 12  # rounds whose curves are drawn, the last ones; each picture takes a tenth of a second
_GAPS = 8  # rounds whose exactness gaps are drawn
_ATTEMPTS, _LANES = 3, 40  # the timeline shows the last attempts, and the first processes of each
_DAMAGED = (WfcError, OSError, ValueError, KeyError, TypeError)  # a missing or unreadable part becomes a note


def write_report(run_dir: Path, audio: int = 0) -> Path:
    """Writes RUN/report/index.html, and errors.json beside the page, and returns the page's path.

    A note stands where the run does not have a part (yet).

    Args:
        run_dir: The run directory.
        audio: Of so many utterances of every test set, the worst, the audio becomes part of the page.

    Raises:
        InputError: Not a run directory.
        IntegrityError: A damaged scores file.
    """
    run, matrix = Run(run_dir), read_matrix(run_dir)
    reader = RateReader(matrix.config)
    summary = summarize(matrix, reader)
    sections = [
        _section("What changed", _changes, matrix, summary),
        _section("Every model on every test set", _matrix, matrix),
        _section("What the errors are", errors_section, matrix, run.paths.report / "errors.json", reader),
        _section("The worst utterances", utterances_section, matrix, reader, audio),
        _section("From base to base", _rounds, matrix),
        _section("Which data made which base", lineage_section, run),
        *([_section("What the gate decided", gate_section, run)] if has_gate(run) else ()),
        _section("Learning curves", _curves, run, matrix),
        _section("Exactness of the average and of the merge", _exactness, run, matrix),
        _section("Where the time went", _times, run),
        _section("Versions and machines", environment_section, run),
        _section("How to reproduce this run", reproduction_section, run),
        _section("Ledger", _ledger, run),
    ]
    figures = [_figure(estimate, summary) for estimate in summary.estimates] if matrix.last else []
    title, confidence = matrix.config.run.name, matrix.config.evaluate.confidence
    rule = (
        f'"Improved" and "worse" are said only where the paired difference is beyond chance ({100 * confidence:.0f} %), '
        f"Holm-corrected over {summary.num_marks} comparisons; a set of fewer than {FEW_UNITS} units is too small to say."
    )
    text = render(title, _facts(run, matrix), headline(summary, confidence), sections, figures=figures, rule=rule)
    out = run.paths.report / "index.html"
    durable.write_text(out, text)
    return out


def _section(title: str, make: Callable[..., Section], *arguments: Any) -> Section:
    try:
        section = make(*arguments)
    except _DAMAGED as error:
        section = Section(parts=[Part(note=f"left out: {error}")])
    section.title = title
    return section


def _facts(run: Run, matrix: ScoreMatrix) -> list[tuple[str, str]]:
    config, rounds = matrix.config, matrix.config.round_list()
    facts = [
        ("root", config.base.model),
        ("rounds", f"{matrix.last} of {len(rounds)} scored"),
        ("data sets", str(len({name for names in rounds for name in names}))),
        ("LoRA", config.lora.described()),
        ("steps", f"{config.train.max_steps} at most, lr {config.train.lr:g}"),
        ("average", f"{config.centralize.method}, scale {config.centralize.shown_scale()}"),
    ]
    with contextlib.suppress(*_DAMAGED):  # a run copied without its status
        if (status := run.status()).facts:
            facts.append(("state", status.state))
    return facts


def _figure(estimate: Estimate, summary: Summary) -> dict[str, str]:
    title, _ = ESTIMATES[estimate.name]
    over, faultless = estimate.over, [change.name for change in summary.changes if not change.before]
    if estimate.value is None and faultless:
        over += f"; base 0 makes no error on {', '.join(faultless)}: a change relative to zero is no number"
    return {"name": title, "number": estimate_number(estimate), "interval": between(estimate.low, estimate.high, "+"),
            "formula": FIGURES[estimate.name].formula, "over": over}  # fmt: skip


def _changes(matrix: ScoreMatrix, summary: Summary) -> Section:
    if not summary.changes:
        return Section(parts=[Part(note="Nothing to compare yet: base 0 and a later base need scores.")])
    first, last = matrix.bases[0], matrix.bases[matrix.last]
    titles = {change.name: set_title(matrix.config, change.name) for change in summary.changes}
    pairs = {title: (first.scores[name], last.scores[name]) for name, title in titles.items()}
    svg = plots.changes_plot(pairs, _titles(matrix, matrix.protected), (first.title, last.title))
    heads = ["test set", "units", first.title, last.title, "difference", "relative", "p", "verdict"]
    rows = [_change_row(change, titles[change.name]) for change in summary.changes]
    shown = (
        f"For every test set a dot for the error of {first.title} and a dot for {last.title}, each with its interval. "
        "The table below has the numbers."
    )
    return Section(parts=[Part(svg=svg, alternative=shown, table=HtmlTable(heads, rows))])


def _titles(matrix: ScoreMatrix, names: Sequence[str]) -> list[str]:
    return [set_title(matrix.config, name) for name in names]


def _change_row(change: Change, title: str) -> list[Cell]:
    interval = between(change.difference.low, change.difference.high, "+")
    relative = f"{100 * (change.after / change.before - 1):+.1f} %" if change.before else "-"
    name = f"{title} (protected)" if change.protected else title
    verdict = change.verdict if change.verdict != "unknown" else "no interval"
    return [
        Cell(name), Cell("-" if change.num_units is None else str(change.num_units)),
        Cell(f"{100 * change.before:.1f}"), Cell(f"{100 * change.after:.1f}"),
        Cell(f"{100 * (change.after - change.before):+.1f}", interval), Cell(relative),
        Cell(chance(change.difference.p), f"Holm {chance(change.p_holm)}" if change.p_holm is not None else ""), Cell(verdict),
    ]  # fmt: skip


def _matrix(matrix: ScoreMatrix) -> Section:
    if not matrix.bases:
        return Section(parts=[Part(note="No model has been scored yet.")])
    parts = []
    for index, names in enumerate(matrix.config.round_list(), start=1):
        models = matrix.models_of(index)
        if any(model.index == index for model in models) or index == 1:
            title, table = f"Round {index}: {', '.join(names)}", _matrix_table(matrix, models)
            parts.append(Part(title, table=table, anchor=round_anchor(index)))
    return Section(parts=parts)


def _matrix_table(matrix: ScoreMatrix, models: Sequence[ScoredModel]) -> HtmlTable:
    rows: list[list[Cell] | str] = []
    for title, names in (("", matrix.own), ("protected", matrix.protected)):
        if title and names:
            rows.append(title)
        rows += [
            [Cell(set_title(matrix.config, name), _units(models, name)), *(_score_cell(matrix, model, name) for model in models)]
            for name in names
        ]
    text = caption(matrix).partition("; *")[0] + "; framed: the set an adapter was trained on"
    return HtmlTable(["test set", *(model.title for model in models)], rows, caption=text, legend=True)


def _units(models: Sequence[ScoredModel], name: str) -> str:
    """Returns how many independent units a set has; "" where no score says so."""
    known = [model.scores[name].num_units for model in models if name in model.scores]
    return next((f"{number} units" for number in known if number is not None), "")


def _score_cell(matrix: ScoreMatrix, model: ScoredModel, name: str) -> Cell:
    score = model.scores.get(name)
    if score is None:
        return Cell("-")
    root = matrix.bases[0].scores.get(name) if 0 in matrix.bases else None
    shade = heat(score.rate / root.rate - 1) if root and root.rate and model.title != "base 0" else 0.0
    css = "own" if matrix.trained_on(model, name) else ""
    return Cell(f"{100 * score.rate:.1f}", between(score.low, score.high), shade, css)


def _rounds(matrix: ScoreMatrix) -> Section:
    if matrix.last < 1:
        return Section(parts=[Part(note="A second base has not been scored yet.")])
    rates = {
        set_title(matrix.config, name): [
            (index, model.scores[name].rate) for index, model in matrix.bases.items() if name in model.scores
        ]
        for name in [*matrix.own, *matrix.protected]
    }
    scored = {name: points for name, points in rates.items() if points}
    shown = "; ".join(
        f"{name} " + ", ".join(f"{100 * rate:.1f} at base {index}" for index, rate in points) for name, points in scored.items()
    )
    svg = plots.rounds_plot(scored, _titles(matrix, matrix.protected))
    return Section(parts=[Part(svg=svg, alternative=f"Error in percent: {shown}.")])


def _curves(run: Run, matrix: ScoreMatrix) -> Section:
    parts: list[Part] = []
    found: dict[int, dict[str, list[dict[str, Any]]]] = {}
    for index, names in enumerate(matrix.config.round_list(), start=1):
        logged = {name: run.curve(index, name, tell=lambda said: parts.append(Part(note=said))) for name in names}
        if any(logged.values()):
            found[index] = {name: rows for name, rows in logged.items() if rows}
    for index in list(found)[-_CURVES:]:
        curves = found[index]
        waits = ", ".join(f"{name} {share:.0%}" for name, rows in curves.items() if (share := _waited(rows)) is not None)
        note = f"share of the time that a trainer waited for data: {waits}" if waits else ""
        shown = "; ".join(f"{name}: {_course(rows)}" for name, rows in curves.items())
        parts.append(Part(f"Round {index}", note, plots.curves_plot(curves), f"Training loss. {shown}."))
    if earlier := list(found)[:-_CURVES]:
        rows = [[Cell(str(index)), Cell(name), Cell(_course(steps))] for index in earlier for name, steps in found[index].items()]
        table = HtmlTable(["round", "data set", "training loss"], rows, left=True)
        parts.append(Part("Earlier rounds", table=table, folded=f"{len(earlier)} rounds that are not drawn"))
    return Section(parts=parts or [Part(note="No learning curves are on disk.")])


def _course(rows: Sequence[Mapping[str, Any]]) -> str:
    losses = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    if not losses:
        return "no loss was logged"
    (first, begun), (last, ended) = losses[0], losses[-1]
    return f"from {begun:.3g} at step {first} to {ended:.3g} at step {last}"


def _waited(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Returns the share of a training that was spent waiting for data; None where the log does not say."""
    steps = [row for row in rows if "data_wait_s" in row]
    waited_s = sum(row["data_wait_s"] for row in steps)
    whole_s = waited_s + sum(row["step_s"] for row in steps)
    return waited_s / whole_s if whole_s else None


def _exactness(run: Run, matrix: ScoreMatrix) -> Section:
    rows: list[list[Cell] | str] = []
    gaps: dict[str, dict[str, float]] = {}
    for index in range(1, len(matrix.config.round_list()) + 1):
        if (base := run.find_base(index)) is None:
            continue
        facts = [_short(base.facts.get(key)) for key in ("method", "exactness_gap", "update_loss", "update_norm")]
        rows.append([Cell(text) for text in (f"round {index}", *facts)])
        if base.facts.get("gap_per_module"):
            gaps[f"round {index}"] = base.facts["gap_per_module"]
    if not rows:
        return Section(parts=[Part(note="No round has been merged yet.")])
    intro = (
        "Exactness gap: ||factor_mean - mean|| / ||mean||, what averaging the factors apart would have missed. "
        "Update loss: ||cast(W + delta) - W - delta|| / ||delta||, what the base's data type rounded away."
    )
    table = HtmlTable(["round", "method", "exactness gap", "update loss", "norm of the update"], rows)
    drawn = dict(list(gaps.items())[-_GAPS:])
    svg = plots.modules_plot(drawn, "exactness gap") if drawn else ""
    note = f"the last {len(drawn)} of {len(gaps)} rounds are drawn" if len(drawn) < len(gaps) else ""
    return Section(intro, [Part(note=note, svg=svg, alternative=range_of(drawn), table=table)])


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str) and len(value) == 64:
        return value[:12]  # a sha256
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(part)}" for key, part in value.items())
    return "-" if value is None else str(value)


def _times(run: Run) -> Section:
    attempts = read_attempts(run.path)
    if not attempts:
        return Section(parts=[Part(note="No events are on disk.")])
    shown = list(attempts.items())[-_ATTEMPTS:]
    parts = [_attempt_times(f"Attempt {number}", timeline) for number, timeline in shown if timeline.processes]
    if len(shown) < len(attempts):
        parts.insert(0, Part(note=f"the last {len(shown)} of {len(attempts)} attempts"))
    intro = (
        "Every process of an attempt, by its host's own clock. Where one span contains another, the inner one counts. "
        "Turnaround: from the end of a round's last adapter to the first optimizer step of the next round, scoring left out."
    )
    return Section(intro, parts)


def _attempt_times(title: str, timeline: Timeline) -> Part:
    processes = timeline.processes
    drawn = list(processes)[:_LANES]
    rows: list[Sequence[Cell] | str] = []
    for name in drawn:
        seconds = timeline.seconds(name)
        cells = [Cell(f"{seconds[phase]:.1f}" if phase in seconds else "-") for phase in (*timeline.phases, IDLE)]
        rows.append([Cell(name), *cells])
    more = f"; {len(processes) - len(drawn)} more processes" if len(processes) > len(drawn) else ""
    waits = ", ".join(f"{seconds:.1f} s" for seconds in timeline.turnarounds())
    caption = f"seconds of each process since it began{more}" + (f"; turnaround: {waits}" if waits else "")
    table = HtmlTable(["process", *timeline.phases, IDLE], rows, caption=caption)
    svg = plots.timeline_plot({name: processes[name] for name in drawn}, timeline.phases)
    shown = "A lane for every process, a bar for every piece of work, coloured by its phase. The table below has the seconds."
    return Part(f"{title}: {timeline.last_s:.0f} s", svg=svg, alternative=shown, table=table)


def _ledger(run: Run) -> Section:
    lines = run.ledger()
    if not lines:
        return Section(parts=[Part(note="The ledger is empty.")])
    known, elsewhere = ("time", "attempt", "event", "round", "dataset"), ("environment",)
    rows: list[list[Cell] | str] = []
    for line in lines[-_LEDGER_ROWS:]:
        rest = "; ".join(f"{key} {_short(value)}" for key, value in line.items() if key not in (*known, *elsewhere))
        rows.append([*(Cell(_short(line.get(key))) for key in known), Cell(rest, css="wrap")])
    table = HtmlTable(["time", "attempt", "event", "round", "data set", "facts"], rows, left=True)
    return Section(parts=[Part(table=table, folded=f"{len(rows)} of {len(lines)} lines" if len(rows) > 12 else "")])
