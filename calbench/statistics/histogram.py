"""The joint histogram of outcome and 8-bit level: the sufficient statistic of a binary map."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from scipy.special import entr

from calbench.statistics.class_counts import ClassCounts
from calbench.statistics.reliability import ReliabilityCells
from calbench.statistics.rows import PER_ROW, Array, Rows
from calbench.statistics.scoring import ScoreSums
from calbench.statistics.uncertainty import Uncertainty

Event = Literal["top-label", "foreground"]

LEVELS = 256
HALF_LEVEL = 1 / 510


def level_probs() -> Array:
    """The probability that each 8-bit level stores: v / 255, shape `(256,)`."""
    return np.arange(LEVELS) / 255


def binary_entropy(p: Array) -> Array:
    """−p ln p − (1 − p) ln(1 − p), nats; 0 at both ends.

    >>> binary_entropy(np.array([0.0, 0.5])).round(4).tolist()
    [0.0, 0.6931]
    """
    return np.asarray(entr(p) + entr(1 - p))


@dataclass(frozen=True, eq=False)
class JointHistogram(Rows):
    """Pixels per outcome and level of binary maps: everything a metric of an 8-bit map needs, but position.

    Attributes:
        counts: `(..., 2, 256)` valid pixels; outcome 0 is background, 1 foreground; int64 until weighted.
        probs: probability of foreground that each level stands for, `(256,)`; v / 255 until a calibrator changes it.
    """

    counts: Array = field(metadata=PER_ROW)
    probs: Array = field(default_factory=level_probs)

    def reliability(self, event: Event) -> ReliabilityCells:
        """Exact reliability cells of an event.

        "top-label": score max(p, 1 − p), correct where the decision p >= 0.5 equals the outcome.
        "foreground": score p, correct where the pixel is foreground.
        """
        background, foreground = self.counts[..., 0, :], self.counts[..., 1, :]
        if event == "foreground":
            level_score, right = self.probs, foreground
        else:
            decided = self.probs >= 0.5
            level_score = np.where(decided, self.probs, 1 - self.probs)
            right = np.where(decided, foreground, background)
        # k / 255 and 1 − (255 − k) / 255 are one confidence that float64 writes in two ways: they share a cell
        _, first, cell = np.unique(np.round(level_score, 12), return_index=True, return_inverse=True)
        score = level_score[first]
        share = np.equal.outer(cell, np.arange(len(score))).astype(np.float64)
        # products of counts and 0/1 shares are exact below 2^53
        count = ((background + foreground) @ share).astype(self.counts.dtype)
        correct = (right @ share).astype(self.counts.dtype)
        return ReliabilityCells.exact(self.names, count, correct, score)

    def score_sums(self, clip: float = HALF_LEVEL) -> ScoreSums:
        """Sums of the scoring rules; NLL clips P to [clip, 1 − clip], half a level by default (maps hold exact 0 and 1)."""
        p = self.probs
        safe = np.clip(p, clip, 1 - clip)
        background, foreground = self.counts[..., 0, :], self.counts[..., 1, :]
        return ScoreSums(
            self.names,
            self.counts.sum((-2, -1)),
            -(foreground @ np.log(safe) + background @ np.log1p(-safe)),
            foreground @ (1 - p) ** 2 + background @ p**2,
            (foreground + background) @ p**2,
            (foreground + background) @ binary_entropy(p),
            clip,
            classes=2,
            binary=True,
        )

    def class_counts(self) -> ClassCounts:
        """Background and foreground in the mask, in the decision p >= 0.5, and in both."""
        decided = (self.probs >= 0.5).astype(np.int64)
        predicted, hit = (
            np.stack([counts @ (1 - decided), counts @ decided], axis=-1)
            for counts in (self.counts.sum(-2), self.counts)
        )
        return ClassCounts(
            self.names, self.counts.sum(-1), predicted, np.stack([hit[..., 0, 0], hit[..., 1, 1]], axis=-1)
        )

    def uncertainty(self) -> Uncertainty:
        """Entropy and confidence of the levels, exactly."""
        cells = self.reliability("top-label")
        entropy = binary_entropy(cells.score) / np.log(2)
        return Uncertainty(
            self.names,
            cells.count.sum(-1),
            cells.count @ entropy * np.log(2),
            cells.confidence.sum(-1),
            cells.count[..., ::-1],
            cells.count,
            entropy[::-1],
            exact=True,
            classes=2,
        )

    def extremes(self) -> tuple[Array, Array]:
        """Lowest and highest level that valid pixels hold, `(...,)` each; 0 and 0 without a valid pixel."""
        present = self.counts.sum(-2) > 0
        low = present.argmax(-1)
        high = np.where(present.any(-1), LEVELS - 1 - present[..., ::-1].argmax(-1), 0)
        return low, high

    def stretched_values(self) -> Array:
        """Each level's value after the per-image min-max of the saliency tools, `(..., 256)`, in [0, 1] where occupied.

        Computed in the order of operations of PySODMetrics, so that truncation to levels falls the same way. A constant
        map is not stretched.
        """
        low, high = (extreme[..., None] / 255 for extreme in self.extremes())
        value = level_probs()
        span = np.where(high > low, high - low, 1.0)
        return np.where(high > low, (value - low) / span, value)

    def stretched(self) -> JointHistogram:
        """The histogram of the min-max stretched map, truncated to levels: what saliency curves are computed on."""
        levels = (np.clip(self.stretched_values(), 0, 1) * 255).astype(np.intp)
        shape = self.counts.shape
        flat = self.counts.reshape(-1, 2, LEVELS)
        levels = np.broadcast_to(levels.reshape(-1, 1, LEVELS), flat.shape)
        offset = np.arange(len(flat) * 2).reshape(-1, 2, 1) * LEVELS
        moved = np.bincount((levels + offset).ravel(), weights=flat.ravel(), minlength=flat.size)
        return replace(self, counts=moved.reshape(shape).astype(self.counts.dtype))
