"""Segmentation metrics from the pixels of each class in ground truth, prediction and both.

Each `*_of_classes` function gives every class its value, `(..., classes)`, NaN where the class is absent; the metric is the
mean over the others. Binary maps have the two classes background and foreground, decided by p >= 0.5.

>>> counts = ClassCounts((), np.array([6, 4, 0]), np.array([5, 4, 1]), np.array([5, 3, 0]))
>>> iou_of_classes(counts).round(4).tolist(), round(float(mean_iou(counts)), 4)
([0.8333, 0.6, 0.0], 0.4778)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from calbench.metrics.averages import defined_mean
from calbench.statistics.changes import ClassChanges
from calbench.statistics.class_counts import ClassCounts
from calbench.statistics.reliability import divide
from calbench.statistics.rows import Array


def pixel_accuracy(counts: ClassCounts) -> Array:
    """Share of pixels whose class is right: Σ_k hit_k / Σ_k target_k. Shape `(...,)`.

    Reference: Long, Shelhamer & Darrell, CVPR 2015 (arXiv:1411.4038).
    """
    return divide(counts.hit.sum(-1), counts.target.sum(-1))


def class_changed(changes: ClassChanges) -> Array:
    """Share of pixels whose class a calibrator changed. Shape `(...,)`, in [0, 1]."""
    return divide(changes.changed, changes.count)


def recall_of_classes(counts: ClassCounts) -> Array:
    """hit_k / target_k, `(..., classes)`; NaN for classes that the ground truth lacks."""
    return divide(counts.hit, counts.target)


def class_accuracy(counts: ClassCounts) -> Array:
    """Mean recall over the classes of the ground truth: mean_k hit_k / target_k. Shape `(...,)`.

    Reference: Long, Shelhamer & Darrell, CVPR 2015 (arXiv:1411.4038), "mean accuracy".
    """
    return defined_mean(recall_of_classes(counts))


def iou_of_classes(counts: ClassCounts) -> Array:
    """hit_k / (target_k + predicted_k − hit_k), `(..., classes)`; NaN for classes in neither ground truth nor prediction."""
    return divide(counts.hit, counts.target + counts.predicted - counts.hit)


def mean_iou(counts: ClassCounts) -> Array:
    """mIoU: mean over the classes in ground truth or prediction of intersection over union. Shape `(...,)`.

    A class that is predicted somewhere but absent from the ground truth counts 0.

    Reference: Long, Shelhamer & Darrell, CVPR 2015 (arXiv:1411.4038), "mean IU"; Jaccard, 1912.
    """
    return defined_mean(iou_of_classes(counts))


def frequency_weighted_iou(counts: ClassCounts) -> Array:
    """Intersection over union weighted by frequency in the ground truth: Σ_k (target_k / N) IoU_k. Shape `(...,)`.

    Reference: Long, Shelhamer & Darrell, CVPR 2015 (arXiv:1411.4038), "frequency weighted IU".
    """
    weighted = counts.target * np.nan_to_num(iou_of_classes(counts))
    return divide(weighted.sum(-1), counts.target.sum(-1))


def dice_of_classes(counts: ClassCounts) -> Array:
    """2 hit_k / (target_k + predicted_k), `(..., classes)`; NaN for classes in neither ground truth nor prediction."""
    return divide(2 * counts.hit, counts.target + counts.predicted)


def mean_dice(counts: ClassCounts) -> Array:
    """Mean over the classes in ground truth or prediction of the Dice coefficient. Shape `(...,)`.

    Reference: Dice, 1945 (doi:10.2307/1932409).
    """
    return defined_mean(dice_of_classes(counts))


def class_details(counts: ClassCounts) -> Mapping[str, Any]:
    """Classes in the ground truth, and classes in neither ground truth nor prediction."""
    return {
        "classes_seen": int(np.count_nonzero(counts.target)),
        "classes_absent": int(np.count_nonzero(counts.target + counts.predicted == 0)),
    }
