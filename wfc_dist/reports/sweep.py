"""What a sweep adds to the page of its comparison: the Pareto front, and a panel for each key that is swept."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wfc_dist.compare.results import SystemRow
from wfc_dist.compare.settings import UNTOUCHED
from wfc_dist.compare.sweep import KEPT, LEARNED, Point, Sweep, text_of
from wfc_dist.reports.pieces import Part, Section
from wfc_dist.reports.plots import Panel, panels_plot


@dataclass(frozen=True)
class Swept:
    """What a sweep adds to the results of its comparison.

    Attributes:
        rows: The rows, layer by layer of fronts, the best on the new sets first in each; the root stays on top.
        front: Systems that no other beats on both figures.
        points: System -> key -> value.
        sections: Sections for the page.
        sentence: What the page says.
    """

    rows: Sequence[SystemRow]
    front: Sequence[str]
    points: Mapping[str, Point]
    sections: Sequence[Section]
    sentence: str


def swept(sweep: Sweep, rows: Sequence[SystemRow]) -> Swept:
    """Returns the rows of a sweep in the order of their fronts, and its plots."""
    places = {row.system: _place(row) for row in rows if row.system != UNTOUCHED}
    layers = front_layers({system: place for system, place in places.items() if place is not None})
    last = len(rows)
    ordered = sorted(rows, key=lambda row: (row.system != UNTOUCHED, layers.get(row.system, last), _learned(row)))
    front = [row.system for row in ordered if layers.get(row.system) == 1]
    known = {system: place for system, place in places.items() if place is not None and len(place) == 2}
    sections = [_section(sweep, known, front)] if len(known) > 1 else []
    named = "; ".join(f"{system} ({sweep.comparison.about[system]})" for system in front)
    return Swept(ordered, front, sweep.points, sections, f"On the front: {named or 'nothing yet'}.")


def front_layers(places: Mapping[str, Sequence[float]]) -> dict[str, int]:
    """Returns name -> 1 for the Pareto front, 2 for the front of the others, and so on; lower is better in every figure.

    A place is beaten by one that is nowhere worse and somewhere better; equal places are of one layer.
    """
    left, layers = dict(places), dict[str, int]()
    while left:
        front = [name for name, place in left.items() if not any(_beats(other, place) for other in left.values())]
        layer = 1 + max(layers.values(), default=0)
        layers |= dict.fromkeys(front, layer)
        left = {name: place for name, place in left.items() if name not in layers}
    return layers


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)


def joined(points: Mapping[str, Point], key: str, values: Sequence[Any]) -> list[list[str]]:
    """Returns the names that differ in `key` alone, in the order of `values`; a line needs two."""
    lines: dict[str, list[str]] = {}
    for name, point in sorted(points.items(), key=lambda named: values.index(named[1][key])):
        lines.setdefault(repr([value for other, value in point.items() if other != key]), []).append(name)
    return [names for names in lines.values() if len(names) > 1]


def values_of(points: Mapping[str, Point], key: str) -> list[Any]:
    """Returns the values of a key, numbers in their order, others as they come."""
    values: list[Any] = []
    for point in points.values():
        if point[key] not in values:
            values.append(point[key])
    return sorted(values) if all(isinstance(value, (int, float)) for value in values) else values


def _place(row: SystemRow) -> tuple[float, ...] | None:
    place = tuple(row.values[figure].value for figure in (KEPT, LEARNED) if figure in row.values)
    return place if all(map(math.isfinite, place)) else None


def _learned(row: SystemRow) -> float:
    return row.values[LEARNED].value if LEARNED in row.values else math.inf


def _section(sweep: Sweep, known: Mapping[str, Sequence[float]], front: Sequence[str]) -> Section:
    points = {system: sweep.points[system] for system in known}
    names, panels = list(points), []
    for key in next(iter(points.values())):
        values = values_of(points, key)
        if len(values) > 1:
            lines = [[names.index(name) for name in line] for line in joined(points, key, values)]
            panels.append(Panel(key, [text_of(point[key]) for point in points.values()], list(map(text_of, values)), lines))
    if not panels:
        return Section("Only one value of each key is done yet.", [], "Stability against plasticity")
    places = [(100 * kept, 100 * learned) for kept, learned in known.values()]
    labels = ("protected sets: relative change of error, percent", "new sets: relative change, percent")
    shown = "; ".join(f"{name} at {kept:.3g}, {learned:.3g}" for name, (kept, learned) in zip(names, places, strict=True))
    shown = f"Across: {labels[0]}. Up: {labels[1]}. {shown}. On the front: {', '.join(front)}."
    plot = panels_plot(panels, places, [name in front for name in names], labels)
    intro = (
        "Left and down is better on both; where the grey axes cross is the untouched root. Every panel shows the same points: "
        "coloured by one key, joined where only that key differs. Ringed: the Pareto front."
    )
    return Section(intro, [Part(svg=plot, alternative=shown)], "Stability against plasticity")
