"""The kernel of calibrated 8-bit maps: joint histograms and a probability for each level in, cells and sums out.

No pixel is touched. What comes out has the form of float maps, so that rows under different calibrators (those of
different folds) can stand beside each other: the levels have no longer one probability each.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from calbench.errors import InputError
from calbench.statistics.bundle import Statistics
from calbench.statistics.changes import ClassChanges
from calbench.statistics.histogram import LEVELS, binary_entropy
from calbench.statistics.reliability import SCORE_GRID, ReliabilityCells
from calbench.statistics.rows import Array
from calbench.statistics.uncertainty import Uncertainty

CLIP = float(np.finfo(np.float64).eps)
"""Clip of P(outcome) in the log loss: calibrated probabilities are float64."""


def measure_levels(statistics: Statistics, probs: Array) -> Statistics:
    """The statistics of 8-bit maps whose levels mean other probabilities.

    Cells are those of float maps: equal-width errors are exact for every number of bins that divides 600. The histogram
    stays as it was, since the order of levels is all that the saliency metrics keep of it: they are those of the
    uncalibrated map, and say so.

    Args:
        statistics: rows of 8-bit binary maps.
        probs: probability of foreground of each level, `(256,)`.
    Raises:
        InputError: rows of other predictions.

    >>> from calbench.statistics import JointHistogram
    >>> counts = np.zeros((1, 2, 256), np.int64)
    >>> counts[0, 1, 255] = 4
    >>> rows = measure_levels(Statistics(JointHistogram(("a",), counts)), np.linspace(0.1, 0.9, 256))
    >>> rows.sums.squared_error.round(6).tolist(), rows.changes.changed.tolist()
    ([0.04], [0])
    """
    histogram = statistics.exact_histogram
    if histogram is None:
        raise InputError(
            "these statistics are not of 8-bit binary maps: calibrating them needs the pixels; give --pred and --gt instead "
            "of --stats"
        )
    calibrated = replace(histogram, probs=probs)
    names, counts = histogram.names, histogram.counts.sum(-2)
    entropy = binary_entropy(probs)
    confidence = np.maximum(probs, 1 - probs)
    decided, before = probs >= 0.5, np.arange(LEVELS) >= LEVELS // 2
    top_label, foreground = (_on_grid(calibrated.reliability(event)) for event in ("top-label", "foreground"))
    unsure = Uncertainty.on_grid(
        names,
        entropy_sum=counts @ entropy,
        confidence_sum=counts @ confidence,
        entropy=_gathered(counts, SCORE_GRID.index(entropy / np.log(2))),
        confidence=top_label.count,
        classes=2,
    )
    return replace(
        statistics,
        top_label=top_label,
        foreground=foreground,
        sums=calibrated.score_sums(CLIP),
        counts=calibrated.class_counts(),
        unsure=unsure,
        changes=ClassChanges(names, counts.sum(-1), counts @ (decided != before).astype(np.int64)),
        aslp=None,  # of the bytes on disk
        conventions={**statistics.conventions, "saliency": "uncalibrated"},
        regions={name: measure_levels(region, probs) for name, region in statistics.regions.items()},
    )


def _on_grid(cells: ReliabilityCells) -> ReliabilityCells:
    """Exact cells, gathered into those of the grid."""
    cell = SCORE_GRID.index(cells.score, complement=1 - cells.score)
    return ReliabilityCells.on_grid(
        cells.names,
        _gathered(cells.count, cell),
        _gathered(cells.confidence, cell),
        _gathered(cells.correct, cell),
        SCORE_GRID,
        rounded=True,
    )


def _gathered(values: Array, cell: Array) -> Array:
    """Sums of `(..., n)` values by cell, `(..., cells)`; products of counts and 0/1 are exact below 2^53."""
    share = np.equal.outer(cell, np.arange(SCORE_GRID.size)).astype(np.float64)
    return (values @ share).astype(values.dtype)
