"""Label smoothing."""

from __future__ import annotations

from torch import Tensor

from calbench.losses.cross_entropy import cross_entropy
from calbench.losses.loss import Loss, Pixels, check_range


class LabelSmoothing(Loss):
    """Cross-entropy with a share of every label spread over all classes.

    L = (1 − α)·CE + α·mean_k(−ln p_k), the cross-entropy with the target (1 − α) q + α / C; of binary maps (1 − α) y + α/2.

    The official MbLS code has the same formula, for labels. In the terms of label perturbation it is moderation of every
    image by β = α (see `LabelPerturbation`), of binary maps.

    Args:
        alpha: share of the label that is spread, in [0, 1].
    Raises:
        OptionError: alpha outside [0, 1].

    Reference: Szegedy et al., CVPR 2016 (arXiv:1512.00567); Müller et al., NeurIPS 2019 (arXiv:1906.02629).

    >>> import torch
    >>> z, y = torch.tensor([1.0, -2.0]).reshape(1, 1, 1, 2), torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    >>> round(float(LabelSmoothing(alpha=0.1)(z, y)), 4)
    0.2951
    """

    name = "ls"
    definition = "(1 − α)·CE + α·mean_k(−ln p_k)"
    source = "Szegedy et al., CVPR 2016 (arXiv:1512.00567)"

    def __init__(self, *, alpha: float = 0.05) -> None:
        super().__init__()
        check_range("alpha", alpha, 0, 1)
        self.alpha = alpha

    def _compute(self, pixels: Pixels) -> Tensor:
        return pixels.mean(cross_entropy(pixels, self.alpha))
