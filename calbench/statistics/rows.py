"""Rows: the base of every statistic. The first axis is images; merging is concatenation, pooling is a weighted sum."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from calbench.errors import MergeError, listing

Array = NDArray[Any]


PER_ROW = {"rows": True}
"""Metadata of a dataclass field whose first axis runs over the rows; fields without it are shared by all rows."""


@dataclass(frozen=True, eq=False)
class Rows:
    """A statistic of many images: one row an image, named, never summed before it has to be.

    `names` holds one name a row; it is empty once rows were pooled by `total`.
    """

    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def row_fields(cls) -> tuple[str, ...]:
        """Names of the arrays whose first axis is rows."""
        return tuple(f.name for f in fields(cls) if f.metadata.get("rows"))

    @classmethod
    def shared_fields(cls) -> tuple[str, ...]:
        """Names of the fields that all rows have in common."""
        return tuple(f.name for f in fields(cls) if not f.metadata.get("rows") and f.name != "names")

    def select(self, rows: slice | Sequence[int] | Array) -> Self:
        """The rows at these positions, as a statistic of the same kind."""
        names = tuple(np.asarray(self.names, dtype=object)[rows])
        return replace(self, names=names, **{name: getattr(self, name)[rows] for name in self.row_fields()})

    @classmethod
    def concat(cls, parts: Iterable[Self]) -> Self:
        """One statistic of all rows, sorted by name.

        Raises:
            MergeError: the same image twice, or parts that differ in what all rows share (levels, columns).
        """
        parts = list(parts)
        names = [name for part in parts for name in part.names]
        repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if repeated:
            raise MergeError(f"{len(repeated)} images appear twice in the statistics to merge:\n{listing(repeated)}")
        first = parts[0]
        for name in cls.shared_fields():
            if any(not np.array_equal(getattr(part, name), getattr(first, name)) for part in parts[1:]):
                raise MergeError(f"the {cls.__name__} to merge differ in {name!r}; collect them with the same settings")
        order = sorted(range(len(names)), key=names.__getitem__)
        arrays = {name: np.concatenate([getattr(part, name) for part in parts])[order] for name in cls.row_fields()}
        return replace(first, names=tuple(names[i] for i in order), **arrays)

    def total(self, weights: Array | None = None) -> Self:
        """Pool the rows: a sum, or a weighted sum for each bootstrap replicate.

        Args:
            weights: `(rows,)` or `(replicates, rows)`; None counts every row once and keeps integers exact.
        Returns:
            The same statistic without row axis, or with a leading axis of replicates.
        """
        pooled = {name: pool(getattr(self, name), weights) for name in self.row_fields()}
        return replace(self, names=(), **pooled)

    def grouped(self, unit_of_row: Array, n_units: int) -> Self:
        """Sum the rows of each resampling unit (a patient, a video); `unit_of_row` has shape `(rows,)`."""
        sums = {}
        for name in self.row_fields():
            array = getattr(self, name)
            out = np.zeros((n_units, *array.shape[1:]), array.dtype)
            np.add.at(out, unit_of_row, array)
            sums[name] = out
        return replace(self, names=tuple(str(unit) for unit in range(n_units)), **sums)


MEMBER = "#"
"""Stands between the name of a file and the part of it that a row is of: a slice of a volume, a group of a table."""


def owner(name: str) -> str:
    """The file that a row is of, by its name.

    >>> owner("patient#007"), owner("image")
    ('patient', 'image')
    """
    return name.rpartition(MEMBER)[0] or name


def pool(array: Array, weights: Array | None) -> Array:
    """Sum `array` over its first axis, weighted by `(rows,)` or `(replicates, rows)` weights.

    Integer counts stay exact: float64 holds them to 2^53. Replicates are done in blocks, so that small unsigned weights
    are widened a block at a time.
    """
    if weights is None:
        return np.asarray(array.sum(axis=0))
    flat = array.reshape(len(array), -1).astype(np.float64, copy=False)
    if weights.ndim == 1:
        return (weights.astype(np.float64) @ flat).reshape(array.shape[1:])
    out = np.empty((len(weights), flat.shape[1]))
    block = 200
    for start in range(0, len(weights), block):
        out[start : start + block] = weights[start : start + block].astype(np.float64) @ flat
    return out.reshape(len(weights), *array.shape[1:])
