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
class Box:
    """A box of a drawing: two lines of text, at the pixels of its upper left corner.

    Attributes:
        text, below: The lines.
        x, y, width: In CSS pixels.
        title: The whole text, where the lines are shortened.
        link: The anchor of a part; "" without a link.
        css: A class.
    """

    text: str
    below: str
    x: int
    y: int
    width: int
    title: str = ""
    link: str = ""
    css: str = ""


@dataclass(frozen=True)
class Drawing:
    """Boxes and arrows between them.

    Attributes:
        boxes: The boxes.
        arrows: Paths of SVG.
        width, height: In CSS pixels.
        title, alternative: What it shows, in words.
    """

    boxes: Sequence[Box]
    arrows: Sequence[str]
    width: int
    height: int
    title: str
    alternative: str


@dataclass(frozen=True)
class Part:
    """A note, a plot, a drawing, a table, a text and utterances, each of which may be absent.

    Attributes:
        title, note: What stands above.
        svg: A plot.
        alternative: What the plot shows, in words; a table beside the plot has its numbers.
        table: A table.
        folded: The line behind which the table or the text hides; "" where they stand open.
        drawing: Boxes and arrows.
        code: A text to be typed or copied.
        anchor: What links to this part name.
        utterances: What was said and written.
        has_legend: Whether the marks of utterances are explained here.
    """

    title: str = ""
    note: str = ""
    svg: str = ""
    alternative: str = ""
    table: HtmlTable | None = None
    folded: str = ""
    drawing: Drawing | None = None
    code: str = ""
    anchor: str = ""
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
    return f"A value for every matrix, from the least to the largest. {'; '.join(said)}."
