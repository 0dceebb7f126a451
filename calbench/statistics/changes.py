"""Pixels whose class a calibrator changed."""

from __future__ import annotations

from dataclasses import dataclass, field

from calbench.statistics.rows import PER_ROW, Array, Rows


@dataclass(frozen=True, eq=False)
class ClassChanges(Rows):
    """Decisions before and after calibration, `(...,)` each, int64 until weighted.

    Attributes:
        count: valid pixels.
        changed: valid pixels whose class is another one after calibration.
    """

    count: Array = field(metadata=PER_ROW)
    changed: Array = field(metadata=PER_ROW)
