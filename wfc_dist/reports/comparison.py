"""The table of a comparison for the console, and its page with plots."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from wfc_dist.compare.results import SystemRow, Value, as_json, num_marks
from wfc_dist.compare.settings import UNTOUCHED, Comparison
from wfc_dist.evaluation.continual import FIGURES
from wfc_dist.evaluation.intervals import FEW_UNITS, TOO_FEW
from wfc_dist.reports.html import render
from wfc_dist.reports.pieces import Cell, HtmlTable, Part, Section, heat
from wfc_dist.reports.plots import Mark, marks_plot
from wfc_dist.reports.sweep import Swept
from wfc_dist.reports.tables import between, metric_text, plain_table
from wfc_dist.storage import durable

TITLES = {
    "own": "own", "new": "new", "protected": "protected", "new_relative": "new, rel.", "new_relative_each": "new, rel. each",
    "protected_relative": "prot., rel.", "protected_relative_each": "prot., rel. each", "bwt": "BWT", "fwt": "FWT",
    "forgetting": "forgetting", "forgetting_protected": "prot., forgetting",
}  # fmt: skip
ON_CONSOLE = [name for name in TITLES if name.removesuffix("_each") == name and name != "forgetting_protected"]
STAR = "; * on the Pareto front of what is kept and what is learned"
MARKS = {"better": "+", "worse": "-", "same": "", TOO_FEW: "?"}


def _sign(name: str) -> str:
    return "" if name in ("own", "new", "protected") else "+"


def _number(name: str, value: float) -> str:
    return format(100 * value, f"{_sign(name)}.1f")


def caption(comparison: Comparison, rows: Sequence[SystemRow]) -> str:
    """Returns what the numbers are, and how the marks were decided."""
    config = comparison.runs[0].config
    evaluate = config.evaluate
    decoded = "windows of several clips" if evaluate.packing else "clip by clip"
    over = "units and seeds" if len(comparison.seeds) > 1 else "units, of one seed"
    return (
        f"{metric_text(config, averaged=True)} in percent, {decoded}; + better, - worse than {comparison.reference}: the paired "
        f"difference is beyond chance ({100 * evaluate.confidence:.0f} % over {over}, Holm-corrected over {num_marks(rows)} "
        f"comparisons); ? too few to say: fewer than {FEW_UNITS} units"
    )


def table(comparison: Comparison, rows: Sequence[SystemRow], front: Sequence[str] = ()) -> Table:
    """Returns the table for the console: values and marks; intervals and other figures are in compare.json and on the page.

    The systems of `front`, the Pareto front of a sweep, get a star.
    """
    made = plain_table(comparison.name, caption(comparison, rows) + (STAR if front else ""))
    made.add_column("system", no_wrap=not front, overflow="fold")
    for title in (*(TITLES[name] for name in ON_CONSOLE), "norm", "seeds"):
        made.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        cells = [f"{_number(name, row.values[name].value)}{MARKS[row.values[name].verdict]:1}" if name in row.values else "- "
                 for name in ON_CONSOLE]  # fmt: skip
        made.add_row(escape(_starred(row.system, front)), *cells, f"{row.norm:.2f}", f"{len(row.seeds)}/{row.num_planned}")
    return made


def _starred(system: str, front: Sequence[str]) -> str:
    return f"{system} *" if system in front else system


def write(comparison: Comparison, rows: Sequence[SystemRow], failures: dict[str, str], swept: Swept | None = None) -> Path:
    """Writes FOLDER/compare.json and FOLDER/index.html; returns the page.

    `failures` says what went wrong in which run. `swept` brings its plots in place of one with all names, its front marked, and
    its points in compare.json.
    """
    tree = as_json(comparison, rows) | {"failures": failures}
    if swept:
        tree |= {"front": swept.front, "points": swept.points}
    durable.write_text(comparison.folder / "compare.json", json.dumps(tree, indent=1) + "\n")
    facts = [("reference", comparison.reference), ("seeds", ", ".join(map(str, comparison.seeds))),
             ("data sets", ", ".join(comparison.datasets)), ("units", _units(rows))]  # fmt: skip
    front = swept.front if swept else ()
    named = [UNTOUCHED, *front] if swept else [row.system for row in rows]
    plane = swept.sections if swept else [_plane(rows)]
    sections = [_table(comparison, rows, failures, front), *plane, _norms(rows, named), _formulas(comparison)]
    sentence = swept.sentence if swept else _sentence(comparison, rows)
    page = comparison.folder / "index.html"
    durable.write_text(page, render(comparison.name, facts, [sentence], sections))
    return page


def _units(rows: Sequence[SystemRow]) -> str:
    """Returns how many independent units the new and the protected sets have, from the first row that says so."""
    known = {name: value.num_units for row in reversed(rows) for name, value in row.values.items()}
    return ", ".join(f"{known[name]} of the {name} sets" for name in ("new", "protected") if known.get(name)) or "unknown"


def _sentence(comparison: Comparison, rows: Sequence[SystemRow]) -> str:
    others = [row for row in rows if row.system not in (comparison.reference, UNTOUCHED)]
    said = []
    for figure, label in (("new", "on the new sets"), ("protected", "on the protected sets")):
        better = [row.system for row in others if figure in row.values and row.values[figure].verdict == "better"]
        said.append(f"{', '.join(better) or 'nothing'} is better than {comparison.reference} {label}")
    return "; ".join(said) + "."


def _table(comparison: Comparison, rows: Sequence[SystemRow], failures: dict[str, str], front: Sequence[str] = ()) -> Section:
    lines: list[Sequence[Cell] | str] = []
    for row in rows:
        name = _starred(row.system, front)
        cells = [Cell(name, f"{len(row.seeds)}/{row.num_planned} seeds" if len(row.seeds) < row.num_planned else "")]
        cells += [_cell(name, row.values.get(name)) for name in TITLES]
        lines.append([*cells, Cell(f"{row.norm:.2f}")])
    lines += [[Cell(name), Cell(f"failed: {why}", css="wrap")] for name, why in failures.items()]
    made = HtmlTable(["system", *TITLES.values(), "norm"], lines, caption=caption(comparison, rows) + (STAR if front else ""))
    return Section(title="Systems", parts=[Part(table=made)])


def _cell(name: str, value: Value | None) -> Cell:
    if value is None:
        return Cell("-")
    shade = {"better": heat(-0.25), "worse": heat(0.25), "same": 0.0, TOO_FEW: 0.0}[value.verdict]
    return Cell(_number(name, value.value) + MARKS[value.verdict], between(value.low, value.high, _sign(name)), shade)


def _triple(value: Value) -> tuple[float, float, float]:
    low, high = (value.value if limit is None else limit for limit in (value.low, value.high))
    return 100 * low, 100 * value.value, 100 * high


def _plane(rows: Sequence[SystemRow]) -> Section:
    x, y = "protected_relative", "new_relative"
    marks = [
        Mark(row.system, _triple(row.values[x]), _triple(row.values[y]), strong=row.system == UNTOUCHED)
        for row in rows
        if {x, y} <= row.values.keys()
    ]
    what = "relative change of the mean error, percent"
    labels = (f"protected sets: {what}", f"new sets: {what}")
    intro = "Stability against plasticity: left and down is better on both. Crosses are intervals."
    svg = marks_plot(marks, labels, zero=True) if len(marks) > 1 else ""
    parts = [Part(svg=svg, alternative=places_of(marks, labels))] if svg else [Part(note="No protected sets.")]
    return Section(intro, parts, "What is learned against what is kept")


def places_of(marks: Sequence[Mark], labels: tuple[str, str]) -> str:
    """Returns in words where the named points of a plot lie."""
    said = [f"{mark.name} at {mark.x[1]:.3g}, {mark.y[1]:.3g}" for mark in marks if mark.name]
    return f"Across: {labels[0]}. Up: {labels[1]}. {'; '.join(said)}."


def _norms(rows: Sequence[SystemRow], named: Sequence[str]) -> Section:
    parts = []
    for figure, label in (("new", "error on the new sets, percent"), ("protected", "error on the protected sets, percent")):
        marks = [
            Mark(row.system if row.system in named else "", (row.norm,) * 3, _triple(row.values[figure]),
                 strong=row.system == UNTOUCHED)
            for row in rows if figure in row.values
        ]  # fmt: skip
        if len(marks) > 1:
            labels = ("||theta_T - theta_0||, Frobenius", label)
            parts.append(Part(svg=marks_plot(marks, labels, zero=False), alternative=places_of(marks, labels)))
    intro = "A smaller step can pass for a better method: systems can only be told apart at equal norm of the update."
    return Section(intro, parts, "Error against the norm of the update")


def _formulas(comparison: Comparison) -> Section:
    texts = [*((TITLES[name], figure.formula) for name, figure in FIGURES.items()), *comparison.about.items()]
    made = HtmlTable(
        ["figure or system", "what it is"], [[Cell(name), Cell(text, css="wrap")] for name, text in texts], left=True
    )
    intro = "R[t][j] is the error of base t on set j; t_j the round that learned j; T the last base."
    return Section(intro, [Part(table=made)], "Figures and systems")
