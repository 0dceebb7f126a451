"""Vector scaling: one scale and one offset a class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calbench.calibrators.affine import Affine, probabilities, torch_probabilities
from calbench.calibrators.calibrator import Pixels
from calbench.statistics.rows import Array

if TYPE_CHECKING:
    from torch import Tensor


class Vector(Affine):
    """A scale and an offset for each class: p = softmax(s ⊙ z + o), or σ(s z + o) of binary maps.

    By maximum likelihood, from s = 1, o = 0. Adding a number to all offsets changes nothing: theirs sum to 0. A class that
    is absent from the fitting data keeps its uncalibrated probability, s = 1 and o = 0; the others share what it leaves.
    Pixels can change their class.

    Attributes:
        scale_: s, `(C,)`; `(1,)` of binary maps.
        offset_: o, likewise.
        present_: `(C,)` whether each class is in the fitting data.

    Raises:
        InputError: fewer pixels than the 2 C (of binary maps 2) parameters.

    Reference: Guo et al., ICML 2017 (arXiv:1706.04599), section 4.2.

    >>> z = np.repeat([-1.0, 1.0], 4)
    >>> fitted = Vector().fit(z, np.array([0, 0, 0, 1, 0, 1, 1, 1]))  # 1/4 and 3/4 are foreground
    >>> fitted.transform(np.array([-1.0, 1.0])).round(6).tolist()
    [0.25, 0.75]
    """

    name = "vector"
    definition = "p = softmax(s ⊙ z + o) or σ(s z + o), by maximum likelihood"
    source = "Guo et al., ICML 2017, arXiv:1706.04599"
    learned = ("scale_", "offset_", "present_")

    scale_: Array
    offset_: Array

    def n_parameters(self, n_classes: int) -> int:
        """A scale and an offset a class."""
        return 2 * n_classes

    def _fit(self, pixels: Pixels) -> None:
        z = pixels.logits.reshape(len(pixels.logits), -1)
        theta = self._fit_scores(pixels, z, np.tile([1.0, 0.0], (z.shape[1], 1)), diagonal=True)
        theta[self.present_, 1] -= theta[self.present_, 1].mean() if self.n_classes_ > 1 else 0.0
        self.scale_, self.offset_ = theta.T.copy()

    def _transform(self, logits: Array) -> Array:
        return probabilities(logits * self.scale_ + self.offset_, logits, self.present_)

    @staticmethod
    def torch_forward(logits: Tensor, state: dict[str, Tensor]) -> Tensor:
        """See `Calibrator.torch_forward`."""
        return torch_probabilities(logits * state["scale_"] + state["offset_"], logits, state["present_"])
