"""Makes one HTML file, readable offline, from a title, figures and sections. All pages have this look."""

from collections.abc import Sequence
from importlib import resources

from jinja2 import Environment

from wfc_dist.reports.pieces import HEAT_ENDS, Section


def render(
    title: str, facts: Sequence[tuple[str, str]], sentence: str, sections: Sequence[Section], *,
    figures: Sequence[dict[str, str]] = (), confidence: float = 0.95,
) -> str:  # fmt: skip
    """Returns the page as HTML: the title, `facts` (name, value) below it, what the page says in one sentence, and its chapters.

    `figures` are boxes of name, number, interval, formula and over; `confidence` is the level of the intervals.
    """
    text = resources.files("wfc_dist.reports").joinpath("page.html").read_text(encoding="utf-8")
    return Environment(autoescape=True).from_string(text).render(
        title=title, facts=facts, sentence=sentence, sections=sections, figures=figures, heat_ends=HEAT_ENDS,
        confidence=f"{100 * confidence:.0f}",
    )  # fmt: skip
