"""Mixup: training on averages of two images and of their targets."""

from __future__ import annotations

from typing import NamedTuple

import torch
from scipy.special import betaincinv
from torch import Generator, Tensor

from calbench.errors import OptionError, ShapeError


class Mixed(NamedTuple):
    """A mixed batch.

    Attributes:
        images: `(N, 3, H, W)`.
        target: `(N, 1, H, W)` or `(N, C, H, W)`, probabilities.
        valid: `(N, H, W)` bool: valid in both images; None: all pixels.
        share: of the image itself, in [0, 1]; the rest is its partner's.
    """

    images: Tensor
    target: Tensor
    valid: Tensor | None
    share: float


def mixup(images: Tensor, target: Tensor, alpha: float, generator: Generator, valid: Tensor | None = None) -> Mixed:
    """Each image of a batch mixed with another one, and so the targets, pixel by pixel.

    x ← λx + (1 − λ)x', y ← λy + (1 − λ)y' with one λ ~ Beta(α, α) a batch and x' from a random permutation of the batch, as in
    the published code. Losses that are linear in the target (bce, ls, sc_bce, focal, flsd) then equal the mixed losses
    λL(y) + (1 − λ)L(y') of that code. λ is drawn by inverting the distribution function, and does not depend on the device.

    Args:
        images: `(N, 3, H, W)`.
        target: `(N, 1, H, W)` or `(N, C, H, W)` float; labels through `one_hot` first.
        alpha: α > 0; the smaller, the more often one image dominates.
        generator: where λ and the permutation come from.
        valid: `(N, H, W)` bool, or None.
    Raises:
        OptionError: alpha not above 0.
        ShapeError: labels in place of probabilities.

    Reference: Zhang et al., ICLR 2018 (arXiv:1710.09412); Thulasidasan et al., NeurIPS 2019 (arXiv:1905.11001).

    >>> images, target = torch.rand(4, 3, 6, 5), torch.ones(4, 1, 6, 5)
    >>> mixed = mixup(images, target, 0.2, torch.Generator().manual_seed(0))
    >>> torch.allclose(mixed.target, target), 0 <= mixed.share <= 1
    (True, True)
    """
    if not alpha > 0:
        raise OptionError(f"alpha of mixup is {alpha}; expected a number above 0")
    if target.ndim != 4 or not target.is_floating_point():
        raise ShapeError(
            f"the target of mixup has shape {tuple(target.shape)}; expected float probabilities (N, C, H, W): "
            "turn labels into them by one_hot"
        )
    uniform = torch.rand((), dtype=torch.float64, generator=generator, device=generator.device)
    share = float(betaincinv(alpha, alpha, float(uniform)))
    partner = torch.randperm(len(images), generator=generator, device=generator.device).to(images.device)
    return Mixed(
        share * images + (1 - share) * images[partner],
        share * target + (1 - share) * target[partner],
        None if valid is None else valid & valid[partner],
        share,
    )
