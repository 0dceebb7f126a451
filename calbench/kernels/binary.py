"""The per-image kernel: the only code that touches pixels, one image in, a few kilobytes out.

Everything here is a plain function of arrays, so that a compiled version can stand beside it. The joint histogram is
counted in the four quadrants around the mask's centroid: their sum is the stored row, and the S-measure follows from them
without a second look at the pixels. Only the weighted F-measure needs positions beyond that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import correlate1d, distance_transform_edt

from calbench.statistics.histogram import LEVELS, JointHistogram
from calbench.statistics.rows import Array

EPS = float(np.spacing(1))
"""MATLAB's eps, which the saliency tools add to denominators."""

IMAGE_SCORES = ("s_measure", "weighted_f")
_VOID_CODE = 2 * LEVELS


@dataclass(frozen=True)
class ImageMeasure:
    """What one image contributes: `counts` `(2, 256)` int64 and the scores that need pixel positions."""

    counts: Array
    scores: Mapping[str, float]


def measure(
    levels: Array, target: Array, valid: Array | None = None, *, scores: Collection[str] = IMAGE_SCORES
) -> ImageMeasure:
    """Reduce one binary map to its joint histogram and its positional scores.

    Args:
        levels: `(H, W)` uint8 prediction.
        target: `(H, W)` bool, True where the ground truth is foreground.
        valid: `(H, W)` bool, False at void pixels, which enter nothing; None when all count.
        scores: which of "s_measure" and "weighted_f" to compute; the rest costs no time.

    >>> levels = np.array([[0, 0, 0], [0, 255, 0], [0, 0, 0]], np.uint8)
    >>> measure(levels, levels > 128).counts.sum(1).tolist()
    [8, 1]
    """
    foreground = target if valid is None else target & valid
    codes = levels.astype(np.uint16)
    codes |= foreground.astype(np.uint16) << 8
    if valid is not None:
        codes[~valid] = _VOID_CODE
    if "s_measure" in scores:
        corner = centroid(foreground, offset=1)  # + 1: MATLAB's 1:X includes X
        quadrants = quadrant_counts(codes, corner)
        counts = quadrants.sum(0)
    else:
        counts = _count(codes)
    histogram = JointHistogram(("",), counts[None])
    values = histogram.stretched_values()[0]
    results: dict[str, float] = {}
    if "s_measure" in scores:
        has_area = corner[0] < levels.shape[0] and corner[1] < levels.shape[1]
        results["s_measure"] = s_measure(quadrants, values) if has_area or not _mixed(counts) else float("nan")
    if "weighted_f" in scores:
        results["weighted_f"] = weighted_f(levels, foreground, valid, values)
    return ImageMeasure(counts, results)


def centroid(foreground: Array, *, offset: int) -> tuple[int, int]:
    """Row and column (rounded half to even, plus `offset`) of the mean foreground position; the image centre if empty."""
    height, width = foreground.shape
    marks = foreground.view(np.uint8)  # sums of bytes are twice as fast as counts of bools
    per_row, per_column = marks.sum(1, dtype=np.uint32), marks.sum(0, dtype=np.uint32)
    total = int(per_row.sum())
    if total == 0:
        return round(height / 2) + offset, round(width / 2) + offset
    row = np.dot(per_row, np.arange(height)) / total
    column = np.dot(per_column, np.arange(width)) / total
    return round(float(row)) + offset, round(float(column)) + offset


def quadrant_counts(codes: Array, corner: tuple[int, int]) -> Array:
    """Joint histograms `(4, 2, 256)` left-top, right-top, left-bottom, right-bottom of `corner` = (row, column).

    `codes` holds 256 · outcome + level, and 512 at void pixels.
    """
    row, column = corner
    parts = (codes[:row, :column], codes[:row, column:], codes[row:, :column], codes[row:, column:])
    return np.stack([_count(part) for part in parts])


def _count(codes: Array) -> Array:
    return np.bincount(codes.ravel(), minlength=_VOID_CODE + 1)[:_VOID_CODE].reshape(2, LEVELS)


def _mixed(counts: Array) -> bool:
    """Whether both outcomes occur."""
    return bool(counts.any(-1).all())


def s_measure(quadrants: Array, values: Array, *, eps: float = EPS) -> float:
    """Structure measure ½ S_object + ½ S_region, clipped at 0, from quadrant histograms.

    Convention of PySODMetrics: sample standard deviations, 1 − mean without foreground, mean without background, NaN
    without a valid pixel. Constant regions have exactly zero variance here; the peer decides them on rounding noise.

    Args:
        quadrants: `(4, 2, 256)` counts around the centroid.
        values: `(256,)` value of each level in [0, 1].
    Reference: Fan et al., ICCV 2017 (arXiv:1708.00786).
    """
    background, foreground = quadrants.sum(0)
    n_background, n_foreground = int(background.sum()), int(foreground.sum())
    n = n_background + n_foreground
    if n == 0:
        return float("nan")
    if n_foreground == 0 or n_background == 0:
        mean = float((background + foreground) @ values) / n
        return 1 - mean if n_foreground == 0 else mean
    share = n_foreground / n
    s_object = share * _object_score(foreground, values, eps) + (1 - share) * _object_score(background, 1 - values, eps)
    s_region = sum(_ssim(part, values, eps) * part.sum() / n for part in quadrants if part.any())
    return max(0.0, 0.5 * s_object + 0.5 * s_region)


def _moments(count: Array, values: Array) -> tuple[float, Array]:
    """Mean of the values and deviations from it; a region of one level deviates by exactly 0."""
    occupied = np.flatnonzero(count)
    if len(occupied) == 1:
        return float(values[occupied[0]]), np.zeros_like(values)
    mean = float(count @ values) / int(count.sum())
    return mean, values - mean


def _object_score(count: Array, values: Array, eps: float) -> float:
    n = int(count.sum())
    mean, deviation = _moments(count, values)
    std = np.sqrt(float(count @ deviation**2) / (n - 1)) if n > 1 else 0.0
    return 2 * mean / (mean**2 + 1 + std + eps)


def _ssim(quadrant: Array, values: Array, eps: float) -> float:
    background, foreground = quadrant
    n_foreground = int(foreground.sum())
    n = n_foreground + int(background.sum())
    x, deviation = _moments(background + foreground, values)
    y = n_foreground / n
    freedom = n - 1 + eps
    sigma_x = float((background + foreground) @ deviation**2) / freedom
    sigma_y = (n_foreground * (1 - y) ** 2 + (n - n_foreground) * y**2) / freedom
    sigma_xy = float(((1 - y) * foreground - y * background) @ deviation) / freedom
    numerator = 4 * x * y * sigma_xy
    denominator = (x**2 + y**2) * (sigma_x + sigma_y)
    if numerator != 0:
        return numerator / (denominator + eps)
    return 1.0 if denominator == 0 else 0.0


_GAUSSIAN = np.exp(-(np.arange(-3, 4) ** 2) / (2 * 5.0**2))
_GAUSSIAN /= _GAUSSIAN.sum()
_DECAY = np.log(0.5) / 5


def weighted_f(levels: Array, foreground: Array, valid: Array | None, values: Array) -> float:
    """Weighted F-measure (β² = 1): errors blurred inside the object, weighted by distance to it outside.

    Convention of PySODMetrics: 0 without foreground. Void pixels have error 0 and weight 0; distances are taken on the
    full grid; NaN without a valid pixel.

    Args:
        levels: `(H, W)` uint8 prediction.
        foreground: `(H, W)` bool, valid foreground.
        valid: `(H, W)` bool or None.
        values: `(256,)` value of each level after the saliency min-max.
    Reference: Margolin et al., CVPR 2014, eq. 5 to 9.
    """
    n_foreground = np.count_nonzero(foreground)
    if n_foreground == 0:
        return 0.0 if valid is None or valid.any() else float("nan")
    wrong = levels >= np.count_nonzero(values <= 0)  # values ascend; background at value 0 carries no error
    wrong &= ~foreground
    if valid is not None:
        wrong &= valid

    # The 7 x 7 window reaches 3 pixels beyond the object; nothing outside this box and the errors' box counts.
    box = _box(foreground | wrong)
    levels, foreground, wrong = levels[box], foreground[box], wrong[box]
    height, width = levels.shape
    nearest = distance_transform_edt(~foreground, return_distances=False, return_indices=True)

    around = _box(foreground)
    error = (1 - values).take(levels.take(nearest[0][around] * np.int64(width) + nearest[1][around]))
    if valid is not None:
        error[~valid[box][around]] = 0
    blurred = correlate1d(correlate1d(error, _GAUSSIAN, axis=0, mode="constant"), _GAUSSIAN, axis=1, mode="constant")
    lost = float(np.minimum(blurred, error)[foreground[around]].sum())

    at = np.flatnonzero(wrong)
    down = (nearest[0] - np.arange(height, dtype=np.int32)[:, None]).take(at)
    across = (nearest[1] - np.arange(width, dtype=np.int32)).take(at)
    distance = np.sqrt(np.square(down, dtype=np.float64) + np.square(across, dtype=np.float64))
    # summed by NumPy, not by a dot product: that may split over threads, and differ in the last bit between processes
    false_positive = float((values.take(levels.take(at)) * (2 - np.exp(_DECAY * distance))).sum())

    true_positive = n_foreground - lost
    recall = 1 - lost / n_foreground
    precision = true_positive / (true_positive + false_positive + EPS)
    return float(2 * recall * precision / (recall + precision + EPS))


def _box(marked: Array) -> tuple[slice, slice]:
    """The box of the marked pixels and of those within 3 of them."""
    rows, columns = np.flatnonzero(marked.any(1)), np.flatnonzero(marked.any(0))
    return slice(max(rows[0] - 3, 0), rows[-1] + 4), slice(max(columns[0] - 3, 0), columns[-1] + 4)
