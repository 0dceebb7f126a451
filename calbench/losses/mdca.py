"""Multi-class difference between confidence and accuracy."""

from __future__ import annotations

from torch import Tensor

from calbench.losses.focal import focal
from calbench.losses.loss import Loss, Pixels, check_range


class MDCA(Loss):
    """Cross-entropy or focal loss plus the gap between mean probability and frequency of each class in the batch.

    L = FL_γ + λ·mean_k |mean over pixels of p_k − mean over pixels of q_k|; of binary maps λ·|mean p − mean y|.

    The published code computes the same on the images of a batch; here a batch is all its valid pixels. The gap is that of the
    batch as a whole: the value on two halves of a batch is not that on the whole. A minibatch is one bin, so that the term
    corrects class frequencies rather than confidences at each level.

    Args:
        weight: λ, >= 0 (beta of the official code).
        gamma: exponent of the focal loss; 0 is cross-entropy.
    Raises:
        OptionError: an option below 0.

    Reference: Hebbalaguppe et al., CVPR 2022 (arXiv:2203.13834).

    >>> import torch
    >>> z, y = torch.zeros(1, 1, 2, 2), torch.tensor([[[[1.0, 1.0], [1.0, 0.0]]]])
    >>> round(float(MDCA(weight=1.0)(z, y) - MDCA(weight=0.0)(z, y)), 4)  # |0.5 − 0.75|
    0.25
    """

    name = "mdca"
    definition = "FL_γ + λ·mean_k |mean p_k − mean q_k|, means over the pixels of the batch"
    source = "Hebbalaguppe et al., CVPR 2022 (arXiv:2203.13834)"

    def __init__(self, *, weight: float = 1.0, gamma: float = 0.0) -> None:
        super().__init__()
        check_range("weight", weight, 0)
        check_range("gamma", gamma, 0)
        self.weight = weight
        self.gamma = gamma

    def _compute(self, pixels: Pixels) -> Tensor:
        gap = pixels.mean(pixels.p - pixels.q).abs().mean()
        return pixels.mean(focal(pixels, self.gamma)) + self.weight * gap
