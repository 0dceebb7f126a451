"""A network on whole images: logits at the size of the picture, for validation and prediction alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from calbench.errors import OptionError
from calbench.training.config import Precision
from calbench.training.data import Whole


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """The context of a forward pass: bfloat16 where that is asked for, else as it is."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def checked_logits(logits: object, images: Tensor, classes: int) -> Tensor:
    """What a network returned, if it is logits of these pictures.

    Raises:
        OptionError: another kind of thing, or another shape.

    >>> tuple(checked_logits(torch.zeros(2, 1, 4, 6), torch.zeros(2, 3, 4, 6), 1).shape)
    (2, 1, 4, 6)
    """
    expected = (len(images), classes, *images.shape[-2:])
    found = f"a tensor {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
    if not isinstance(logits, Tensor) or logits.shape != expected:
        raise OptionError(
            f"the network returned {found} for images {tuple(images.shape)}; expected logits, one tensor {expected}; wrap the "
            "network in a module that returns them"
        )
    return logits


def logits_of(
    network: nn.Module,
    batches: Iterable[Sequence[Whole]],
    device: torch.device,
    *,
    precision: Precision = "fp32",
    channels_last: bool = False,
    flip: bool = False,
) -> Iterator[tuple[Whole, Tensor]]:
    """Logits of pictures at their own size, an image at a time.

    Pictures are resized to the square the network is used at, its logits back, bilinear without aligned corners: logits,
    not probabilities, so that no map is blurred towards 0.5 twice.

    Args:
        network: in evaluation mode.
        batches: pictures at the size of the network.
        device: of the network.
        precision, channels_last: of the forward pass.
        flip: whether logits are averaged with those of the mirrored picture.
    Yields:
        The picture, and `(C, H, W)` float32 on the CPU; C = 1 of binary maps.
    """
    for wholes in batches:
        images = torch.stack([whole.image for whole in wholes]).to(device, non_blocking=True)
        if channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), autocast(device, precision):
            logits = network(images).float()
            if flip:
                logits = (logits + network(images.flip(-1)).float().flip(-1)) / 2
        for whole, one in zip(wholes, logits, strict=True):
            yield whole, interpolate(one[None], whole.size, mode="bilinear", align_corners=False)[0].cpu()
