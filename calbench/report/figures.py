"""Figures: functions of numbers and axes that return the axes; nothing here computes a statistic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from calbench.evaluate import ReliabilityBin, Value
from calbench.io.files import atomic
from calbench.statistics.histogram import Event

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OVER = "#D55E00"
UNDER = "#0072B2"
ACCURACY = "#C8CDD3"
INK = "#26313D"
"""Okabe-Ito vermilion and blue, which colour-blind readers tell apart, on neutral greys."""

AXIS_NAMES: dict[Event, tuple[str, str]] = {
    "top-label": ("confidence (largest probability)", "accuracy"),
    "foreground": ("foreground probability p", "share of foreground"),
}

CAPTIONS = {"ece": "top-label ECE", "ece_fg": "foreground ECE", "aslp_ece": "ECE of the ASLP scripts"}

GAP_NAMES: dict[Event, tuple[str, str]] = {
    "top-label": ("overconfident", "underconfident"),
    "foreground": ("p too high", "p too low"),
}


def reliability_diagram(bins: Sequence[ReliabilityBin], ax: Axes) -> Axes:
    """Accuracy of each bin as a bar with its interval, the gap to the mean score on top, coloured by sign.

    Empty bins stay blank. The mean score is where the gap ends, not the bin's centre.
    """
    filled = [b for b in bins if b.n]
    left = np.array([b.low_edge for b in filled])
    width = np.array([b.high_edge - b.low_edge for b in filled])
    accuracy, score = np.array([b.accuracy for b in filled]), np.array([b.confidence for b in filled])
    low, high = np.array([b.low for b in filled]), np.array([b.high for b in filled])
    ax.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=3.5)
    ax.bar(left, accuracy, width, align="edge", color=ACCURACY, edgecolor="white", linewidth=0.6, zorder=2)
    over = score > accuracy
    names = GAP_NAMES[bins[0].event]
    for mask, colour, label in ((over, OVER, names[0]), (~over, UNDER, names[1])):
        if not mask.any():
            continue
        ax.bar(left[mask], (score - accuracy)[mask], width[mask], accuracy[mask], align="edge", color=colour, alpha=0.55,
               edgecolor=colour, linewidth=0.8, label=label, zorder=3)  # fmt: skip
    shown = np.isfinite(low)
    limits = np.clip(np.stack([accuracy - low, high - accuracy]), 0, None)[:, shown]
    ax.errorbar((left + width / 2)[shown], accuracy[shown], limits, fmt="none", ecolor=INK, elinewidth=1, capsize=1.8,
                capthick=1, zorder=4)  # fmt: skip
    ax.set_xlim(_start(bins), 1)
    ax.set_ylim(0, 1)
    ax.set_ylabel(AXIS_NAMES[bins[0].event][1])
    _tidy(ax)
    return ax


def score_histogram(bins: Sequence[ReliabilityBin], ax: Axes) -> Axes:
    """Share of the pixels in each bin, on a logarithmic axis: dense maps crowd the ends."""
    total = sum(b.n for b in bins)
    filled = [b for b in bins if b.n]
    share = [b.n / total for b in filled]
    ax.bar([b.low_edge for b in filled], share, [b.high_edge - b.low_edge for b in filled], align="edge", color=INK,
           alpha=0.75, edgecolor="white", linewidth=0.6)  # fmt: skip
    from matplotlib.ticker import LogLocator

    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(numticks=6))
    ax.set_ylim(min([*share, 0.01]) / 2, 1)
    ax.set_xlim(_start(bins), 1)
    ax.set_xlabel(AXIS_NAMES[bins[0].event][0])
    ax.set_ylabel("pixels")
    ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    ax.minorticks_off()
    _tidy(ax)
    return ax


def save_reliability_diagram(
    path: Path,
    title: str,
    diagrams: Mapping[Event, tuple[Sequence[ReliabilityBin], Value]],
    *,
    level: float,
    counted: tuple[str, str] = ("images", "pixels"),
) -> None:
    """A PNG with one panel an event: diagram above, histogram below, the error with its interval as heading.

    Args:
        level: of the intervals.
        counted: what rows are, and what is in the bins.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [(bins, error) for bins, error in diagrams.values() if any(b.n for b in bins)]
    figure = Figure(figsize=(3.5 * max(len(panels), 1), 4.1), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, max(len(panels), 1), squeeze=False, height_ratios=(3.2, 1))
    for (top, below), (bins, error) in zip(axes.T, panels, strict=False):
        reliability_diagram(bins, top)
        score_histogram(bins, below).set_ylabel(counted[1])
        top.tick_params(labelbottom=False)
        top.set_title(_caption(error, bins, level, counted), fontsize=7.5, color=INK, loc="left")
        top.legend(loc=_legend_place(bins), fontsize=7, frameon=True, framealpha=0.9, edgecolor="none")
    figure.suptitle(title, fontsize=10, color=INK)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=200, format="png", metadata={"Software": None})


def _caption(error: Value, bins: Sequence[ReliabilityBin], level: float, counted: tuple[str, str]) -> str:
    name = CAPTIONS.get(error.metric, error.metric)
    interval = f"  [{error.low:.4f}, {error.high:.4f}]  ({100 * level:g} %)" if np.isfinite(error.low) else ""
    pixels = f"{sum(b.n for b in bins):,}".replace(",", "\u2009")
    return f"{name} {error.value:.4f}{interval}\n{len(bins)} bins, {error.n_images} {counted[0]}, {pixels} {counted[1]}"


def _legend_place(bins: Sequence[ReliabilityBin]) -> str:
    """The lower right, over plain bars, unless accuracy falls so low there that the legend would hide its interval."""
    middle = (_start(bins) + 1) / 2
    lowest = min((min(b.accuracy, b.confidence) for b in bins if b.n and b.high_edge > middle), default=0.0)
    return "lower right" if lowest > 0.3 else "best"


def _start(bins: Sequence[ReliabilityBin]) -> float:
    """Left end of the axis: confidence never falls below one half."""
    return min((b.low_edge for b in bins if b.n), default=0.0) if bins[0].event == "top-label" else 0.0


def _tidy(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=7, colors=INK)
    ax.xaxis.label.set_fontsize(8)
    ax.yaxis.label.set_fontsize(8)
    for label in (ax.xaxis.label, ax.yaxis.label):
        label.set_color(INK)
        label.set_fontsize(8)
