"""How a folder of masks codes foreground: decided once a folder, over a sample, and verified on every mask after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calbench.errors import InputError, RangeError
from calbench.io.images import FORMATS, GreyImage
from calbench.statistics.rows import Array

SAMPLE = 8
"""Masks looked at to decide the coding; more only while they are all empty."""
DEFAULT_THRESHOLD = 128


@dataclass(frozen=True)
class MaskCoding:
    """The rule that turns mask bytes into foreground.

    Attributes:
        kind: "1-bit", "0/1" or "0/255"; what the folder holds once void values are removed.
        threshold: foreground is byte > threshold (1-bit files count as bytes 0 and 255).
        void_values: mask bytes that mean "does not count".
        declared: whether the threshold was given rather than inferred.
    """

    kind: str
    threshold: int
    void_values: tuple[int, ...] = ()
    declared: bool = False

    def foreground(self, levels: Array) -> Array:
        """`(H, W)` bool."""
        return levels > self.threshold

    def void(self, levels: Array) -> Array | None:
        """`(H, W)` bool, or None when no value means void."""
        return np.isin(levels, self.void_values) if self.void_values else None


def infer_coding(
    paths: Sequence[Path], *, threshold: int | None = None, void_values: tuple[int, ...] = ()
) -> MaskCoding:
    """Look at some masks of a folder and decide how it codes foreground.

    Masks with values in {0, 1} are coded 0/1 and use threshold 0; all else uses 128, strict, as PySODMetrics does.

    Args:
        threshold: given by the user; the folder is then not judged.
    Raises:
        InputError: a threshold or void value that is no byte.
        RangeError: only {0, 1, 255} occur, where 255 is likely void.
    """
    for name, value in [("gt-threshold", threshold), *(("void-value", v) for v in void_values)]:
        if value is not None and not 0 <= value <= 255:
            raise InputError(f"{name} is {value}; mask bytes are 0 to 255")
    order = [
        paths[i] for i in dict.fromkeys(np.linspace(0, len(paths) - 1, min(SAMPLE, len(paths))).round().astype(int))
    ]
    sampled = set(order)
    values: set[int] = set()
    one_bit = True
    for number, path in enumerate([*order, *(path for path in paths if path not in sampled)]):
        if number >= SAMPLE and values - {0}:
            break
        image = read_mask(path)
        one_bit = one_bit and image.bits == 1
        values |= {int(value) for value in np.flatnonzero(np.bincount(image.levels.ravel(), minlength=256))}
        values -= set(void_values)
    if one_bit:
        kind = "1-bit"
    elif values and values <= {0, 1} and 1 in values:
        kind = "0/1"
    else:
        kind = "0/255"
        if threshold is None and 1 in values and values <= {0, 1, 255}:
            raise ambiguous_coding(paths[0].parent)
    if threshold is not None:
        return MaskCoding(kind, threshold, void_values, declared=True)
    return MaskCoding(kind, 0 if kind == "0/1" else DEFAULT_THRESHOLD, void_values)


def read_mask(path: Path) -> GreyImage:
    """A mask's bytes; coloured palettes give their indices."""
    return FORMATS[path.suffix.lower()](path)


def ambiguous_coding(folder: Path) -> RangeError:
    """The error for a folder of only {0, 1, 255}."""
    return RangeError(
        f"the masks in {folder} hold only the values 0, 1 and 255: most likely 1 is foreground and 255 is void; "
        "say --void-value 255 if so, or --gt-threshold N (foreground is byte > N) if 255 is foreground"
    )
