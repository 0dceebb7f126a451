"""How unsure a prediction is, whatever the truth: histograms of predictive entropy and of the largest probability."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from calbench.statistics.reliability import SCORE_GRID
from calbench.statistics.rows import PER_ROW, Array, Rows


@dataclass(frozen=True, eq=False)
class Uncertainty(Rows):
    """Uncertainty of the valid pixels, which out-of-distribution images have, too.

    Attributes:
        count: valid pixels, `(...,)`.
        entropy_sum: Σ −Σ_k p_k ln p_k, nats, `(...,)`.
        confidence_sum: Σ max_k p_k, `(...,)`.
        entropy: pixels by cell of the entropy divided by ln(classes), `(..., cells)`.
        confidence: pixels by cell of the largest probability, `(..., cells)`.
        entropy_score: the scores of the cells of entropy, ascending, `(cells,)`, in [0, 1]; those of confidence ascend, too.
        exact: whether all pixels of a cell share its score (8-bit maps), so that ranking by cells is exact.
        classes: number of classes; 2 for binary maps.
    """

    count: Array = field(metadata=PER_ROW)
    entropy_sum: Array = field(metadata=PER_ROW)
    confidence_sum: Array = field(metadata=PER_ROW)
    entropy: Array = field(metadata=PER_ROW)
    confidence: Array = field(metadata=PER_ROW)
    entropy_score: Array
    exact: bool
    classes: int

    @classmethod
    def on_grid(
        cls,
        names: tuple[str, ...],
        *,
        entropy_sum: Array,
        confidence_sum: Array,
        entropy: Array,
        confidence: Array,
        classes: int,
    ) -> Uncertainty:
        """Histograms over the cells of `SCORE_GRID`."""
        middle = (SCORE_GRID.edges[:-1] + SCORE_GRID.edges[1:]) / 2
        return cls(
            names, np.asarray(confidence.sum(-1)), entropy_sum, confidence_sum, entropy, confidence, middle,
            False, classes,
        )  # fmt: skip
