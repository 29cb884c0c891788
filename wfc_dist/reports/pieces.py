"""The parts of a page, which page.html lays out: sections, tables, cells."""

from collections.abc import Sequence
from dataclasses import dataclass, field

HEAT_ENDS = ("#a9cbe8", "#f2b8a0")  # better, worse; colour-blind readers can distinguish the two
_FULL_AT = 0.5  # a relative change of 50 % has the full colour


@dataclass(frozen=True)
class Cell:
    """One cell of a table: text, a small addition, a background, a CSS class."""

    text: str
    small: str = ""
    colour: str = ""
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
    """A note, a plot and a table, each of which may be absent. `folded` hides the table behind this line."""

    title: str = ""
    note: str = ""
    svg: str = ""
    table: HtmlTable | None = None
    folded: str = ""


@dataclass
class Section:
    """A chapter of the page."""

    intro: str = ""
    parts: list[Part] = field(default_factory=list)
    title: str = ""


def colour(change: float) -> str:
    """Returns the background of a relative change of error: white at 0, one end at -50 %, the other at +50 %."""
    end = HEAT_ENDS[0] if change < 0 else HEAT_ENDS[1]
    share = min(1.0, abs(change) / _FULL_AT)
    channels = [int(end[start : start + 2], 16) for start in (1, 3, 5)]
    return "#" + "".join(f"{round(255 + share * (channel - 255)):02x}" for channel in channels)
