"""Cross-entropy: the baseline, and the body of most other losses."""

from __future__ import annotations

from torch import Tensor

from calbench.losses.loss import Loss, Pixels


class CrossEntropy(Loss):
    """Binary cross-entropy of binary maps, cross-entropy of several classes.

    L = mean over pixels of CE = −Σ_k q_k ln p_k; of binary maps −y ln σ(z) − (1 − y) ln(1 − σ(z)).

    It is proper: under soft labels or noise its minimum is at p = q.

    Reference: Good, 1952 (doi:10.1111/j.2517-6161.1952.tb00104.x).

    >>> import torch
    >>> float(CrossEntropy()(torch.zeros(1, 1, 2, 3), torch.ones(1, 1, 2, 3)))  # ln 2
    0.6931471824645996
    """

    name = "bce"
    definition = "CE = −Σ_k q_k ln p_k"
    source = "Good, 1952 (doi:10.1111/j.2517-6161.1952.tb00104.x)"

    def _compute(self, pixels: Pixels) -> Tensor:
        return pixels.mean(cross_entropy(pixels))


def cross_entropy(pixels: Pixels, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of each pixel with the target (1 − s) q + s / C, `(N, H, W)`, nats."""
    hard = -pixels.expect(pixels.log_p)
    return (1 - smoothing) * hard - smoothing * pixels.log_p.mean(1) if smoothing else hard
