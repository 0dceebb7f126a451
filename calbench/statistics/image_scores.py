"""Tables of one number an image: scores that need pixel positions, and facts about the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from calbench.statistics.rows import PER_ROW, Array, Rows


@dataclass(frozen=True, eq=False)
class ImageTable(Rows):
    """Named columns, one row an image: `values` has shape `(rows, columns)`."""

    values: Array = field(metadata=PER_ROW)
    columns: tuple[str, ...]

    @classmethod
    def from_records(cls, names: Sequence[str], records: Sequence[Mapping[str, float]], dtype: type) -> Self:
        """A table from one mapping an image; all have the same keys."""
        columns = tuple(records[0]) if records else ()
        values: Array = np.array([[record[column] for column in columns] for record in records], dtype)
        return cls(tuple(names), values.reshape(len(names), len(columns)), columns)

    def __getitem__(self, column: str) -> Array:
        return self.values[:, self.columns.index(column)]

    def __contains__(self, column: str) -> bool:
        return column in self.columns


class ImageScores(ImageTable):
    """Scores that come from pixel positions (S-measure, weighted F), float64, NaN where undefined."""


class ImageFacts(ImageTable):
    """Integer facts about each file pair, int64, which `check` reads; `collect.measure_pair` lists the columns."""
