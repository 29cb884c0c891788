"""Plots of an analysis as SVG text, in the style of the report's plots. Numbers in, picture out."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from wfc_dist.analysis.distributions import LEVELS, PROBABILITIES, Pooled
from wfc_dist.analysis.gaussian import normal_quantiles
from wfc_dist.analysis.loss_line import Line
from wfc_dist.analysis.measure import PairMatrix
from wfc_dist.reports.plots import BLUE, GREY, INK, RED, SOFT, STYLE, as_svg, grid_of

_MOST_LINES = 8  # adapters drawn in one panel
_FARTHEST = 15.0  # quantile that is still drawn, in units of s
_MOST_WRITTEN = 8  # adapters of a matrix whose numbers are written into it


def densities_plot(pooled: Pooled, label: str) -> str:
    """Returns densities of entries before and after averaging, linear and logarithmic, with N(0, s^2) fitted to both."""
    return _density_panels([(pooled, label, False), (pooled, label, True)])


def factors_plot(pooled: Mapping[str, Pooled]) -> str:
    """Returns densities of the entries of lora_A and lora_B, a panel each."""
    return _density_panels([(of_factor, f"entry of {name}", True) for name, of_factor in pooled.items()])


@mpl.rc_context(STYLE)
def _density_panels(shown: Sequence[tuple[Pooled, str, bool]]) -> str:
    figure, panels = grid_of(len(shown), columns=2, width=4.3, height=2.7)
    for axes, (pooled, label, logarithmic) in zip(panels, shown, strict=True):
        _densities(axes, pooled, logarithmic=logarithmic)
        axes.set_xlabel(label)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=6)
    return as_svg(figure)


def _densities(axes: Axes, pooled: Pooled, *, logarithmic: bool) -> None:
    edges = np.array(pooled.edges)
    centers = (edges[1:] + edges[:-1]) / 2
    for name, distribution in itertools.islice(pooled.adapters.items(), _MOST_LINES):
        axes.plot(centers, _seen(distribution.densities), linewidth=1, label=name)
    averaged = _seen(pooled.averaged.densities)
    axes.fill_between(centers, averaged, color=INK, alpha=0.13, linewidth=0)
    axes.plot(centers, averaged, color=INK, linewidth=1.6, label="averaged")
    spread = np.mean([distribution.shapes["as they are"].s for distribution in pooled.adapters.values()])
    for s, color, name in ((spread, GREY, "adapters"), (pooled.averaged.shapes["as they are"].s, RED, "averaged")):
        if s:
            bell = np.exp(-((centers / s) ** 2) / 2) / (s * math.sqrt(2 * math.pi))
            axes.plot(centers, bell, "--", color=color, linewidth=1, label=f"N(0, s^2), {name}")
    axes.locator_params(axis="x", nbins=5)
    axes.set_ylabel("density" + (" (log)" if logarithmic else ""))
    if logarithmic:
        top = max(max(distribution.densities) for distribution in (*pooled.adapters.values(), pooled.averaged))
        axes.set(yscale="log", ylim=(top / 1e6, 2 * top))
    else:
        axes.set_ylim(bottom=0)


def _seen(densities: Sequence[float]) -> Any:
    values = np.array(densities)
    return np.where(values > 0, values, np.nan)


@mpl.rc_context(STYLE)
def qq_plot(pooled: Pooled) -> str:
    """Returns quantiles of entries / s against those of N(0, 1), a panel per level of standardization."""
    figure, panels = grid_of(len(LEVELS), columns=3, width=2.9, height=2.7)
    x = normal_quantiles(PROBABILITIES)
    drawn = [*itertools.islice(pooled.adapters.values(), _MOST_LINES), pooled.averaged]
    sizes = [abs(value) for distribution in drawn for values in distribution.quantiles.values() for value in values]
    limit = max([5.0, *(size for size in sizes if size < _FARTHEST)])
    titles = {"as they are": "all modules as they are", "per module": "each module / its s", "per row": "each row / its s"}
    for axes, level in zip(panels, LEVELS, strict=True):
        axes.plot(x, x, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
        for name, distribution in itertools.islice(pooled.adapters.items(), _MOST_LINES):
            axes.plot(x, distribution.quantiles[level], linewidth=1, label=name)
        axes.plot(x, pooled.averaged.quantiles[level], color=INK, linewidth=1.6, label="averaged")
        axes.set(title=titles[level], xlabel="quantile of N(0, 1)", ylabel="quantile of entry / s", ylim=(-limit, limit))
        axes.grid(color=SOFT, linewidth=0.6)
    panels[0].legend(loc="upper left")
    return as_svg(figure)


@mpl.rc_context(STYLE)
def matrices_plot(matrices: Mapping[str, tuple[PairMatrix, float, float]], names: Sequence[str]) -> str:
    """Returns a square of pairs of adapters for each measure: title -> (values, what is white, what is full colour)."""
    side = min(len(names), 12)
    figure, panels = grid_of(len(matrices), columns=4, width=0.9 + 0.35 * side, height=0.8 + 0.32 * side)
    for position, (axes, (title, (values, white, full))) in enumerate(zip(panels, matrices.items(), strict=True)):
        centers = range(len(names))
        axes.pcolormesh(centers, centers, values, cmap="RdBu", vmin=2 * white - full, vmax=full, shading="nearest")
        axes.invert_yaxis()
        axes.set_aspect("equal")
        if len(names) <= _MOST_WRITTEN:
            for row, column in itertools.product(range(len(names)), repeat=2):
                value = values[row][column]
                color = "white" if abs(value - white) > 0.6 * abs(full - white) else INK
                axes.text(column, row, f"{round(value, 2) + 0.0:.2f}", ha="center", va="center", fontsize=7.5, color=color)
        axes.set_title(title)
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), [] if position else names)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    return as_svg(figure)


@mpl.rc_context(STYLE)
def shrinkage_plot(curves: Mapping[str, Sequence[tuple[int, float]]], own: str, active: float) -> str:
    """Returns the total shrinkage by weight decay in percent over the steps, one line per decay, the run's `own` thick."""
    figure, (axes,) = grid_of(1, columns=1, width=4.6, height=2.7)
    for label, points in curves.items():
        steps, values = zip(*[(step, 100 * value) for step, value in points[1:]], strict=True)
        color, width = (BLUE, 2.0) if label == own else (GREY, 1.0)
        axes.plot(steps, values, color=color, linewidth=width)
        end = (steps[-1], values[-1])
        axes.annotate(label, end, xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.axhline(100 * active, color=RED, linewidth=0.9, linestyle="--")
    axes.annotate(f"active from {active:.0%}", (0.02, 100 * active), xycoords=("axes fraction", "data"), xytext=(0, 3),
                  textcoords="offset points", color=RED, fontsize=8)  # fmt: skip
    axes.set(xlabel="step", ylabel="total shrinkage in percent", yscale="log", ylim=(None, 300))
    return as_svg(figure)


@mpl.rc_context(STYLE)
def line_plot(line: Line) -> str:
    """Returns loss over alpha, sets of the rounds and protected sets apart; the lowest point of each set is marked."""
    chosen = {
        "sets of the rounds": [name for name in line.losses if name not in line.protected],
        "protected sets": [name for name in line.losses if name in line.protected],
    }
    shown = {title: names for title, names in chosen.items() if names}
    figure, panels = grid_of(len(shown), columns=2, width=4.3, height=3.0)
    for axes, (title, names) in zip(panels, shown.items(), strict=True):
        for name in names:
            change = [100 * (value / line.losses[name][0] - 1) for value in line.losses[name]]
            (drawn,) = axes.plot(line.alphas, change, marker="o", markersize=2.5, label=name)
            lowest = min(range(len(change)), key=change.__getitem__)
            axes.plot(line.alphas[lowest], change[lowest], "o", markersize=7, markerfacecolor="none", color=drawn.get_color())
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.axvline(1, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
        alpha = f"alpha (0: base {line.round_index - 1}, 1: base {line.round_index})"
        axes.set(title=title, xlabel=alpha, ylabel="change of loss in percent")
        axes.legend(ncols=2 if len(names) > 4 else 1)
    return as_svg(figure)
