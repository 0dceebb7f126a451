"""Label masks of several classes: raw values as files hold them, and the coding that turns them into classes and void."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calbench.errors import FormatError, OptionError, RangeError, ShapeError
from calbench.io import images
from calbench.io.arrays import VOLUMES, extension, plane, read_array
from calbench.io.files import read_bytes
from calbench.statistics.rows import Array

VOID = -1
"""The class of pixels that do not count."""
NO_CLASS = -2
"""Stands for the class of raw values that have none."""
LOOKUP = 1 << 16
"""Values in the widest range that is looked up in a table; beyond, the distinct values are sorted out first."""


@dataclass(frozen=True)
class LabelCoding:
    """The rule that turns the raw values of label masks into classes 0..classes − 1, and void.

    In this order: raw values in `ignore` are void; then `mapping` gives the class of each raw value, or `reduce_zero` makes
    raw 0 void, and raw 255 where there are fewer than 255 classes, and takes 1 from the others (reduce_zero_label of
    mmsegmentation), or a raw value is its class.

    Attributes:
        classes: their number.
        ignore: raw values that are void, literally: 0 and -1 are legal, and a byte of 255 is not -1.
        reduce_zero: whether raw 0 (and 255) stands for void.
        mapping: class of each raw value, -1 for void.
    Raises:
        OptionError: no class, or `reduce_zero` together with `mapping`.

    >>> coding = LabelCoding(3, ignore=(255,))
    >>> target, valid = coding.apply(np.array([[0, 2, 255]], np.uint8), Path("a.png"))
    >>> target.tolist(), valid.tolist()
    ([[0, 2, 0]], [[True, True, False]])
    """

    classes: int
    ignore: tuple[int, ...] = ()
    reduce_zero: bool = False
    mapping: Mapping[int, int] | None = None

    def __post_init__(self) -> None:
        if self.classes < 1:
            raise OptionError(f"--num-classes is {self.classes}; expected at least 1")
        if self.reduce_zero and self.mapping is not None:
            raise OptionError(
                "--reduce-zero-label together with --label-map, which says itself what raw 0 is; leave one of them out"
            )

    def apply(self, raw: Array, path: Path) -> tuple[Array, Array | None]:
        """Classes and validity of the pixels of one mask.

        Args:
            raw: `(H, W)` integers or bool, as the file holds them.
            path: for messages.
        Returns:
            Classes, `(H, W)` in the smallest of uint8, int16 and int32, 0 at void pixels; and `(H, W)` bool, False at void
            pixels, or None where all count.
        Raises:
            RangeError: raw values that are neither void nor a class.
        """
        void, bad = self.classes, self.classes + 1
        values, position = _distinct(raw)
        code = self._classes_of(values)
        is_void = np.isin(values, self.ignore) | (code == VOID)
        is_bad = ~is_void & ((code < 0) | (code >= self.classes))
        code[is_void], code[is_bad] = void, bad
        codes = code.astype(_smallest(bad)).take(position)
        if is_bad.any() and (wrong := codes == bad).any():
            raise self._error(np.unique(raw[wrong]), path)
        if not is_void.any() or (valid := codes != void).all():
            return codes.astype(_smallest(self.classes - 1), copy=False), None
        codes *= valid
        return codes.astype(_smallest(self.classes - 1), copy=False), valid

    def _classes_of(self, values: Array) -> Array:
        """Class of each raw value, int64; `VOID`, or less where there is none."""
        if self.mapping is not None:
            return np.array([self.mapping.get(value, NO_CLASS) for value in values.tolist()], np.int64)
        if self.reduce_zero:
            is_void = (values == 255) & (self.classes < 255)  # where there are more classes, 255 is one of them
            return np.where(is_void, VOID, values - 1)  # and 0 becomes -1
        return np.where(values < 0, NO_CLASS, values)

    def _error(self, wrong: Array, path: Path) -> RangeError:
        known = f"0..{self.classes - 1} for {self.classes} classes"
        if self.mapping is None:
            taken = ", from 0 once 1 is taken from them," if self.reduce_zero else ""
            return RangeError(
                f"{path} holds the label values {_shown(wrong)}; expected{taken} {known}; name void values by "
                "--ignore-index V, other ids by --label-map, say --reduce-zero-label if 0 is void and classes begin at 1, or "
                "correct --num-classes"
            )
        absent = [value for value in wrong.tolist() if value not in self.mapping]
        if absent:
            return RangeError(
                f"{path} holds the label values {_shown(absent)}, which --label-map does not name; add them there, with the "
                "class -1 where they are void, or say --ignore-index V"
            )
        given = [self.mapping[value] for value in wrong.tolist()]
        return RangeError(
            f"{path} holds the label values {_shown(wrong)}, to which --label-map gives the classes {_shown(given)}; expected "
            f"{known}, or -1 for void; correct the map or --num-classes, or say --ignore-index V"
        )


def read_labels(path: Path, key: str | None = None) -> tuple[Array, int]:
    """The raw values of a label mask and the digest of its file: `(H, W)` integers or bool, or `(X, Y, Z)` of a volume.

    Palette images give their indices, 1-bit ones 0 and 1, grey ones of 2 and 4 bits their values before they are stretched
    to 255, arrays of shape `(1, H, W)` and `(H, W, 1)` their plane, and floats their values where all are whole.

    Args:
        key: name of the array in an .npz file, where it is none of the usual ones.
    Raises:
        FormatError: unreadable, colours, JPEG, or floats that are not whole.
        ShapeError: several planes.
    """
    if extension(path) in images.FORMATS:
        decoded = images.decode(path)
        return whole_numbers(_image_labels(decoded, path), path), decoded.digest
    stored = read_array(path, "mask", key)
    labels = whole_numbers(stored.array, path)
    if extension(path) not in VOLUMES:
        return plane(labels, path), stored.digest
    if labels.ndim == 4 and labels.shape[3] > 1:
        raise ShapeError(f"{path} has shape {labels.shape}; expected a label volume (X, Y, Z); save one label a voxel")
    return labels[..., 0] if labels.ndim == 4 else labels, stored.digest


def read_label_map(path: Path) -> dict[int, int]:
    """Class of each raw label value, from JSON, {"raw": class, ...}, or two columns of text, with or without a header line.

    A class of -1, or "ignore", means void. Columns are separated by comma, semicolon, tab or spaces.

    Raises:
        FormatError: unreadable, not of this form, a raw value twice, or nothing in it.
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
        pairs = _json_pairs(text) if extension(path) == ".json" else _text_pairs(text)
    except ValueError as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(
            f'cannot read {path} as a label map ({error}); expected JSON {{"7": 0, "255": "ignore"}}, or lines of two '
            'columns, raw value and class; the class is a whole number from 0, or -1 or "ignore" for void'
        ) from error
    classes: dict[int, int] = {}
    for raw, name in pairs:
        if raw in classes:
            raise FormatError(f"{path} names the raw value {raw} twice; keep one line for it")
        if max(abs(raw), abs(name)) >= 2**31:
            raise FormatError(
                f"{path} maps {raw} to {name}; labels and classes are numbers below 2147483648; correct it"
            )
        classes[raw] = name
    if not classes:
        raise FormatError(f"{path} is empty; expected the class of each raw label value; write them into it")
    return classes


def whole_numbers(array: Array, path: Path) -> Array:
    """Labels saved as floats, as integers again; integers and bool as they are.

    Raises:
        FormatError: floats that are not whole, or that int32 does not hold.
    """
    if array.dtype.kind != "f":
        return array
    with np.errstate(invalid="ignore"):
        labels = array.astype(np.int32)  # NaN, infinity and large values come out as another number
    wrong = labels != array
    if wrong.any():
        raise FormatError(
            f"{path} holds {array.dtype} values that are no whole numbers below 2³¹, e.g. {array[wrong][0]}; expected labels; "
            "is it a prediction, or another array of the file?"
        )
    return labels


def _image_labels(decoded: images.Decoded, path: Path) -> Array:
    """The values of a grey image, the indices of one with a palette."""
    image = decoded.image
    if image.format == "JPEG":
        raise FormatError(f"{path} is a JPEG, which changes label values a little; save label masks as PNG")
    if image.mode in ("P", "1"):
        return np.asarray(image)
    if image.mode == "L":
        return np.asarray(image) // np.uint8(255 // (2**decoded.bits - 1))
    if decoded.bits > 8:
        return images.deep(decoded, path)
    colours = np.asarray(image)
    if image.mode == "RGB" and (colours == colours[..., :1]).all():
        return colours[..., 0]
    raise FormatError(
        f"{path} is a colour image (mode {image.mode!r}); expected one label value a pixel; label colours need a map to "
        "indices: save the indices as 8-bit or palette PNG"
    )


def _distinct(raw: Array) -> tuple[Array, Array]:
    """Raw values that may occur, ascending, int64, and the position among them of each pixel."""
    if raw.dtype == bool:
        raw = raw.view(np.uint8)
    if raw.dtype == np.uint8:
        return np.arange(256), raw
    if raw.dtype == np.uint64:
        raw = raw.astype(np.int64)  # whose -1 it writes as its highest value
    low, high = int(raw.min()), int(raw.max())
    if high - low < LOOKUP:
        return np.arange(low, high + 1), raw.astype(np.intp) - low
    values, position = np.unique(raw, return_inverse=True)
    return values.astype(np.int64), position.reshape(raw.shape)


def _smallest(highest: int) -> type[np.integer]:
    """The first of uint8, int16 and int32 that holds this number."""
    return next(dtype for dtype in (np.uint8, np.int16, np.int32) if highest <= np.iinfo(dtype).max)


def _shown(values: Iterable[int], limit: int = 10) -> str:
    """The first few numbers and how many more there are."""
    numbers = sorted({int(value) for value in values})
    more = f" and {len(numbers) - limit} more" if len(numbers) > limit else ""
    return ", ".join(map(str, numbers[:limit])) + more


def _json_pairs(text: str) -> list[tuple[int, int]]:
    found = json.loads(text, object_pairs_hook=list)  # a dict would keep the last of two
    if not (isinstance(found, list) and all(isinstance(item, tuple) for item in found)):
        raise ValueError("it is no JSON object")
    return [(int(raw), _class(name)) for raw, name in found]


def _text_pairs(text: str) -> list[tuple[int, int]]:
    rows = [re.split(r"\s*[,;]\s*|\s+", line.strip()) for line in text.splitlines() if line.strip()]
    if rows and not re.fullmatch(r"[-+]?\d+", rows[0][0]):
        del rows[0]
    for row in rows:
        if len(row) != 2:
            raise ValueError(f"{' '.join(row)!r} is not a pair")
    return [(int(raw), _class(name)) for raw, name in rows]


def _class(name: object) -> int:
    """A class as written in a label map."""
    if isinstance(name, str) and name.strip().lower() == "ignore":
        return VOID
    if not isinstance(name, int | str) or isinstance(name, bool) or int(name) < VOID:
        raise ValueError(f"{name!r} is no class")
    return int(name)
