"""Colours of the pages, light and dark, and plots that follow them: the SVG text of a plot takes its colours from the page."""

import html
import re
from collections.abc import Mapping

from wfc_dist.reports.plots import CYCLE, GREY, INK, SOFT

LIGHT: Mapping[str, str] = {
    "paper": "#ffffff", "ink": "#1b1d21", "soft": "#575b62", "line": "#d5d7db", "pale": "#f4f5f6", "link": "#0b5cad",
    "grid": "#e6e7ea", "grey": "#7d8188", "better": "0 114 178", "worse": "213 94 0",
    "substitution": "#8a4b00", "deletion": "#0b5cad", "insertion": "#006e51", "loop": "#8c3a78",
    "series-0": "#0b5cad", "series-1": "#c98500", "series-2": "#00795f", "series-3": "#8f2a00",
    "series-4": "#b8609c", "series-5": "#4496d6", "series-6": "#43247f", "series-7": "#85888e",
}  # fmt: skip
DARK: Mapping[str, str] = {
    "paper": "#14161a", "ink": "#e9eaec", "soft": "#a9aeb6", "line": "#3a3e45", "pale": "#1e2126", "link": "#7cb8f2",
    "grid": "#2b2f35", "grey": "#969ba3", "better": "86 180 233", "worse": "230 130 40",
    "substitution": "#f0b060", "deletion": "#7cb8f2", "insertion": "#4fcfa4", "loop": "#e29bcd",
    "series-0": "#3f97dd", "series-1": "#f2c14a", "series-2": "#35c796", "series-3": "#d9692b",
    "series-4": "#f0b3d6", "series-5": "#b4e1ff", "series-6": "#7d63c9", "series-7": "#8b9097",
}  # fmt: skip
"""Name -> value of the CSS variable of this name; better and worse are red, green and blue."""
_NAMES = {
    "#ffffff": "paper", INK: "ink", GREY: "grey", SOFT: "grid", "#eeeeee": "grid", "#d9d9d9": "line",
    **{color: f"series-{number}" for number, color in enumerate(CYCLE)},
}  # fmt: skip
_COLOR = re.compile(r"#[0-9a-f]{6}\b")
_SIZE = re.compile(r'<svg[^>]*? width="([\d.]+)pt"')
_PIXELS_A_POINT = 96 / 72
_LEAST_SCALE = 0.8  # a plot with text of 9 points is readable down to this size; a narrower window scrolls


def variables(colours: Mapping[str, str]) -> str:
    """Returns CSS declarations of the colours."""
    return " ".join(f"--{name}: {value};" for name, value in colours.items())


def themed(svg: str, place: str, title: str, alternative: str) -> str:
    """Returns the SVG text of a plot for a page.

    Args:
        svg: Of `plots` or `analysis_plots`.
        place: Of the plot on the page: it makes the ids of the plot unique.
        title: What the plot shows.
        alternative: What the plot says, for those who do not see it.
    """
    is_painted = "QuadMesh" in svg  # its colours are values, written upon in black and white
    text = svg if is_painted else _COLOR.sub(lambda found: _variable(found.group()), svg)
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' id="([^"]+)"', rf' id="p{place}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#p{place}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#p{place}-\1)", text)
    found = _SIZE.search(text)
    least = f"min-width: {_LEAST_SCALE * _PIXELS_A_POINT * float(found.group(1)):.0f}px" if found else ""
    named = f'<title id="p{place}-title">{html.escape(title)}</title><desc id="p{place}-desc">{html.escape(alternative)}</desc>'
    role = f'role="img" aria-labelledby="p{place}-title p{place}-desc" style="{least}"'
    css = ' class="painted"' if is_painted else ""
    head, end, rest = text.partition(">")
    return f"{head} {role}{css}{end}{named}{rest}"


def _variable(color: str) -> str:
    return f"var(--{_NAMES[color]}, {color})" if color in _NAMES else color
