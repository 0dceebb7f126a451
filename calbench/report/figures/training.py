"""Training: learning curves over seeds, and the perturbation that adaptive methods gave each image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from calbench.report.figures.labels import headed, legend_below, named, say_left_out
from calbench.report.style import COLUMN, GREY, INK, TEXT, Look, new_figure, number_of, plain, tidy
from calbench.seeds import Alphas, Band

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 20
_PANEL = 1.35  # inches


def learning_curve(bands: Mapping[str, Band], looks: Mapping[str, Look], ax: Axes) -> Axes:
    """A quantity against the epoch: a line a method, the mean over its seeds, the range over them shaded.

    Args:
        bands: for each method, what `calbench.seeds.learning_curves` gives.
        looks: of the methods.
        ax: to draw on.

    >>> from calbench.report.style import looks, new_figure
    >>> band = Band(np.array([1, 2]), np.array([0.7, 0.4]), np.array([0.6, 0.3]), np.array([0.8, 0.5]))
    >>> learning_curve({"bce": band}, looks(["bce"]), new_figure().subplots()).get_xlabel()
    'epoch'
    """
    from matplotlib.ticker import MaxNLocator

    for name, band in bands.items():
        look = looks[name]
        ax.fill_between(band.epoch, band.low, band.high, color=look.colour, alpha=0.18, linewidth=0, zorder=2)
        ax.plot(band.epoch, band.mean, color=look.colour, linestyle=look.dash, linewidth=1.1, label=plain(name),
                marker=look.marker if len(band.epoch) == 1 else "", markersize=4, zorder=3)  # fmt: skip
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("epoch")
    ax.grid(color=GREY, linewidth=0.4, alpha=0.6)
    return tidy(ax)


def alpha_histogram(alphas: Alphas, look: Look, ax: Axes, *, top: float) -> Axes:
    """Share of the training images by their perturbation probability, in 20 bins from 0 to `top`.

    Args:
        alphas: of a method.
        look: of the method.
        ax: to draw on.
        top: right end of the axis, at least the largest alpha and above 0.
    """
    counts, edges = np.histogram(alphas.alpha, BINS, (0, top))
    ax.stairs(
        counts / counts.sum(), edges, fill=True, facecolor=(look.colour, 0.35), edgecolor=look.colour, linewidth=0.8
    )
    ax.set(xlim=(0, top), ylim=(0, None), xlabel="α", ylabel="images")
    ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    return tidy(ax)


def alpha_by_difficulty(alphas: Alphas, look: Look, ax: Axes, *, top: float) -> Axes:
    """A dot a training image: its perturbation probability against its loss; images never visited are left out.

    Args:
        alphas: of a method.
        look: of the method.
        ax: to draw on.
        top: upper end of the axis, at least the largest alpha and above 0.
    """
    # as an image: thousands of circles would make a large vector file
    ax.scatter(
        alphas.loss, alphas.alpha, s=5, color=look.colour, alpha=0.4, linewidth=0, clip_on=False, rasterized=True
    )
    ax.set(ylim=(0, top), xlabel="image loss (nats)", ylabel="α")
    ax.grid(color=GREY, linewidth=0.4, alpha=0.6)
    return tidy(ax)


def learning_curves_figure(title: str, curves: Mapping[str, Mapping[str, Band]], looks: Mapping[str, Look]) -> Figure:
    """Learning curves of all methods, a panel a quantity, below one another, with the methods beneath.

    Args:
        title: of the figure.
        curves: quantity, as its axis names it -> method -> its band; at least one of each.
        looks: of the methods.
    """
    methods = list(dict.fromkeys(name for bands in curves.values() for name in bands))
    figure = new_figure(COLUMN, 0.6 + _PANEL * len(curves) + 0.125 * -(-len(methods) // 2))
    axes = figure.subplots(len(curves), sharex=True, squeeze=False).ravel()
    lines: dict[object, Artist] = {}
    for ax, (quantity, bands) in zip(axes, curves.items(), strict=True):
        learning_curve(bands, looks, ax).set_ylabel(quantity)
        lines |= {line.get_label(): line for line in ax.get_lines()}
        if ax is not axes[-1]:
            ax.set_xlabel("")
        say_left_out(ax, "no value", [name for name in methods if name not in bands])
    figure.align_ylabels(list(axes))
    headed(figure, title)
    legend_below(figure, [lines[plain(name)] for name in methods], [named(name) for name in methods], "", columns=2)
    return figure


def alpha_figure(title: str, alphas: Mapping[str, Alphas], looks: Mapping[str, Look]) -> Figure:
    """Two panels a method: how the perturbation probabilities are spread, and how they go with the difficulty of images.

    Args:
        title: of the figure.
        alphas: of each adaptive method, at least one.
        looks: of the methods.
    """
    figure = new_figure(COLUMN, 0.45 + (_PANEL + 0.25) * len(alphas))
    axes = figure.subplots(len(alphas), 2, squeeze=False)
    # without any perturbation the whole range says so better than an axis around 0
    top = max(float(of.alpha.max()) for of in alphas.values()) or 1.0
    for row, (name, of), (left, right) in zip(range(len(alphas)), alphas.items(), axes, strict=True):
        alpha_histogram(of, looks[name], left, top=top)
        alpha_by_difficulty(of, looks[name], right, top=top)
        left.set_title(f"{named(name, 24)}\n{number_of(len(of.alpha), 'value')}, mean {of.alpha.mean():.4f}",
                       fontsize=TEXT, color=INK, loc="left")  # fmt: skip
        known = np.isfinite(of.rank_correlation)
        right.set_title(f"ρ = {of.rank_correlation:z.2f}".replace("-", "−") if known else "ρ undefined",
                        fontsize=TEXT, color=INK, loc="left")  # fmt: skip
        if row < len(alphas) - 1:
            left.set_xlabel("")
            right.set_xlabel("")
    return headed(figure, title)
