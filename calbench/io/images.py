"""Images through Pillow: what a file holds, and its grey levels; nothing is rescaled or cut in silence."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from calbench.errors import FormatError, RangeError
from calbench.io.files import digest, read_bytes
from calbench.statistics.rows import Array


@dataclass(frozen=True)
class GreyImage:
    """A decoded file.

    Attributes:
        levels: `(H, W)` uint8; 1-bit files give 0 and 255, coloured palettes their indices. A mask in an array may be int16,
            with values below 0 that mean void.
        bits: 1 or 8 as stored; 16 of such a mask.
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


@dataclass(frozen=True)
class Decoded:
    """An image whose pixels Pillow gives as they are stored.

    Attributes:
        image: with its pixels loaded.
        bits: of each channel as stored.
        digest: of the file's bytes.
    """

    image: Image.Image
    bits: int
    digest: int


CHANNEL_TOLERANCE = 16
"""Channels of a grey image saved as JPEG differ by a few levels; further apart they are colours."""
EIGHT_BIT_MODES = {"1", "L", "P", "LA", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB"}
"""Pillow modes of at most 8 bits a channel."""
DAMAGED = (OSError, SyntaxError, TypeError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for files it cannot read."""
PNG_HEADER = 25
"""Bytes of a PNG file up to and with the bit depth."""
TIFF_BITS, TIFF_SAMPLE_FORMAT = 258, 339
"""Tags of the bits a channel, and of unsigned (1), signed (2) or float (3) samples."""


def read_layout(path: Path) -> tuple[tuple[int, int], str]:
    """Height and width, and the dtype that `deep` would give, from the file's header alone.

    Raises:
        FormatError: no image that Pillow knows, or of a depth that calbench does not read.
    """
    try:
        with path.open("rb") as file:
            start = file.read(PNG_HEADER)
            with _large_allowed(), Image.open(file) as image:
                bits = _stored_bits(image, start)
    except DAMAGED as error:
        raise _unreadable(path, error) from error
    return (image.height, image.width), _deep_type(image, bits, path).name


def decode(path: Path) -> Decoded:
    """Decode an image of any depth.

    Raises:
        FormatError: unreadable, truncated, or several channels of more than 8 bits, of which Pillow keeps only 8.
    """
    data = read_bytes(path)
    try:
        with _large_allowed(), Image.open(io.BytesIO(data)) as image:
            pages = getattr(image, "n_frames", 1)
            image.load()
            bits = _stored_bits(image, data)
    except DAMAGED as error:
        raise _unreadable(path, error) from error
    if pages > 1:
        raise FormatError(
            f"{path} has {pages} pages; expected one image a file; save them apart, or as one .npy or .npz array"
        )
    _refuse_cut(image, bits, path)
    return Decoded(image, bits, digest(data))


def read_grey(path: Path) -> GreyImage:
    """Decode an 8-bit grey image, or a colour one whose channels agree.

    Raises:
        FormatError: unreadable, truncated, or more than 8 bits.
        RangeError: channels that differ, or transparency.
    """
    return grey(decode(path), path)


def deep(decoded: Decoded, path: Path) -> Array:
    """A grey image as stored, `(H, W)`: uint16, int16 (TIFF), float32 (TIFF), or the uint8 of `read_grey`.

    Raises:
        FormatError: of another depth.
        RangeError: channels that differ, or transparency.
    """
    stored = _deep_type(decoded.image, decoded.bits, path)
    if stored == np.uint8:
        return grey(decoded, path).levels
    # older Pillow gives the values of a 16-bit PNG as int32, and TIFF may have the other byte order
    return np.asarray(decoded.image).astype(stored, copy=False)


def _stored_bits(image: Image.Image, start: bytes) -> int:
    """Bits a channel as stored, which Pillow's mode does not always tell; `start` is the beginning of the file."""
    if image.format == "PNG":
        return start[PNG_HEADER - 1]
    if isinstance(image, TiffImageFile):
        return int(max(image.tag_v2.get(TIFF_BITS, (1,))))
    return {"1": 1, "I": 32, "F": 32}.get(image.mode, 16 if image.mode.startswith("I;16") else 8)


def _deep_type(image: Image.Image, bits: int, path: Path) -> np.dtype[Any]:
    """The dtype that holds the image as stored."""
    _refuse_cut(image, bits, path)
    if image.mode in EIGHT_BIT_MODES:
        return np.dtype(np.uint8)
    if bits == 16 and (image.mode == "I" or image.mode.startswith("I;16")):
        signed = isinstance(image, TiffImageFile) and image.tag_v2.get(TIFF_SAMPLE_FORMAT) == (2,)
        return np.dtype(np.int16 if signed else np.uint16)
    if bits == 32 and image.mode == "F":
        return np.dtype(np.float32)
    raise FormatError(
        f"{path} has {bits} bits a pixel in mode {image.mode!r}; calbench reads grey images of 8 and 16 bits and float32 "
        "TIFF; save the map as one of them, or as .npy"
    )


def _refuse_cut(image: Image.Image, bits: int, path: Path) -> None:
    """Pillow keeps the upper 8 bits of each channel of a deeper colour image."""
    if bits > 8 and image.mode in EIGHT_BIT_MODES:
        raise FormatError(
            f"{path} has several channels of {bits} bits, which would be cut to 8; expected one grey channel; save it as "
            "16-bit grey PNG, or as .npy"
        )


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


def grey(decoded: Decoded, path: Path) -> GreyImage:
    """The 8-bit image of `read_grey`; `path` is for messages."""
    image, file_digest = decoded.image, decoded.digest
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
    if decoded.bits > 8:
        raise FormatError(
            f"{path} has {decoded.bits} bits a pixel, but 8-bit or 1-bit images are expected here: maps of more bits are read "
            "as such only when all files of the folder are; save it as 8-bit PNG, or the whole folder with 16 bits"
        )
    raise FormatError(
        f"{path} has mode {mode!r}; calbench reads 8-bit and 1-bit images here; save the map as 8-bit PNG"
    )


def _unreadable(path: Path, error: Exception) -> FormatError:
    why = "no image that Pillow knows" if isinstance(error, UnidentifiedImageError) else error
    return FormatError(f"cannot read {path} as an image ({why}); is it truncated, or another kind of file?")


FORMATS: dict[str, Callable[[Path], GreyImage]] = {
    ".png": read_grey,
    ".jpg": read_grey,
    ".jpeg": read_grey,
    ".bmp": read_grey,
    ".tif": read_grey,
    ".tiff": read_grey,
}
"""Extension (lower case) -> reader. A new input format is one reader and one line here."""
