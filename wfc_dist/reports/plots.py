"""Plots as SVG text, drawn without a display and without global state. Numbers in, picture out."""

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from wfc_dist.analysis.module_names import place_of
from wfc_dist.evaluation.metrics import Score
from wfc_dist.reports.timeline import PHASES, Span

INK, GREY, SOFT, BLUE, RED = "#1a1a1a", "#8a8a8a", "#e6e6e6", "#1f5fa8", "#b5442e"
CYCLE = ("#1f5fa8", "#c47a1d", "#2f7d4f", "#b5442e", "#6a4c93", "#4a7c8c", "#8c564b", "#7f7f7f")
MARKERS = "os^DvPX*"  # lines differ by more than their colour
STYLE: Any = {
    "font.family": "sans-serif", "font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "wfc_dist", "text.color": INK,
    "axes.edgecolor": GREY, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False,
    "axes.spines.right": False, "axes.titlesize": 9.5, "axes.titlelocation": "left", "legend.frameon": False,
    "axes.prop_cycle": cycler(color=CYCLE), "lines.linewidth": 1.4, "legend.fontsize": 8,
}  # fmt: skip
_TICKS = 16  # bases that are all named on an axis
_COLUMNS = 1500  # of a lane: more than a screen shows
_PHASE_COLORS = dict(zip(PHASES, (*CYCLE, "#b3a125", "#d9d9d9", INK), strict=True))  # waiting recedes


def as_svg(figure: Figure) -> str:
    """Returns the figure as an <svg> element to stand inside HTML."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", pad_inches=0.05, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]  # without the XML declaration


def grid_of(count: int, *, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Returns a figure and `count` axes in rows of `columns`, each `width` x `height` inches."""
    columns = min(columns, count)
    num_rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * num_rows), layout="constrained")
    panels = list(figure.subplots(num_rows, columns, squeeze=False).flat)
    for unused in panels[count:]:
        unused.set_axis_off()
    return figure, panels[:count]


@mpl.rc_context(STYLE)
def changes_plot(pairs: Mapping[str, tuple[Score, Score]], protected: Sequence[str], titles: tuple[str, str]) -> str:
    """Returns a dot per set before and after with both intervals, joined by a line; protected sets below a rule.

    `pairs` is set -> (before, after), from top to bottom; `titles` are those of before and after.
    """
    figure, (axes,) = grid_of(1, columns=1, width=7.2, height=0.9 + 0.34 * len(pairs))
    for position, (name, (before, after)) in enumerate(pairs.items()):
        axes.plot([100 * before.rate, 100 * after.rate], [position, position], color=GREY, linewidth=1, zorder=1)
        for score, offset, color, filled in ((before, -0.13, GREY, False), (after, 0.13, BLUE, True)):
            if score.low is not None and score.high is not None:
                axes.plot([100 * score.low, 100 * score.high], [position + offset] * 2, color=color, linewidth=1, alpha=0.55)
            label, face = titles[int(filled)] if position == 0 else None, color if filled else "white"
            axes.plot(100 * score.rate, position, "o", color=color, markersize=5.5, markerfacecolor=face, label=label, zorder=2)
        if name in protected and list(pairs)[position - 1] not in protected and position:
            axes.axhline(position - 0.5, color=GREY, linewidth=0.7, linestyle=(0, (4, 3)))
    axes.set_yticks(range(len(pairs)), [f"{name} (protected)" if name in protected else name for name in pairs])
    axes.set(xlabel="error in percent", xlim=(0, None), ylim=(len(pairs) - 0.5, -0.5))
    axes.grid(axis="x", color=SOFT, linewidth=0.6)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)
    return as_svg(figure)


@mpl.rc_context(STYLE)
def errors_plot(shares: Mapping[str, Mapping[str, Sequence[float]]], kinds: Sequence[str]) -> str:
    """Returns a panel per set with a stacked bar per model: what its error rate is made of.

    Args:
        shares: Set -> model -> errors of every kind over reference tokens; from left to right, and from top to bottom.
        kinds: Names of the kinds, in the order of the stack.
    """
    num_bars = max(map(len, shares.values()))
    figure, panels = grid_of(len(shares), columns=2, width=4.3, height=0.8 + 0.21 * num_bars)
    for axes, (name, models) in zip(panels, shares.items(), strict=True):
        lefts = [0.0] * len(models)
        for kind, color, of_kind in zip(kinds, CYCLE, zip(*models.values(), strict=True), strict=False):
            widths = [100 * value for value in of_kind]
            axes.barh(range(len(models)), widths, left=lefts, height=0.72, color=color, label=kind)
            lefts = [left + width for left, width in zip(lefts, widths, strict=True)]
        axes.set_yticks(range(len(models)), list(models))
        axes.set(title=name, xlabel="percent of the reference tokens", ylim=(len(models) - 0.5, -0.5))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=len(kinds))
    return as_svg(figure)


@mpl.rc_context(STYLE)
def rounds_plot(rates: Mapping[str, Sequence[tuple[int, float]]], protected: Sequence[str]) -> str:
    """Returns error over bases, one line per set: (base index, rate); protected sets apart."""
    figure, (left, right) = grid_of(2, columns=2, width=4.3, height=3.0)
    for axes, title, chosen in (
        (left, "sets of the rounds", [name for name in rates if name not in protected]),
        (right, "protected sets", [name for name in rates if name in protected]),
    ):
        for name, marker in zip(chosen, itertools.cycle(MARKERS), strict=False):
            points = [(index, 100 * rate) for index, rate in rates[name]]
            axes.plot(*zip(*points, strict=True), marker=marker, markersize=4.5, label=name)
        bases = sorted({index for of_set in rates.values() for index, _ in of_set})
        axes.set(title=title, xlabel="base", ylabel="error in percent", ylim=(0, None))
        if len(bases) <= _TICKS:
            axes.set_xticks(bases)
        if chosen:
            axes.legend(ncols=2 if len(chosen) > 4 else 1)
        else:
            axes.set_axis_off()
    return as_svg(figure)


@dataclass(frozen=True)
class Mark:
    """A point with intervals in both directions: (low, value, high) each; `line` joins it with the marks of the same line."""

    name: str
    x: tuple[float, float, float]
    y: tuple[float, float, float]
    line: str = ""
    strong: bool = False


@mpl.rc_context(STYLE)
def marks_plot(marks: Sequence[Mark], labels: tuple[str, str], *, zero: bool) -> str:
    """Returns points with crosses for their intervals, named beside; marks of one line are joined in the order of x.

    `labels` are those of the x and y axes; `zero` draws both axes through the origin.
    """
    figure, (axes,) = grid_of(1, columns=1, width=7.6, height=5.0)
    for line in sorted({mark.line for mark in marks if mark.line}):
        points = sorted((mark.x[1], mark.y[1]) for mark in marks if mark.line == line)
        axes.plot(*zip(*points, strict=True), color=GREY, linewidth=0.8, zorder=1)
    for number, mark in enumerate(marks):
        color = INK if mark.strong else CYCLE[number % len(CYCLE)]
        axes.plot([mark.x[0], mark.x[2]], [mark.y[1]] * 2, color=color, linewidth=0.8, alpha=0.5, zorder=2)
        axes.plot([mark.x[1]] * 2, [mark.y[0], mark.y[2]], color=color, linewidth=0.8, alpha=0.5, zorder=2)
        axes.plot(mark.x[1], mark.y[1], "o", color=color, markersize=7 if mark.strong else 5, zorder=3)
        axes.annotate(mark.name, (mark.x[1], mark.y[1]), xytext=(5, 4), textcoords="offset points", fontsize=8, color=color)
    if zero:
        axes.axhline(0, color=GREY, linewidth=0.7, zorder=0)
        axes.axvline(0, color=GREY, linewidth=0.7, zorder=0)
    axes.set(xlabel=labels[0], ylabel=labels[1])
    axes.grid(color="#eeeeee", linewidth=0.6)
    return as_svg(figure)


@dataclass(frozen=True)
class Panel:
    """How one key colours points that several panels share.

    Attributes:
        title: The key.
        labels: Its value at each point.
        values: All values, in the order of the colours.
        lines: Indices of points to be joined.
    """

    title: str
    labels: Sequence[str]
    values: Sequence[str]
    lines: Sequence[Sequence[int]]


@mpl.rc_context(STYLE)
def panels_plot(
    panels: Sequence[Panel], points: Sequence[tuple[float, float]], ringed: Sequence[bool], labels: tuple[str, str]
) -> str:
    """Returns the same (x, y) points in every panel, coloured and joined by another key in each; both axes through the origin.

    `ringed` says which points get a ring; `labels` are those of the x and y axes.
    """
    figure, every = grid_of(len(panels), columns=2, width=4.3, height=3.4)
    for axes, panel in zip(every, panels, strict=True):
        for line in panel.lines:
            axes.plot(*zip(*[points[index] for index in line], strict=True), color=GREY, linewidth=0.8, zorder=1)
        for number, value in enumerate(panel.values):
            chosen = [point for point, label in zip(points, panel.labels, strict=True) if label == value]
            axes.plot(*zip(*chosen, strict=True), "o", color=CYCLE[number % len(CYCLE)], markersize=5, label=value, zorder=3)
        if chosen := [point for point, ring in zip(points, ringed, strict=True) if ring]:
            axes.plot(*zip(*chosen, strict=True), "o", color=INK, markersize=9, fillstyle="none", zorder=2)
        axes.axhline(0, color=GREY, linewidth=0.7, zorder=0)
        axes.axvline(0, color=GREY, linewidth=0.7, zorder=0)
        axes.set(title=panel.title, xlabel=labels[0], ylabel=labels[1])
        axes.legend()
    return as_svg(figure)


@mpl.rc_context(STYLE)
def curves_plot(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Returns a panel per adapter: training loss per step (thin) with its running mean, dev loss as dots.

    `curves` is the adapter's name -> the rows of its metrics log.
    """
    figure, panels = grid_of(len(curves), columns=3, width=2.9, height=2.2)
    for axes, (name, rows) in zip(panels, curves.items(), strict=True):
        steps, losses = ([row[key] for row in rows if "loss" in row] for key in ("step", "loss"))
        if steps:
            axes.plot(steps, losses, color=GREY, linewidth=0.7, alpha=0.6)
            axes.plot(steps, running_mean(np.array(losses), max(1, len(losses) // 15)), color=BLUE, label="train")
        if dev := [(row["step"], row["dev_loss"]) for row in rows if "dev_loss" in row]:
            axes.plot(*zip(*dev, strict=True), "o-", color=RED, markersize=3.5, linewidth=1, label="dev")
        axes.set(title=name, xlabel="step", ylabel="loss")
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    return as_svg(figure)


def running_mean(values: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    """Returns the mean of the last `size` values (of fewer at the start), (N,) -> (N,)."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - size)
    means: npt.NDArray[np.float64] = (sums[ends] - sums[starts]) / (ends - starts)
    return means


@mpl.rc_context(STYLE)
def timeline_plot(processes: Mapping[str, Sequence[Span]], phases: Sequence[str]) -> str:
    """Returns a lane per process with a bar per span, one colour per phase.

    Args:
        processes: Process -> spans, outer ones before those inside them.
        phases: Those that occur, in the order of the legend.
    """
    figure, (axes,) = grid_of(1, columns=1, width=8.6, height=0.9 + 0.27 * len(processes))
    last_s = max(span.end_s for spans in processes.values() for span in spans)
    for position, spans in enumerate(processes.values()):
        bars = lane_bars(spans, last_s)
        places, colors = [bar[:2] for bar in bars], [_PHASE_COLORS[bar[2]] for bar in bars]
        axes.broken_barh(places, (position - 0.38, 0.76), facecolors=colors, linewidth=0)
    for phase in phases:
        axes.plot([], [], "s", color=_PHASE_COLORS[phase], label=phase)
    axes.set_yticks(range(len(processes)), list(processes))
    axes.set(xlabel="seconds since the attempt began", xlim=(0, last_s * 1.005), ylim=(len(processes) - 0.4, -0.6))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=8, borderaxespad=0, columnspacing=1.2, handletextpad=0.3)
    return as_svg(figure)


def lane_bars(spans: Sequence[Span], last_s: float) -> list[tuple[float, float, str]]:
    """Returns the bars of a lane, (start, width, phase), without overlap; at most _COLUMNS, however many spans there are.

    Inner spans cover outer ones, which cover what is done beside. What is too short to see is a column wide.
    """
    lane: list[str | None] = [None] * _COLUMNS
    width = last_s / _COLUMNS
    for span in sorted(spans, key=lambda span: not span.beside):
        first = min(int(span.start_s / width), _COLUMNS - 1)
        end = min(max(round(span.end_s / width), first + 1), _COLUMNS)
        lane[first:end] = [span.phase] * (end - first)
    bars, start = [], 0
    for phase, same in itertools.groupby(lane):
        length = len(list(same))
        if phase is not None:
            bars.append((start * width, length * width, phase))
        start += length
    return bars


@mpl.rc_context(STYLE)
def modules_plot(
    series: Mapping[str, Mapping[str, float]], label: str, references: Mapping[str, float] | None = None
) -> str:  # fmt: skip
    """Returns values per module, grouped by kind and projection, from the first layer to the last within a group.

    Args:
        series: Name in the legend -> module -> value; the modules of the first one are drawn.
        label: Names the vertical axis.
        references: Name in the legend -> a horizontal line.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    places = {name: place_of(name) for name in next(iter(series.values()))}
    for name in sorted(places, key=lambda name: places[name][2]):
        groups.setdefault(places[name][:2], []).append(name)
    figure, (axes,) = grid_of(1, columns=1, width=8.6, height=2.7)
    start, ticks = 0, []
    for number, (group, names) in enumerate(sorted(groups.items())):
        spots = range(start, start + len(names))
        for line, (title, values) in enumerate(series.items()):
            drawn, legend = [values.get(name, math.nan) for name in names], None if number else title
            axes.plot(
                spots, drawn, marker=MARKERS[line % len(MARKERS)], markersize=3.2, linewidth=1, color=f"C{line}", label=legend
            )
        ticks.append((start + (len(names) - 1) / 2, "{}\n{}".format(*group)))
        start += len(names) + 1
        if number < len(groups) - 1:
            axes.axvline(start - 1, color=SOFT, linewidth=0.8)
    for (title, value), style in zip((references or {}).items(), ("--", ":", "-."), strict=False):
        axes.axhline(value, color=INK, linewidth=0.9, linestyle=style, label=title)
    axes.set_xticks([spot for spot, _ in ticks], [text for _, text in ticks])
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel(label)
    if all(value >= 0 for values in series.values() for value in values.values()):
        axes.set_ylim(bottom=0)
    axes.legend(ncols=4, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0, columnspacing=1.2)
    return as_svg(figure)
