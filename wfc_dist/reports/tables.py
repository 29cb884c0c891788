"""What all tables on the console have in common: frames, titles, captions, intervals."""

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table


def titled_table(title: str, *columns: str) -> Table:
    """Returns an empty table with a frame, a bold title on the left, and these columns."""
    table = Table(title=title, title_justify="left", title_style="bold")
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


def between(low: float | None, high: float | None, sign: str = "") -> str:
    """Returns an interval in percent, `[10.1, 14.8]`; "" where there is none. `sign` is `+` to write it always."""
    return "" if low is None or high is None else f"[{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"
