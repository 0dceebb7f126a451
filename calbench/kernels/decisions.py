"""The kernel of tables that hold only a class and its confidence for each sample."""

from __future__ import annotations

import numpy as np

from calbench.errors import RangeError
from calbench.statistics.bundle import Statistics
from calbench.statistics.class_counts import ClassCounts
from calbench.statistics.reliability import SCORE_GRID, ReliabilityCells
from calbench.statistics.rows import Array


def measure_decisions(
    names: tuple[str, ...], target: Array, predicted: Array, confidence: Array, group: Array
) -> Statistics:
    """Reduce decisions to top-label cells and class counts, one row a group of samples.

    Args:
        names: of the rows.
        target, predicted: `(samples,)` classes from 0; their number is the largest that occurs plus one.
        confidence: `(samples,)` float64 in [0, 1].
        group: `(samples,)` row of each sample, 0 ... len(names) − 1.
    Raises:
        RangeError: a negative class.

    >>> rows = measure_decisions(("a",), np.array([0, 2]), np.array([0, 1]), np.array([0.9, 0.6]), np.array([0, 0]))
    >>> rows.counts.hit.tolist()
    [[1, 0, 0]]
    """
    lowest = min(int(target.min(initial=0)), int(predicted.min(initial=0)))
    if lowest < 0:
        raise RangeError(f"the table has the class {lowest}; classes count from 0; leave out samples without a class")
    n_rows, n_classes = len(names), 1 + max(int(target.max(initial=0)), int(predicted.max(initial=0)))
    right = target == predicted

    def summed(cell: Array, size: int, weights: Array | None = None) -> Array:
        sums = np.bincount(group * size + cell, weights, minlength=n_rows * size).reshape(n_rows, size)
        return sums if weights is None or weights.dtype == np.float64 else sums.astype(np.int64)

    cell = SCORE_GRID.index(confidence)
    top_label = ReliabilityCells.on_grid(
        names,
        summed(cell, SCORE_GRID.size),
        summed(cell, SCORE_GRID.size, confidence),
        summed(cell, SCORE_GRID.size, right),
        SCORE_GRID,
    )
    counts = ClassCounts(
        names, summed(target, n_classes), summed(predicted, n_classes), summed(target, n_classes, right)
    )
    return Statistics(top_label=top_label, counts=counts)
