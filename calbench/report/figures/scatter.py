"""One metric against another, over methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from calbench.evaluate import Value
from calbench.metrics import METRICS
from calbench.report.figures.labels import headed, legend_below, named, say_left_out
from calbench.report.style import COLUMN, GREY, PAPER, Look, new_figure, plain, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def error_scatter(points: Mapping[str, tuple[Value, Value]], looks: Mapping[str, Look], ax: Axes) -> Axes:
    """A point a method, with the intervals of both its metrics as a cross.

    Args:
        points: method -> its value of the metric along x, for example MAE, and of the one along y, for example ECE.
        looks: of the methods.
        ax: to draw on.
    """
    shown = {name: pair for name, pair in points.items() if np.isfinite([value.value for value in pair]).all()}
    for name, (x, y) in shown.items():
        look = looks[name]
        if np.isfinite(x.low):
            ax.hlines(y.value, x.low, x.high, color=look.colour, linewidth=0.8, alpha=0.7, zorder=2)
        if np.isfinite(y.low):
            ax.vlines(x.value, y.low, y.high, color=look.colour, linewidth=0.8, alpha=0.7, zorder=2)
        ax.plot([x.value], [y.value], look.marker, color=look.colour, markersize=5.5, markeredgecolor=PAPER,
                markeredgewidth=0.6, label=plain(name), zorder=3)  # fmt: skip
    for x, y in list(points.values())[:1]:
        ax.set(xlabel=METRICS[x.metric].heading, ylabel=METRICS[y.metric].heading)
    ax.grid(color=GREY, linewidth=0.4, alpha=0.6)
    say_left_out(ax, "undefined", [name for name in points if name not in shown])
    return tidy(ax)


def scatter_figure(
    title: str, points: Mapping[str, tuple[Value, Value]], looks: Mapping[str, Look], level: float
) -> Figure:
    """One metric against another, with the methods beneath.

    Args:
        title: of the figure.
        points: method -> its values of the two metrics.
        looks: of the methods.
        level: of the intervals.
    """
    figure = new_figure(COLUMN, 2.6 + 0.125 * -(-len(points) // 2))
    ax = error_scatter(points, looks, figure.subplots())
    headed(figure, title)
    lines = {line.get_label(): line for line in ax.get_lines()}
    shown = [name for name in points if plain(name) in lines]
    limited = any(np.isfinite(value.low) for name in shown for value in points[name])
    legend_below(figure, [lines[plain(name)] for name in shown], [named(name) for name in shown],
                 f"lines: {100 * level:g} % intervals" if limited else "", columns=2)  # fmt: skip
    return figure
