"""Matrix scaling: an affine map of all logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from calbench.calibrators.affine import Affine, probabilities, torch_probabilities
from calbench.calibrators.calibrator import Pixels
from calbench.errors import OptionError
from calbench.statistics.rows import Array

if TYPE_CHECKING:
    from torch import Tensor


class Matrix(Affine):
    """An affine map of the logits: p = softmax(W z + b), or σ(w z + b) of binary maps.

    By maximum likelihood, from W = I, b = 0, plus squares that hold back what the pixels hardly determine (ODIR):

        mean NLL + λ / (C (C − 1)) · Σ_{j≠k} w_jk² + μ / C · Σ_k b_k²

    Adding one row to all rows of (W, b) changes no probability; the row that makes the squares least is taken. A binary map
    counts as two classes: λ is without effect, since a diagonal W gives every slope, and the last term becomes μ b² / 4.
    A class that is absent from the fitting data keeps its uncalibrated probability, its row of W that of I and b_k = 0; the
    others share what it leaves. Pixels can change their class.

    Args:
        off_diagonal: λ, at least 0.
        intercept: μ, at least 0.

    Attributes:
        weight_: W, `(C, C)`; `(1, 1)` of binary maps.
        bias_: b, `(C,)`; `(1,)` of binary maps.
        present_: `(C,)` whether each class is in the fitting data.

    Raises:
        InputError: fewer pixels than the C² + C (of binary maps 2) parameters.
        OptionError: λ or μ below 0.

    Reference: Guo et al., ICML 2017 (arXiv:1706.04599), section 4.2; the squares: Kull et al., NeurIPS 2019
    (arXiv:1910.12656), section 4.

    >>> z = np.repeat(4 * np.eye(3), 20, axis=0)
    >>> y = np.repeat([0, 1, 2, 0], [20, 20, 10, 10])  # sure of class 2, but right only half the time
    >>> Matrix(off_diagonal=1e-6).fit(z, y).transform(z)[-1].round(2).tolist()
    [0.5, 0.0, 0.5]
    """

    name = "matrix"
    definition = "p = softmax(W z + b) or σ(w z + b), by maximum likelihood; ODIR on request"
    source = "Guo et al., ICML 2017, arXiv:1706.04599"
    learned: ClassVar[tuple[str, ...]] = ("weight_", "bias_", "present_")

    weight_: Array
    bias_: Array

    def __init__(self, *, off_diagonal: float = 0.0, intercept: float = 0.0) -> None:
        self.off_diagonal = off_diagonal
        self.intercept = intercept

    def n_parameters(self, n_classes: int) -> int:
        """Those of W and b."""
        return n_classes * (n_classes + 1)

    def _fit(self, pixels: Pixels) -> None:
        features = self._features(pixels.logits)
        theta = self._fit_scores(pixels, features, self._start(), ridge=self._ridge(features.shape[1]))
        self.weight_, self.bias_ = theta[:, :-1].copy(), theta[:, -1].copy()

    def _start(self) -> Array:
        """W = I and b = 0."""
        return np.eye(self.n_classes_, self.n_classes_ + 1)

    def _ridge(self, n_features: int) -> Array | None:
        """Coefficients of the squares of W and b, `(C, n_features + 1)`."""
        for option, value in (("off_diagonal", self.off_diagonal), ("intercept", self.intercept)):
            if not value >= 0:
                raise OptionError(f"{self.name}: {option} is {value}; expected a number >= 0")
        if self.off_diagonal == 0 and self.intercept == 0:
            return None
        ridge = np.zeros((self.n_classes_, n_features + 1))
        if self.n_classes_ == 1:
            ridge[0, -1] = self.intercept / 4
            return ridge
        pairs = self.n_classes_ * (self.n_classes_ - 1)
        ridge[:, :-1] = self.off_diagonal / pairs * (1 - np.eye(self.n_classes_))
        ridge[:, -1] = self.intercept / self.n_classes_
        return ridge

    def _features(self, logits: Array) -> Array:
        """What W multiplies: the logits, `(n, C)`, or `(n, 1)` of binary maps."""
        return logits.reshape(len(logits), -1)

    def _transform(self, logits: Array) -> Array:
        scores = self._features(logits) @ self.weight_.T + self.bias_
        return probabilities(scores.reshape(logits.shape), logits, self.present_)

    @staticmethod
    def torch_forward(logits: Tensor, state: dict[str, Tensor]) -> Tensor:
        """See `Calibrator.torch_forward`."""
        scores = logits.reshape(len(logits), -1) @ state["weight_"].T + state["bias_"]
        return torch_probabilities(scores.reshape(logits.shape), logits, state["present_"])
