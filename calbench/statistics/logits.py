"""Sums of distances between logits, and of distances from the uniform distribution, as MbLS reports them."""

from __future__ import annotations

from dataclasses import dataclass, field

from calbench.statistics.rows import PER_ROW, Array, Rows


@dataclass(frozen=True, eq=False)
class LogitSums(Rows):
    """Sums over pixels of distances between the logits l, `(...,)` each.

    Attributes:
        count: valid pixels.
        mean_distance: Σ of Σ_k (max_j l_j − l_k) / (classes − 1).
        max_distance: Σ of max_j l_j − min_j l_j.
        margin: Σ of the largest less the second largest logit.
    """

    count: Array = field(metadata=PER_ROW)
    mean_distance: Array = field(metadata=PER_ROW)
    max_distance: Array = field(metadata=PER_ROW)
    margin: Array = field(metadata=PER_ROW)


@dataclass(frozen=True, eq=False)
class UniformSums(Rows):
    """Sums over pixels of distances of p from the uniform distribution, `(...,)` each; for `--profile mbls`.

    Attributes:
        count: valid pixels.
        divergence: Σ of mean_k (ln(1 / classes) − ln(p_k + 1e-10)), nats.
        absolute: Σ of mean_k |1 / classes − p_k|.
    """

    count: Array = field(metadata=PER_ROW)
    divergence: Array = field(metadata=PER_ROW)
    absolute: Array = field(metadata=PER_ROW)
