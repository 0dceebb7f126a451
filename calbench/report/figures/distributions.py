"""Distributions: of a metric over the images, and of predictive entropy in and out of distribution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from calbench.evaluate import EntropyBin, Value
from calbench.metrics import METRICS
from calbench.report.figures.labels import estimate, estimated, headed, legend_below, named, say_left_out
from calbench.report.style import COLUMN, GREY, INK, OVER, PAPER, TEXT, UNDER, Look, new_figure, plain, tidy
from calbench.statistics.reliability import divide
from calbench.statistics.rows import Array

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_DOTS = 300
"""Images from which on each is no dot of its own."""
SPREADS = ((0.0, 1.0, 0.8), (0.05, 0.95, 2.0), (0.25, 0.75, 5.0))
"""Shares of the images between which lines are drawn, and their widths in points: all, nine tenths, half of them."""
INSIDE = "in distribution"
_DASHES = ("-", (0, (4, 1.5)), (0, (1, 1.2)))


def per_image_distribution(
    values: Mapping[str, Array], means: Mapping[str, Value], looks: Mapping[str, Look], ax: Axes
) -> Axes:
    """A metric over the images, a row a method: lines over half, nine tenths and all of them, median and mean.

    The white tick is the median, the diamond the mean, which is also written out. With fewer than 300 images each is a
    dot. Images without a value are left out, and counted at the right.

    Args:
        values: for each method, the metric of each image, `(images,)`.
        means: of each method, over the images, as in the table.
        looks: of the methods.
        ax: to draw on.
    """
    jitter = np.random.default_rng(0)
    for row, (name, column) in enumerate(values.items()):
        known = column[np.isfinite(column)]
        said: dict[str, Any] = {
            "transform": ax.get_yaxis_transform(),
            "fontsize": TEXT - 0.5,
            "color": INK,
            "va": "center",
        }
        ax.text(0.01, row - 0.28, f"{named(name)}   {estimate(means[name])}", **said)
        if means[name].n_undefined:
            ax.text(1, row - 0.28, f"{means[name].n_undefined} undefined", ha="right", **said)
        if not len(known):
            continue
        colour = looks[name].colour
        for low, high, width in SPREADS:
            ends = np.quantile(known, (low, high))
            ax.plot(ends, [row, row], color=colour, linewidth=width, solid_capstyle="butt", zorder=3)
        ax.plot([np.median(known)], [row], "|", color=PAPER, markersize=4, markeredgewidth=1.2, zorder=4)
        ax.plot([means[name].value], [row], "D", color=PAPER, markersize=3, markeredgecolor=INK, markeredgewidth=0.7,
                zorder=5)  # fmt: skip
        if len(known) < MOST_DOTS:
            # as an image: thousands of circles would make a large vector file
            ax.scatter(known, row + jitter.uniform(0.14, 0.4, len(known)), s=3, color=colour, alpha=0.4, linewidth=0,
                       rasterized=True)  # fmt: skip
    ax.set_yticks([])
    ax.set_ylim(len(values) - 0.5, -0.5)
    if min((np.nanmin(column, initial=0) for column in values.values()), default=0) == 0:
        ax.set_xlim(left=0)
    ax.set_xlabel(f"{METRICS[next(iter(means.values())).metric].heading} of each image")
    ax.grid(axis="x", color=GREY, linewidth=0.4, alpha=0.6)
    tidy(ax).spines["left"].set_visible(False)
    return ax


def entropy_histograms(
    inside: Mapping[str, Sequence[EntropyBin]],
    outside: Mapping[str, Sequence[EntropyBin]],
    ax: Axes,
    *,
    floor: float | None = None,
) -> Axes:
    """Share of the pixels by predictive entropy, in one colour in distribution, in another out of distribution.

    The shares of each set add up to 1; their axis is logarithmic, since dense maps crowd the left end. Sets of one colour
    differ in their dashes.

    Args:
        inside, outside: name of a data set -> the bins that `Evaluator.entropy_histogram` gives, edges in nats.
        ax: to draw on.
        floor: where the axis of shares starts; None for half the smallest share.
    """
    from matplotlib.ticker import LogLocator

    floor = lowest_share([*inside.values(), *outside.values()]) if floor is None else floor
    empty = []
    for sets, colour in ((inside, UNDER), (outside, OVER)):
        for (name, bins), dash in zip(sets.items(), cycle(_DASHES)):
            if not any(b.n for b in bins):
                empty.append(name)
                continue
            # a logarithmic axis has no zero: empty bins end where the axis does
            heights = np.maximum(_shares(bins), floor)
            edges = [bins[0].low_edge, *(b.high_edge for b in bins)]
            ax.stairs(heights, edges, baseline=floor, fill=True, facecolor=(colour, 0.25), edgecolor=colour,
                      linestyle=dash, linewidth=1, label=plain(name))  # fmt: skip
            ax.set_xlim(0, edges[-1])
    ax.set_yscale("log")
    ax.set_ylim(floor, 1)
    ax.yaxis.set_major_locator(LogLocator(numticks=6))
    ax.minorticks_off()
    ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    ax.set(xlabel="predictive entropy (nats)", ylabel="pixels")
    say_left_out(ax, "no pixels", empty)
    return tidy(ax)


def lowest_share(histograms: Sequence[Sequence[EntropyBin]]) -> float:
    """Half the smallest share of the pixels in any bin that holds some."""
    return min((float(s) for bins in histograms for s in _shares(bins) if s > 0), default=0.02) / 2


def distribution_figure(
    title: str, values: Mapping[str, Array], means: Mapping[str, Value], looks: Mapping[str, Look], level: float
) -> Figure:
    """A metric over the images of one data set, a row a method, with the mean of the table and its interval.

    Args:
        title: of the figure.
        values: for each method, the metric of each image, `(images,)`.
        means: of each method, over the images, as in the table.
        looks: of the methods.
        level: of the intervals.
    """
    figure = new_figure(COLUMN, 0.95 + 0.42 * len(values))
    ax = per_image_distribution(values, means, looks, figure.subplots())
    ax.set_title(f"mean {estimated(means.values(), level)}", loc="left", color=INK, fontsize=TEXT)
    headed(figure, title)
    return figure


def entropy_figure(
    title: str, panels: Mapping[str, tuple[Sequence[EntropyBin], Mapping[str, Sequence[EntropyBin]]]]
) -> Figure:
    """Predictive entropy in and out of distribution, a panel a method, on axes of one scale.

    Args:
        title: of the figure.
        panels: method -> bins of the data set, and of each out-of-distribution set by its name.
    """
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    figure = new_figure(COLUMN, 0.9 + (1.7 if columns == 1 else rows))
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    floor = lowest_share([bins for inside, outside in panels.values() for bins in (inside, *outside.values())])
    steps: dict[str, Artist] = {}
    for place, (ax, (name, (inside, outside))) in enumerate(zip(axes, panels.items(), strict=False)):
        entropy_histograms({INSIDE: inside}, outside, ax, floor=floor)
        ax.set_title(named(name, 22), fontsize=TEXT + 0.5, color=INK)
        steps |= {str(patch.get_label()): patch for patch in ax.patches}
        if place % columns:
            ax.set_ylabel("")
        if place + columns < len(panels):  # the same as beneath, but for what is not drawn
            ax.set_xlabel(ax.get_xlabel().partition("\n")[2])
            ax.tick_params(labelbottom=False)
    for ax in axes[len(panels) :]:
        ax.remove()
    headed(figure, title)
    legend_below(figure, list(steps.values()), list(steps), "", columns=2)
    return figure


def _shares(bins: Sequence[EntropyBin]) -> Array:
    """Share of the pixels in each bin; NaN without pixels."""
    counts = np.array([b.n for b in bins])
    return divide(counts, counts.sum())
