"""One image in memory: a prediction, its ground truth, and which pixels count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from calbench.errors import OptionError, RangeError, ShapeError
from calbench.statistics.rows import Array

Kind = Literal["levels", "probabilities", "logits"]


@dataclass(frozen=True, eq=False)
class Sample:
    """One image, checked at the door.

    Attributes:
        name: key of its row; unique in a data set.
        scores: `(H, W)` of a binary map: uint8 or uint16 levels (the probability of foreground is level / 255 or
            level / 65535), or float probabilities or logits; `(C, H, W)` floats of C classes, or `(H, W, C)`.
        target: `(H, W)`: bool, or integers 0 and 1, of a binary map; integers 0 ... C − 1 of several classes. None where
            nothing is known: out-of-distribution images.
        valid: `(H, W)` bool, False at void pixels; None when all count.
        kind: "levels", "probabilities" or "logits"; None stands for levels, and only integers have them.
        layout: "CHW" or "HWC", of several classes.
        eps: unit of the type that probabilities were stored in, by which NLL is clipped; None for that of `scores`.
        source: what it was read from, for messages; None for its name.
    Raises:
        ShapeError: arrays of different shapes, or not of two or three dimensions.
        RangeError: scores of another type than their kind has, or a target out of range.
        OptionError: floats without a kind.

    >>> Sample("a", np.zeros((2, 3), np.uint8), np.zeros((2, 3), bool)).classes
    1
    >>> Sample("b", np.zeros((4, 2, 3)), np.zeros((2, 3), int), kind="logits").classes
    4
    """

    name: str
    scores: Array
    target: Array | None
    valid: Array | None = None
    kind: Kind | None = None
    layout: Literal["CHW", "HWC"] = "CHW"
    eps: float | None = None
    source: str | None = None

    @property
    def classes(self) -> int:
        """Number of classes; 1 for a binary map."""
        if self.scores.ndim == 2:
            return 1
        return int(self.scores.shape[0 if self.layout == "CHW" else 2])

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        shape = self.scores.shape
        height, width = shape[-2:] if self.layout == "CHW" or len(shape) == 2 else shape[:2]
        return int(height), int(width)

    def __post_init__(self) -> None:
        scores = np.asanyarray(self.scores)
        object.__setattr__(self, "scores", scores)
        shapes = {"prediction": self.size if scores.ndim in (2, 3) else scores.shape}
        if self.target is not None:
            shapes["target"] = np.shape(self.target)
        if self.valid is not None:
            shapes["valid"] = np.shape(self.valid)
        if scores.ndim not in (2, 3) or len(set(shapes.values())) > 1:
            found = ", ".join(f"{what} {shape}" for what, shape in {**shapes, "prediction": scores.shape}.items())
            raise ShapeError(
                f"sample {self.name!r}: {found}; expected one (H, W) shape, and (C, H, W) for several classes"
            )
        object.__setattr__(self, "kind", self._checked_kind(scores))
        object.__setattr__(self, "target", self._checked_target())
        object.__setattr__(self, "valid", None if self.valid is None else np.asarray(self.valid, bool))

    def _checked_kind(self, scores: Array) -> Kind:
        if self.kind not in (None, "levels", "probabilities", "logits"):
            raise OptionError(f"sample {self.name!r}: kind is {self.kind!r}; expected levels, probabilities or logits")
        if self.kind in (None, "levels"):
            if scores.dtype not in (np.uint8, np.uint16) or scores.ndim != 2:
                raise RangeError(
                    f"sample {self.name!r}: the prediction is {scores.dtype} of shape {scores.shape}; expected uint8 levels "
                    "0..255 of shape (H, W), or floats with kind='probabilities' or kind='logits'"
                )
            return "levels"
        if scores.dtype.kind != "f":
            raise RangeError(f"sample {self.name!r}: the {self.kind} are {scores.dtype}; expected floats")
        assert self.kind is not None
        return self.kind

    def _checked_target(self) -> Array | None:
        if self.target is None:
            return None
        target = np.asarray(self.target)
        most = 1 if self.classes == 1 else self.classes - 1
        if target.dtype == bool and self.classes == 1:
            return target
        counted = target if self.valid is None else target[np.asarray(self.valid, bool)]
        if target.dtype.kind not in "iub" or (counted.size and (counted.min() < 0 or counted.max() > most)):
            expected = (
                "expected bool, or 0 and 1; threshold it first, for example mask > 128"
                if self.classes == 1
                else f"expected integers 0 to {most}, other values only at void pixels (valid False)"
            )
            found = f"values {counted.min()}..{counted.max()}" if counted.size else "no values"
            raise RangeError(f"sample {self.name!r}: the target has {target.dtype} {found}; {expected}")
        if self.classes == 1:
            return np.asarray(target == 1)
        return target if self.valid is None else np.where(self.valid, target, 0)
