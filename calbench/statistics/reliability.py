"""Reliability cells: count, Σ confidence and Σ correct per score; the binning rule of the package lives here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np

from calbench.statistics.rows import PER_ROW, Array, Rows

Ties = Literal["split", "whole"]

EDGE_TOLERANCE = 1e-12
"""A score this close above a bin edge counts as on it: 8-bit levels hit edges exactly, their float64 quotients nearly."""
FLOAT32_TOLERANCE = 2.0**-21
"""The same for scores that were stored or computed in float32: four of its units near 1."""


def edge_tolerance(dtype: np.dtype[Any]) -> float:
    """The tolerance of scores stored in this type: float32's for float32, else float64's.

    Integers become float64 quotients, and float16 is binned as stored: it cannot tell all 8-bit levels from bin edges.
    """
    return FLOAT32_TOLERANCE if dtype == np.float32 else EDGE_TOLERANCE


def bin_index(scores: Array, n_bins: int, tolerance: float = EDGE_TOLERANCE) -> Array:
    """Bin of each score: `n_bins` equal bins on [0, 1], right-closed, with 0 in the first bin and 1 in the last.

    index = clip(⌈(score − tolerance) · n_bins⌉ − 1, 0, n_bins − 1). This is the only equal-width rule in calbench.

    >>> bin_index(np.array([0.0, 0.1, 0.1001, 1.0]), 10).tolist()
    [0, 0, 1, 9]
    """
    index = np.ceil((np.asarray(scores, np.float64) - tolerance) * n_bins) - 1
    return np.clip(index, 0, n_bins - 1).astype(np.intp)


@dataclass(frozen=True, eq=False)
class Grid:
    """Cells on [0, 1] that float scores are counted in: equal cells, the outermost ones refined.

    Equal-width bins whose number divides `n_equal` are unions of cells, so errors over them are exact. Confident maps
    crowd the ends, where equal-mass bins, ranking and smoothing need to tell scores apart: there cells get finer.

    Attributes:
        n_equal: number of equal cells before refinement.
        first: edges within the first equal cell, ascending.
        halvings: the last equal cell is split at 1 − 2⁻ᵏ / n_equal, k = 1 ... halvings.
    """

    n_equal: int
    first: tuple[float, ...]
    halvings: int

    @cached_property
    def edges(self) -> Array:
        """`(cells + 1,)`, ascending from 0 to 1."""
        equal = np.arange(1, self.n_equal) / self.n_equal
        last = 1 - 0.5 ** np.arange(1, self.halvings + 1) / self.n_equal
        return np.concatenate([[0.0], self.first, equal, last, [1.0]])

    @property
    def size(self) -> int:
        """Number of cells."""
        return len(self.edges) - 1

    def index(self, scores: Array, tolerance: float = EDGE_TOLERANCE, complement: Array | None = None) -> Array:
        """Cell of each score: the rule of `bin_index`, then the refinement.

        Args:
            complement: 1 − score of each, where it is known better than `scores` tell: next to 1 they round to it.
        """
        scores = np.asarray(scores, np.float64)
        cell = bin_index(scores, self.n_equal, tolerance)
        in_last = np.flatnonzero(cell == self.n_equal - 1)
        in_first = np.flatnonzero(cell == 0) if self.first else in_last[:0]
        cell += len(self.first)
        if len(in_last):
            # x = m · 2ᵉ with m in [0.5, 1): −e halvings lie between the score and the start of the last equal cell
            left = 1 - scores.ravel()[in_last] if complement is None else complement.ravel()[in_last].astype(np.float64)
            halved = -np.frexp(left * self.n_equal)[1]
            at_one = left <= 0
            cell.ravel()[in_last] += np.where(at_one, self.halvings, np.clip(halved, 0, self.halvings))
        if len(in_first):
            cell.ravel()[in_first] = np.searchsorted(self.first, scores.ravel()[in_first], side="left")
        return cell


SCORE_GRID = Grid(600, tuple(0.5 ** np.arange(41, 0, -1) / 600), 41)
"""682 cells for one score a pixel: exact for 10, 12, 15, 20, 25, 30, 50, 100 ... bins."""
THRESHOLD = 0.01
"""ε of thresholded errors: class probabilities up to here are left out of them."""
CLASS_GRID = Grid(60, (THRESHOLD,), 8)
"""69 cells for each class: exact for 10, 12, 15, 20, 30, 60 bins, and for the threshold."""


@dataclass(frozen=True, eq=False)
class BinSums(Rows):
    """Sums over bins of pixels, from which calibration errors follow.

    Attributes:
        count: pixels per bin, `(..., bins)`.
        confidence: Σ score over the pixels of the bin, `(..., bins)`.
        correct: Σ correct, `(..., bins)`.
    """

    count: Array = field(metadata=PER_ROW)
    confidence: Array = field(metadata=PER_ROW)
    correct: Array = field(metadata=PER_ROW)

    @property
    def residual(self) -> Array:
        """Σ (correct − score) per bin, `(..., bins)`: the quantity every calibration error is built from."""
        return self.correct - self.confidence


@dataclass(frozen=True, eq=False)
class ReliabilityCells(BinSums):
    """Sufficient statistics of calibration: bins so fine that all pixels of one, a cell, share one score.

    For the event "top-label" the score is the confidence max(p, 1 − p) and `correct` counts right decisions; for
    "foreground" the score is p and `correct` counts foreground pixels.

    Float scores are counted in the cells of a `Grid` instead, whose scores are not all one: their `width` is then
    positive, and what depends on where in its cell a score lies comes with a bound. Class-wise cells have shape
    `(..., classes, cells)`.

    Attributes:
        score: the cells' scores, ascending, `(cells,)`, in [0, 1]; the middle of each cell of a grid.
        width: widths of the cells, `(cells,)`; 0 where all pixels of a cell share its score.
        rounded: whether scores in the outermost cells may differ although their mean is 0 or 1: those of logits, which
            soft-max rounds, and float64 ones.
    """

    score: Array
    width: Array
    rounded: bool = False

    @classmethod
    def exact(cls, names: tuple[str, ...], count: Array, correct: Array, score: Array) -> Self:
        """Cells whose pixels all have the cell's score."""
        return cls(names, count, count * score, correct, score, np.zeros(len(score)))

    @classmethod
    def on_grid(
        cls,
        names: tuple[str, ...],
        count: Array,
        confidence: Array,
        correct: Array,
        grid: Grid,
        *,
        rounded: bool = False,
    ) -> Self:
        """Cells of a grid."""
        middle = (grid.edges[:-1] + grid.edges[1:]) / 2
        return cls(names, count, confidence, correct, middle, np.diff(grid.edges), rounded)

    @property
    def position(self) -> Array:
        """Mean score of the pixels of each cell, `(..., cells)`; its score where it is empty or exact."""
        if not self.width.any():
            return np.broadcast_to(self.score, self.count.shape)
        mean = self.confidence / np.where(self.count > 0, self.count, 1)
        return np.where(self.count > 0, mean, self.score)

    def binned(self, n_bins: int) -> BinSums:
        """The cells summed into `n_bins` equal-width bins on [0, 1] by the rule of `bin_index`."""
        return self._project(equal_width(self.score, n_bins))

    def equal_mass(self, n_bins: int, ties: Ties = "split") -> BinSums:
        """The cells summed into `n_bins` bins of equal pixel mass; see `equal_mass` for the tie rule."""
        return self._project(equal_mass(self.count, n_bins, ties))

    def _project(self, shares: Array) -> BinSums:
        """Cells summed into bins by `(cells, bins)` or `(..., cells, bins)` shares."""
        cells = (np.asarray(getattr(self, name), np.float64) for name in BinSums.row_fields())
        if shares.ndim == 2:
            return BinSums(self.names, *(sums @ shares for sums in cells))
        return BinSums(self.names, *(np.matmul(sums[..., None, :], shares)[..., 0, :] for sums in cells))


def linspace_float32(n: int) -> Array:
    """`torch.linspace(0, 1, n)`: float32, as torch rounds it.

    torch counts up from the start and down from the end, each value rounded once (a fused multiply-add, as on every
    processor with AVX2); float64 holds the product exactly, so rounding its result is the same.
    """
    step = np.float64(np.float32(1) / np.float32(n - 1))
    index = np.arange(n)
    return np.where(index < n // 2, step * index, 1 - step * index[::-1]).astype(np.float32)


def equal_width(score: Array, n_bins: int) -> Array:
    """Shares `(cells, n_bins)`, 0 or 1, of each cell in each equal-width bin."""
    return np.equal.outer(bin_index(score, n_bins), np.arange(n_bins)).astype(np.float64)


def equal_mass(count: Array, n_bins: int, ties: Ties = "split") -> Array:
    """Shares `(..., cells, n_bins)` of each cell in bins that hold the same number of pixels.

    Tied pixels are never told apart by their order. With `ties="split"` a cell that straddles a boundary gives each bin
    its proportion, so bins hold exactly N / n_bins pixels; with `ties="whole"` the cell goes to the bin of its mid-rank.

    >>> equal_mass(np.array([2, 2]), 4).tolist()
    [[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]
    """
    count = count.astype(np.float64, copy=False)
    upper = count.cumsum(-1)
    total = upper[..., -1:]
    lower = upper - count
    if ties == "whole":
        middle = divide(lower + upper, 2 * total)
        index = np.clip(np.floor(np.nan_to_num(middle) * n_bins), 0, n_bins - 1).astype(np.intp)
        return np.equal(index[..., None], np.arange(n_bins)).astype(np.float64)
    edges = total[..., None] * np.arange(n_bins + 1) / n_bins
    size = np.where(count > 0, count, np.inf)
    below = (edges - lower[..., None]) / size[..., None]  # share of each cell that lies below each edge
    return np.diff(np.clip(below, 0, 1, out=below), axis=-1)


def equal_mass_sums(sums: Sequence[Array], n_bins: int, ties: Ties = "split") -> list[Array]:
    """Cell sums `(rows, cells)`, the counts first, in bins of equal mass, `(rows, n_bins)`: what `equal_mass` shares give.

    With `ties="split"` the sum below an edge is linear within a cell, so edges are looked up instead of sharing every cell.
    """
    count = sums[0]
    if ties == "whole":
        shares = equal_mass(count, n_bins, ties)
        return [np.matmul(array[:, None, :], shares)[:, 0] for array in sums]
    padding = ((0, 0), (1, 0))
    below = [np.pad(array.cumsum(-1), padding) for array in sums]
    total = below[0][:, -1:]
    edges = total * np.arange(n_bins + 1) / n_bins
    start = 2 * total.max() * np.arange(len(count))[:, None]  # rows end to end: one search serves all
    at = np.searchsorted((below[0] + start)[:, 1:-1].ravel(), edges + start, side="right")
    at -= np.arange(len(count))[:, None] * (count.shape[1] - 1)
    at = np.clip(at, 0, count.shape[1] - 1)
    inside = np.take_along_axis(count, at, -1)
    share = (edges - np.take_along_axis(below[0], at, -1)) / np.where(inside > 0, inside, 1)
    return [
        np.diff(np.take_along_axis(before, at, -1) + share * np.take_along_axis(array, at, -1), axis=-1)
        for before, array in zip(below, sums, strict=True)
    ]


def divide(numerator: Array, denominator: Array) -> Array:
    """numerator / denominator, NaN where the denominator is 0: an undefined value is never dropped in silence."""
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    return np.divide(numerator, denominator, out=np.full(shape, np.nan), where=denominator != 0)
