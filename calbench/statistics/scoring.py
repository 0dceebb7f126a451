"""Sums of the scoring rules, from which NLL, Brier score, absolute error and entropy follow."""

from __future__ import annotations

from dataclasses import dataclass

from calbench.statistics.rows import Array, Rows, row_array


@dataclass(frozen=True, eq=False)
class ScoreSums(Rows):
    """Sums over pixels, `(...,)` each, float64 (pixel count: int64 until weighted).

    Attributes:
        count: valid pixels.
        log_loss: Σ −ln P(outcome), nats, with P clipped to [clip, 1 − clip].
        squared_error: Σ (p − y)².
        absolute_error: Σ |p − y|.
        entropy: Σ −p ln p − (1 − p) ln(1 − p), nats.
        clip: the clip of the log loss, shared by all rows.
    """

    count: Array = row_array()
    log_loss: Array = row_array()
    squared_error: Array = row_array()
    absolute_error: Array = row_array()
    entropy: Array = row_array()
    clip: float
