"""Every single confidence, kept: only `--profile mbls` needs them, for edges that it interpolates between sorted values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from calbench.errors import OptionError
from calbench.statistics.rows import PER_ROW, Array, Rows


@dataclass(frozen=True, eq=False)
class KeptScores(Rows):
    """The top-label confidence of each valid pixel and whether it was right: five bytes a pixel, unlike other rows.

    Attributes:
        length: valid pixels of each row, `(rows,)`.
        confidence: `(pixels,)` of all rows, one after another, as computed (float32 or float64).
        correct: `(pixels,)` bool.
    """

    length: Array = field(metadata=PER_ROW)
    confidence: Array
    correct: Array

    def select(self, rows: slice | Sequence[int] | Array) -> Self:
        """The rows at these positions."""
        chosen = np.arange(len(self.length))[rows]
        ends = np.cumsum(self.length)
        pieces = [np.arange(ends[i] - self.length[i], ends[i]) for i in chosen]
        pixels = np.concatenate([np.zeros(0, np.intp), *pieces])
        return replace(super().select(rows), confidence=self.confidence[pixels], correct=self.correct[pixels])

    @classmethod
    def concat(cls, parts: Iterable[Self]) -> Self:
        """One statistic of all rows, sorted by name."""
        parts = list(parts)
        joined = super().concat(
            [replace(part, confidence=parts[0].confidence, correct=parts[0].correct) for part in parts]
        )
        names = [name for part in parts for name in part.names]
        whole = cls(
            tuple(names),
            np.concatenate([part.length for part in parts]),
            np.concatenate([part.confidence for part in parts]),
            np.concatenate([part.correct for part in parts]),
        )
        position = {name: i for i, name in enumerate(names)}
        return whole.select(np.array([position[name] for name in joined.names], np.intp))

    def total(self, weights: Array | None = None) -> Self:
        """All pixels as one.

        Raises:
            OptionError: weights, which single values do not take.
        """
        if weights is not None:
            raise OptionError("kept scores cannot be resampled; ask for metrics of this kind without intervals")
        return replace(self, names=(), length=np.asarray(self.length.sum()))

    def grouped(self, unit_of_row: Array, n_units: int) -> Self:
        """The rows in the order of their units, lengths added up."""
        ordered = self.select(np.argsort(unit_of_row, kind="stable"))
        length = np.bincount(unit_of_row, weights=self.length, minlength=n_units).astype(np.int64)
        return replace(ordered, names=tuple(str(unit) for unit in range(n_units)), length=length)
