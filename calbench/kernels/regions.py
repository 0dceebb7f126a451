"""Regions of an image: which pixel lies where, and sums over the pixels of each region.

Per-pixel quantities are computed once, for blocks of pixels in order of region; sums over the runs of each region follow.
The rows of a table, grouped, are the same thing: a region is a group there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from calbench.errors import OptionError
from calbench.statistics.bundle import Statistics
from calbench.statistics.kept import KeptScores
from calbench.statistics.rows import Array

BINARY_REGIONS = ("boundary", "interior_fg", "interior_bg")
CLASS_REGIONS = ("boundary", "interior")


def region_codes(
    target: Array, valid: Array | None = None, *, width: float = 5, binary: bool
) -> tuple[Array, tuple[str, ...]]:
    """The boundary of the ground truth, and what is left of the classes.

    boundary = { x : min |x − x'| <= width over the valid pixels x' of another class }, Euclidean, in pixels between their
    centres. The border of the image and void pixels are no boundaries. Within a disk around x there is another class
    exactly if the lowest and the highest class differ; a disk is a few runs of pixels, one a row.

    Args:
        target: `(H, W)` bool or integers; of a binary map, what is not 0 is foreground.
        valid: `(H, W)` bool, False at void pixels, whose code means nothing; None when all count.
        width: of the boundary on either side, pixels; below 1 nothing is boundary.
        binary: whether foreground and background are told apart inside.
    Returns:
        codes `(H, W)` uint8, and the name of each code.
    Raises:
        OptionError: a negative or infinite width.

    >>> codes, names = region_codes(np.array([[0, 0, 0, 1, 1]]), width=1, binary=True)
    >>> [names[code] for code in codes[0]]
    ['interior_bg', 'interior_bg', 'boundary', 'boundary', 'interior_fg']
    """
    if not 0 <= width < np.inf:
        raise OptionError(f"the width of boundaries is {width}; expected 0 or more pixels")
    target = target != 0 if binary else target
    if valid is not None:
        target = np.where(valid, target, 0)
    # each byte less is twice the speed
    labels = target.astype(np.min_scalar_type(int(target.max(initial=0))))
    void_is_highest = labels if valid is None else np.where(valid, labels, np.iinfo(labels.dtype).max)
    boundary = _over_disk(np.maximum, labels, width) > _over_disk(np.minimum, void_is_highest, width)
    if binary:
        return np.where(boundary, np.uint8(0), np.uint8(2) - labels), BINARY_REGIONS
    return (~boundary).astype(np.uint8), CLASS_REGIONS


def _over_disk(extreme: np.ufunc, values: Array, radius: float) -> Array:
    """The highest or lowest value within a disk around each pixel: dy² + dx² <= radius²."""
    run, reach = values.copy(), 0  # the extreme over |dx| <= reach
    out = values.copy()
    for dy in range(min(int(radius), len(values) - 1), -1, -1):
        while (reach + 1) ** 2 + dy**2 <= radius**2 and reach < values.shape[1]:
            reach += 1
            extreme(run[:, reach:], values[:, :-reach], out=run[:, reach:])
            extreme(run[:, :-reach], values[:, reach:], out=run[:, :-reach])
        below = len(values) - dy
        extreme(out[dy:], run[:below], out=out[dy:])
        extreme(out[:below], run[dy:], out=out[:below])
    return out


Sums = Mapping[str, Mapping[str, Array]]
"""What pixels add to a part of the statistics: part -> field -> `(regions, ...)`."""


@dataclass(frozen=True, eq=False)
class Block:
    """Some valid pixels of an image, in ascending order of region.

    Attributes:
        at: positions of the pixels in the flat image: a slice, or `(n,)`.
        row: region of each pixel, less that of the first, `(n,)`.
        rows: the regions from the first pixel's to the last pixel's.
    """

    at: slice | Array
    row: Array
    rows: slice

    @property
    def size(self) -> int:
        """Number of pixels."""
        return len(self.row)

    @cached_property
    def n_pixels(self) -> Array:
        """Pixels of each region, `(regions,)` int64."""
        return np.bincount(self.row, minlength=self.rows.stop - self.rows.start)

    @cached_property
    def _starts(self) -> Array:
        """Where the pixels of each region that occurs start."""
        return np.flatnonzero(np.diff(self.row, prepend=-1))

    def count(self, cell: Array, n_cells: int, *, weights: Array | None = None, pixel: Array | None = None) -> Array:
        """Pixels, or their weights, in each cell of each region: `(regions, cells)` int64, or float64 of weights.

        Args:
            cell: cell of each pixel, `(n,)`; of each of the block's pixels `pixel`, where that is given.
        """
        n_rows = self.rows.stop - self.rows.start
        if n_rows > 1:
            cell = cell + n_cells * (self.row if pixel is None else self.row[pixel])
        counts = np.bincount(cell, weights, minlength=n_rows * n_cells).reshape(n_rows, n_cells)
        return counts if weights is None else counts.astype(np.float64, copy=False)  # of no pixel they are integers

    def total(self, values: Array) -> Array:
        """Sums over the pixels, the last axis, of each region: `(regions, ...)` float64."""
        out = np.zeros((self.rows.stop - self.rows.start, *values.shape[:-1]))
        sums = np.add.reduceat(values, self._starts, axis=-1, dtype=np.float64)
        out[self.row[self._starts]] = np.moveaxis(sums, -1, 0)
        return out

    def reliability(
        self, cell: Array, n_cells: int, score: Array, correct: Array, pixel: Array | None = None
    ) -> dict[str, Array]:
        """Count, Σ score and Σ correct of each cell and region; `pixel` as in `count`."""
        by_outcome = self.count(2 * cell + correct, 2 * n_cells, pixel=pixel).reshape(-1, n_cells, 2)
        return {
            "count": by_outcome.sum(-1),
            "confidence": self.count(cell, n_cells, weights=score, pixel=pixel),
            "correct": by_outcome[..., 1],
        }


def blocks(n_pixels: int, size: int, valid: Array | None = None, region: Array | None = None) -> Iterator[Block]:
    """The valid pixels in blocks of `size`, ordered by region; one empty block where there are none."""
    order = None if valid is None or valid.all() else np.flatnonzero(valid)
    code = np.zeros(n_pixels, np.uint8) if region is None else region.ravel()
    if order is not None:
        code = code[order]
    if region is not None:
        by_code = np.argsort(code, kind="stable")
        order, code = by_code if order is None else order[by_code], code[by_code]
    for start in range(0, max(len(code), 1), size):
        chosen = slice(start, min(start + size, len(code)))
        row = code[chosen].astype(np.intp)
        first, end = (int(row[0]), int(row[-1]) + 1) if len(row) else (0, 0)
        yield Block(chosen if order is None else order[chosen], row - first, slice(first, end))


def accumulate(n_rows: int, pieces: Iterable[tuple[Block, Sums]]) -> dict[str, dict[str, Array]]:
    """What the blocks counted, added up into `n_rows` rows, one a region."""
    totals: dict[str, dict[str, Array]] = {}
    for block, sums in pieces:
        for part, fields in sums.items():
            total = totals.setdefault(part, {})
            for field, array in fields.items():
                if field not in total:
                    total[field] = np.zeros((n_rows, *array.shape[1:]), array.dtype)
                total[field][block.rows] += array
    return totals


def added(pieces: Sequence[Statistics]) -> Statistics:
    """The statistics of disjoint regions of one image as those of the whole: sums row by row.

    >>> from calbench.statistics import ClassCounts
    >>> one = np.ones((1, 3), np.int64)
    >>> added([Statistics(counts=ClassCounts(("a",), one, one, one))] * 2).counts.hit.tolist()
    [[2, 2, 2]]
    """
    parts: dict[str, Any] = {}
    for name, first in pieces[0].parts.items():
        alike = [piece.parts[name] for piece in pieces]
        fields = {field: sum(getattr(part, field) for part in alike) for field in first.row_fields()}
        if isinstance(first, KeptScores):
            fields |= {
                field: np.concatenate([getattr(part, field) for part in alike]) for field in first.shared_fields()
            }
        parts[name] = replace(first, **fields)
    return replace(pieces[0], **parts)
