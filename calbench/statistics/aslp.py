"""What the official ASLP scripts measure: raw mask bytes, exact-byte correctness, 255 float32 thresholds.

These rows exist only for `--profile aslp`: soft ground truth y = byte / 255 cannot be recovered from a thresholded mask,
so the choice is made when pixels are read.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from calbench.statistics.rows import PER_ROW, Array, Rows


@dataclass(frozen=True, eq=False)
class AslpRows(Rows):
    """Sufficient statistics of the official ASLP evaluation, one row an image.

    Attributes:
        counts: `(rows, 2, 256)` pixels whose thresholded level differs from (0) or equals (1) the raw mask byte.
        precision, recall, tpr, fpr, e: `(rows, 255)` curves over 255 thresholds.
        mae: `(rows,)` mean |x − y| without rescaling.
        s_measure: `(rows,)`, NaN where the centroid rounds to the first row or column.
    """

    counts: Array = field(metadata=PER_ROW)
    precision: Array = field(metadata=PER_ROW)
    recall: Array = field(metadata=PER_ROW)
    tpr: Array = field(metadata=PER_ROW)
    fpr: Array = field(metadata=PER_ROW)
    e: Array = field(metadata=PER_ROW)
    mae: Array = field(metadata=PER_ROW)
    s_measure: Array = field(metadata=PER_ROW)
