"""Volumes from NIfTI files, by the optional nibabel."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from calbench.errors import CalbenchError, FormatError, ShapeError
from calbench.io.arrays import StoredArray, finished, sampled_digest, stored_name


def volume_header(path: Path) -> tuple[tuple[int, ...], str]:
    """Shape, and name of the dtype that `read_volume` gives, from the header; Raises as `read_volume`."""
    with _volume(path) as data:
        return data.shape, "float32" if _scaled(data) else stored_name(data.dtype, path)


def read_volume(path: Path) -> StoredArray:
    """A NIfTI volume, `(X, Y, Z)` or `(X, Y, Z, C)`: in its stored dtype, or float32 where the header scales the values.

    value = slope · stored + intercept, where a header has them.

    Raises:
        FormatError: nibabel is not installed, an unreadable or truncated file, or no real numbers in it.
        ShapeError: fewer than three axes, or more than four.
    """
    with _volume(path) as data, path.open("rb") as stream:
        stored = stored_name(data.dtype, path)
        scaled = _scaled(data)
        array = np.asarray(data, np.float32) if scaled else np.asarray(data.get_unscaled())
        # a .nii.gz ends in the checksum of its contents, which the last piece of the digest holds
        return finished(array, "float32" if scaled else stored, sampled_digest(stream), path)


@contextmanager
def _volume(path: Path) -> Iterator[Any]:
    """The array proxy of a file, with all that nibabel raises for damaged ones as FormatError."""
    try:
        import nibabel
    except ImportError as error:
        raise FormatError(
            f"{path} is a NIfTI volume, which needs nibabel, an optional package that is not installed; "
            "pip install 'calbench[medical]'"
        ) from error
    try:
        image: Any = nibabel.load(path)
        data = image.dataobj
        if len(data.shape) not in (3, 4):
            raise ShapeError(f"{path} has shape {data.shape}; expected a volume (X, Y, Z) or (X, Y, Z, C)")
        yield data
    except CalbenchError:
        raise
    except (
        OSError,
        EOFError,
        ValueError,
        OverflowError,
        zlib.error,
        nibabel.filebasedimages.ImageFileError,
        nibabel.spatialimages.HeaderDataError,
    ) as error:
        said = " ".join(str(error).split())  # on one line
        raise FormatError(
            f"cannot read {path} as a NIfTI volume ({said}); is it truncated, or another kind of file?"
        ) from error


def _scaled(data: Any) -> bool:
    return (float(data.slope), float(data.inter)) != (1.0, 0.0)
