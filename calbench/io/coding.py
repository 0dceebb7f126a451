"""How a folder of masks codes foreground: decided once a folder, over a sample, and verified on every mask after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from calbench.errors import OptionError, RangeError
from calbench.io.arrays import VOLUMES, StoredArray, extension, grey_from_array, plane, read_array
from calbench.io.images import FORMATS, GreyImage, read_grey
from calbench.io.labels import whole_numbers
from calbench.statistics.rows import Array

Role = Literal["masks", "fields of view"]

SAMPLE = 8
"""Masks looked at to decide the coding; more only while they are all empty."""
DEFAULT_THRESHOLD = 128
LOWEST = 1 << 15
"""Void values below 0 go down to minus this: masks that hold them are read as 16 bits."""
NOISE = 0.01
"""In a folder of grey masks, a file whose highest byte is 1 is nearly empty if fewer pixels than this hold it."""


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

    def void(self, image: GreyImage) -> Array | None:
        """`(H, W)` bool, or None when no value means void; a 1-bit file has no room for void."""
        return np.isin(image.levels, self.void_values) if self.void_values and image.bits > 1 else None


def infer_coding(
    paths: Sequence[Path],
    *,
    threshold: int | None = None,
    void_values: tuple[int, ...] = (),
    role: Role = "masks",
    key: str | None = None,
) -> MaskCoding:
    """Look at some masks of a folder and decide how it codes foreground.

    Masks with values in {0, 1} are coded 0/1 and use threshold 0; all else uses 128, strict, as PySODMetrics does.

    Args:
        threshold: given by the user; the folder is then not judged.
        role: what the files are, for messages.
        key: array of `.npz` files.
    Raises:
        OptionError: a threshold or void value that is no byte.
        RangeError: only {0, 1, 255} occur, where 255 is likely void.
    """
    for name, value in [("--gt-threshold", threshold), *(("the void value", v) for v in void_values)]:
        if value is not None and not (0 if name == "--gt-threshold" else -LOWEST) <= value <= 255:
            raise OptionError(f"{name} is {value}; mask bytes are 0 to 255")
    spread = np.linspace(0, len(paths) - 1, min(SAMPLE, len(paths))).round().astype(int)
    order = [paths[i] for i in dict.fromkeys(spread)]
    sampled = set(order)
    found: list[tuple[int, set[int]]] = []  # bits and values of each file
    for number, path in enumerate([*order, *(path for path in paths if path not in sampled)]):
        if number >= SAMPLE and any(values - {0} for _, values in found):
            break
        image = read_mask(path, key)
        values = set(np.unique(image.levels).tolist())
        found.append((image.bits, values - set(void_values) if image.bits > 1 else values))
    values = set().union(*(each for _, each in found))
    if all(bits == 1 for bits, _ in found):
        kind = "1-bit"
        if void_values:
            raise OptionError(
                f"--void-value {void_values[0]}, but the {role} in {paths[0].parent} have 1 bit a pixel: they hold no void "
                "byte; leave the option out"
            )
    elif values <= {0, 1} and 1 in values:
        kind = "0/1"
    else:
        kind = "0/255"
        if threshold is None and 1 in values and values <= {0, 1, 255}:
            together = any(bits > 1 and {1, 255} <= each for bits, each in found)
            raise (ambiguous_coding if together else _mixed_coding)(paths[0].parent, role)
    if threshold is not None:
        return MaskCoding(kind, threshold, void_values, declared=True)
    return MaskCoding(kind, 0 if kind == "0/1" else DEFAULT_THRESHOLD, void_values)


@dataclass(frozen=True)
class CodedFiles:
    """What was seen in each file of a folder, void bytes aside, arrays of shape `(files,)`.

    Attributes:
        names, bits, highest: its name, bits a pixel, and highest byte.
        ones: share of its pixels at byte 1.
        between: pixels that are neither 0, 1 nor 255.
    """

    names: Sequence[str]
    bits: Array
    highest: Array
    ones: Array
    between: Array


def verify_coding(coding: MaskCoding, folder: Path, files: CodedFiles, role: Role) -> None:
    """Hold a coding, decided on a sample, against every file that was read.

    Raises:
        RangeError: files of another coding than the folder's, only {0, 1, 255}, or nothing above the threshold.
    """
    if coding.declared or not len(files.highest):
        return
    ones = (files.bits > 1) & (files.highest == 1)
    if coding.kind == "0/1":
        odd = files.highest > 1
    elif files.between.any():
        odd = ones & (files.ones > NOISE)  # a byte of 1 here and there is the noise of a grey mask
    else:
        odd = ones
        if ((files.ones > 0) & (files.highest == 255)).any():
            raise ambiguous_coding(folder, role)
    if odd.any():
        raise _mixed_coding(folder, role, files.names[int(odd.argmax())])
    if 0 < files.highest.max() <= coding.threshold:
        remedy = "say --gt-threshold 0 (foreground is byte > 0)" if role == "masks" else "save them as 0 and 255"
        raise RangeError(
            f"none of the {role} in {folder} has a value above {coding.threshold}, but values up to {files.highest.max()} "
            f"occur, as in label maps; {remedy}"
        )


def read_mask(path: Path, key: str | None = None) -> GreyImage:
    """A mask's values; coloured palettes give their indices, the slices of a volume lie side by side."""
    if extension(path) in FORMATS:
        return read_grey(path)
    stored = read_array(path, "mask", key)
    if extension(path) in VOLUMES:
        stored = replace(stored, array=stored.array.reshape(len(stored.array), -1))
    return mask_from_array(stored, path)


def mask_from_array(stored: StoredArray, path: Path) -> GreyImage:
    """A binary mask in an array: bool, integers up to 255 (below 0 for void), or floats that are whole numbers."""
    labels = plane(whole_numbers(stored.array, path), path)
    if labels.dtype == bool or labels.min(initial=0) >= 0:
        return grey_from_array(replace(stored, array=labels, stored=labels.dtype.name), path)
    low, high = int(labels.min()), int(labels.max())
    if low < -LOWEST or high > 255:
        raise RangeError(f"{path} holds values {low}..{high}; expected 0..255, and at least -{LOWEST} for void")
    return GreyImage(labels.astype(np.int16), 16, 1, 0, False, stored.digest)


def ambiguous_coding(folder: Path, role: Role) -> RangeError:
    """The error for a folder of only {0, 1, 255}."""
    found = f"the {role} in {folder} hold only the values 0, 1 and 255"
    if role == "fields of view":
        return RangeError(f"{found}; a field of view has two values: save it as 0 outside and 255 inside")
    return RangeError(
        f"{found}: most likely 1 is foreground and 255 is void; "
        "say --void-value 255 if so, or --gt-threshold N (foreground is byte > N) if 255 is foreground"
    )


def _mixed_coding(folder: Path, role: Role, example: str = "") -> RangeError:
    """The error for a folder in which some files use 1, and others 255."""
    shown = f", e.g. {example!r}," if example else ""
    remedy = (
        "save them all as 0 and 255, or say --gt-threshold N (foreground is byte > N: 0 if 1 is foreground, 128 if it is not)"
        if role == "masks"
        else "save them all as 0 and 255"
    )
    return RangeError(f"the {role} in {folder} have mixed codings: some{shown} mark with 1, others with 255; {remedy}")
