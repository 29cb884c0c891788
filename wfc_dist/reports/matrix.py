"""The matrix R[t][j] as tables for a terminal."""

import io
from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from wfc_dist.evaluation.continual import Summary, summarize
from wfc_dist.evaluation.matrix import Column, Matrix
from wfc_dist.evaluation.metrics import Score

_ADAPTERS_AT_ONCE = 3  # with two bases and intervals that is 120 columns


WIDTH = 120


def percent(score: Score | None) -> str:
    """Returns `12.3 [10.1, 14.8]`, in percent; `-` for what was not scored."""
    if score is None:
        return "-"
    if score.low is None or score.high is None:
        return f"{100 * score.rate:.1f}"
    return f"{100 * score.rate:.1f} [{100 * score.low:.1f}, {100 * score.high:.1f}]"


def cell(matrix: Matrix, column: Column, name: str) -> str:
    """Returns the text of one cell; an adapter's own set carries a star."""
    return ("*" if matrix.trained_on(column, name) else "") + percent(column.scores.get(name))


def caption(matrix: Matrix) -> str:
    """Returns what the numbers are: metric, normaliser, interval, how it was decoded."""
    evaluate = matrix.config.evaluate
    parts = [f"{evaluate.metric.upper()} in percent, corpus level, {evaluate.normalizer} normalizer"]
    if evaluate.bootstrap_samples:
        parts.append(f"[{100 * evaluate.confidence:.0f} % bootstrap interval over clips]")
    if evaluate.packing:
        parts.append("decoded in windows of several clips")
    return ", ".join(parts) + "; * the set an adapter was trained on"


def _table(matrix: Matrix, columns: Sequence[Column], title: str) -> Table:
    made = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    made.add_column("test set", no_wrap=True)
    for column in columns:
        made.add_column(escape(column.title), justify="right")
    for name in matrix.own:
        made.add_row(name, *(escape(cell(matrix, column, name)) for column in columns))
    if matrix.protected:
        made.add_section()
        made.add_row("protected:")
    for name in matrix.protected:
        made.add_row(name, *(escape(cell(matrix, column, name)) for column in columns))
    return made


def table(matrix: Matrix) -> Table:
    """Returns the whole matrix as one table: rows are test sets, protected ones below a rule; columns as they came to be."""
    made = _table(matrix, matrix.columns(), f"{matrix.config.run.name}: {matrix.config.evaluate.metric.upper()} %")
    made.caption, made.caption_justify = escape(caption(matrix)), "left"
    return made


def _split(columns: Sequence[Column]) -> Iterable[list[Column]]:
    adapters = [column for column in columns if column.kind == "adapter"]
    bases = [column for column in columns if column.kind == "base"]
    for start in range(0, max(1, len(adapters)), _ADAPTERS_AT_ONCE):
        yield [*bases[:-1], *adapters[start : start + _ADAPTERS_AT_ONCE], *bases[-1:]]


def round_tables(matrix: Matrix) -> list[Table]:
    """Returns the matrix as one table a round (more when it has many adapters), each readable at 120 columns."""
    made = []
    for index, names in enumerate(matrix.config.round_list(), start=1):
        columns = matrix.columns(index)
        if index > 1 and not any(column.index == index for column in columns):
            break  # not begun
        made += [_table(matrix, part, f"round {index}: {', '.join(names)}") for part in _split(columns)] if columns else []
    if made:
        made[-1].caption, made[-1].caption_justify = escape(caption(matrix)), "left"
    return made


def summary_tables(matrix: Matrix) -> list[Table]:
    """Returns what `wfc run` prints at its end: a table a round, then what was learned and forgotten, with formulas."""
    return [*round_tables(matrix), figures_table(summarize(matrix))] if matrix.bases else []


def as_text(matrix: Matrix, width: int = WIDTH) -> str:
    """Returns `summary_tables` as plain text for logs."""
    console = Console(file=io.StringIO(), width=width, no_color=True, force_terminal=False)
    for item in summary_tables(matrix):
        console.print(item)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def as_markdown(matrix: Matrix) -> str:
    """Returns the whole matrix as a Markdown table, with the figures and their formulas below it."""
    columns = matrix.columns()
    lines = [
        "| test set | " + " | ".join(column.title for column in columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for name in [*matrix.own, *matrix.protected]:
        label = f"{name} (protected)" if name in matrix.protected else name
        lines.append(f"| {label} | " + " | ".join(cell(matrix, column, name) for column in columns) + " |")
    lines += ["", caption(matrix), ""]
    lines += [f"- {figure.name}: {figure.text} ({figure.formula}; {figure.over})" for figure in summarize(matrix).figures]
    return "\n".join(lines) + "\n"


def figures_table(summary: Summary) -> Table:
    """Returns the figures as a table, formulas included."""
    made = Table(title=summary.sentence, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    made.add_column("figure", no_wrap=True)
    made.add_column("value", justify="right", no_wrap=True)
    made.add_column("formula")
    for figure in summary.figures:
        made.add_row(figure.name, escape(figure.text), escape(f"{figure.formula} ({figure.over})"))
    return made
