"""Pixels of each class in the ground truth, in the prediction, and in both: all that IoU, Dice and accuracy need."""

from __future__ import annotations

from dataclasses import dataclass, field

from calbench.statistics.rows import PER_ROW, Array, Rows


@dataclass(frozen=True, eq=False)
class ClassCounts(Rows):
    """The margins and the diagonal of the confusion matrix, `(..., classes)` each, int64 until weighted.

    They grow with the number of classes, where the matrix grows with its square.

    Attributes:
        target: valid pixels of each class in the ground truth.
        predicted: valid pixels of each class in the prediction.
        hit: valid pixels that are of the class in both.
    """

    target: Array = field(metadata=PER_ROW)
    predicted: Array = field(metadata=PER_ROW)
    hit: Array = field(metadata=PER_ROW)
