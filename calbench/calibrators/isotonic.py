"""Isotonic regression: the best map that never decreases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from calbench.calibrators.one_vs_rest import OneVsRest, torch_against_rest, torch_normalised
from calbench.statistics.rows import Array

if TYPE_CHECKING:
    from torch import Tensor


class Isotonic(OneVsRest):
    """The map of p that never decreases and fits the outcomes best: minimises Σ w (y − f(p))², and the NLL with it.

    Pool-adjacent-violators by scikit-learn; f is linear between its thresholds and constant outside. p' can be exactly 0 or
    1, and is constant over stretches of p. Several classes: each against the rest, then normalised; a class that is absent
    from the fitting data keeps p_k before normalising, and a pixel whose classes are all 0 keeps its uncalibrated
    probabilities.

    Attributes:
        thresholds_: `(C, m)` ascending p where f is given; `(1, m)` of binary maps. The last is repeated up to m.
        values_: `(C, m)` f there.

    Reference: Zadrozny and Elkan, KDD 2002 (doi:10.1145/775047.775151).

    >>> fitted = Isotonic().fit(np.array([-2.0, -1.0, 1.0, 2.0]), np.array([0, 1, 0, 1]))
    >>> fitted.transform(np.array([-3.0, -1.0, 0.0, 3.0])).tolist()
    [0.0, 0.5, 0.5, 1.0]
    """

    name = "isotonic"
    definition = "p' = f(p), f non-decreasing, least squares; several classes: each against the rest, normalised"
    source = "Zadrozny and Elkan, KDD 2002, doi:10.1145/775047.775151"
    learned = ("thresholds_", "values_")

    thresholds_: Array
    values_: Array

    def n_parameters(self, n_classes: int) -> int:
        """One level a class, at least; their number follows from the data."""
        return n_classes

    def _start(self, n_maps: int) -> None:
        self.thresholds_, self.values_ = (np.tile([0.0, 1.0], (n_maps, 1)) for _ in range(2))

    def _fit_one(self, k: int, logit: Array, outcome: Array, weight: Array) -> None:
        from sklearn.isotonic import IsotonicRegression

        fitted = IsotonicRegression(y_min=0, y_max=1).fit(expit(logit), outcome, sample_weight=weight / weight.max())
        x, y = fitted.X_thresholds_, fitted.y_thresholds_
        width = max(len(x), self.thresholds_.shape[1])
        self.thresholds_, self.values_ = _wide(self.thresholds_, width), _wide(self.values_, width)
        self.thresholds_[k], self.values_[k] = _wide(x[None], width), _wide(y[None], width)

    def _mapped(self, logit: Array) -> Array:
        maps = zip(np.asarray(expit(logit)).T, self.thresholds_, self.values_, strict=True)
        return np.column_stack([np.interp(p, x, y) for p, x, y in maps])

    @staticmethod
    def torch_forward(logits: Tensor, state: dict[str, Tensor]) -> Tensor:
        """See `Calibrator.torch_forward`."""
        import torch

        p = torch.sigmoid(torch_against_rest(logits)).T.contiguous()
        x, y = state["thresholds_"], state["values_"]
        above = torch.searchsorted(x, p).clamp(1, x.shape[1] - 1)
        low, high = x.gather(1, above - 1), x.gather(1, above)
        width = high - low
        share = torch.where(width > 0, (p - low) / torch.where(width > 0, width, 1), 0).clamp(0, 1)
        q = torch.lerp(y.gather(1, above - 1), y.gather(1, above), share)
        return torch_normalised(q.T, logits)


def _wide(rows: Array, width: int) -> Array:
    """Rows `(k, m)` with their last entry repeated, `(k, width)`."""
    return np.pad(rows, ((0, 0), (0, width - rows.shape[1])), mode="edge")
