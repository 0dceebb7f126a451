"""Reliability: the diagram of one event, several methods overlaid, and a panel for each class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from calbench.evaluate import ReliabilityBin, Value
from calbench.io.files import atomic
from calbench.report.figures.labels import estimate, headed, named
from calbench.report.style import (
    COLUMN,
    GREY,
    INK,
    OVER,
    PAPER,
    TEXT,
    UNDER,
    Look,
    new_figure,
    number_of,
    plain,
    rendered,
    tidy,
)
from calbench.statistics.histogram import Event

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXIS_NAMES: dict[Event | Literal["class"], tuple[str, str]] = {
    "top-label": ("confidence (largest probability)", "accuracy"),
    "foreground": ("foreground probability p", "share of foreground"),
    "class": ("probability p of the class", "share of the class"),
}

CAPTIONS = {
    "ece": "top-label ECE",
    "ece_fg": "foreground ECE",
    "ece_classwise": "class-wise ECE",
    "aslp_ece": "ASLP's ECE",
}

GAP_NAMES: dict[Event | Literal["class"], tuple[str, str]] = {
    "top-label": ("overconfident", "underconfident"),
    "foreground": ("p too high", "p too low"),
    "class": ("p too high", "p too low"),
}

PIXELS = ("images", "pixels")
"""What rows are and what is in the bins, unless they come from a table."""

MOST_CLASSES = 20
"""Panels that a page holds in a readable size."""
_PANELS_A_ROW = 5
_FEW_METHODS = 5
_LETTERS = 56
"""Letters of the size of labels that stand side by side in a column."""


def reliability_diagram(bins: Sequence[ReliabilityBin], ax: Axes) -> Axes:
    """Accuracy of each bin as a bar with its interval, the gap to the mean score on top, coloured by sign.

    Empty bins stay blank. The mean score is where the gap ends, not the bin's centre.
    """
    filled = [b for b in bins if b.n]
    left = np.array([b.low_edge for b in filled])
    width = np.array([b.high_edge - b.low_edge for b in filled])
    accuracy, score = np.array([b.accuracy for b in filled]), np.array([b.confidence for b in filled])
    low, high = np.array([b.low for b in filled]), np.array([b.high for b in filled])
    ax.bar(left, accuracy, width, align="edge", color=GREY, edgecolor=PAPER, linewidth=0.6, zorder=2)
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
    return _frame(ax, bins[0].event, _start(bins))


def score_histogram(bins: Sequence[ReliabilityBin], ax: Axes) -> Axes:
    """Share of the pixels in each bin, on a logarithmic axis: dense maps crowd the ends."""
    from matplotlib.ticker import LogLocator

    total = sum(b.n for b in bins)
    filled = [b for b in bins if b.n]
    share = [b.n / total for b in filled]
    ax.bar([b.low_edge for b in filled], share, [b.high_edge - b.low_edge for b in filled], align="edge", color=INK,
           alpha=0.75, edgecolor=PAPER, linewidth=0.6)  # fmt: skip
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(numticks=6))
    ax.set_ylim(min([*share, 0.01]) / 2, 1)
    ax.set_xlim(_start(bins), 1)
    ax.set_xlabel(AXIS_NAMES[bins[0].event][0])
    ax.set_ylabel("pixels")
    ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    ax.minorticks_off()
    return tidy(ax)


def reliability_overlay(
    series: Mapping[str, Sequence[ReliabilityBin]], looks: Mapping[str, Look], ax: Axes, *, legend: bool = True
) -> Axes:
    """A line for each method through the mean score and accuracy of its filled bins, its intervals as a band.

    Empty bins break line and band; a bin between empty ones has a stroke for a band.

    Args:
        series: bins of each method, of one event.
        looks: of these methods.
        legend: inside the axes; beneath them for more than five methods.
    """
    for name, bins in series.items():
        look = looks[name]
        score, accuracy, low, high = (
            np.array([getattr(b, field) if b.n else np.nan for b in bins])
            for field in ("confidence", "accuracy", "low", "high")
        )
        ax.plot(score, accuracy, color=look.colour, linestyle=look.dash, marker=look.marker, linewidth=1.2, markersize=3,
                markeredgecolor=PAPER, markeredgewidth=0.3, zorder=3)  # fmt: skip
        alpha = 0.2 if len(series) <= _FEW_METHODS else 0.1
        ax.fill_between(score, low, high, color=look.colour, alpha=alpha, linewidth=0, zorder=2)
        padded = np.pad(np.isfinite(low), 1)
        alone = padded[1:-1] & ~padded[:-2] & ~padded[2:]
        ax.vlines(score[alone], low[alone], high[alone], color=look.colour, alpha=2 * alpha, linewidth=2, zorder=2)
    first = next(iter(series.values()))
    if legend:
        few = len(series) <= _FEW_METHODS
        place: dict[str, Any] = (
            {"loc": "best"} if few else {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": 2}
        )
        lines = ax.get_lines()[: len(series)]  # handed over, since a name may start as labels that legends leave out
        ax.legend(
            lines,
            [plain(name) for name in series],
            fontsize=TEXT,
            framealpha=0.9,
            edgecolor="none",
            labelcolor=INK,
            **place,
        )
    ax.set_xlabel(AXIS_NAMES[first[0].event][0])
    return _frame(ax, first[0].event, min(_start(bins) for bins in series.values()))


def reliability_figure(
    title: str, bins: Sequence[ReliabilityBin], error: Value, level: float, counted: tuple[str, str] = PIXELS
) -> Figure:
    """The diagram of one event, one column wide: bins above, histogram beneath, the error they add up to as heading.

    Args:
        title: without formatting.
        bins: at least one of them filled.
        error: of these bins, with its interval.
        level: of the intervals.
        counted: what rows are, and what is in the bins.
    """
    return _diagrams(title, [(bins, error)], level, counted)


def overlay_figure(
    title: str,
    series: Mapping[str, Sequence[ReliabilityBin]],
    errors: Mapping[str, Value],
    looks: Mapping[str, Look],
    level: float,
    counted: tuple[str, str] = PIXELS,
) -> Figure:
    """Several methods in one diagram, the error of each beside its name.

    Args:
        title: without formatting.
        series: bins of each method, of one event.
        errors: of these bins, with their intervals.
        looks: of these methods.
        level: of the intervals.
        counted: what rows are, and what is in the bins.
    """
    labels = [f"{estimate(errors[name])}  {named(name)}" for name in series]
    size = TEXT * min(1, _LETTERS / max(len(label) for label in labels))
    figure = new_figure(COLUMN, 3.3 + 0.024 * size * len(labels))
    ax = reliability_overlay(series, looks, figure.subplots(), legend=False)
    values = [errors[name] for name in series]
    n_bins = len(next(iter(series.values())))
    pixels = [sum(b.n for b in bins) for bins in series.values()]
    heading = ", ".join(
        [
            number_of(n_bins, "bin"),
            _range([value.n_images for value in values], counted[0]),
            _range(pixels, counted[1]),
        ]
    )
    ax.set_title(heading, fontsize=TEXT + 0.5, color=INK, loc="left")
    intervals = f" [{100 * level:g} % interval]" if any(np.isfinite(value.low) for value in values) else ""
    legend = figure.legend(
        ax.get_lines()[: len(labels)], labels, loc="outside lower center", fontsize=size, frameon=False, labelcolor=INK,
        handlelength=3, title=f"{_name(values[0])}{intervals}", title_fontsize=TEXT, alignment="left",
    )  # fmt: skip
    legend.get_title().set_color(INK)
    return headed(figure, title)


def class_grid_figure(
    title: str,
    classes: Mapping[int, Sequence[ReliabilityBin]],
    errors: Mapping[int, Value],
    error: Value,
    level: float,
    counted: tuple[str, str] = PIXELS,
) -> Figure:
    """A small diagram for each class with its error, two columns wide; of more than 20 classes those with most pixels.

    Args:
        title: without formatting.
        classes: bins of each class, as `Evaluator.class_reliability` gives them.
        errors: of these bins.
        error: their mean over all classes, with its interval.
        level: of the intervals.
        counted: what rows are, and what is in the bins.
    """
    pixels = {k: sum(b.n * b.accuracy for b in bins if b.n) for k, bins in classes.items()}
    most = sorted(classes, key=lambda k: -pixels[k])[:MOST_CLASSES]
    shown = [k for k in classes if k in most]
    columns = min(_PANELS_A_ROW, len(shown))
    rows = -(-len(shown) // columns)
    figure = new_figure(2 * COLUMN, 0.95 + 1.4 * rows)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    handles: dict[str, Any] = {}
    for k, ax in zip(shown, axes, strict=False):
        reliability_diagram(classes[k], ax).set_ylabel("")
        absent = "" if pixels[k] > 0 else ", absent"
        ax.set_title(f"class {k}{absent}: {errors[k].value:.4f}", fontsize=TEXT, color=INK)
        handles |= {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    for ax in axes[len(shown) - columns : len(shown)]:  # the last of each column, above those left out
        ax.tick_params(labelbottom=True)
    for ax in axes[len(shown) :]:
        ax.set_visible(False)
    x_name, y_name = AXIS_NAMES["class"]
    figure.supxlabel(x_name, fontsize=TEXT + 1, color=INK)
    figure.supylabel(y_name, fontsize=TEXT + 1, color=INK)
    left_out = f"\n{len(shown)} of {len(classes)} classes: those with most pixels" if len(shown) < len(classes) else ""
    caption = caption_of(error, next(iter(classes.values())), level, counted)
    figure.legend(handles.values(), handles, loc="outside lower right", ncols=2, fontsize=TEXT, frameon=False,
                  labelcolor=INK)  # fmt: skip
    return headed(figure, title, caption + left_out)


def save_reliability_diagram(
    path: Path,
    title: str,
    diagrams: Mapping[Event, tuple[Sequence[ReliabilityBin], Value]],
    *,
    level: float,
    counted: tuple[str, str] = PIXELS,
) -> None:
    """A PNG with one panel an event: diagram above, histogram below, the error with its interval as heading.

    Args:
        level: of the intervals.
        counted: what rows are, and what is in the bins.
    """
    figure = _diagrams(title, list(diagrams.values()), level, counted)
    with atomic(path) as temporary:
        temporary.write_bytes(rendered(figure, ("png",))["png"])


def draw_panel(
    bins: Sequence[ReliabilityBin],
    error: Value,
    level: float,
    counted: tuple[str, str],
    ax: Axes,
    below: Axes | None,
    name: str = "",
) -> None:
    """The diagram of one event with its heading and legend, and the histogram where there are axes for it."""
    reliability_diagram(bins, ax)
    if below is None:
        ax.set_xlabel(AXIS_NAMES[bins[0].event][0])
    else:
        score_histogram(bins, below).set_ylabel(counted[1])
        ax.tick_params(labelbottom=False)
    named = f"{plain(name)}\n" if name else ""
    ax.set_title(f"{named}{caption_of(error, bins, level, counted)}", fontsize=TEXT + 0.5, color=INK, loc="left")
    ax.legend(loc=_legend_place(bins), fontsize=TEXT, labelcolor=INK, framealpha=0.9, edgecolor="none")


def _diagrams(
    title: str, diagrams: Iterable[tuple[Sequence[ReliabilityBin], Value]], level: float, counted: tuple[str, str]
) -> Figure:
    panels = [(bins, error) for bins, error in diagrams if any(b.n for b in bins)]
    figure = new_figure(COLUMN * max(len(panels), 1), 4.1)
    axes = figure.subplots(2, max(len(panels), 1), squeeze=False, height_ratios=(3.2, 1))
    for (top, below), (bins, error) in zip(axes.T, panels, strict=False):
        draw_panel(bins, error, level, counted, top, below)
    return headed(figure, title)


def _frame(ax: Axes, event: Event | Literal["class"], start: float) -> Axes:
    """Axes of score against accuracy, with the diagonal of perfect calibration."""
    ax.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=3.5)
    ax.set_xlim(start, 1)
    ax.set_ylim(0, 1)
    ax.set_ylabel(AXIS_NAMES[event][1])
    return tidy(ax)


def _name(error: Value) -> str:
    return CAPTIONS.get(error.metric, error.metric)


def caption_of(error: Value, bins: Sequence[ReliabilityBin], level: float, counted: tuple[str, str]) -> str:
    """Two lines: the error with its interval; bins, images and pixels that it comes from."""
    stated = f"  ({100 * level:g} %)" if np.isfinite(error.low) else ""
    found = [
        number_of(len(bins), "bin"),
        _range([error.n_images], counted[0]),
        _range([sum(b.n for b in bins)], counted[1]),
    ]
    return f"{_name(error)} {estimate(error)}{stated}\n{', '.join(found)}"


def _range(numbers: Sequence[int], what: str) -> str:
    """How many, or from how many to how many where methods differ; `what` in the plural."""
    least, most = min(numbers), max(numbers)
    one = what.removesuffix("s")
    return number_of(most, one) if least == most else f"{least:,} to ".replace(",", "\u00a0") + number_of(most, one)


def _legend_place(bins: Sequence[ReliabilityBin]) -> Literal["lower right", "best"]:
    """The lower right, over plain bars, unless accuracy falls so low there that the legend would hide its interval."""
    middle = (_start(bins) + 1) / 2
    lowest = min((min(b.accuracy, b.confidence) for b in bins if b.n and b.high_edge > middle), default=0.0)
    return "lower right" if lowest > 0.3 else "best"


def _start(bins: Sequence[ReliabilityBin]) -> float:
    """Left end of the axis: confidence never falls below one half."""
    return min((b.low_edge for b in bins if b.n), default=0.0) if bins[0].event == "top-label" else 0.0
