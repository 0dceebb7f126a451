"""8-bit images through Pillow: what a file holds, and its grey levels; nothing is rescaled in silence."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from calbench.errors import FormatError, RangeError
from calbench.io.files import digest, read_bytes
from calbench.statistics.rows import Array


@dataclass(frozen=True)
class GreyImage:
    """A decoded file.

    Attributes:
        levels: `(H, W)` uint8; 1-bit files give 0 and 255, coloured palettes their indices.
        bits: 1 or 8 as stored.
        channels: 1, 3 or 4 as stored; several only where they agree.
        spread: largest difference between the channels; at most `CHANNEL_TOLERANCE`.
        palette: whether `levels` are indices of a coloured palette.
        digest: of the file's bytes.
    """

    levels: Array
    bits: int
    channels: int
    spread: int
    palette: bool
    digest: int


CHANNEL_TOLERANCE = 16
"""Channels of a grey image saved as JPEG differ by a few levels; further apart they are colours."""


def read_size(path: Path) -> tuple[int, int]:
    """Height and width from the file's header, without decoding pixels.

    Raises:
        FormatError: no image that Pillow knows.
    """
    try:
        with _large_allowed(), Image.open(path) as image:
            return image.height, image.width
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error


def read_grey(path: Path) -> GreyImage:
    """Decode an 8-bit grey image, or a colour one whose channels agree.

    Raises:
        FormatError: unreadable, truncated, or more than 8 bits.
        RangeError: channels that differ, or transparency.
    """
    data = read_bytes(path)
    try:
        with _large_allowed(), Image.open(io.BytesIO(data)) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(path, error) from error
    return _grey(image, path, digest(data))


@contextmanager
def _large_allowed() -> Iterator[None]:
    """Aerial and medical images are large; Pillow still refuses what could only be an attack."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def resize_bilinear(levels: Array, size: tuple[int, int]) -> Array:
    """A map interpolated to (height, width), rounded to levels; Pillow's bilinear filter, area-weighted when shrinking."""
    height, width = size
    return np.asarray(Image.fromarray(levels).resize((width, height), Image.Resampling.BILINEAR))


def _grey(image: Image.Image, path: Path, file_digest: int) -> GreyImage:
    mode = image.mode
    if mode == "L":
        return GreyImage(np.asarray(image), 8, 1, 0, False, file_digest)
    if mode == "1":
        return GreyImage(np.asarray(image).astype(np.uint8) * np.uint8(255), 1, 1, 0, False, file_digest)
    if mode == "P":
        colours = np.asarray(image.convert("RGB"))
        coloured = bool((colours != colours[..., :1]).any())
        return GreyImage(np.asarray(image) if coloured else colours[..., 0], 8, 1, 0, coloured, file_digest)
    if mode in ("RGB", "RGBA", "LA"):
        if mode != "RGB" and np.asarray(image.getchannel("A")).min(initial=255) < 255:
            raise RangeError(f"{path} has transparent pixels; save it without an alpha channel")
        colour = np.asarray(image.convert("RGB"))
        spread = int(np.ptp(colour, axis=-1).max(initial=0))
        if spread > CHANNEL_TOLERANCE:
            raise RangeError(
                f"{path} is a colour image: its channels differ by up to {spread} levels; expected one grey channel, or "
                f"three that agree to {CHANNEL_TOLERANCE}; is this a folder of photographs rather than maps or masks?"
            )
        # luma of equal channels is their value
        return GreyImage(np.asarray(image.convert("L")), 8, len(image.getbands()), spread, False, file_digest)
    raise FormatError(
        f"{path} has mode {mode!r}; calbench reads 8-bit and 1-bit images here; save the map as 8-bit PNG"
    )


def _unreadable(path: Path, error: Exception) -> FormatError:
    return FormatError(f"cannot read {path} as an image ({error}); is it truncated, or another kind of file?")


FORMATS: dict[str, Callable[[Path], GreyImage]] = {
    ".png": read_grey,
    ".jpg": read_grey,
    ".jpeg": read_grey,
    ".bmp": read_grey,
    ".tif": read_grey,
    ".tiff": read_grey,
}
"""Extension (lower case) -> reader. A new input format is one reader and one line here."""
