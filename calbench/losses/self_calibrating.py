"""Self-calibrating cross-entropy: label perturbation in expectation."""

from __future__ import annotations

from torch import Tensor

from calbench.losses.cross_entropy import cross_entropy
from calbench.losses.loss import Loss, Pixels, check_range
from calbench.losses.perturbation import MAX_BETA, uniform_share


class SelfCalibrating(Loss):
    """SC-BCE: what the cross-entropy with stochastically perturbed labels is in the mean over the draws.

    L = (1 − αβ)·BCE(z, y) + αβ·BCE(z, ½) of binary maps; of C classes (1 − αw)·CE + αw·mean_k(−ln p_k) with
    w = βC / (2(C − 1)), see `LabelPerturbation`.

    Only the product αβ matters here; in stochastic perturbation α and β separately set how much the gradient varies. The
    minimum at a foreground pixel is σ(z) = 1 − αβ/2. Its value is that of label smoothing of strength αw. The official code
    has the stochastic form only, and neither α nor β of a static run is published: for an α of each image, use
    `LabelPerturbation` and `CrossEntropy`.

    Args:
        alpha: probability that an image is perturbed, in [0, 1].
        beta: strength of the perturbation, in [0, 2]; 2 is hard inversion.
    Raises:
        OptionError: an option outside its range.

    Reference: Liu et al., ICCV 2023 (arXiv:2307.13539).

    >>> import torch
    >>> z, y = torch.tensor([1.0, -2.0]).reshape(1, 1, 1, 2), torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    >>> round(float(SelfCalibrating(alpha=0.05, beta=2.0)(z, y)), 4)
    0.2951
    """

    name = "sc_bce"
    definition = "(1 − αw)·CE + αw·mean_k(−ln p_k), w = βC / (2(C − 1)): w = β of binary maps"
    source = "Liu et al., ICCV 2023 (arXiv:2307.13539)"

    def __init__(self, *, alpha: float = 0.05, beta: float = 2.0) -> None:
        super().__init__()
        check_range("alpha", alpha, 0, 1)
        check_range("beta", beta, 0, MAX_BETA)
        self.alpha = alpha
        self.beta = beta

    def _compute(self, pixels: Pixels) -> Tensor:
        return pixels.mean(cross_entropy(pixels, self.alpha * uniform_share(self.beta, pixels.n_classes)))
