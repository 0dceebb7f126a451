"""The network of the ASLP study: a ResNet-50 encoder, dilated laterals and a fusing decoder."""

from __future__ import annotations

import re
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from calbench.errors import OptionError

STRIDE = 32
"""Pixels of the image to one of the deepest features."""
WIDTH = 256
"""Channels of the decoder."""
DILATIONS = (3, 6, 12, 18)
UNEXECUTED = re.compile(r"resnet\.layer[34]_2\.|path4\.resConfUnit1\.")
"""How the names of weights begin that the study's checkpoints hold and its forward pass never uses."""


class AslpResNet50(nn.Module):
    """Dense logits from a ResNet-50 and a decoder that fuses its four stages from the deepest to the finest.

    x1 ... x4 are the stages of the ResNet, at 1/4 to 1/32 of the size. Each is brought to 256 channels by a sum of four
    3x3 convolutions of dilation 3, 6, 12 and 18. With RCU(x) = conv(relu(conv(u))) + u, u = relu(x), and UP twice the
    size (bilinear, corners aligned):

        t = UP(RCU(lateral(x4)));   t = UP(RCU(t + RCU(lateral(x_k)))), k = 3, 2, 1;   logits = head(t)

    where the head is 3x3 to 128, twice the size (bilinear, corners not aligned), 3x3 to 32, ReLU, 1x1 to the classes.

    The study's code overwrites x by relu(x) within RCU, so that what is carried past the convolutions is relu(x), not x.
    Its trained weights rely on that, and so does this network.

    The study also defines second copies of stages 3 and 4 and a unit before the deepest fusion, which it never executes:
    23,243,264 of 90,737,921 parameters. They are left out by default, as they cost memory in the optimiser and
    checkpoints, and as a distributed backward pass would wait for gradients that never come.

    Args:
        classes: channels of the logits; 1 of binary maps.
        official_layout: keep the weights that are never executed, so that the `state_dict` has the 562 entries of the
            study's checkpoints.

    Shape:
        images `(N, 3, H, W)`, normalised → logits `(N, classes, H, W)`. Where a side is no multiple of 32, the last row or
        column of the image is repeated up to the next one, and the logits are cropped.

    Raises:
        OptionError: classes below 1.

    Reference: Liu et al., ICCV 2023 (arXiv:2307.13539); He et al., CVPR 2016 (arXiv:1512.03385); the residual units are
        those of Lin et al., CVPR 2017 (arXiv:1611.06612).

    >>> with torch.device("meta"):  # shapes alone, no memory
    ...     network, official = AslpResNet50(), AslpResNet50(official_layout=True)
    >>> len(network.state_dict()), len(official.state_dict())
    (384, 562)
    >>> tuple(network(torch.empty(2, 3, 352, 384, device="meta")).shape)
    (2, 1, 352, 384)
    """

    def __init__(self, *, classes: int = 1, official_layout: bool = False) -> None:
        super().__init__()
        if classes < 1:
            raise OptionError(f"classes is {classes}; expected 1 of binary maps, or the number of classes")
        self.resnet = ResNetStages(official_layout)
        self.conv4 = DilatedSum(2048)
        self.conv3 = DilatedSum(1024)
        self.conv2 = DilatedSum(512)
        self.conv1 = DilatedSum(256)
        self.path4 = Fusion(inputs=2 if official_layout else 1)
        self.path3 = Fusion(inputs=2)
        self.path2 = Fusion(inputs=2)
        self.path1 = Fusion(inputs=2)
        self.output_conv = nn.Sequential(
            nn.Conv2d(WIDTH, 128, 3, padding=1),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            nn.Conv2d(128, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, classes, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the size of the images."""
        height, width = images.shape[-2:]
        below, right = -height % STRIDE, -width % STRIDE
        if below or right:
            images = pad(images, (0, right, 0, below), mode="replicate")
        x1, x2, x3, x4 = self.resnet(images)
        t = self.path4(self.conv4(x4))
        t = self.path3(t, self.conv3(x3))
        t = self.path2(t, self.conv2(x2))
        t = self.path1(t, self.conv1(x1))
        return cast(Tensor, self.output_conv(t)[..., :height, :width])


class ResNetStages(nn.Module):
    """The four stages of a ResNet-50, with the stride in the 3x3 convolutions.

    Shape:
        `(N, 3, H, W)` → `(N, 256, H/4, W/4)`, `(N, 512, H/8, W/8)`, `(N, 1024, H/16, W/16)`, `(N, 2048, H/32, W/32)`.
    """

    def __init__(self, second_copies: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(64, 64, blocks=3, stride=1)
        self.layer2 = _stage(256, 128, blocks=4, stride=2)
        self.layer3_1 = _stage(512, 256, blocks=6, stride=2)
        self.layer4_1 = _stage(1024, 512, blocks=3, stride=2)
        if second_copies:
            self.layer3_2 = _stage(512, 256, blocks=6, stride=2)
            self.layer4_2 = _stage(1024, 512, blocks=3, stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The output of each stage, finest first."""
        x1 = self.layer1(self.maxpool(torch.relu(self.bn1(self.conv1(images)))))
        x2 = self.layer2(x1)
        x3 = self.layer3_1(x2)
        return x1, x2, x3, self.layer4_1(x3)


def _stage(inputs: int, width: int, *, blocks: int, stride: int) -> nn.Sequential:
    others = (Bottleneck(4 * width, width) for _ in range(blocks - 1))
    return nn.Sequential(Bottleneck(inputs, width, stride), *others)


class Bottleneck(nn.Module):
    """1x1 to `width`, 3x3 with the stride, 1x1 to four times `width`, plus the input, projected where its shape differs."""

    def __init__(self, inputs: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample: nn.Module = nn.Identity()
        if inputs != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, 4 * width, 1, stride=stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Features at the size of x over the stride."""
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class DilatedSum(nn.Module):
    """Sum of four 3x3 convolutions of dilation 3, 6, 12 and 18: `(N, inputs, H, W)` → `(N, 256, H, W)`."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.conv2d_list = nn.ModuleList(
            nn.Conv2d(inputs, WIDTH, 3, padding=dilation, dilation=dilation) for dilation in DILATIONS
        )
        for conv in self.conv2d_list:
            nn.init.normal_(cast(Tensor, conv.weight), std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """The sum, of the size of x."""
        first, *others = self.conv2d_list
        y = first(x)
        for conv in others:
            y = y + conv(x)
        return cast(Tensor, y)


class ResidualUnit(nn.Module):
    """RCU(x) = conv2(relu(conv1(u))) + u with u = relu(x), 256 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.conv2 = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the shape of x."""
        u = torch.relu(x)
        return cast(Tensor, self.conv2(torch.relu(self.conv1(u))) + u)


class Fusion(nn.Module):
    """UP(RCU2(deep + RCU1(lateral))), or UP(RCU2(deep)): twice the size, bilinear, corners aligned."""

    def __init__(self, *, inputs: int) -> None:
        super().__init__()
        if inputs == 2:
            self.resConfUnit1 = ResidualUnit()
        self.resConfUnit2 = ResidualUnit()

    def forward(self, deep: Tensor, lateral: Tensor | None = None) -> Tensor:
        """Features of twice the size."""
        t = deep if lateral is None else deep + self.resConfUnit1(lateral)
        return interpolate(self.resConfUnit2(t), scale_factor=2, mode="bilinear", align_corners=True)
