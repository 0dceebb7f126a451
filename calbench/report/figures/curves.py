"""Curves over all thresholds: ROC, precision-recall, risk-coverage, and the mean F and E curves of saliency maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from calbench.evaluate import Value
from calbench.report.figures.labels import estimate, estimated, headed, legend_below, named, say_left_out
from calbench.report.style import COLUMN, GREY, PAPER, Look, new_figure, plain, tidy
from calbench.statistics.rows import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Kind = Literal["roc", "precision-recall", "risk-coverage", "f", "e"]
Points = tuple[Array, Array]
"""x and y of the points of a curve, each `(points,)`."""

TOLERANCE = 1.5e-3
"""How far a drawn curve may lie from its points, as a share of an axis: a third of a line's width at one column. Steps of
cells finer than that would fill vector files and be seen by nobody."""
SURE = 0.05
"""Coverage below which few pixels decide the risk, which may then be anything: it does not set the axis."""
_HEIGHT = 2.6
_ROW = 0.125  # inches a line of a legend takes


def roc(curves: Mapping[str, Points], looks: Mapping[str, Look], ax: Axes) -> Axes:
    """ROC curves over the diagonal of chance.

    Args:
        curves: for each method, what `metrics.ranking.roc_points` gives: false and true positive rate.
        looks: of the methods.
        ax: to draw on.

    >>> from calbench.metrics.ranking import roc_points
    >>> from calbench.report.style import looks, new_figure
    >>> points = roc_points(np.array([0, 1, 3]), np.array([4, 1, 0]))
    >>> roc({"net": points}, looks(["net"]), new_figure().subplots()).get_xlabel()
    'false positive rate'
    """
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="false positive rate", ylabel="true positive rate")
    return _draw(curves, looks, ax)


def precision_recall(curves: Mapping[str, Points], looks: Mapping[str, Look], ax: Axes) -> Axes:
    """Precision-recall curves, in the steps whose area is the average precision.

    Args:
        curves: for each method, what `metrics.ranking.precision_recall_points` gives: recall and precision.
        looks: of the methods.
        ax: to draw on.
    """
    ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="recall", ylabel="precision")
    return _draw({name: stairs(*points) for name, points in curves.items()}, looks, ax)


def risk_coverage(curves: Mapping[str, Points], looks: Mapping[str, Look], ax: Axes) -> Axes:
    """Risk-coverage curves, in the steps whose area is the AURC.

    The risk axis starts at 0 and holds every risk from 5 % coverage on; before, a few wrong pixels can make it 1.

    Args:
        curves: for each method, what `metrics.ranking.risk_coverage_points` gives: coverage and risk.
        looks: of the methods.
        ax: to draw on.
    """
    drawn = {name: stairs(*points) for name, points in curves.items()}
    top = max((risk[coverage >= SURE].max(initial=0) for coverage, risk in drawn.values()), default=0)
    ax.set(xlim=(0, 1), ylim=(0, 1.08 * top if top > 0 else 1), xlabel="coverage", ylabel="risk (error rate)")
    return _draw(drawn, looks, ax)


def saliency_curves(
    curves: Mapping[str, Array], looks: Mapping[str, Look], ax: Axes, *, name: Literal["F", "E"]
) -> Axes:
    """Mean F or E curves over the thresholds 0 to 255, their maxima marked: the heights of those are max F or max E.

    Args:
        curves: for each method, `(256,)`, the mean curve over images that `Evaluator.curves` gives.
        looks: of the methods.
        ax: to draw on.
        name: of the curve.
    """
    defined = {method: curve for method, curve in curves.items() if np.isfinite(curve).all()}
    ax.set(xlim=(0, 255), xticks=range(0, 256, 51), xlabel="threshold", ylabel=f"mean {name}")
    lowest = min((curve.min() for curve in defined.values()), default=0)
    # E is divided by N − 1 and may exceed 1 a little
    ax.set_ylim(np.floor(10 * lowest) / 10, max([1.0, *(curve.max() for curve in defined.values())]))
    for method, curve in defined.items():
        ax.plot(curve.argmax(), curve.max(), looks[method].marker, color=looks[method].colour, markersize=4,
                markeredgecolor=PAPER, markeredgewidth=0.5, clip_on=False, zorder=4)  # fmt: skip
    return _draw({method: (np.arange(len(curve)), curve) for method, curve in curves.items()}, looks, ax)


def curves_figure(
    kind: Kind,
    title: str,
    curves: Mapping[str, Any],
    values: Mapping[str, Value],
    looks: Mapping[str, Look],
    level: float,
) -> Figure:
    """Curves of several methods; the legend has the number that each curve adds up to, with its interval.

    Args:
        kind: of the curves.
        title: of the figure.
        curves: for each method, its points (`roc`, `precision_recall`, `risk_coverage`), or its `(256,)` values ("f", "e").
        values: of each method: `auroc`, `ap`, `aurc`, `max_f` or `max_e`; methods without a curve are named beneath.
        looks: of the methods.
        level: of the intervals.
    """
    figure = new_figure(COLUMN, _HEIGHT + _ROW * len(values))
    ax = figure.subplots()
    if kind in ("f", "e"):
        saliency_curves(curves, looks, ax, name="F" if kind == "f" else "E")
    else:
        {"roc": roc, "precision-recall": precision_recall, "risk-coverage": risk_coverage}[kind](curves, looks, ax)
    say_left_out(ax, "no curve", [name for name in values if name not in curves])
    lines = {line.get_label(): line for line in ax.get_lines()}
    shown = {name: lines[plain(name)] for name in values if plain(name) in lines}
    headed(figure, title)
    legend_below(
        figure,
        list(shown.values()),
        [f"{estimate(values[name])}  {named(name)}" for name in shown],
        estimated(values.values(), level),
    )
    return figure


def stairs(x: Array, y: Array) -> Points:
    """The corners of steps that hold each height from the x before it to its own, `(2 · points − 1,)`.

    >>> x, y = stairs(np.array([0, 1, 3]), np.array([5, 6, 7]))
    >>> x.tolist(), y.tolist()
    ([0, 0, 1, 1, 3], [5, 6, 6, 7, 7])
    """
    return np.repeat(x, 2)[:-1], np.repeat(y, 2)[1:]


def needed(points: Array, tolerance: float = TOLERANCE) -> Array:
    """Which points a line needs so that all others lie within a tolerance of it, bool `(points,)`; the ends stay.

    Args:
        points: `(points, 2)`, both axes of length 1.
        tolerance: in the same unit.

    Reference: Douglas & Peucker, 1973 (doi:10.3138/FM57-6770-U75U-7727).

    >>> needed(np.array([[0, 0], [0.5, 0.5], [1, 1], [1, 0]])).tolist()
    [True, False, True, True]
    """
    keep = np.zeros(len(points), bool)
    keep[[0, -1]] = True
    stretches = [(0, len(points) - 1)]
    while stretches:
        start, end = stretches.pop()
        if end - start < 2:
            continue
        distance = _distance(points[start + 1 : end], points[start], points[end])
        farthest = start + 1 + int(distance.argmax())
        if distance.max() > tolerance:
            keep[farthest] = True
            stretches += [(start, farthest), (farthest, end)]
    return keep


def _distance(points: Array, start: Array, end: Array) -> Array:
    """Distance of points `(n, 2)` from the stretch between two others, `(n,)`."""
    along = end - start
    squared = along @ along
    share = np.clip((points - start) @ along / squared, 0, 1) if squared else np.zeros(len(points))
    return np.linalg.norm(points - start - share[:, None] * along, axis=1)


def _draw(curves: Mapping[str, Points], looks: Mapping[str, Look], ax: Axes) -> Axes:
    """The lines, without points that nobody could see; curves with an undefined point are left out, and named."""
    extent = np.array([np.ptp(ax.get_xlim()), np.ptp(ax.get_ylim())])
    left_out = []
    for name, curve in curves.items():
        points = np.stack(curve, axis=-1)
        if not np.isfinite(points).all():
            left_out.append(name)
            continue
        x, y = points[needed(points / extent)].T
        ax.plot(x, y, color=looks[name].colour, linestyle=looks[name].dash, linewidth=1.1, label=plain(name), zorder=3)
    ax.grid(color=GREY, linewidth=0.4, alpha=0.6)
    tidy(ax)
    say_left_out(ax, "undefined", left_out)
    return ax
