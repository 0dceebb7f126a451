"""Calibration errors as torchmetrics computes them (`--profile torchmetrics`): left-closed bins, one more for exactly 1.

Bin b holds the scores in [b / B, (b + 1) / B), and a bin of its own those of exactly 1: B bins are B + 1. On several classes
the score is the largest probability against being right; on binary maps it is p against being foreground. torchmetrics
counts and adds in float32, which stops at 2^24 pixels a bin and loses digits long before; here counts and sums are exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from calbench.errors import OptionError
from calbench.intervals import Norm
from calbench.metrics.averages import defined_mean
from calbench.metrics.metric import Reader
from calbench.metrics.segmentation import recall_of_classes
from calbench.statistics import ClassCounts, ReliabilityCells, Statistics
from calbench.statistics.reliability import EDGE_TOLERANCE, SCORE_GRID, divide, linspace_float32
from calbench.statistics.rows import Array


def _left_closed(statistics: Statistics) -> ReliabilityCells | None:
    if statistics.exact_histogram is not None:
        return statistics.exact_histogram.reliability("foreground")
    return statistics.left_closed


left_closed = Reader(_left_closed, "float predictions read with --profile torchmetrics, or 8-bit maps", "torchmetrics")
"""Cells that left-closed bins are unions of."""


def _shares(cells: ReliabilityCells, bins: int) -> Array:
    """Shares `(cells, bins + 1)`, 0 or 1, of each cell in each left-closed bin.

    Raises:
        OptionError: bins that are no unions of the cells of float scores.
    """
    equal = SCORE_GRID.n_equal
    if len(cells.score) == equal + 1 and equal % bins:
        near = min((n for n in range(1, equal + 1) if equal % n == 0), key=lambda n: abs(n - bins))
        raise OptionError(
            f"bins is {bins}; float scores are counted in {equal} left-closed cells, so the torchmetrics errors need a "
            f"divisor of {equal}, for example {near}"
        )
    if len(cells.score) == equal + 1:
        index = np.floor((cells.score + EDGE_TOLERANCE) * bins)
    else:  # 8-bit levels, compared in float32 as torchmetrics does: levels 51, 102 and 119 fall below edges they are on
        index = np.searchsorted(linspace_float32(bins + 1), cells.score.astype(np.float32), side="right") - 1
    return np.equal.outer(index, np.arange(bins + 1)).astype(np.float64)


def _binned(cells: ReliabilityCells, bins: int) -> tuple[Array, Array]:
    """Pixels and residuals of each bin, `(..., bins + 1)`."""
    shares = _shares(cells, bins)
    return cells.count @ shares, cells.residual @ shares


def expected_error(cells: ReliabilityCells, *, bins: int = 15) -> Array:
    """Σ_b (n_b / N) |conf_b − acc_b| over left-closed bins. Shape `(...,)`; torchmetrics' `norm="l1"`.

    Reference: torchmetrics, `CalibrationError`; Kumar et al., NeurIPS 2019 (arXiv:1909.10155).
    """
    count, residual = _binned(cells, bins)
    return divide(np.abs(residual).sum(-1), count.sum(-1))


def expected_norm(cells: ReliabilityCells, *, bins: int) -> Norm:
    """The L1 norm itself."""
    return Norm(_shares(cells, bins), lambda vector: np.abs(vector).sum(-1))


def root_mean_squared_error(cells: ReliabilityCells, *, bins: int = 15) -> Array:
    """√(Σ_b (n_b / N) (conf_b − acc_b)²) over left-closed bins. Shape `(...,)`; torchmetrics' `norm="l2"`.

    Reference: torchmetrics, `CalibrationError`; Kumar et al., NeurIPS 2019 (arXiv:1909.10155).
    """
    count, residual = _binned(cells, bins)
    squares = residual**2 / np.where(count > 0, count, 1)
    return np.sqrt(divide(squares.sum(-1), count.sum(-1)))


def root_mean_squared_norm(cells: ReliabilityCells, *, bins: int) -> Norm:
    """The L2 norm, with the bins' pixel shares of the full sample."""
    shares = _shares(cells, bins)
    weight = cells.count @ shares / cells.count.sum()
    return Norm(shares / np.sqrt(np.where(weight > 0, weight, 1)), lambda vector: np.sqrt((vector**2).sum(-1)))


def maximum_error(cells: ReliabilityCells, *, bins: int = 15) -> Array:
    """max_b |conf_b − acc_b| over left-closed bins, however few pixels they hold. Shape `(...,)`; `norm="max"`.

    Reference: torchmetrics, `CalibrationError`; Naeini et al., AAAI 2015.
    """
    count, residual = _binned(cells, bins)
    largest = np.abs(residual / np.where(count > 0, count, 1)).max(-1)
    return np.where(count.sum(-1) > 0, largest, np.nan)


def maximum_details(cells: ReliabilityCells, *, bins: int) -> Mapping[str, Any]:
    """The bin of the largest gap."""
    count, residual = _binned(cells, bins)
    index = int(np.abs(residual / np.where(count > 0, count, 1)).argmax())
    return {"bin": "1" if index == bins else f"[{index / bins:.4g}, {(index + 1) / bins:.4g})"}


def recall_of_met_classes(counts: ClassCounts) -> Array:
    """Recall of each class, `(..., classes)`; 0 for classes that are only predicted, NaN for those in neither."""
    met = counts.target + counts.predicted > 0
    return np.where(met, np.nan_to_num(recall_of_classes(counts)), np.nan)


def class_accuracy(counts: ClassCounts) -> Array:
    """Mean recall over the classes in ground truth or prediction, 0 where the ground truth lacks one. Shape `(...,)`.

    torchmetrics' `MulticlassAccuracy(average="macro")`: a class that is predicted somewhere but absent from the ground
    truth pulls the mean down, where `class_accuracy` leaves it out.

    Reference: torchmetrics, `MulticlassAccuracy`.
    """
    return defined_mean(recall_of_met_classes(counts))
