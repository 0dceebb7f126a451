"""Maps of probabilities on disk: how they are stored, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from calbench.errors import plural
from calbench.io.files import atomic
from calbench.io.pairing import stem_of
from calbench.statistics.rows import Array

FORMATS = {"npz": ".npz", "png16": ".png", "png8": ".png"}
"""What can be written, and its extension: float16 arrays, or grey levels of 16 and 8 bits."""
TOPS = {"png16": 65535, "png8": 255}
"""The level of p = 1."""
STORED = {"npz": "float16", "png16": "16 bits", "png8": "8 bits"}
"""How messages name what is stored."""


@dataclass(frozen=True)
class Rounding:
    """What the numbers of a file, or of several, lost when they were stored.

    Attributes:
        largest: |stored − exact|, of all classes of all pixels.
        total: their sum.
        numbers: how many there are: pixels, times classes where there are several.
        pixels: how many there are.
        class_kept: pixels that rounding would have given another class.
    """

    largest: float
    total: float
    numbers: int
    pixels: int
    class_kept: int

    @property
    def mean(self) -> float:
        """Mean |stored − exact|."""
        return self.total / self.numbers

    @classmethod
    def merged(cls, parts: Sequence[Rounding]) -> Rounding:
        """Of several files; the same whatever their order."""
        return cls(
            max(part.largest for part in parts),
            math.fsum(part.total for part in parts),
            sum(part.numbers for part in parts),
            sum(part.pixels for part in parts),
            sum(part.class_kept for part in parts),
        )

    def text(self, format: str, what: str = "probabilities") -> str:
        """For people: what storing cost."""
        return (
            f"rounding to {STORED[format]} moved {what} by {self.largest:.2g} at most, {self.mean:.2g} on average; it would "
            f"have changed the class of {self.class_kept:,} of {plural(self.pixels, 'pixel')}, which kept theirs"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "largest": self.largest,
            "mean": self.mean,
            "pixels": self.pixels,
            "class_kept": self.class_kept,
        }


def quantised(p: Array, format: str) -> tuple[Array, Rounding]:
    """Probabilities as they are stored, and what that cost; the class of every pixel stays.

    float16 is rounded to nearest. Where that leaves the class tied with an earlier one, it is raised to the next float16;
    a binary map's background is kept below one half. Levels are round(p · top), top = 255 or 65535; one half lies between
    two of them and goes up, so that no background becomes foreground, level > top / 2.

    Args:
        p: `(H, W)` probabilities of foreground, or `(C, H, W)` of each class, float64.
        format: "npz", "png16" or "png8".

    >>> stored, lost = quantised(np.array([[0.49999, 0.25]]), "npz")
    >>> bool(stored[0, 0] < 0.5), lost.class_kept, bool(lost.largest < 3e-4)
    (True, 1, True)
    >>> quantised(np.array([[0.5, np.nextafter(0.5, 0)]]), "png8")[0].tolist()
    [[128, 127]]
    """
    if format in TOPS:
        top = TOPS[format]
        levels = np.rint(p * top).astype(np.min_scalar_type(top))
        return levels, _rounding(levels / np.float64(top), p, 0)
    stored = p.astype(np.float16)
    if p.ndim == 2:
        lost = (p < 0.5) & (stored >= 0.5)
        stored[lost] = np.nextafter(np.float16(0.5), np.float16(0))
    else:
        winner = p.argmax(0)
        lost = stored.astype(np.float32).argmax(0) != winner  # float16 is slow to compare
        rows, columns = np.nonzero(lost)
        stored[winner[lost], rows, columns] = np.nextafter(stored[:, rows, columns].max(0), np.float16(2))
    return stored, _rounding(stored.astype(np.float64), p, int(np.count_nonzero(lost)))


def write_map(path: Path, stored: Array, **beside: Array) -> None:
    """Write what `quantised` gave, whole or not at all.

    Args:
        path: `.png` of levels, or `.npz`, whose array is called `probabilities`.
        stored: `(H, W)` levels, or float16 of any shape.
        beside: other arrays of an `.npz`, by name.
    """
    with atomic(path) as temporary:
        if path.suffix == ".png":
            Image.fromarray(stored).save(temporary)
        else:
            arrays: dict[str, Any] = {"probabilities": stored, **beside}
            np.savez_compressed(temporary, **arrays)


def map_file(source: Path, folder: Path, format: str) -> str:
    """Where the map made from a file of a folder goes below the folder of maps: the file's sub-folder and stem.

    >>> map_file(Path("city/v1.2.jpg"), Path(), "png8")
    'city/v1.2.png'
    """
    below = source.relative_to(folder).parent if folder.is_dir() else Path()
    return (below / (stem_of(source) + FORMATS[format])).as_posix()


def _rounding(back: Array, p: Array, class_kept: int) -> Rounding:
    """How far the stored probabilities, as float64, which are overwritten, are from `p`."""
    error = np.abs(np.subtract(back, p, out=back), out=back)
    return Rounding(float(error.max()), float(error.sum()), p.size, math.prod(p.shape[-2:]), class_kept)
