"""Cross-entropy of normalised logits."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from calbench.errors import OptionError, ShapeError
from calbench.losses.cross_entropy import cross_entropy
from calbench.losses.loss import Loss, Pixels

EPSILON = 1e-7
"""Added to the norm, as in the official code."""


class LogitNorm(Loss):
    """Cross-entropy of logits of constant norm, so that a network cannot lower it by growing its logits.

    L = CE(z / (τ (‖z‖₂ + 1e-7))), ‖z‖₂ over the classes of a pixel.

    The network predicts with the plain softmax(z). Of one logit a pixel, normalisation leaves the sign only and no gradient:
    train a binary map with it through two logits. The official code has τ as an option with default 1; the paper chooses it on
    validation data, 0.04 on CIFAR-10.

    Args:
        temperature: τ, above 0.
    Raises:
        OptionError: a temperature that is not above 0.
        ShapeError: in `forward`, logits of one class.

    Reference: Wei et al., ICML 2022 (arXiv:2205.09310).

    >>> y = torch.zeros(1, 2, 3, dtype=torch.int64)
    >>> z = torch.randn(1, 4, 2, 3, generator=torch.Generator().manual_seed(0))
    >>> bool(torch.isclose(LogitNorm()(z, y), LogitNorm()(3 * z, y)))
    True
    """

    name = "logit_norm"
    definition = "CE(z / (τ‖z‖₂))"
    source = "Wei et al., ICML 2022 (arXiv:2205.09310)"
    binary = False

    def __init__(self, *, temperature: float = 0.04) -> None:
        super().__init__()
        if not temperature > 0:
            raise OptionError(f"temperature is {temperature}; expected a number above 0")
        self.temperature = temperature

    def _compute(self, pixels: Pixels) -> Tensor:
        if pixels.binary:
            raise ShapeError(
                "the logits have one channel, of which normalisation leaves only the sign; logit_norm needs (N, C, H, W), "
                "C >= 2: train with two classes, or choose another loss"
            )
        norm = torch.linalg.vector_norm(pixels.logits, dim=1, keepdim=True) + EPSILON
        return pixels.mean(cross_entropy(replace(pixels, logits=pixels.logits / (self.temperature * norm))))
