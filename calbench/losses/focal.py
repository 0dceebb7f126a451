"""The focal loss, with one exponent or with an exponent that depends on the probability of the target."""

from __future__ import annotations

import torch
from torch import Tensor

from calbench.losses.loss import Loss, Pixels, check_range


class Focal(Loss):
    """Cross-entropy that weighs a pixel less the better it is fitted.

    L = mean over pixels of −Σ_k q_k (1 − p_k)^γ ln p_k.

    Not proper: p is pulled towards the uniform distribution, which is what calibrates an overconfident network. γ = 0 is
    cross-entropy. The gradient passes through (1 − p_k)^γ, as in the official code of Mukhoti et al. and of MbLS; there is no
    balancing weight of the classes.

    Args:
        gamma: exponent, >= 0.
    Raises:
        OptionError: gamma below 0.

    Reference: Lin et al., ICCV 2017 (arXiv:1708.02002); Mukhoti et al., NeurIPS 2020 (arXiv:2002.09437).

    >>> import torch
    >>> round(float(Focal(gamma=3.0)(torch.zeros(1, 1, 2, 3), torch.ones(1, 1, 2, 3))), 4)  # ln 2 / 8
    0.0866
    """

    name = "focal"
    definition = "−Σ_k q_k (1 − p_k)^γ ln p_k"
    source = "Mukhoti et al., NeurIPS 2020 (arXiv:2002.09437)"

    def __init__(self, *, gamma: float = 3.0) -> None:
        super().__init__()
        check_range("gamma", gamma, 0)
        self.gamma = gamma

    def _compute(self, pixels: Pixels) -> Tensor:
        return pixels.mean(focal(pixels, self.gamma))


class ScheduledFocal(Loss):
    """FLSD: the focal loss with a larger exponent where the target has a small probability.

    L = mean over pixels of −Σ_k q_k (1 − p_k)^γ(p_k) ln p_k, γ(p) = 5 for p < 0.2, 3 for 0.2 ≤ p < 0.5, `gamma` from 0.5.

    γ(p) is chosen from the value of p and has no gradient; the loss jumps where γ does. With gamma = 3 it is the FLSD-53 of
    Mukhoti et al., who know two levels, with the step at 0.2. The third level is that of the official MbLS code, which has
    a solver of the paper's exact γ(p), too, and uses the constants.

    Args:
        gamma: exponent from p = 0.5, >= 0.
    Raises:
        OptionError: gamma below 0.

    Reference: Mukhoti et al., NeurIPS 2020 (arXiv:2002.09437).

    >>> import torch
    >>> z = torch.tensor([-2.0, 0.0]).reshape(1, 1, 1, 2)  # P(target) = 0.12 and 0.5
    >>> round(float(ScheduledFocal()(z, torch.ones(1, 1, 1, 2))), 4)
    0.6071
    """

    name = "flsd"
    definition = "−Σ_k q_k (1 − p_k)^γ ln p_k, γ = 5 where p_k < 0.2, 3 where p_k < 0.5, else `gamma`"
    source = "Mukhoti et al., NeurIPS 2020 (arXiv:2002.09437)"

    def __init__(self, *, gamma: float = 3.0) -> None:
        super().__init__()
        check_range("gamma", gamma, 0)
        self.gamma = gamma

    def _compute(self, pixels: Pixels) -> Tensor:
        gamma = (
            torch.full_like(pixels.p, self.gamma).masked_fill_(pixels.p < 0.5, 3.0).masked_fill_(pixels.p < 0.2, 5.0)
        )
        return pixels.mean(focal(pixels, gamma))


def focal(pixels: Pixels, gamma: float | Tensor) -> Tensor:
    """The focal loss of each pixel, `(N, H, W)`; γ one number, or one each class and pixel, `(N, C, H, W)`."""
    # 1 − p is 0 of saturated pixels, where the slope of a power below 1 is infinite.
    missing = (-torch.expm1(pixels.log_p)).clamp(min=torch.finfo(pixels.log_p.dtype).tiny)
    return -pixels.expect(missing**gamma * pixels.log_p)
