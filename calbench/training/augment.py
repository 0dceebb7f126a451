"""Pictures and their masks brought to the size of a network, turned and cropped alike on the way."""

from __future__ import annotations

import numpy as np
from PIL import Image
from PIL.Image import Resampling, Transpose

CROP = 30
"""Most pixels that cropping takes from a side; from sides that have no more, a tenth."""
TURNED = 0.2
"""Share of the pictures that are rotated."""
ANGLES = (-15, 15)
"""Degrees, counter-clockwise, the upper end excluded."""

Images = tuple[Image.Image, Image.Image, Image.Image | None]


def augmented(
    image: Image.Image, target: Image.Image, void: Image.Image | None, size: int, draws: np.random.Generator
) -> Images:
    """Flip, crop, rotate and resize a picture with its mask, as the official code of ASLP does.

    In this order: mirrored with probability 1/2; cropped about its centre to w ~ U{W − 30 .. W − 1} by h ~ U{H − 30 .. H − 1}
    pixels; rotated with probability 0.2 by U{−15 .. 14} degrees, without growing; resized to `size` x `size`.

    Pictures and binary masks are rotated bicubic, filled with black, and resized bilinear: labels stay soft at edges. Class
    indices and void are taken from the nearest pixel, and what rotation brings in from outside is void beside class
    indices, background in binary masks. A soft label next to void pixels has a share of what these hold.

    Where the official code could crop a side of 30 pixels or fewer to nothing, a tenth of it is taken at most here.

    Args:
        image: RGB.
        target: mode "L", 255 for foreground, of a binary mask; mode "I" of class indices.
        void: mode "L", 0 where pixels count; None where all do.
        size: side of the result, pixels.
        draws: of this image in this epoch.
    Returns:
        Picture, target and void at the new size; void may be needed where there was none.

    >>> picture, mask = Image.new("RGB", (60, 40)), Image.new("L", (60, 40), 255)
    >>> image, target, void = augmented(picture, mask, None, 32, np.random.default_rng(0))
    >>> image.size, target.size, void
    ((32, 32), (32, 32), None)
    """
    mirrored = draws.random() < 0.5
    box = crop_box(image.width, image.height, draws)
    angle = int(draws.integers(*ANGLES)) if draws.random() < TURNED else 0
    if angle and target.mode == "I" and void is None:
        void = Image.new("L", target.size, 0)

    def moved(layer: Image.Image, filled: int, resampling: Resampling) -> Image.Image:
        if mirrored:
            layer = layer.transpose(Transpose.FLIP_LEFT_RIGHT)
        layer = layer.crop(box)
        return layer.rotate(angle, resampling, fillcolor=filled) if angle else layer

    soft = target.mode == "L"
    return resized(
        moved(image, 0, Resampling.BICUBIC),
        moved(target, 0, Resampling.BICUBIC if soft else Resampling.NEAREST),
        None if void is None else moved(void, 0 if soft else 255, Resampling.NEAREST),
        size,
    )


def resized(image: Image.Image, target: Image.Image, void: Image.Image | None, size: int) -> Images:
    """A picture and its mask at `size` x `size` pixels: the end of `augmented`, and all of it without augmentation."""
    side = (size, size)
    return (
        image.resize(side, Resampling.BILINEAR),
        target.resize(side, Resampling.BILINEAR if target.mode == "L" else Resampling.NEAREST),
        None if void is None else void.resize(side, Resampling.NEAREST),
    )


def crop_box(width: int, height: int, draws: np.random.Generator) -> tuple[int, int, int, int]:
    """Left, upper, right and lower edge of a centred crop of random size.

    ((W − w) >> 1, (H − h) >> 1, (W + w) >> 1, (H + h) >> 1), w = W − U{1..30}, h = H − U{1..30}.

    >>> left, upper, right, lower = crop_box(400, 300, np.random.default_rng(0))
    >>> 370 <= right - left <= 399, 270 <= lower - upper <= 299
    (True, True)
    """
    w, h = (side - _taken(side, draws) for side in (width, height))
    return (width - w) >> 1, (height - h) >> 1, (width + w) >> 1, (height + h) >> 1


def _taken(side: int, draws: np.random.Generator) -> int:
    most = CROP if side > CROP else side // 10
    return int(draws.integers(1, most + 1)) if most else 0
