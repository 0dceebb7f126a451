"""Reliability cells: count, Σ confidence and Σ correct per score; the binning rule of the package lives here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from calbench.statistics.rows import PER_ROW, Array, Rows

Ties = Literal["split", "whole"]

EDGE_TOLERANCE = 1e-12
"""A score this close above a bin edge counts as on it: 8-bit levels hit edges exactly, their float64 quotients nearly."""


def bin_index(scores: Array, n_bins: int) -> Array:
    """Bin of each score: `n_bins` equal bins on [0, 1], right-closed, with 0 in the first bin and 1 in the last.

    index = clip(⌈(score − 1e-12) · n_bins⌉ − 1, 0, n_bins − 1). This is the only equal-width rule in calbench.

    >>> bin_index(np.array([0.0, 0.1, 0.1001, 1.0]), 10).tolist()
    [0, 0, 1, 9]
    """
    index = np.ceil((np.asarray(scores, np.float64) - EDGE_TOLERANCE) * n_bins) - 1
    return np.clip(index, 0, n_bins - 1).astype(np.intp)


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

    Attributes:
        score: the cells' scores, ascending, `(cells,)`, in [0, 1].
    """

    score: Array

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
