"""A small network for dense prediction, which a CPU trains in minutes."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from calbench.errors import OptionError

WIDTHS = (16, 32, 48, 64, 96)
"""Channels at 1/2, 1/4, ... 1/32 of the size."""
GROUPS = 8


class SmallUNet(nn.Module):
    """A U-Net of five levels that starts at half the size: 425,729 parameters for binary maps.

    On the way down each level halves the size by a 3x3 convolution of stride 2 and applies another 3x3; on the way up the
    deeper level is interpolated to the size of the finer one, joined with it, and passes a 3x3. Each convolution is
    followed by group normalisation (8 groups) and ReLU. A 1x1 convolution gives logits at half the size, which are
    interpolated to the full size (bilinear, corners not aligned).

    Nothing depends on the other images of a batch, so one process with a batch and two processes with its halves compute
    the same gradients.

    Args:
        classes: channels of the logits; 1 of binary maps.

    Shape:
        images `(N, 3, H, W)` → logits `(N, classes, H, W)`, any H and W from 1.

    Raises:
        OptionError: classes below 1.

    Reference: Ronneberger et al., MICCAI 2015 (arXiv:1505.04597); Wu & He, ECCV 2018 (arXiv:1803.08494).

    >>> network = SmallUNet(classes=4)
    >>> tuple(network(torch.zeros(2, 3, 37, 50)).shape)
    (2, 4, 37, 50)
    """

    def __init__(self, *, classes: int = 1) -> None:
        super().__init__()
        if classes < 1:
            raise OptionError(f"classes is {classes}; expected 1 of binary maps, or the number of classes")
        self.down = nn.ModuleList(
            nn.Sequential(_convolution(inputs, width, stride=2), _convolution(width, width))
            for inputs, width in pairwise((3, *WIDTHS))
        )
        self.up = nn.ModuleList(_convolution(deep + fine, fine) for fine, deep in pairwise(WIDTHS))
        self.head = nn.Conv2d(WIDTHS[0], classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the size of the images."""
        levels, x = [], images
        for down in self.down:
            x = down(x)
            levels.append(x)
        for up, fine in zip(reversed(self.up), reversed(levels[:-1]), strict=True):
            x = up(torch.cat([_resized(x, fine), fine], dim=1))
        return _resized(cast(Tensor, self.head(x)), images)


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(GROUPS, outputs), nn.ReLU())


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
