"""Ranking: how well the probability separates foreground from background, whatever its calibration."""

from __future__ import annotations

import numpy as np

from calbench.statistics.histogram import JointHistogram
from calbench.statistics.reliability import divide
from calbench.statistics.rows import Array


def auroc(histogram: JointHistogram) -> Array:
    """Area under the ROC curve: P(p_foreground > p_background) + ½ P(equal), exact on levels. Shape `(...,)`.

    NaN where one outcome is missing.

    Reference: Hanley & McNeil, 1982 (doi:10.1148/radiology.143.1.7063747).
    """
    background, foreground = (np.asarray(histogram.counts[..., y, :], np.float64) for y in (0, 1))
    below = background.cumsum(-1) - background / 2
    return divide((foreground * below).sum(-1), foreground.sum(-1) * background.sum(-1))


def average_precision(histogram: JointHistogram) -> Array:
    """AP = Σ_t (R_t − R_{t−1}) P_t over falling thresholds, tied levels together; no interpolation. Shape `(...,)`.

    NaN without foreground.

    Reference: scikit-learn's `average_precision_score`; Davis & Goadrich, ICML 2006 (doi:10.1145/1143844.1143874).
    """
    background, foreground = (np.asarray(histogram.counts[..., y, ::-1], np.float64) for y in (0, 1))
    found, selected = foreground.cumsum(-1), (foreground + background).cumsum(-1)
    precision = found / np.where(selected > 0, selected, 1)
    return divide((foreground * precision).sum(-1), foreground.sum(-1))
