"""Sums of the scoring rules, from which NLL, Brier score and entropy follow."""

from __future__ import annotations

from dataclasses import dataclass, field

from calbench.statistics.rows import PER_ROW, Array, Rows


@dataclass(frozen=True, eq=False)
class ScoreSums(Rows):
    """Sums over pixels, `(...,)` each, float64 (pixel count: int64 until weighted).

    Attributes:
        count: valid pixels.
        log_loss: Σ −ln P(outcome), nats, with P clipped to [clip, 1 − clip].
        squared_error: Σ (p − y)² of binary maps; Σ Σ_k (p_k − y_k)² over the classes of others.
        squared_score: Σ p² of binary maps; Σ Σ_k p_k² of others.
        entropy: Σ of the predictive entropy, nats.
        clip: the clip of the log loss, shared by all rows; 0 where none was needed (logits).
        classes: number of classes; 2 for binary maps.
        binary: whether p is the one probability of foreground, rather than one for each class.
    """

    count: Array = field(metadata=PER_ROW)
    log_loss: Array = field(metadata=PER_ROW)
    squared_error: Array = field(metadata=PER_ROW)
    squared_score: Array = field(metadata=PER_ROW)
    entropy: Array = field(metadata=PER_ROW)
    clip: float
    classes: int
    binary: bool
