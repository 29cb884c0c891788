"""The parts of a page, which page.html lays out: sections, tables, cells."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_FULL_AT = 0.5  # a relative change of 50 % has the full colour


@dataclass(frozen=True)
class Cell:
    """One cell of a table: text, a small addition, a background from -1 (better) to 1 (worse), a CSS class."""

    text: str
    small: str = ""
    heat: float = 0.0
    css: str = ""


@dataclass(frozen=True)
class HtmlTable:
    """A table; a row that is a string is a heading across all columns."""

    heads: Sequence[str]
    rows: Sequence[Sequence[Cell] | str]
    caption: str = ""
    legend: bool = False
    left: bool = False


@dataclass(frozen=True)
class Part:
    """A note, a plot and a table, each of which may be absent. `folded` hides the table behind this line.

    `alternative` says in words what the plot shows; a table beside the plot has its numbers.
    """

    title: str = ""
    note: str = ""
    svg: str = ""
    alternative: str = ""
    table: HtmlTable | None = None
    folded: str = ""


@dataclass
class Section:
    """A chapter of the page."""

    intro: str = ""
    parts: list[Part] = field(default_factory=list)
    title: str = ""


def heat(change: float) -> float:
    """Returns the background of a relative change of error: 0 at 0, -1 (better) at -50 %, 1 (worse) at +50 %."""
    return max(-1.0, min(1.0, change / _FULL_AT))


def range_of(series: Mapping[str, Mapping[str, float]]) -> str:
    """Returns the least and the largest value of every line of a plot in words."""
    ranges = {name: [value for value in values.values() if math.isfinite(value)] for name, values in series.items()}
    said = [f"{name}: {min(values):.3g} to {max(values):.3g}" for name, values in ranges.items() if values]
    return "; ".join(said) + "."
