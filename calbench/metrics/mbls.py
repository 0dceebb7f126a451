"""The numbers of the MbLS evaluators (`--profile mbls`), where they differ from the definitions of this package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from calbench.intervals import Norm
from calbench.metrics.calibration_error import class_wise_details, class_wise_errors, ece_norm
from calbench.metrics.metric import Reader
from calbench.statistics.kept import KeptScores
from calbench.statistics.logits import UniformSums
from calbench.statistics.reliability import ReliabilityCells, divide, equal_width
from calbench.statistics.rows import Array

_NEEDS = "probabilities or logits of several classes, read with --profile mbls"

kept = Reader(lambda statistics: statistics.kept, _NEEDS, "mbls")
"""Every single confidence."""

uniform = Reader(lambda statistics: statistics.uniform, _NEEDS, "mbls")
"""Distances from the uniform distribution."""

objects = Reader(lambda statistics: statistics.objects, _NEEDS, "mbls")
"""Top-label cells of the pixels whose ground truth is not class 0."""

batches = Reader(
    lambda statistics: statistics.objects if statistics.rows_are_whole else None,
    _NEEDS + ", not in hash groups (tables of more than 1000 samples)",
    "mbls",
)
"""The same, of rows that are single images or samples, which batches are made of."""


def interpolated_adaptive_error(scores: KeptScores, *, bins: int = 15) -> Array:
    """AECE with edges interpolated between the sorted confidences, a scalar.

    The edges are the sorted confidences at the fractional positions 0, N / B, 2 N / B ... N; cells are (lo, hi], so the
    smallest confidence lies in none, but still counts in N. Tied confidences stay together. Computed in float64, where the
    scripts compare float32.

    Reference: Liu et al., CVPR 2022 (arXiv:2111.15430), official code.
    """
    total = len(scores.confidence)
    if total == 0:
        return np.array(np.nan)
    confidence = scores.confidence.astype(np.float64)
    edges = np.interp(np.linspace(0, total, bins + 1), np.arange(total), np.sort(confidence))
    cell = np.searchsorted(edges, confidence, side="left")  # 0: not above the lowest edge
    residual = np.bincount(cell, weights=scores.correct - confidence, minlength=bins + 1)
    return np.asarray(np.abs(residual[1:]).sum() / total)


def class_wise_error_up_to_largest_label(cells: ReliabilityCells, *, bins: int = 15) -> Array:
    """Class-wise ECE over the classes 0 ... k, k the largest label in the ground truth. Shape `(...,)`.

    The scripts take the number of classes from the labels; classes above the largest one are left out, absent ones below it
    are not.

    Reference: Liu et al., CVPR 2022 (arXiv:2111.15430), official code.
    """
    used = _up_to_largest_label(cells)
    return divide((class_wise_errors(cells, bins=bins) * used).sum(-1), used.sum(-1))


def class_wise_norm_up_to_largest_label(cells: ReliabilityCells, *, bins: int) -> Norm:
    """The same as an L1 norm over the classes that count, with the largest label of the full sample."""
    used = _up_to_largest_label(cells)
    weights = np.multiply.outer(used / used.sum(), equal_width(cells.score, bins))
    return Norm(weights, ece_norm(cells, bins=bins).gauge)


def class_wise_details_up_to_largest_label(cells: ReliabilityCells, *, bins: int) -> Mapping[str, Any]:
    """The facts of `ece_classwise` over the classes that count, and how many these are."""
    used = _up_to_largest_label(cells)
    counted = replace(cells, **{name: getattr(cells, name)[used] for name in cells.row_fields()})
    return {"classes_averaged": int(used.sum()), **class_wise_details(counted, bins=bins)}


def _up_to_largest_label(cells: ReliabilityCells) -> Array:
    """Whether a class or one above it is in the ground truth, `(..., classes)`."""
    present = cells.correct.sum(-1) > 0
    return np.logical_or.accumulate(present[..., ::-1], axis=-1)[..., ::-1]


def divergence_from_uniform(sums: UniformSums) -> Array:
    """KL(uniform ‖ p) = mean_k (ln(1 / K) − ln(p_k + 1e-10)), mean over pixels, nats. Shape `(...,)`.

    Reference: Liu et al., CVPR 2022 (arXiv:2111.15430), official code.
    """
    return divide(sums.divergence, sums.count)


def distance_from_uniform(sums: UniformSums) -> Array:
    """mean_k |1 / K − p_k|, mean over pixels. Shape `(...,)`.

    Reference: Liu et al., CVPR 2022 (arXiv:2111.15430), official code.
    """
    return divide(sums.absolute, sums.count)


def batch_error(cells: ReliabilityCells, *, bins: int = 15, batch: int = 1) -> Array:
    """Mean of the ECEs of consecutive batches of images, weighted by pixels, over pixels whose class is not 0; a scalar.

    Σ_batches Σ_b |Σ (correct − conf)| / N. By the triangle inequality it is at least the pooled error, and it depends on the
    size of the batches. The rows of `cells` are images in the order of their names.

    Reference: Liu et al., CVPR 2022 (arXiv:2111.15430), official code.
    """
    residual = cells.residual @ equal_width(cells.score, bins)
    batches = np.add.reduceat(residual, np.arange(0, len(residual), batch))
    return divide(np.abs(batches).sum(), cells.count.sum())
