"""Writes RUN/report/analysis, the page and all numbers of an analysis; makes the table of verdicts for the console."""

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from wfc_dist.analysis.run import Analysis, as_tree
from wfc_dist.reports.analysis_sections import MOST_ROWS, line_section, round_sections
from wfc_dist.reports.html import render
from wfc_dist.reports.pieces import Cell, HtmlTable, Part, Section
from wfc_dist.reports.tables import titled_table
from wfc_dist.storage import durable

FOLDER, NUMBERS, PAGE = "report/analysis", "analysis.json", "index.html"
_ROUNDS = 3  # drawn: the last ones


def write_analysis(run_dir: Path, analysis: Analysis) -> tuple[Path, Path]:
    """Writes RUN/report/analysis/index.html and analysis.json; returns both paths, the page first."""
    folder = run_dir / FOLDER
    durable.write_json(folder / NUMBERS, as_tree(analysis))
    durable.write_text(folder / PAGE, analysis_page(analysis))
    return folder / PAGE, folder / NUMBERS


def analysis_page(analysis: Analysis) -> str:
    """Returns the page as HTML: one file, readable offline."""
    config, last = analysis.config, analysis.rounds[-1]
    facts = {
        "root": config.base.model,
        "rounds with adapters": f"{len(analysis.rounds)} of {len(config.round_list())}",
        "LoRA": config.lora.described(),
        "adapted matrices": str(len(last.measures.modules)),
        "weight decay": f"{config.train.weight_decay:g}",
        "average": f"{config.centralize.method}, scale {config.centralize.shown_scale()}",
    }
    sections = [_verdicts(analysis)]
    for of_round in analysis.rounds[-_ROUNDS:]:
        sections += round_sections(of_round.measures, of_round.priors, config.train)
    if analysis.line:
        sections.append(line_section(analysis.line))
    words = "; ".join(f"{verdict.mechanism}: {verdict.word}" for verdict in last.verdicts)
    sentence = f"Round {last.measures.round_index}. {words}."
    return render(f"{config.run.name}: analysis", list(facts.items()), [sentence], sections)


def _verdicts(analysis: Analysis) -> Section:
    rows: list[Sequence[Cell] | str] = []
    for of_round in analysis.rounds:
        rows.append(f"round {of_round.measures.round_index}: {_names(of_round.measures.adapters)}")
        for verdict in of_round.verdicts:
            rows.append([Cell(verdict.mechanism), Cell(verdict.measured, css="wrap"), Cell(verdict.expected), Cell(verdict.word)])
    notes = [Part(note=note) for note in analysis.notes]
    rules = [Part(note=f"{verdict.mechanism}: {verdict.rule}.") for verdict in analysis.rounds[-1].verdicts]
    table = HtmlTable(["mechanism", "measured", "expected", "verdict"], rows, left=True)
    intro = (
        "Does what the method rests on hold in this run? All numbers, of every matrix too, are in analysis.json beside this page."
    )
    return Section(intro, [*notes, Part(table=table), *rules], "The mechanisms")


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_ROWS]) + (f" and {len(names) - MOST_ROWS} more" if len(names) > MOST_ROWS else "")


def verdict_table(analysis: Analysis) -> Table:
    """Returns the verdicts of the last rounds for the console."""
    heads = ("round", "mechanism", "measured", "expected", "verdict")
    table = titled_table(f"{analysis.config.run.name}: do the mechanisms hold?", *heads)
    for of_round in analysis.rounds[-_ROUNDS:]:
        for verdict in of_round.verdicts:
            texts = (str(verdict.round_index), verdict.mechanism, verdict.measured, verdict.expected, verdict.word)
            table.add_row(*map(escape, texts))
        table.add_section()
    return table
