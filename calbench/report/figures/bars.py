"""Regions: a metric in each region of the images, methods side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from calbench.evaluate import Value
from calbench.metrics import METRICS
from calbench.report.figures.labels import estimated, headed, legend_below, named, say_left_out
from calbench.report.style import COLUMN, GREY, INK, Look, new_figure, plain, tidy
from calbench.statistics.bundle import ALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REGION_NAMES = {
    ALL: "all pixels",
    "boundary": "boundary",
    "interior": "interior",
    "interior_fg": "interior,\nforeground",
    "interior_bg": "interior,\nbackground",
    "size_q1": "quarter 1\n(smallest)",
    "size_q2": "quarter 2",
    "size_q3": "quarter 3",
    "size_q4": "quarter 4\n(largest)",
}
"""How regions are written beside an axis; others keep their names. Quarters are of images, by share of foreground."""


def region_bars(values: Mapping[str, Mapping[str, Value]], looks: Mapping[str, Look], ax: Axes, *, metric: str) -> Axes:
    """A metric in each region, a band a region: a point a method, its interval as a line.

    Args:
        values: method -> region -> the value there. Regions appear in the order in which they are first met.
        looks: of the methods.
        ax: to draw on.
        metric: name of the values.
    """
    regions = list(dict.fromkeys(region for of_method in values.values() for region in of_method))
    offsets = (np.arange(len(values)) - (len(values) - 1) / 2) * 0.8 / len(values)
    undefined = []
    for offset, (name, of_method) in zip(offsets, values.items(), strict=True):
        shown = {region: value for region, value in of_method.items() if np.isfinite(value.value)}
        undefined += [f"{name} {region}" for region in regions if region not in shown]
        points = np.array([(v.value, regions.index(r) + offset) for r, v in shown.items()]).reshape(-1, 2)
        look = looks[name]
        with_interval = {r: v for r, v in shown.items() if np.isfinite(v.low)}
        ax.hlines([regions.index(r) + offset for r in with_interval], [v.low for v in with_interval.values()],
                  [v.high for v in with_interval.values()], color=look.colour, linewidth=1, zorder=2)  # fmt: skip
        ax.plot(*points.T, look.marker, color=look.colour, markersize=3, label=plain(name), zorder=3)
    for row in range(0, len(regions), 2):
        ax.axhspan(row - 0.5, row + 0.5, color=GREY, alpha=0.25, linewidth=0, zorder=0)
    ax.set_yticks(range(len(regions)), [REGION_NAMES.get(region, plain(region)) for region in regions])
    ax.set_ylim(len(regions) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.axvline(0, color=INK, linewidth=0.8, zorder=1)
    ax.set_xlabel(METRICS[metric].heading)
    ax.grid(axis="x", color=GREY, linewidth=0.4, alpha=0.6)
    tidy(ax).spines["left"].set_visible(False)
    say_left_out(ax, "undefined", undefined)
    return ax


def region_figure(
    title: str, metric: str, values: Mapping[str, Mapping[str, Value]], looks: Mapping[str, Look], level: float
) -> Figure:
    """A metric in each region, with the methods beneath.

    Args:
        title: of the figure.
        metric: name of the values.
        values: method -> region -> the value there.
        looks: of the methods.
        level: of the intervals.
    """
    regions = {region for of_method in values.values() for region in of_method}
    legend_rows = -(-len(values) // 2)
    figure = new_figure(COLUMN, 0.9 + 0.125 * legend_rows + len(regions) * max(0.28, 0.08 * len(values)))
    ax = region_bars(values, looks, figure.subplots(), metric=metric)
    headed(figure, title)
    points = {line.get_label(): line for line in ax.get_lines()}
    shown = [value for of_method in values.values() for value in of_method.values()]
    legend_below(figure, [points[plain(name)] for name in values], [named(name) for name in values],
                 estimated(shown, level), columns=2)  # fmt: skip
    return figure
