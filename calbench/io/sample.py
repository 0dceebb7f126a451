"""One image in memory: a prediction, its ground truth, and which pixels count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calbench.errors import RangeError, ShapeError
from calbench.statistics.rows import Array


@dataclass(frozen=True, eq=False)
class Sample:
    """One image, checked at the door.

    Attributes:
        name: key of its row; unique in a data set.
        levels: `(H, W)` uint8 prediction; the probability of foreground is level / 255.
        target: `(H, W)` bool, or integer 0 and 1: foreground of the ground truth.
        valid: `(H, W)` bool, False at void pixels; None when all count.
    Raises:
        ShapeError: arrays of different shapes, or not two-dimensional.
        RangeError: a prediction that is not uint8, or a target that is not binary.

    >>> Sample("a", np.zeros((2, 3), np.uint8), np.zeros((2, 3), bool)).name
    'a'
    """

    name: str
    levels: Array
    target: Array
    valid: Array | None = None

    def __post_init__(self) -> None:
        shapes = [np.shape(self.levels), np.shape(self.target)]
        if self.valid is not None:
            shapes.append(np.shape(self.valid))
        if len(shapes[0]) != 2 or len(set(shapes)) > 1:
            raise ShapeError(
                f"sample {self.name!r}: prediction {shapes[0]}, target {shapes[1]}"
                + (f", valid {shapes[2]}" if self.valid is not None else "")
                + "; expected one (H, W) shape"
            )
        levels, target = np.asarray(self.levels), np.asarray(self.target)
        if levels.dtype != np.uint8:
            raise RangeError(
                f"sample {self.name!r}: the prediction is {levels.dtype}; expected uint8 levels 0..255; "
                "probabilities become levels by np.round(255 * p).astype(np.uint8)"
            )
        if target.dtype != bool:
            if target.size and (target.min() < 0 or target.max() > 1 or not np.isin(target, (0, 1)).all()):
                raise RangeError(
                    f"sample {self.name!r}: the target has values {target.min()}..{target.max()}; expected bool, or 0 and 1; "
                    "threshold it first, for example mask > 128"
                )
            target = target.astype(bool)
        valid = None if self.valid is None else np.asarray(self.valid, bool)
        object.__setattr__(self, "levels", levels)
        object.__setattr__(self, "target", target)
        object.__setattr__(self, "valid", valid)
