"""Means over classes, or over bins, of which some are absent."""

from __future__ import annotations

import numpy as np

from calbench.statistics.reliability import divide
from calbench.statistics.rows import Array


def defined_mean(values: Array) -> Array:
    """Mean over the last axis of the values that are defined; NaN where none is. Shape `(..., classes)` -> `(...,)`.

    >>> defined_mean(np.array([[0.2, np.nan, 0.4], [np.nan, np.nan, np.nan]])).round(6).tolist()
    [0.3, nan]
    """
    defined = np.isfinite(values)
    return divide(np.where(defined, values, 0).sum(-1), defined.sum(-1))
