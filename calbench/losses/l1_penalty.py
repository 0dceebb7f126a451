"""The penalty on the distance from the uniform distribution."""

from __future__ import annotations

from torch import Tensor

from calbench.losses.cross_entropy import cross_entropy
from calbench.losses.loss import Loss, Pixels, check_range


class L1Penalty(Loss):
    """Cross-entropy plus the distance of the probabilities from the uniform distribution.

    L = CE + λ·Σ_k |p_k − 1/C|, the mean over pixels of both; of binary maps CE + λ·|2p − 1|.

    This is the definition of the official MbLS code, which has it next to the entropy penalty.

    Args:
        weight: λ, >= 0.
    Raises:
        OptionError: weight below 0.

    Reference: Liu et al., CVPR 2022 (arXiv:2111.15430), official code.

    >>> import torch
    >>> z, y = torch.full((1, 1, 2, 3), 2.0), torch.ones(1, 1, 2, 3)
    >>> round(float(L1Penalty(weight=1.0)(z, y) - L1Penalty(weight=0.0)(z, y)), 4)  # 2 σ(2) − 1
    0.7616
    """

    name = "l1"
    definition = "CE + λ·Σ_k |p_k − 1/C|"
    source = "official MbLS code; Liu et al., CVPR 2022 (arXiv:2111.15430)"

    def __init__(self, *, weight: float = 1.0) -> None:
        super().__init__()
        check_range("weight", weight, 0)
        self.weight = weight

    def _compute(self, pixels: Pixels) -> Tensor:
        distance = (pixels.p - 1 / pixels.n_classes).abs().sum(1)
        return pixels.mean(cross_entropy(pixels) + self.weight * distance)
