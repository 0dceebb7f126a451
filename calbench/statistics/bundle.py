"""Statistics: all rows of one method on one data set. Run: every method x data set of one evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from calbench.errors import InputError, MergeError
from calbench.statistics.aslp import AslpRows
from calbench.statistics.histogram import JointHistogram
from calbench.statistics.image_scores import ImageFacts, ImageScores
from calbench.statistics.rows import Array, Rows

PARTS: dict[str, type[Rows]] = {
    "histogram": JointHistogram,
    "scores": ImageScores,
    "facts": ImageFacts,
    "aslp": AslpRows,
}


@dataclass(frozen=True, eq=False)
class Statistics:
    """Rows of several kinds over the same images, and the conventions they were counted under.

    Attributes:
        histogram: joint histograms, one row an image (none once pooled).
        scores, facts, aslp: further rows; None where they were not collected.
        conventions: what was declared or inferred when pixels were read (mask coding, thresholds, void, resizing).
    """

    histogram: JointHistogram
    scores: ImageScores | None = None
    facts: ImageFacts | None = None
    aslp: AslpRows | None = None
    conventions: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the images, sorted; empty once pooled."""
        return self.histogram.names

    @property
    def parts(self) -> dict[str, Any]:
        """The kinds of rows that were collected."""
        return {name: getattr(self, name) for name in PARTS if getattr(self, name) is not None}

    @classmethod
    def concat(cls, pieces: Iterable[Self]) -> Self:
        """One bundle of all images.

        Raises:
            MergeError: other conventions, other kinds of rows, or the same image twice.
        """
        pieces = list(pieces)
        first = pieces[0]
        for piece in pieces[1:]:
            if piece.conventions != first.conventions:
                keys = piece.conventions.keys() | first.conventions.keys()
                differ = sorted(k for k in keys if piece.conventions.get(k) != first.conventions.get(k))
                raise MergeError(f"the statistics were collected under other conventions: {', '.join(differ)}")
            if piece.parts.keys() != first.parts.keys():
                raise MergeError("one part of the statistics holds rows that another lacks; collect with one profile")
        parts: dict[str, Any] = {
            name: PARTS[name].concat([piece.parts[name] for piece in pieces]) for name in first.parts
        }
        return replace(first, **parts)

    def select(self, rows: slice | Sequence[int] | Array) -> Self:
        """The images at these positions."""
        parts: dict[str, Any] = {name: part.select(rows) for name, part in self.parts.items()}
        return replace(self, **parts)

    def total(self, weights: Array | None = None) -> Self:
        """The pooled counts (see `Rows.total`); scores and facts, which only make sense per image, are left out."""
        return self._counted(lambda rows: rows.total(weights))

    def grouped(self, unit_of_row: Array, n_units: int) -> Self:
        """The counts summed over each resampling unit (see `Rows.grouped`), without scores and facts."""
        return self._counted(lambda rows: rows.grouped(unit_of_row, n_units))

    def _counted(self, change: Callable[[Any], Any]) -> Self:
        aslp = None if self.aslp is None else change(self.aslp)
        return replace(self, histogram=change(self.histogram), scores=None, facts=None, aslp=aslp)

    def score(self, column: str) -> Array:
        """A positional score of every image, `(rows,)`.

        Raises:
            InputError: it was not collected.
        """
        if self.scores is None or column not in self.scores:
            raise InputError(
                f"these statistics were collected without {column!r}; collect them again from the folders, "
                f"with {column} among the metrics"
            )
        return self.scores[column]

    def aslp_rows(self) -> AslpRows:
        """The rows of the ASLP profile.

        Raises:
            InputError: the pixels were read without `--profile aslp`.
        """
        if self.aslp is None:
            raise InputError(
                "these statistics were collected without what --profile aslp needs (raw mask bytes); "
                "evaluate the folders again with --profile aslp"
            )
        return self.aslp


@dataclass(frozen=True, eq=False)
class Run:
    """Every method x data set of one evaluation: `combinations[dataset, method]`, in sorted order.

    Attributes:
        options: the resolved options that pixels were read under.
        notes: what was skipped, resized or left incomplete, for people.
    """

    combinations: Mapping[tuple[str, str], Statistics]
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
