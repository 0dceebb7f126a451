"""Sums of the scoring rules, from which NLL, Brier score, absolute error and entropy follow."""

from __future__ import annotations

from dataclasses import dataclass, field

from calbench.statistics.rows import PER_ROW, Array, Rows


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

    count: Array = field(metadata=PER_ROW)
    log_loss: Array = field(metadata=PER_ROW)
    squared_error: Array = field(metadata=PER_ROW)
    absolute_error: Array = field(metadata=PER_ROW)
    entropy: Array = field(metadata=PER_ROW)
    clip: float
