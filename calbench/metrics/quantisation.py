"""What saving a map with 8 bits can have done to its calibration error."""

from __future__ import annotations

import numpy as np

from calbench.statistics.histogram import HALF_LEVEL, LEVELS, JointHistogram
from calbench.statistics.reliability import bin_index, divide
from calbench.statistics.rows import Array


def quantisation_bound(histogram: JointHistogram, *, bins: int = 15) -> Array:
    """Most by which rounding to 8 bits can have changed `ece`: half a level, and pixels moved across bin edges.

    A level stands for probabilities within ± 1/510. Inside a bin the mean confidence moves by at most that. A level whose
    range holds a bin edge may have held pixels of the neighbouring bin: moving pixels of residual r changes two gaps by at
    most |r| each, so it adds twice the largest residual any part of the level can have, Σ max(score · wrong, (1 − score) ·
    right). No level straddles 0.5, so decisions are those of the unrounded map. Shape `(...,)`.

    Reference: derived in docs/concepts.md; a property test rounds float maps and holds the bound to them.
    """
    background, foreground = (np.asarray(histogram.counts[..., y, :], np.float64) for y in (0, 1))
    p = np.arange(LEVELS) / 255
    ends = np.clip(np.stack([p - HALF_LEVEL, p + HALF_LEVEL]), 0, 1)
    confidence = np.maximum(ends, 1 - ends)
    straddles = bin_index(confidence[0], bins) != bin_index(confidence[1], bins)
    score, decided = np.maximum(p, 1 - p), p >= 0.5
    right, wrong = np.where(decided, foreground, background), np.where(decided, background, foreground)
    movable = np.where(straddles, np.maximum(score * wrong, (1 - score) * right), 0).sum(-1)
    total = histogram.counts.sum((-2, -1))
    return np.where(total > 0, HALF_LEVEL, np.nan) + 2 * divide(movable, total)
