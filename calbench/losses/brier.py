"""The Brier score as a loss."""

from __future__ import annotations

from torch import Tensor

from calbench.losses.loss import Loss, Pixels


class Brier(Loss):
    """Squared error of the probabilities, the loss of the metric `brier`.

    L = mean over pixels of Σ_k (p_k − q_k)², in [0, 2]; of binary maps (p − y)², in [0, 1], half the form of two classes.

    It is proper. Under soft labels the spread of the labels, Σ_k q_k (1 − q_k), which no forecast changes, is left out. The
    official MbLS code has the form of several classes for both, on CUDA only.

    Reference: Brier, 1950 (doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2).

    >>> import torch
    >>> float(Brier()(torch.zeros(1, 1, 2, 3), torch.ones(1, 1, 2, 3)))
    0.25
    >>> float(Brier()(torch.zeros(1, 2, 2, 3), torch.ones(1, 2, 3, dtype=torch.int64)))
    0.5
    """

    name = "brier"
    definition = "Σ_k (p_k − q_k)²; (p − y)² of binary maps"
    source = "Brier, 1950 (doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2)"

    def _compute(self, pixels: Pixels) -> Tensor:
        loss = pixels.mean(((pixels.p - pixels.q) ** 2).sum(1))
        return loss / 2 if pixels.binary else loss
