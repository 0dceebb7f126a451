"""Photographs next to predictions, as calibrators read them: three channels in [0, 1]."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from calbench.errors import FormatError, RangeError, ShapeError
from calbench.io.images import EIGHT_BIT_MODES, Decoded, decode, deep, read_layout, resize_bilinear
from calbench.statistics.rows import Array

COLOUR_MODES = {"1", "L", "P", "LA", "PA", "RGB", "RGBA"}
"""Pillow modes of 8 bits whose RGB values need no colour profile."""
UPRIGHT = 1
"""The orientation of pixels that are shown as they are stored."""


def read_picture(path: str | Path) -> Array:
    """Read a photograph of 8 bits a channel, or a grey one of 16, `(3, H, W)` float32 in [0, 1].

    Grey gives three equal channels; levels are divided by 255, or 65 535. A file whose EXIF orientation turns or mirrors
    it is refused: whether the predictions follow the stored pixels or the turned ones depends on what read them.

    Raises:
        FormatError: unreadable, truncated, of another depth or colour space, or with an EXIF orientation.
        RangeError: transparent pixels.
    """
    path = Path(path)
    decoded = _upright(path)
    if decoded.image.mode not in EIGHT_BIT_MODES:
        levels = deep(decoded, path)
        if levels.dtype != np.uint16:
            raise FormatError(
                f"{path} is a {levels.dtype} image; expected a picture of 8 bits, or 16 unsigned; convert it"
            )
        return np.repeat(levels[None].astype(np.float32) / 65535, 3, axis=0)
    return np.ascontiguousarray(np.moveaxis(np.asarray(_rgb(decoded.image, path)), -1, 0), np.float32) / np.float32(255)


def open_picture(path: Path) -> Image.Image:
    """Read a photograph of 8 bits a channel as Pillow's RGB, for geometry; otherwise as `read_picture` does.

    Raises:
        FormatError: unreadable, truncated, of more than 8 bits, of another colour space, or with an EXIF orientation.
        RangeError: transparent pixels.
    """
    decoded = _upright(path)
    if decoded.image.mode not in EIGHT_BIT_MODES:
        raise FormatError(f"{path} has {decoded.bits} bits a pixel; expected a picture of 8 bits a channel; convert it")
    return _rgb(decoded.image, path)


def picture_size(path: Path) -> tuple[int, int]:
    """Height and width, from the header alone.

    Raises:
        FormatError: unreadable.
    """
    return read_layout(path)[0]


def fit_picture(picture: Array, size: tuple[int, int], *, resize: bool, where: object) -> Array:
    """The picture at the (height, width) of its prediction: as it is, or interpolated where that is asked for.

    Bilinear, area-weighted when shrinking.

    Raises:
        ShapeError: another size, and resizing was not asked for.

    >>> fit_picture(np.zeros((3, 4, 6), np.float32), (2, 3), resize=True, where="a.jpg").shape
    (3, 2, 3)
    """
    found = picture.shape[1:]
    if found == size:
        return picture
    if not resize:
        raise ShapeError(
            f"{where} has {found[0]} x {found[1]} pixels, its prediction {size[0]} x {size[1]}; expected one size; resize "
            "one of them, or say --resize-images"
        )
    return np.stack([resize_bilinear(channel, size) for channel in picture]).clip(0, 1)


def _upright(path: Path) -> Decoded:
    """A decoded picture, unless it is stored turned or mirrored."""
    decoded = decode(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a damaged EXIF block has no orientation
        with Image.open(path) as header:  # opened anew, as Pillow turns a TIFF when it loads the pixels
            orientation = header.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    if orientation not in (UPRIGHT, 0):  # 0: written by cameras that do not know
        raise FormatError(
            f"{path} has EXIF orientation {orientation}: it is stored turned or mirrored, and nothing tells which way its "
            "mask or prediction is; expected pictures stored upright; turn it as they are, and remove the tag"
        )
    return decoded


def _rgb(image: Image.Image, path: Path) -> Image.Image:
    """RGB of 8 bits; an alpha channel that is opaque everywhere is dropped."""
    if image.mode not in COLOUR_MODES:
        raise FormatError(
            f"{path} has mode {image.mode!r}; expected grey or RGB; convert it to RGB with its colour profile"
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if np.asarray(image.getchannel("A")).min(initial=255) < 255:
            raise RangeError(f"{path} has transparent pixels; expected a picture; save it without an alpha channel")
    return image.convert("RGB")
