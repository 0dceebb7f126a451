"""The joint density of confidence and accuracy: how images scatter around the diagonal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from calbench.evaluate import JointPoints, ReliabilityBin, Value
from calbench.report.figures.labels import headed, named
from calbench.report.figures.reliability import AXIS_NAMES, CAPTIONS, GAP_NAMES, PIXELS, caption_of
from calbench.report.style import COLUMN, INK, PAPER, TEXT, new_figure, tidy
from calbench.statistics.rows import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GRID = 200
"""Steps of the density along each axis."""
NARROWEST = 0.01
"""Standard deviation of the narrowest kernel: two steps of the grid."""
DECADES = 4
"""Densities down to 10⁻⁴ of the largest are coloured: saturated maps have most of their pixels in one place."""
LEVELS = 10 ** np.linspace(-DECADES, 0, 2 * DECADES + 1)
_PANELS_A_ROW = 4


def kernel_density(points: JointPoints) -> Array:
    """Weighted Gaussian kernel density of the points, relative to its largest value.

    f(x) ∝ Σ_i w_i exp(−½ (x − x_i)ᵀ H⁻¹ (x − x_i)), H = n^(−1/3) S with the weighted covariance S and Scott's rule,
    n = (Σ w)² / Σ w². Points are first moved to the nearest node of the grid. The kernel is at least 0.01 wide in every
    direction, so that points on a line, or a single one, have a density that can be seen.

    Returns:
        `(GRID + 1, GRID + 1)`, accuracy along the first axis, confidence along the second, each at 0, 1 / GRID ... 1.
    Reference: Scott, Multivariate Density Estimation, 1992 (doi:10.1002/9780470316849); the kernel of
        `scipy.stats.gaussian_kde`.

    >>> one = np.array([0.5])
    >>> float(kernel_density(JointPoints(one, one, one, pooled=False)).max())
    1.0
    """
    from scipy.signal import fftconvolve

    weight = points.weight / points.weight.sum()
    place = np.stack([points.accuracy, points.confidence])
    centred = place - (place @ weight)[:, None]
    squares = float(weight @ weight)
    spread = (centred * weight) @ centred.T / max(1 - squares, np.finfo(float).tiny)
    variances, directions = np.linalg.eigh(squares ** (1 / 3) * spread)
    bandwidth = directions * np.maximum(variances, NARROWEST**2) @ directions.T
    row, column = np.rint(place * GRID).astype(np.intp)
    counted = np.bincount(row * (GRID + 1) + column, weight, (GRID + 1) ** 2).reshape(GRID + 1, GRID + 1)
    offset = np.stack(np.meshgrid(*[np.arange(-GRID, GRID + 1) / GRID] * 2, indexing="ij"))
    distance = np.einsum("i...,ij,j...->...", offset, np.linalg.inv(bandwidth), offset)
    density = np.maximum(fftconvolve(counted, np.exp(-distance / 2), mode="same"), 0)
    return np.asarray(density / density.max())


def joint_density(points: JointPoints, ax: Axes, *, explained: bool = True) -> Axes:
    """The joint density of confidence and accuracy on [0, 1]², on a logarithmic colour scale, with the diagonal.

    Below the diagonal confidence is too high. Blank where the density is less than 10⁻⁴ of the largest.

    Args:
        points: of `Evaluator.joint`; without any the axes stay empty.
        ax: to draw on.
        explained: whether to name the sides of the diagonal, and the colours beside the axes.
    """
    from matplotlib.colors import LogNorm

    if len(points.weight):
        nodes = np.arange(GRID + 1) / GRID
        density = np.maximum(kernel_density(points), np.finfo(float).tiny)  # zeros have no logarithm
        filled = ax.contourf(nodes, nodes, density, LEVELS, cmap="YlGnBu", norm=LogNorm(LEVELS[0], 1), zorder=1)
        ax.set_rasterization_zorder(1.5)  # hundreds of vertices a level would fill a page of many methods
        if explained:
            _colour_bar(filled, [ax])
    ax.plot([0, 1], [0, 1], color=PAPER, linewidth=2, alpha=0.6, zorder=2)  # ink alone is lost on the darkest colour
    ax.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=3)
    start = 0.5 if (points.confidence >= 0.5).all() else 0.0
    if explained:
        over, under = GAP_NAMES["top-label"]
        patch = {"facecolor": PAPER, "edgecolor": "none", "pad": 1.5, "alpha": 0.8}
        ax.text(0.97, 0.04, over, color=INK, fontsize=TEXT, ha="right", va="bottom", transform=ax.transAxes, bbox=patch)
        ax.text(0.03, 0.96, under, color=INK, fontsize=TEXT, ha="left", va="top", transform=ax.transAxes, bbox=patch)
    ax.set_xlim(start, 1)
    ax.set_ylim(0, 1)
    x_name, y_name = AXIS_NAMES["top-label"]
    ax.set_xlabel(x_name)
    ax.set_ylabel(y_name)
    return tidy(ax)


def joint_figure(
    title: str,
    panels: Mapping[str, tuple[JointPoints, Sequence[ReliabilityBin], Value]],
    level: float,
    counted: tuple[str, str] = PIXELS,
) -> Figure:
    """The joint density of one method, one column wide, or of several beside each other; a dot for each bin of all images.

    Args:
        title: without formatting.
        panels: method -> points of `Evaluator.joint`, bins of the top-label reliability diagram, and their error.
        level: of the intervals.
        counted: what rows are, and what is in the bins.
    """
    if len(panels) == 1:
        ((points, bins, error),) = panels.values()
        figure = new_figure(COLUMN, 3.4)
        ax = _dotted(joint_density(points, figure.subplots()), bins)
        ax.set_title(caption_of(error, bins, level, counted), fontsize=TEXT + 0.5, color=INK, loc="left")
        return headed(figure, title)
    columns = min(_PANELS_A_ROW, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(2 * COLUMN, 0.8 + 1.75 * rows)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for (name, (points, bins, error)), ax in zip(panels.items(), axes, strict=False):
        _dotted(joint_density(points, ax, explained=False), bins).set(xlabel="", ylabel="")
        ax.set_title(f"{named(name, 24)}\n{error.value:.4f}", fontsize=TEXT, color=INK)
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    filled = next((artist for ax in axes for artist in ax.collections), None)
    if filled is not None:
        _colour_bar(filled, list(axes))
    x_name, y_name = AXIS_NAMES["top-label"]
    figure.supxlabel(x_name, fontsize=TEXT + 1, color=INK)
    figure.supylabel(y_name, fontsize=TEXT + 1, color=INK)
    _, bins, error = next(iter(panels.values()))
    named_error = CAPTIONS.get(error.metric, error.metric)
    return headed(
        figure, title, f"below the diagonal overconfident; above each panel {named_error} from {len(bins)} bins"
    )


def _dotted(ax: Axes, bins: Sequence[ReliabilityBin]) -> Axes:
    filled = [b for b in bins if b.n]
    ax.plot([b.confidence for b in filled], [b.accuracy for b in filled], "o", color=INK, markersize=3.5,
            markeredgecolor=PAPER, markeredgewidth=0.8, zorder=4)  # fmt: skip
    return ax


def _colour_bar(filled: Any, axes: Sequence[Axes]) -> None:
    from matplotlib.ticker import LogFormatterSciNotation

    figure = axes[0].figure
    bar = figure.colorbar(filled, ax=axes, ticks=LEVELS[::2], pad=0.02, format=LogFormatterSciNotation())
    bar.set_label("density / largest density", fontsize=TEXT, color=INK)
    bar.ax.tick_params(labelsize=TEXT - 1, colors=INK)
    bar.outline.set_visible(False)
