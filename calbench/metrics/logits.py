"""Distances between logits, which describe how far a network drives them apart; none is better or worse by itself."""

from __future__ import annotations

from calbench.statistics.logits import LogitSums
from calbench.statistics.reliability import divide
from calbench.statistics.rows import Array


def mean_distance(sums: LogitSums) -> Array:
    """Mean over pixels of Σ_k (max_j l_j − l_k) / (classes − 1). Shape `(...,)`, in logits.

    Reference: Liu et al., CVPR 2022 (arXiv:2111.15430).
    """
    return divide(sums.mean_distance, sums.count)


def max_distance(sums: LogitSums) -> Array:
    """Mean over pixels of max_j l_j − min_j l_j. Shape `(...,)`, in logits.

    Reference: Liu et al., CVPR 2022 (arXiv:2111.15430).
    """
    return divide(sums.max_distance, sums.count)


def margin(sums: LogitSums) -> Array:
    """Mean over pixels of the largest less the second largest logit. Shape `(...,)`, in logits.

    Reference: Liu et al., CVPR 2022 (arXiv:2111.15430).
    """
    return divide(sums.margin, sums.count)
