"""Saliency metrics from the joint histogram, equal to PySODMetrics 1.6.2.

Each map is min-max stretched over its valid pixels first (the tools' convention, and only here), then truncated to levels
for the curves. Curves have shape `(..., 256)`, index t = pixels at level t and above are foreground. Curves are averaged
over images before their maximum or mean is taken.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from calbench.kernels.binary import EPS
from calbench.statistics.histogram import LEVELS, JointHistogram
from calbench.statistics.reliability import divide
from calbench.statistics.rows import Array

BETA2 = 0.3

Counts = tuple[Array, Array, Array, Array]
"""True positives, false positives, foreground pixels, all pixels; the first two with a trailing axis of thresholds."""


def mean_absolute_error(histogram: JointHistogram) -> Array:
    """MAE = Σ |x̂ − y| / N on the min-max stretched map x̂ (not truncated), in [0, 1], shape `(...,)`.

    Reference: Perazzi et al., CVPR 2012 (doi:10.1109/CVPR.2012.6247743); stretched as PySODMetrics does.
    """
    return _mae(histogram, histogram.stretched_values())


def mean_absolute_error_raw(histogram: JointHistogram) -> Array:
    """MAE = Σ |p − y| / N on the map as saved, without rescaling, in [0, 1], shape `(...,)`.

    Reference: Perazzi et al., CVPR 2012 (doi:10.1109/CVPR.2012.6247743).
    """
    return _mae(histogram, histogram.probs)


def _mae(histogram: JointHistogram, value: Array) -> Array:
    background, foreground = histogram.counts[..., 0, :], histogram.counts[..., 1, :]
    return divide((background * value + foreground * (1 - value)).sum(-1), histogram.counts.sum((-2, -1)))


def precision_curve(histogram: JointHistogram) -> Array:
    """Precision at each threshold, 0 where nothing is selected, `(..., 256)`."""
    return _dynamic(_precision, histogram)


def recall_curve(histogram: JointHistogram) -> Array:
    """Recall at each threshold, 0 without foreground, `(..., 256)`."""
    return _dynamic(_recall, histogram)


def f_curve(histogram: JointHistogram) -> Array:
    """F = (1 + β²) P R / (β² P + R), β² = 0.3, at each threshold, `(..., 256)`.

    Reference: Achanta et al., CVPR 2009 (doi:10.1109/CVPR.2009.5206596).
    """
    return _dynamic(_f, histogram)


def e_curve(histogram: JointHistogram) -> Array:
    """E-measure at each threshold, `(..., 256)`; divided by N − 1 as the authors' code does, so it can exceed 1 slightly.

    Reference: Fan et al., IJCAI 2018 (arXiv:1805.10421).
    """
    return _dynamic(_e, histogram)


def iou_curve(histogram: JointHistogram) -> Array:
    """IoU = TP / (TP + FP + FN) at each threshold, 0 where undefined, `(..., 256)`.

    Reference: Jaccard, 1912 (doi:10.1111/j.1469-8137.1912.tb05611.x).
    """
    return _dynamic(_iou, histogram)


def dice_curve(histogram: JointHistogram) -> Array:
    """Dice = 2 TP / (2 TP + FP + FN) at each threshold, 0 where undefined, `(..., 256)`.

    Reference: Dice, 1945 (doi:10.2307/1932409).
    """
    return _dynamic(_dice, histogram)


def adaptive_f(histogram: JointHistogram) -> Array:
    """F at the threshold min(2 · mean of the map, 1), shape `(...,)`.

    Reference: Achanta et al., CVPR 2009 (doi:10.1109/CVPR.2009.5206596).
    """
    return _adaptive(_f, histogram)


def adaptive_e(histogram: JointHistogram) -> Array:
    """E-measure at the threshold min(2 · mean of the map, 1), shape `(...,)`.

    Reference: Fan et al., IJCAI 2018 (arXiv:1805.10421).
    """
    return _adaptive(_e, histogram)


def adaptive_iou(histogram: JointHistogram) -> Array:
    """IoU at the threshold min(2 · mean of the map, 1), shape `(...,)`.

    Reference: Jaccard, 1912 (doi:10.1111/j.1469-8137.1912.tb05611.x).
    """
    return _adaptive(_iou, histogram)


def adaptive_dice(histogram: JointHistogram) -> Array:
    """Dice at the threshold min(2 · mean of the map, 1), shape `(...,)`.

    Reference: Dice, 1945 (doi:10.2307/1932409).
    """
    return _adaptive(_dice, histogram)


def curve_maximum(curve: Array) -> Array:
    """Maximum over thresholds."""
    return curve.max(-1)


def curve_mean(curve: Array) -> Array:
    """Mean over thresholds."""
    return curve.mean(-1)


def _dynamic(measure: Callable[[Counts], Array], histogram: JointHistogram) -> Array:
    """A measure at all 256 thresholds of the stretched, truncated map; NaN without a valid pixel."""
    counts = histogram.stretched().counts
    found = counts[..., ::-1].cumsum(-1)[..., ::-1]
    per_outcome = counts.sum(-1)[..., None]
    foreground, total = per_outcome[..., 1, :], per_outcome.sum(-2)
    curve = measure((found[..., 1, :], found[..., 0, :], foreground, total))
    return np.where(total > 0, curve, np.nan)


def _adaptive(measure: Callable[[Counts], Array], histogram: JointHistogram) -> Array:
    """A measure at twice the mean, decided in integers: level − low >= min(2 Σ (level − low), span · N) / N."""
    counts = histogram.counts
    low, high = (extreme[..., None] for extreme in histogram.extremes())
    constant = low == high
    low, span = np.where(constant, 0, low), np.where(constant, LEVELS - 1, high - low)
    height = np.arange(LEVELS) - low
    per_level = counts.sum(-2)
    total = per_level.sum(-1, keepdims=True)
    doubled = 2 * (per_level * height).sum(-1, keepdims=True)
    selected = counts * (height * total >= np.minimum(doubled, span * total))[..., None, :]
    per_outcome, foreground = selected.sum(-1), counts[..., 1, :].sum(-1, keepdims=True)
    value = measure((per_outcome[..., 1:], per_outcome[..., :1], foreground, total))
    return np.where(total > 0, value, np.nan)[..., 0]


def _ratio(numerator: Array, denominator: Array) -> Array:
    """The tools' division: 0 where the denominator is 0."""
    return np.nan_to_num(divide(numerator, denominator))


def _precision(counts: Counts) -> Array:
    tp, fp, _, _ = counts
    return _ratio(tp, tp + fp)


def _recall(counts: Counts) -> Array:
    tp, _, foreground, _ = counts
    return _ratio(tp, foreground)


def _f(counts: Counts) -> Array:
    precision, recall = _precision(counts), _recall(counts)
    return _ratio((1 + BETA2) * precision * recall, BETA2 * precision + recall)


def _iou(counts: Counts) -> Array:
    tp, fp, foreground, _ = counts
    return _ratio(tp, foreground + fp)


def _dice(counts: Counts) -> Array:
    tp, fp, foreground, _ = counts
    return _ratio(2 * tp, tp + fp + foreground)


def _e(counts: Counts) -> Array:
    tp, fp, foreground, total = counts
    selected = tp + fp
    n = np.where(total > 0, total, 1)
    map_mean, mask_mean = selected / n, foreground / n
    parts = (
        (tp, 1 - map_mean, 1 - mask_mean),
        (fp, 1 - map_mean, -mask_mean),
        (foreground - tp, -map_mean, 1 - mask_mean),
        (total - foreground - fp, -map_mean, -mask_mean),
    )
    aligned = sum(count * (2 * a * b / (a**2 + b**2 + EPS) + 1) ** 2 / 4 for count, a, b in parts)
    aligned = np.where(foreground == 0, total - selected, np.where(foreground == total, selected, aligned))
    return np.asarray(aligned / (total - 1 + EPS))


CURVES: dict[str, Callable[[JointHistogram], Array]] = {
    "precision": precision_curve,
    "recall": recall_curve,
    "f": f_curve,
    "e": e_curve,
    "iou": iou_curve,
    "dice": dice_curve,
}
"""The curves of `curves.csv`, by name."""
