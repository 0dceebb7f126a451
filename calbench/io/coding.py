"""How a folder of masks codes foreground: decided once a folder, over a sample, and verified on every mask after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from calbench.errors import OptionError, RangeError
from calbench.io.images import FORMATS, GreyImage
from calbench.statistics.rows import Array

Role = Literal["masks", "fields of view"]

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
    paths: Sequence[Path], *, threshold: int | None = None, void_values: tuple[int, ...] = (), role: Role = "masks"
) -> MaskCoding:
    """Look at some masks of a folder and decide how it codes foreground.

    Masks with values in {0, 1} are coded 0/1 and use threshold 0; all else uses 128, strict, as PySODMetrics does.

    Args:
        threshold: given by the user; the folder is then not judged.
        role: what the files are, for messages.
    Raises:
        OptionError: a threshold or void value that is no byte.
        RangeError: only {0, 1, 255} occur, where 255 is likely void.
    """
    for name, value in [("--gt-threshold", threshold), *(("--void-value", v) for v in void_values)]:
        if value is not None and not 0 <= value <= 255:
            raise OptionError(f"{name} is {value}; mask bytes are 0 to 255")
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
            raise ambiguous_coding(paths[0].parent, role)
    if threshold is not None:
        return MaskCoding(kind, threshold, void_values, declared=True)
    return MaskCoding(kind, 0 if kind == "0/1" else DEFAULT_THRESHOLD, void_values)


def verify_coding(
    coding: MaskCoding,
    folder: Path,
    names: Sequence[str],
    bits: Array,
    highest: Array,
    *,
    three_valued: bool,
    role: Role,
) -> None:
    """Hold a coding, decided on a sample, against every file that was read.

    Args:
        names, bits, highest: of each file: its name, bits a pixel, and highest byte that is not void.
        three_valued: whether all files together hold 0, 1 and 255 alone.
    Raises:
        RangeError: files of another coding than the folder's, only {0, 1, 255}, or nothing above the threshold.
    """
    if coding.declared or not len(highest):
        return
    remedy = "say --gt-threshold N (foreground is byte > N)" if role == "masks" else "save them all as 0 and 255"
    if coding.kind == "0/1":
        odd, usual = highest > 1, "0 and 1"
    else:
        odd, usual = (bits != 1) & (highest == 1), "1-bit values" if coding.kind == "1-bit" else "values up to 255"
        if coding.kind == "0/255" and three_valued:
            raise ambiguous_coding(folder, role)
    if odd.any():
        name = names[int(odd.argmax())]
        raise RangeError(
            f"most {role} in {folder} hold {usual}, but {int(odd.sum())} hold values up to {int(highest[odd].max())}, e.g. "
            f"{name!r}: mixed codings; " + remedy + (", or name void bytes by --void-value" if role == "masks" else "")
        )
    if 0 < highest.max() <= coding.threshold:
        raise RangeError(
            f"none of the {role} in {folder} has a value above {coding.threshold}, but values up to {highest.max()} occur, as "
            "in label maps; " + remedy.replace("N (", "0 (").replace("> N", "> 0")
        )


def read_mask(path: Path) -> GreyImage:
    """A mask's bytes; coloured palettes give their indices."""
    return FORMATS[path.suffix.lower()](path)


def ambiguous_coding(folder: Path, role: Role) -> RangeError:
    """The error for a folder of only {0, 1, 255}."""
    found = f"the {role} in {folder} hold only the values 0, 1 and 255"
    if role == "fields of view":
        return RangeError(f"{found}; a field of view has two values: save it as 0 outside and 255 inside")
    return RangeError(
        f"{found}: most likely 1 is foreground and 255 is void; "
        "say --void-value 255 if so, or --gt-threshold N (foreground is byte > N) if 255 is foreground"
    )
