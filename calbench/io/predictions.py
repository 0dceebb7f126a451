"""How a folder of predictions is stored: decided once a folder, over a sample of files, and verified on every file after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from calbench.errors import OptionError, RangeError, ShapeError, listing
from calbench.io.arrays import VOLUMES, extension, read_array
from calbench.statistics.rows import Array

Kind = Literal["levels", "probabilities", "logits"]
Layout = Literal["CHW", "HWC"]
Shape = tuple[int, ...]
Size = tuple[int, int]

SAMPLE = 4
"""Float files looked at to decide what they hold; every one is verified when it is read."""
SAMPLED_PIXELS = 1 << 16
SUM_TOLERANCE = 0.02
"""Rounding to bfloat16 moves the sum of many probabilities this far."""
INTEGERS = ("bool", "uint8", "uint16", "int8", "int16", "int32", "int64", "uint32", "uint64")


@dataclass(frozen=True)
class ScoreCoding:
    """What the files of a folder hold.

    Attributes:
        kind: integer levels, probabilities, or logits.
        classes: number of classes; 1 for binary maps.
        layout: where the axis of classes is, in files of several classes.
        stored: type of the numbers, such as "uint8" or "float16".
        declared: whether `--input` said what they are.
        layout_declared: whether `--layout` said where the axis is.
    """

    kind: Kind
    classes: int
    layout: Layout | None
    stored: str
    declared: bool = False
    layout_declared: bool = False

    @property
    def binary(self) -> bool:
        """One map of foreground, rather than one for each class."""
        return self.classes == 1

    @property
    def eight_bit(self) -> bool:
        """8-bit levels, which the joint histogram holds exactly."""
        return self.kind == "levels" and self.stored != "uint16" and not self.stored.startswith(("float", "bfloat"))

    @property
    def top(self) -> int:
        """The level that means p = 1."""
        return 65535 if self.stored == "uint16" else 255

    @property
    def eps(self) -> float | None:
        """Unit in the last place of the stored type, relative to 1; what NLL is clipped by. None for integers."""
        return None if self.stored in INTEGERS else eps_of(self.stored)

    @property
    def text(self) -> str:
        """For people: what was found."""
        how, where = ("given" if declared else "inferred" for declared in (self.declared, self.layout_declared))
        if self.binary:
            return f"{self.stored} binary {self.kind} ({how})"
        if how == where:
            return f"{self.stored} {self.kind} of {self.classes} classes, {self.layout} ({how})"
        return f"{self.stored} {self.kind} ({how}) of {self.classes} classes, {self.layout} ({where})"

    def size(self, shape: Shape) -> Size:
        """Height and width of an array of this folder."""
        if self.binary:
            height, width = shape
        else:
            height, width = shape[1:] if self.layout == "CHW" else shape[:2]
        return int(height), int(width)


def eps_of(stored: str) -> float:
    """Unit in the last place of a float type, relative to 1.

    >>> eps_of("float16"), eps_of("bfloat16")
    (0.0009765625, 0.0078125)
    """
    return 2.0**-7 if stored == "bfloat16" else float(np.finfo(stored).eps)


def flat_shape(path: Path, shape: Shape) -> Shape:
    """Shape of one image: of a slice of a volume, and without an axis of one class."""
    if extension(path) in VOLUMES:
        shape = (*shape[:2], *shape[3:])
    return squeezed(shape)


def squeezed(shape: Shape) -> Shape:
    """Without a leading axis of one batch or one slice, and without an axis of one class.

    >>> squeezed((1, 4, 20, 30)), squeezed((4, 1, 20, 30)), squeezed((1, 20, 30))
    ((4, 20, 30), (4, 20, 30), (20, 30))
    """
    while len(shape) > 3 and 1 in shape[:2]:
        shape = shape[1:] if shape[0] == 1 else (shape[0], *shape[2:])
    if len(shape) == 3 and 1 in (shape[0], shape[2]):
        return shape[1:] if shape[0] == 1 else shape[:2]
    return shape


def infer_scores(
    headers: Mapping[Path, tuple[Shape, str]],
    sizes: Mapping[Path, Size | None],
    *,
    kind: Kind | None = None,
    layout: Layout | None = None,
    num_classes: int | None = None,
    like: ScoreCoding | None = None,
    key: str | None = None,
) -> ScoreCoding:
    """Look at the headers of all files, and at the values of some, and decide what a folder holds.

    Args:
        headers: shape (of one image) and stored type of each file of predictions.
        sizes: height and width of each mask, None where there is none.
        kind, layout, num_classes: declared by the user.
        like: how other predictions of the same method are stored; settles the layout where there are no masks.
        key: array of `.npz` files.
    Raises:
        ShapeError, RangeError: files that disagree, an ambiguous layout, or values that fit no kind.
        OptionError: options that do not go with what the files hold.
    """
    first = next(iter(headers))
    folder = first.parent
    layout_declared = layout is not None
    dimensions = _agreed({path: len(shape) for path, (shape, _) in headers.items()}, "dimensions", folder)
    if dimensions not in (2, 3):
        volume = "; soft-max volumes are read as NIfTI (X, Y, Z, C), or slice by slice" if dimensions == 4 else ""
        raise ShapeError(f"{first} has shape {headers[first][0]}; expected (H, W), (C, H, W) or (H, W, C){volume}")
    stored = _stored(headers, folder)
    if dimensions == 2:
        if layout is not None or (num_classes or 2) > 2:
            what = f"--layout {layout}" if layout is not None else f"--num-classes {num_classes}"
            raise OptionError(f"{what}, but the predictions in {folder} are binary maps of shape {headers[first][0]}")
        classes = 1
    else:
        layout = layout or _layout(headers, sizes, num_classes, like)
        axis = 0 if layout == "CHW" else 2
        classes = _agreed({path: shape[axis] for path, (shape, _) in headers.items()}, "classes", folder)
        if num_classes not in (None, classes):
            raise ShapeError(
                f"the predictions in {folder} have {classes} classes ({layout}, shape {headers[first][0]}), but "
                f"--num-classes is {num_classes}; is it --layout {'HWC' if layout == 'CHW' else 'CHW'}?"
            )
    found = _kind(list(headers), stored, classes, layout, kind, key)
    return ScoreCoding(found, classes, layout if classes > 1 else None, stored, kind is not None, layout_declared)


def kind_of_table(path: Path, scores: Array) -> Kind:
    """Whether the scores `(samples, classes)` of a table are probabilities or logits.

    Raises:
        RangeError: values that fit neither.
    """
    return _fitting_kind(path, scores.T[:, :, None], 0)


def looks_normalised(scores: Array, classes_axis: int | None) -> bool:
    """Whether (a sample of) the values are probabilities: in [0, 1] and, of several classes, adding up to 1."""
    few = (scores if classes_axis is None else np.moveaxis(scores, classes_axis, 0))[..., ::32, ::32]
    if (few < 0).any():  # logits, in nearly every file: no need to look further
        return False
    low, high, sums = _ranges(scores, classes_axis)
    return low >= 0 and high <= 1 + 1e-3 and (sums is None or max(abs(sums[0] - 1), abs(sums[1] - 1)) <= SUM_TOLERANCE)


def resize_scores(scores: Array, size: Size, layout: Layout | None) -> Array:
    """Probabilities or logits interpolated to (height, width), float32; bilinear, area-weighted when shrinking."""
    planes = scores[None] if scores.ndim == 2 else scores if layout == "CHW" else np.moveaxis(scores, -1, 0)
    height, width = size
    out = np.empty((len(planes), height, width), np.float32)
    for plane, target in zip(planes, out, strict=True):
        image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
        target[:] = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return out[0] if scores.ndim == 2 else out


def _agreed(values: Mapping[Path, Any], what: str, folder: Path) -> Any:
    """What all files have in common."""
    first = next(iter(values))
    other = next((path for path in values if values[path] != values[first]), None)
    if other is not None:
        raise ShapeError(
            f"the predictions in {folder} differ in their number of {what}: {first.name} has {values[first]}, {other.name} "
            f"{values[other]}; keep one kind in a folder"
        )
    return values[first]


def _stored(headers: Mapping[Path, tuple[Shape, str]], folder: Path) -> str:
    types = sorted({stored for _, stored in headers.values()})
    families = {"integer" if stored in INTEGERS else "float" for stored in types}
    if len(types) > 1 and (families != {"integer"} or "uint16" in types):
        examples = [next(f"{path.name} ({s})" for path, (_, s) in headers.items() if s == t) for t in types]
        raise RangeError(
            f"the predictions in {folder} mix types of numbers: {', '.join(examples)}; save them all in one type"
        )
    return types[-1]


def _layout(
    headers: Mapping[Path, tuple[Shape, str]],
    sizes: Mapping[Path, Size | None],
    num_classes: int | None,
    like: ScoreCoding | None,
) -> Layout:
    """The layout that fits the files of their mask's size; where none tells, the one that the number of classes fits."""
    votes: set[Layout] = set()
    for path, (shape, _) in headers.items():
        fits = {"CHW": shape[1:] == sizes.get(path), "HWC": shape[:2] == sizes.get(path)}
        if fits["CHW"] != fits["HWC"]:
            votes.add("CHW" if fits["CHW"] else "HWC")
    if not votes and like is not None and like.layout is not None:
        votes = {like.layout}
    if not votes and num_classes is not None:
        first = all(shape[0] == num_classes for shape, _ in headers.values())
        last = all(shape[2] == num_classes for shape, _ in headers.values())
        votes = {"CHW"} if first and not last else {"HWC"} if last and not first else set()
    if len(votes) != 1:
        path, (shape, _) = next(iter(headers.items()))
        size = sizes.get(path)
        known = "which fits neither order" if size not in (shape[1:], shape[:2]) else "which fits both orders"
        mask = "" if size is None else f", its mask (H, W) = {size}, {known}"
        raise ShapeError(
            f"cannot tell where the axis of classes is: {path} has shape {shape}{mask}; "
            "say --layout CHW or --layout HWC" + ("" if num_classes else ", or --num-classes N")
        )
    return votes.pop()


def _kind(
    paths: Sequence[Path], stored: str, classes: int, layout: Layout | None, declared: Kind | None, key: str | None
) -> Kind:
    folder = paths[0].parent
    if stored in INTEGERS:
        if classes > 1:
            raise RangeError(
                f"the predictions in {folder} are {stored} of {classes} classes; expected probabilities or logits as floats: "
                "integers of several classes are not read"
            )
        if declared not in (None, "levels"):
            raise OptionError(f"--input {declared}, but the predictions in {folder} are {stored}: integers hold levels")
        return "levels"
    if declared is not None:
        if declared == "levels" and classes > 1:
            raise OptionError(f"--input levels, but the predictions in {folder} have {classes} classes")
        return declared
    spread = np.linspace(0, len(paths) - 1, min(SAMPLE, len(paths))).round().astype(int)
    axis = None if classes == 1 else 0 if layout == "CHW" else 2
    kinds = {paths[i]: _kind_of(paths[i], key, axis) for i in dict.fromkeys(spread)}
    if len(set(kinds.values())) > 1:
        lines = (f"{path.name}: {kind}" for path, kind in kinds.items())
        raise RangeError(
            f"the predictions in {folder} are a mixture:\n{listing(lines)}\nsave them all in one way, or, if their values "
            "mislead, say --input probabilities or --input logits"
        )
    return next(iter(kinds.values()))


def _kind_of(path: Path, key: str | None, axis: int | None) -> Kind:
    array = read_array(path, "prediction", key).array
    if extension(path) in VOLUMES:
        array = array[:, :, array.shape[2] // 2]
    array = array.reshape(squeezed(array.shape))
    return _fitting_kind(path, array, axis)


def _fitting_kind(path: Path, array: Array, axis: int | None) -> Kind:
    low, high, sums = _ranges(array, axis)
    if low < 0:
        return "logits"
    if high > 1 + 1e-3:
        remedy = (
            "--input logits if these are logits"
            if axis is not None
            else ("--input levels if they run from 0 to 255, --input logits if these are logits")
        )
        raise RangeError(
            f"{path} has values from {low:.4g} to {high:.4g}: no probabilities, and without a negative value hardly logits; "
            f"say {remedy}"
        )
    if sums is not None and not looks_normalised(array, axis):
        raise RangeError(
            f"{path} has values in [0, 1] whose sum over the classes runs from {sums[0]:.4g} to {sums[1]:.4g}, not 1: "
            "neither softmax probabilities nor, most likely, logits; say --input probabilities if only void pixels have other "
            "sums, --input logits if these are logits; normalise them if not"
        )
    return "probabilities"


def _ranges(scores: Array, axis: int | None) -> tuple[float, float, tuple[float, float] | None]:
    """Lowest and highest value, and (of several classes) lowest and highest sum, over a sample of the pixels."""
    planes = np.asarray(scores)[None] if axis is None else np.moveaxis(scores, axis, 0)
    step = max(1, int(np.sqrt(planes[0].size / SAMPLED_PIXELS)))
    sampled = np.asarray(planes[:, ::step, ::step], np.float64)
    sampled = sampled[
        :, np.isfinite(sampled).all(0)
    ]  # others may be void; those that are not are refused when they are read
    if not sampled.size:
        return 0.0, 0.0, None
    sums = sampled.sum(0)
    return float(sampled.min()), float(sampled.max()), None if axis is None else (float(sums.min()), float(sums.max()))
