"""Makes one HTML file, readable offline, from a title, figures and sections. All pages have this look."""

from collections.abc import Sequence
from importlib import resources

from jinja2 import Environment
from markupsafe import Markup

from wfc_dist import __version__
from wfc_dist.reports.pieces import Part, Section
from wfc_dist.reports.theme import DARK, LIGHT, themed, variables


def render(
    title: str, facts: Sequence[tuple[str, str]], sentences: Sequence[str], sections: Sequence[Section], *,
    figures: Sequence[dict[str, str]] = (), rule: str = "",
) -> str:  # fmt: skip
    """Returns the page as HTML: the title, `facts` (name, value) below it, what the page says in sentences, and its chapters.

    `figures` are boxes of name, number, interval, formula and over; `rule` says when something is called better or worse.
    """
    text = resources.files("wfc_dist.reports").joinpath("page.html").read_text(encoding="utf-8")
    return Environment(autoescape=True).from_string(text).render(
        title=title, facts=facts, sentences=sentences, sections=sections, figures=figures, rule=rule,
        light=variables(LIGHT), dark=variables(DARK), plot=_plot, version=__version__,
    )  # fmt: skip


def _plot(part: Part, place: str, label: str) -> Markup:
    return Markup(themed(part.svg, place, label, part.alternative))  # noqa: S704: plots escape their texts
