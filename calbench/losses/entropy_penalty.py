"""The entropy penalty on confident predictions."""

from __future__ import annotations

from torch import Tensor

from calbench.losses.cross_entropy import cross_entropy
from calbench.losses.loss import REDUCTIONS, Loss, Pixels, check_choice, check_range, reduce_classes


class EntropyPenalty(Loss):
    """Cross-entropy minus a part of the predictive entropy.

    L = CE − λ·H, H = −Σ_k p_k ln p_k, the mean over pixels of both; reduction "mean": H / C.

    The official MbLS code has "mean", so that the same λ is a penalty C times as weak, and clips p to [1e-10, 1 − 1e-10];
    here ln p comes from the logits and nothing is clipped. Of binary maps C = 2.

    Args:
        weight: λ, >= 0.
        reduction: over classes: "sum", the entropy, or "mean".
    Raises:
        OptionError: weight below 0.
        UnknownName: another reduction.

    Reference: Pereyra et al., ICLR workshop 2017 (arXiv:1701.06548).

    >>> import torch
    >>> float(EntropyPenalty(weight=0.1)(torch.zeros(1, 1, 2, 3), torch.ones(1, 1, 2, 3)))  # 0.9 ln 2
    0.6238324642181396
    """

    name = "entropy"
    definition = "CE − λ·H, H = −Σ_k p_k ln p_k"
    source = "Pereyra et al., ICLR workshop 2017 (arXiv:1701.06548)"

    def __init__(self, *, weight: float = 0.1, reduction: str = "sum") -> None:
        super().__init__()
        check_range("weight", weight, 0)
        check_choice("reduction over classes", reduction, REDUCTIONS)
        self.weight = weight
        self.reduction = reduction

    def _compute(self, pixels: Pixels) -> Tensor:
        entropy = reduce_classes(-pixels.p * pixels.log_p, self.reduction)
        return pixels.mean(cross_entropy(pixels) - self.weight * entropy)
