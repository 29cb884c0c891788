"""What all tables on the console have in common: frames, titles, captions, intervals."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from wfc_dist.config.schema import Config


class _Verbatim(Table):
    """A table whose texts are no markup of rich: a message may hold a [, also one that looks like the end of a style."""

    def add_row(self, *cells: RenderableType | None, **how: Any) -> None:
        """Adds a row; see `rich.table.Table`."""
        super().add_row(*(escape(cell) if isinstance(cell, str) else cell for cell in cells), **how)


def titled_table(title: str, *columns: str) -> Table:
    """Returns an empty table with a frame, a bold title on the left, and these columns; texts stay as they are."""
    table = _Verbatim(title=escape(title), title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column)
    return table


def plain_table(title: str, caption: str = "") -> Table:
    """Returns an empty table of figures without a frame, for many narrow columns; texts are escaped."""
    table = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    if caption:
        set_caption(table, caption)
    return table


def set_caption(table: Table, caption: str) -> None:
    """Sets what stands below a table, on the left; the text is escaped."""
    table.caption, table.caption_justify = escape(caption), "left"


def metric_text(config: Config, *, averaged: bool = False) -> str:
    """Returns how errors are counted: `WER`, or `WER (MER: seame, ascend)` where test sets differ.

    Args:
        config: Names the metric of every test set.
        averaged: Whether the figures are means over test sets: means over different metrics are means of error rates.
    """
    metrics = config.metrics()
    default = config.evaluate.metric
    groups: dict[str, list[str]] = {default: []} if default in metrics.values() or not metrics else {}
    for name, metric in metrics.items():
        groups.setdefault(metric, []).append(name)
    (first, _), *others = groups.items()
    if not others:
        return first.upper()
    rest = "; ".join(f"{metric.upper()}: {', '.join(names)}" for metric, names in others)
    return f"mean of error rates ({first.upper()}; {rest})" if averaged else f"{first.upper()} ({rest})"


def set_title(config: Config, name: str) -> str:
    """Returns the name of a test set for a row, with its metric where test sets differ: `seame (MER)`."""
    metric = config.metric_record()
    return f"{name} ({metric[name].upper()})" if isinstance(metric, dict) and name in metric else name


def between(low: float | None, high: float | None, sign: str = "") -> str:
    """Returns an interval in percent, `[10.1, 14.8]`; "" where there is none. `sign` is `+` to write it always."""
    return "" if low is None or high is None else f"[{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def chance(p: float | None) -> str:
    """Returns a p with two significant digits, `0.013`; `< 0.0001` for less, `-` where there is none."""
    return "-" if p is None else "< 0.0001" if p < 1e-4 else f"{p:.2g}"
