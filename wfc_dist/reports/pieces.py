"""The parts of a page, which page.html lays out: sections, tables, cells."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from wfc_dist.reports.alignment import Piece

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
class Utterance:
    """What was said and what a model wrote, aligned.

    Attributes:
        title: The id of the utterance.
        about: Length and errors.
        language: Whisper's code.
        pieces: The alignment.
        earlier, about_earlier: The alignment of another model, and what it says; nothing where there is none.
        is_characters: Whether tokens are characters, which stand close together.
        audio: A data URI, or "".
        audio_note: Why there is no audio, or what of it is left out.
    """

    title: str
    about: str
    language: str
    pieces: Sequence[Piece]
    earlier: Sequence[Piece] = ()
    about_earlier: str = ""
    is_characters: bool = False
    audio: str = ""
    audio_note: str = ""

    @property
    def tag(self) -> str:
        """Returns the language as HTML names it."""
        return {"jw": "jv"}.get(self.language, self.language)

    @property
    def direction(self) -> str:
        """Returns ltr or rtl: where a line of the language begins."""
        return "rtl" if self.language in ("ar", "fa", "he", "ps", "sd", "ur", "yi") else "ltr"


@dataclass(frozen=True)
class Part:
    """A note, a plot, a table and utterances, each of which may be absent. `folded` hides the table behind this line.

    `alternative` says in words what the plot shows; a table beside the plot has its numbers. `has_legend` explains the marks of
    utterances.
    """

    title: str = ""
    note: str = ""
    svg: str = ""
    alternative: str = ""
    table: HtmlTable | None = None
    folded: str = ""
    utterances: Sequence[Utterance] = ()
    has_legend: bool = False


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
