"""Beta calibration: a logistic regression on ln p and ln(1 − p), increasing in both."""

from __future__ import annotations

from dataclasses import replace
from itertools import compress
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit, log_expit

from calbench.calibrators.affine import LogLoss, Solution, minimise
from calbench.calibrators.one_vs_rest import OneVsRest, torch_against_rest, torch_normalised
from calbench.statistics.rows import Array

if TYPE_CHECKING:
    from torch import Tensor


class Beta(OneVsRest):
    """Beta calibration with three parameters: logit p' = a ln p − b ln(1 − p) + c with a, b >= 0, p = σ(z).

    By maximum likelihood, from a = b = 1, c = 0. Where a or b comes out negative it is set to 0 and the others are fitted
    again, as the authors do; where both do, the best of what remains is taken. Several classes: each against the rest, on
    p_k, then normalised; a class that is absent from the fitting data keeps p_k before normalising. The fitting NLL of
    binary maps cannot rise; that of several classes can, since they are fitted apart.

    Attributes:
        a_, b_, c_: `(C,)` each; `(1,)` of binary maps.

    Raises:
        InputError: fewer pixels than the 3 C (of binary maps 3) parameters.

    Reference: Kull, Silva Filho and Flach, AISTATS 2017 (PMLR 54:623-631).

    >>> fitted = Beta().fit(np.repeat([-1.0, 0.0, 1.0], 4), np.array([0, 0, 0, 1, 0, 0, 1, 1, 0, 1, 1, 1]))
    >>> fitted.transform(np.array([-1.0, 0.0, 1.0])).round(6).tolist()
    [0.25, 0.5, 0.75]
    """

    name = "beta"
    definition = "logit p' = a ln p − b ln(1 − p) + c, a, b >= 0; several classes: each against the rest, normalised"
    source = "Kull et al., AISTATS 2017, PMLR 54:623-631"
    learned = ("a_", "b_", "c_")

    a_: Array
    b_: Array
    c_: Array

    def n_parameters(self, n_classes: int) -> int:
        """Three a class."""
        return 3 * n_classes

    def _start(self, n_maps: int) -> None:
        self.a_, self.b_, self.c_ = np.ones(n_maps), np.ones(n_maps), np.zeros(n_maps)

    def _fit_one(self, k: int, logit: Array, outcome: Array, weight: Array) -> None:
        features = _features(logit)
        end = _restricted(features, outcome, weight, [True, True])
        if (end.theta[:2] < 0).any():
            faces = [
                _restricted(features, outcome, weight, kept) for kept in ([True, False], [False, True], [False] * 2)
            ]
            end = min((face for face in faces if (face.theta[:2] >= 0).all()), key=lambda face: face.loss)
        self.a_[k], self.b_[k], self.c_[k] = end.theta
        self.notes_ += end.notes(self._of(k))

    def _mapped(self, logit: Array) -> Array:
        return np.asarray(expit(self.a_ * log_expit(logit) - self.b_ * log_expit(-logit) + self.c_))

    @staticmethod
    def torch_forward(logits: Tensor, state: dict[str, Tensor]) -> Tensor:
        """See `Calibrator.torch_forward`."""
        import torch
        from torch.nn.functional import logsigmoid

        z = torch_against_rest(logits)
        q = torch.sigmoid(state["a_"] * logsigmoid(z) - state["b_"] * logsigmoid(-z) + state["c_"])
        return torch_normalised(q, logits)


def _features(logit: Array) -> Array:
    """ln p and −ln(1 − p), `(n, 2)`."""
    return np.column_stack([log_expit(logit), -log_expit(-logit)])


def _restricted(features: Array, outcome: Array, weight: Array, kept: list[bool]) -> Solution:
    """The fit of c and those of a and b that are kept, the others being 0: its `theta` is (a, b, c)."""
    at = [*compress((0, 1), kept), 2]
    end = minimise(LogLoss(features[:, at[:-1]], outcome, weight), np.array([[1.0, 1.0, 0.0]])[:, at])
    theta = np.zeros(3)
    theta[at] = end.theta[0]
    return replace(end, theta=theta)
