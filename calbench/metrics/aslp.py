"""The official ASLP numbers (`--profile aslp`): ten cells, raw mask bytes, 255 thresholds, quirks included."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from calbench.metrics.metric import Reader, aslp
from calbench.statistics.aslp import AslpRows
from calbench.statistics.bundle import Statistics
from calbench.statistics.histogram import LEVELS
from calbench.statistics.reliability import ReliabilityCells, divide
from calbench.statistics.rows import Array

_SOFTENING = 1e-6


def _byte_cells(statistics: Statistics) -> ReliabilityCells | None:
    rows = statistics.aslp
    if rows is None:
        return None
    folded = rows.counts[..., 128:] + rows.counts[..., 127::-1]
    return ReliabilityCells.exact(rows.names, folded.sum(-2), folded[..., 1, :], np.arange(128, LEVELS) / 255)


aslp_cells = Reader(_byte_cells, aslp.needs, aslp.extra)
"""Reliability cells at the 128 byte confidences max(q, 255 − q) / 255, correct where the byte equals the mask's."""


def _cell_means(cells: ReliabilityCells, bins: int) -> tuple[Array, Array, Array]:
    """Count, mean confidence and accuracy per cell; the scripts divide by n + 1e-6."""
    binned = cells.binned(bins)
    n = binned.count + _SOFTENING
    return binned.count, binned.confidence / n, binned.correct / n


def aslp_ece(cells: ReliabilityCells, *, bins: int = 10) -> Array:
    """ECE_EW of the scripts, shape `(...,)`: exact-byte correctness, cell means divided by n + 1e-6."""
    count, confidence, right = _cell_means(cells, bins)
    return divide((count * np.abs(confidence - right)).sum(-1), count.sum(-1))


def aslp_oe(cells: ReliabilityCells, *, bins: int = 10) -> Array:
    """OE of the scripts, shape `(...,)`: Σ w_k C_k (C_k − A_k) over cells with C_k > A_k."""
    count, confidence, right = _cell_means(cells, bins)
    return divide((count * confidence * np.maximum(confidence - right, 0)).sum(-1), count.sum(-1))


def aslp_debias(cells: ReliabilityCells, *, debias_bins: int = 100) -> Array:
    """ECE_DEBIAS of the scripts, shape `(...,)`: Σ w_k [(C_k − A_k)² − C_k (1 − C_k) / (n_k − 1)], squared, signed."""
    terms, count, _ = _debias_terms(cells, debias_bins)
    return divide((count * terms).sum(-1), count.sum(-1))


def aslp_debias_oe(cells: ReliabilityCells, *, debias_bins: int = 100) -> Array:
    """The overconfident part of ECE_DEBIAS, shape `(...,)`: cells with C_k > A_k only."""
    terms, count, over = _debias_terms(cells, debias_bins)
    return divide((count * np.where(over, terms, 0)).sum(-1), count.sum(-1))


def _debias_terms(cells: ReliabilityCells, bins: int) -> tuple[Array, Array, Array]:
    count, confidence, right = _cell_means(cells, bins)
    with np.errstate(divide="ignore"):  # one pixel in a cell is −inf in the scripts, and here
        noise = confidence * (1 - confidence) / np.where(count > 0, count - 1, 1)
    return np.where(count > 0, (confidence - right) ** 2 - noise, 0), count, confidence > right


def aslp_mae(rows: AslpRows) -> Array:
    """Mean |x − y| per image with y = byte / 255, without rescaling, `(rows,)`."""
    return rows.mae


def aslp_f_curve(rows: AslpRows) -> Array:
    """F (β² = 0.3) per image at 255 thresholds, undefined values 0, `(rows, 255)`."""
    precision, recall = rows.precision, rows.recall
    curve = np.nan_to_num(divide(1.3 * precision * recall, 0.3 * precision + recall))
    return np.where(np.isnan(precision), np.nan, curve)


def aslp_e_curve(rows: AslpRows) -> Array:
    """E-measure per image at 255 thresholds, `(rows, 255)`."""
    return rows.e


def aslp_s_measure(rows: AslpRows) -> Array:
    """S-measure per image, `(rows,)`; NaN where the centroid rounds to the first row or column."""
    return rows.s_measure


def precision_recall(rows: AslpRows) -> Array:
    """Precision and recall curves, `(rows, 2, 255)`."""
    return np.stack([rows.precision, rows.recall], axis=-2)


def roc(rows: AslpRows) -> Array:
    """True and false positive rate curves, `(rows, 2, 255)`."""
    return np.stack([rows.tpr, rows.fpr], axis=-2)


def area_under_pr(curves: Array) -> Array:
    """VOC-style AP of mean precision and recall curves `(..., 2, 255)`: precision made non-increasing, then summed."""
    order = np.argsort(curves[..., 1, :], axis=-1, kind="stable")
    recall = np.take_along_axis(curves[..., 1, :], order, -1)
    precision = np.take_along_axis(curves[..., 0, :], order, -1)
    ends = (*[(0, 0)] * (recall.ndim - 1), (1, 1))
    recall = np.pad(recall, ends, constant_values=(0, 1))
    precision = np.pad(precision, ends)
    envelope = np.maximum.accumulate(precision[..., ::-1], -1)[..., ::-1]
    return (np.diff(recall, axis=-1) * envelope[..., 1:]).sum(-1)


def area_under_roc(curves: Array) -> Array:
    """Trapezoid under mean ROC curves `(..., 2, 255)`, sorted by false positive rate as the scripts sort.

    They call `torch.sort`, which is not stable: thresholds of equal rate come in the order that its introsort leaves them,
    and that order moves the area by up to 1e-3 on small sets. It is reproduced here, comparison by comparison.
    """
    flat = curves.reshape(-1, 2, curves.shape[-1])
    areas = np.empty(len(flat))
    for row, (tpr, fpr) in enumerate(flat):
        order = _introsort(tuple(np.unique(fpr, return_inverse=True)[1].tolist()))
        areas[row] = np.trapezoid(tpr[order], fpr[order])
    return areas.reshape(curves.shape[:-2])


@lru_cache(maxsize=1024)
def _introsort(ranks: tuple[int, ...]) -> Array:
    """The permutation by which C++'s `std::sort` (libstdc++) puts these ranks in order: not stable, but determined."""
    if len(set(ranks)) == len(ranks):
        return np.argsort(ranks)
    items = [(rank, index) for index, rank in enumerate(ranks)]
    _quicksort(items, 0, len(items))
    items.sort(key=lambda item: item[0])  # the final insertion sort is stable, as this is
    return np.array([index for _, index in items])


def _quicksort(items: list[tuple[int, int]], first: int, last: int) -> None:
    """Partition around the median of three until pieces are at most 16 long."""
    while last - first > 16:
        candidates = (first + 1, first + (last - first) // 2, last - 1)
        middle = _median(items, *candidates)
        items[first], items[middle] = items[middle], items[first]
        pivot = items[first][0]
        left, right = first + 1, last
        while True:
            while items[left][0] < pivot:
                left += 1
            right -= 1
            while pivot < items[right][0]:
                right -= 1
            if left >= right:
                break
            items[left], items[right] = items[right], items[left]
            left += 1
        _quicksort(items, left, last)
        last = left


def _median(items: list[tuple[int, int]], x: int, y: int, z: int) -> int:
    """Position of the median of three, ties decided as the C++ library does."""
    a, b, c = items[x][0], items[y][0], items[z][0]
    if a < b:
        return y if b < c else (z if a < c else x)
    return x if a < c else (z if b < c else y)
