"""Ensemble temperature scaling: temperature scaling, the identity and the uniform distribution, mixed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, minimize

from calbench.calibrators.calibrator import CLIP, Calibrator, Pixels, uncalibrated
from calbench.calibrators.temperature import Temperature
from calbench.statistics.rows import Array

if TYPE_CHECKING:
    from torch import Tensor

MOST_UNIFORM = 1 - 1e-6
"""Largest weight of the uniform distribution: alone, it would tell no class from another."""


class EnsembleTemperature(Calibrator):
    """A mixture: p = w₁ softmax(z / T) + w₂ softmax(z) + w₃ / C, w >= 0, Σ w = 1; binary maps have σ and C = 2.

    T by maximum likelihood first (see `Temperature`), then the weights, T being fixed: a convex problem. Every part is
    ordered as the logits are, so pixels keep their class; w₃ stays below 1 − 1e-6 for that.

    Attributes:
        temperature_: T.
        weights_: w, `(3,)`.

    Raises:
        InputError: fewer pixels than the 3 parameters.

    Reference: Zhang, Kailkhura and Han, ICML 2020 (arXiv:2003.07329), "ensemble temperature scaling", eq. 5.

    >>> z = np.array([[9.0, 0.0], [9.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    >>> p = EnsembleTemperature().fit(z, np.array([0, 0, 1, 1])).transform(z)  # sure, but right in 3 of 4 only
    >>> p[0].round(6).tolist()
    [0.75, 0.25]
    """

    name = "ensemble_temperature"
    definition = "p = w₁ softmax(z / T) + w₂ softmax(z) + w₃ / C, w on the simplex, by maximum likelihood: T, then w"
    source = "Zhang et al., ICML 2020, arXiv:2003.07329"
    keeps_class = True
    keeps_order = True
    parametric = True
    learned = ("temperature_", "weights_")

    temperature_: float
    weights_: Array

    def n_parameters(self, n_classes: int) -> int:
        """T and two weights."""
        del n_classes
        return 3

    def _fit(self, pixels: Pixels) -> None:
        temperature = Temperature().fit(pixels.logits, pixels.target, pixels.weight)
        self.temperature_ = temperature.temperature_
        self.notes_ += temperature.notes_
        n_classes = max(self.n_classes_, 2)
        parts = [_outcome(pixels, self.temperature_), _outcome(pixels, 1.0), np.full(len(pixels.target), 1 / n_classes)]
        self.weights_ = mixture(np.column_stack(parts), pixels.weight)

    def _transform(self, logits: Array) -> Array:
        n_classes = 2 if logits.ndim == 1 else logits.shape[1]
        scaled, plain, uniform = self.weights_
        return scaled * uncalibrated(logits / self.temperature_) + plain * uncalibrated(logits) + uniform / n_classes

    @staticmethod
    def torch_forward(logits: Tensor, state: dict[str, Tensor]) -> Tensor:
        """See `Calibrator.torch_forward`."""
        from calbench.calibrators import modules

        n_classes = 2 if logits.ndim == 1 else logits.shape[1]
        scaled, plain, uniform = state["weights_"]
        heated = modules.uncalibrated(logits / state["temperature_"])
        return scaled * heated + plain * modules.uncalibrated(logits) + uniform / n_classes


def _outcome(pixels: Pixels, temperature: float) -> Array:
    """P(outcome) at a temperature, `(n,)`, clipped as in every NLL."""
    z = np.asarray(pixels.logits, np.float64) / temperature
    if z.ndim == 1:
        return np.maximum(uncalibrated(np.where(pixels.target == 1, z, -z)), CLIP)
    return np.maximum(uncalibrated(z)[np.arange(len(z)), pixels.target], CLIP)


def mixture(p: Array, weight: Array) -> Array:
    """Weights `(k,)` on the simplex that maximise Σ weight · ln(p w), for P(outcome) by each of k parts, `(n, k)`.

    The last part is uniform, and held below all of the weight. Never worse than the first part alone.

    >>> mixture(np.array([[0.9, 0.8, 0.5], [0.9, 0.8, 0.5]]), np.ones(2)).round(6).tolist()
    [1.0, 0.0, 0.0]
    """
    share = weight / weight.sum()

    def loss(w: Array) -> tuple[float, Array]:
        mixed = p @ w
        return float(-share @ np.log(mixed)), -(share / mixed) @ p

    k = p.shape[1]
    end = minimize(
        loss, np.full(k, 1 / k), jac=True, method="SLSQP", bounds=Bounds(0, np.append(np.ones(k - 1), MOST_UNIFORM)),
        constraints=LinearConstraint(np.ones((1, k)), 1, 1), options={"ftol": 1e-15, "maxiter": 200},
    )  # fmt: skip
    w = np.clip(end.x, 0, 1)
    first = np.eye(k)[0]
    return min((w / w.sum(), first), key=lambda candidate: loss(candidate)[0])
