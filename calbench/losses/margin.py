"""Margin-based label smoothing."""

from __future__ import annotations

from torch import Tensor

from calbench.losses.cross_entropy import cross_entropy
from calbench.losses.loss import REDUCTIONS, Loss, Pixels, check_choice, check_range, reduce_classes


class Margin(Loss):
    """MbLS: cross-entropy plus a penalty on logits that lie more than a margin below the largest.

    L = CE + λ·mean_k max(0, d_k − m), d_k = max_j z_j − z_k, the mean over pixels of both; reduction "sum": Σ_k in place of
    mean_k. Of binary maps the distances are 0 and |z|: λ/2 or λ times max(0, |z| − m).

    The official code takes the mean over classes, its defaults m = 10 and λ = 0.1 belong to it; the poster of the paper
    prints the sum, which makes the same λ a penalty C times as strong. The code masks the ignore label in CE always, in the
    penalty only where that label is 0 or more; here void pixels count in neither. Gradients pass through the maximum; the
    optional schedule of λ is left out, as in the published results.

    Args:
        margin: m, in logits, >= 0.
        weight: λ, >= 0 (alpha of the official code).
        reduction: over classes: "mean" or "sum".
    Raises:
        OptionError: an option outside its range.
        UnknownName: another reduction.

    Reference: Liu et al., CVPR 2022 (arXiv:2111.15430).

    >>> import torch
    >>> z, y = torch.full((1, 1, 2, 3), 12.0), torch.ones(1, 1, 2, 3)
    >>> [round(float(Margin(reduction=name)(z, y)), 4) for name in ("mean", "sum")]
    [0.1, 0.2]
    """

    name = "margin"
    definition = "CE + λ·mean_k max(0, max_j z_j − z_k − m)"
    source = "Liu et al., CVPR 2022 (arXiv:2111.15430)"

    def __init__(self, *, margin: float = 10.0, weight: float = 0.1, reduction: str = "mean") -> None:
        super().__init__()
        check_range("margin", margin, 0)
        check_range("weight", weight, 0)
        check_choice("reduction over classes", reduction, REDUCTIONS)
        self.margin = margin
        self.weight = weight
        self.reduction = reduction

    def _compute(self, pixels: Pixels) -> Tensor:
        distances = pixels.logits.amax(1, keepdim=True) - pixels.logits
        penalty = reduce_classes((distances - self.margin).relu(), self.reduction)
        return pixels.mean(cross_entropy(pixels) + self.weight * penalty)
