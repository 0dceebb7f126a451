"""Dirichlet calibration: matrix scaling of log-probabilities, with off-diagonal and intercept regularisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit, log_expit, log_softmax, softmax

from calbench.calibrators.affine import torch_probabilities
from calbench.calibrators.calibrator import Pixels
from calbench.calibrators.matrix import Matrix
from calbench.errors import OptionError
from calbench.statistics.rows import Array

if TYPE_CHECKING:
    from torch import Tensor


class Dirichlet(Matrix):
    """An affine map of the log-probabilities: p = softmax(W ln q + b) with q = softmax(z).

    Of binary maps p = σ(w₁ ln q + w₂ ln(1 − q) + b), q = σ(z). By maximum likelihood, from the identity, with the squares of
    the paper (ODIR), of which λ and μ there are chosen by cross-validation:

        mean NLL + λ / (C (C − 1)) · Σ_{j≠k} w_jk² + μ / C · Σ_k b_k²

    Both are means over entries; the authors' package takes sums unless told `reg_norm=True`. Adding one row to all rows of
    (W, b) changes no probability; the row that makes the squares least is taken. A binary map counts as two classes: λ is
    without effect, since a diagonal W gives all such maps, and the last term becomes μ b² / 4. A class that is absent from
    the fitting data keeps its uncalibrated probability, its row of W that of I and b_k = 0; the others share what it leaves.
    Pixels can change their class.

    Args:
        off_diagonal: λ, at least 0.
        intercept: μ, at least 0.
        epsilon: added to q before the logarithm. 0, since log-probabilities come from the logits without rounding; the
            selective-scaling study has 1e-10, with λ = μ = 0.

    Attributes:
        weight_: W, `(C, C)`; `(1, 2)` of binary maps.
        bias_: b, `(C,)`; `(1,)` of binary maps.
        epsilon_: what was added to q.
        present_: `(C,)` whether each class is in the fitting data.

    Raises:
        InputError: fewer pixels than the C² + C (of binary maps 3) parameters.
        OptionError: λ, μ or epsilon below 0.

    Reference: Kull et al., NeurIPS 2019 (arXiv:1910.12656), section 4; without ODIR: Wang et al., CVPR 2023
    (arXiv:2212.12053).

    >>> z = np.repeat([-1.0, 0.0, 1.0], 4)
    >>> y = np.array([0, 0, 0, 1, 0, 0, 1, 1, 0, 1, 1, 1])
    >>> Dirichlet(intercept=0.0).fit(z, y).transform(np.array([-1.0, 0.0, 1.0])).round(6).tolist()
    [0.25, 0.5, 0.75]
    """

    name = "dirichlet"
    definition = "p = softmax(W ln softmax(z) + b), by maximum likelihood with ODIR"
    source = "Kull et al., NeurIPS 2019, arXiv:1910.12656"
    learned = ("weight_", "bias_", "epsilon_", "present_")

    epsilon_: float

    def __init__(self, *, off_diagonal: float = 1e-3, intercept: float = 1e-3, epsilon: float = 0.0) -> None:
        super().__init__(off_diagonal=off_diagonal, intercept=intercept)
        self.epsilon = epsilon

    def n_parameters(self, n_classes: int) -> int:
        """Those of W and b."""
        return 3 if n_classes == 1 else n_classes * (n_classes + 1)

    def _fit(self, pixels: Pixels) -> None:
        if not self.epsilon >= 0:
            raise OptionError(f"{self.name}: epsilon is {self.epsilon}; expected a number >= 0")
        self.epsilon_ = float(self.epsilon)
        super()._fit(pixels)

    def _start(self) -> Array:
        return np.array([[1.0, -1.0, 0.0]]) if self.n_classes_ == 1 else super()._start()

    def _features(self, logits: Array) -> Array:
        """ln q of each class, `(n, C)`; ln q and ln(1 − q), `(n, 2)`, of binary maps."""
        z = np.asarray(logits, np.float64)
        if z.ndim == 1:
            z = np.column_stack([z, -z])
            return np.log(expit(z) + self.epsilon_) if self.epsilon_ else np.asarray(log_expit(z))
        return np.log(softmax(z, axis=1) + self.epsilon_) if self.epsilon_ else np.asarray(log_softmax(z, axis=1))

    @staticmethod
    def torch_forward(logits: Tensor, state: dict[str, Tensor]) -> Tensor:
        """See `Calibrator.torch_forward`."""
        import torch

        if logits.ndim == 1:
            z = torch.stack([logits, -logits], dim=1)
            q, log_q = torch.sigmoid(z), torch.nn.functional.logsigmoid(z)
        else:
            q, log_q = torch.softmax(logits, dim=1), torch.log_softmax(logits, dim=1)
        features = torch.where(state["epsilon_"] > 0, torch.log(q + state["epsilon_"]), log_q)
        scores = features @ state["weight_"].T + state["bias_"]
        return torch_probabilities(scores.reshape(logits.shape), logits, state["present_"])
