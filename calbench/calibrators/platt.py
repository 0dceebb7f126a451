"""Platt's method: a logistic regression on the logit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from calbench.calibrators.affine import LogLoss, minimise
from calbench.calibrators.one_vs_rest import OneVsRest, torch_against_rest, torch_normalised
from calbench.statistics.rows import Array

if TYPE_CHECKING:
    from torch import Tensor


class Platt(OneVsRest):
    """A slope and an offset for the logit: p = σ(a z + b).

    By plain maximum likelihood, from a = 1, b = 0; Platt's correction of the targets, by one pixel of each class, is left
    out: among so many pixels it changes nothing. Several classes: each against the rest, on logit p_k, then normalised; a
    class that is absent from the fitting data keeps p_k before normalising. The fitting NLL of binary maps cannot rise; that
    of several classes can, since they are fitted apart.

    Attributes:
        slope_: a, `(C,)`; `(1,)` of binary maps.
        intercept_: b, likewise.

    Raises:
        InputError: fewer pixels than the 2 C (of binary maps 2) parameters.

    Reference: Platt, Advances in Large Margin Classifiers, 1999.

    >>> fitted = Platt().fit(np.repeat([-1.0, 1.0], 4), np.array([0, 0, 0, 1, 0, 1, 1, 1]))
    >>> fitted.transform(np.array([-1.0, 1.0])).round(6).tolist()
    [0.25, 0.75]
    """

    name = "platt"
    definition = "p = σ(a z + b) by maximum likelihood; several classes: each against the rest, normalised"
    source = "Platt, Advances in Large Margin Classifiers, 1999"
    learned = ("slope_", "intercept_")

    slope_: Array
    intercept_: Array

    def n_parameters(self, n_classes: int) -> int:
        """A slope and an offset a class."""
        return 2 * n_classes

    def _start(self, n_maps: int) -> None:
        self.slope_, self.intercept_ = np.ones(n_maps), np.zeros(n_maps)

    def _fit_one(self, k: int, logit: Array, outcome: Array, weight: Array) -> None:
        end = minimise(LogLoss(logit[:, None], outcome, weight), np.array([[1.0, 0.0]]))
        self.slope_[k], self.intercept_[k] = end.theta[0]
        self.notes_ += end.notes(self._of(k))

    def _mapped(self, logit: Array) -> Array:
        return np.asarray(expit(self.slope_ * logit + self.intercept_))

    @staticmethod
    def torch_forward(logits: Tensor, state: dict[str, Tensor]) -> Tensor:
        """See `Calibrator.torch_forward`."""
        import torch

        q = torch.sigmoid(state["slope_"] * torch_against_rest(logits) + state["intercept_"])
        return torch_normalised(q, logits)
