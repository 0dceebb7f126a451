"""Doing nothing: the contender that every calibrator has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calbench.calibrators.calibrator import Calibrator, Pixels, uncalibrated
from calbench.statistics.rows import Array

if TYPE_CHECKING:
    from torch import Tensor


class Identity(Calibrator):
    """The probabilities as they are: σ(z), or softmax(z).

    >>> import numpy as np
    >>> Identity().fit(np.array([-2.0, 2.0]), np.array([0, 1])).transform(np.zeros(1)).tolist()
    [0.5]
    """

    name = "identity"
    definition = "p = σ(z) or softmax(z): nothing is changed"
    source = "the baseline"
    keeps_class = True
    keeps_order = True
    parametric = True

    def n_parameters(self, n_classes: int) -> int:
        """None."""
        del n_classes
        return 0

    def _refuse_too_little(self, pixels: Pixels) -> None:
        """Doing nothing is possible with any data."""

    def _fit(self, pixels: Pixels) -> None:
        """There is nothing to learn."""

    def _transform(self, logits: Array) -> Array:
        return uncalibrated(logits)

    @staticmethod
    def torch_forward(logits: Tensor, state: dict[str, Tensor]) -> Tensor:
        """See `Calibrator.torch_forward`."""
        from calbench.calibrators import modules

        del state
        return modules.uncalibrated(logits)
