"""Statistics: all rows of one method on one data set. Run: every method x data set of one evaluation."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from calbench.errors import MergeError
from calbench.statistics.aslp import AslpRows
from calbench.statistics.changes import ClassChanges
from calbench.statistics.class_counts import ClassCounts
from calbench.statistics.histogram import Event, JointHistogram
from calbench.statistics.image_scores import ImageFacts, ImageScores
from calbench.statistics.kept import KeptScores
from calbench.statistics.logits import LogitSums, UniformSums
from calbench.statistics.reliability import ReliabilityCells
from calbench.statistics.rows import Array, Rows
from calbench.statistics.scoring import ScoreSums
from calbench.statistics.uncertainty import Uncertainty

PARTS: dict[str, type[Rows]] = {
    "histogram": JointHistogram,
    "top_label": ReliabilityCells,
    "foreground": ReliabilityCells,
    "classes": ReliabilityCells,
    "sums": ScoreSums,
    "counts": ClassCounts,
    "unsure": Uncertainty,
    "changes": ClassChanges,
    "logits": LogitSums,
    "uniform": UniformSums,
    "objects": ReliabilityCells,
    "rechosen": ReliabilityCells,
    "left_closed": ReliabilityCells,
    "kept": KeptScores,
    "scores": ImageScores,
    "facts": ImageFacts,
    "aslp": AslpRows,
}
PER_IMAGE = ("scores", "facts")
"""Parts that only make sense image by image: pooling leaves them out."""
ALL = "all"
"""The region of the whole image."""
UNCALIBRATED = "none"
"""The calibrator of predictions that passed through none."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """Rows of several kinds over the same images, and the conventions they were counted under.

    A binary 8-bit map needs the joint histogram alone: all else follows from it. Float and multi-class predictions bring
    cells and sums instead; a float binary map has a histogram, too, of its levels rounded to 8 bits, which only the
    saliency metrics read.

    Attributes:
        histogram: joint histogram of outcome and level, binary maps.
        top_label, foreground: float reliability cells, `(rows, 682)`.
        classes: class-wise cells, `(rows, classes, 69)`.
        sums: sums of the scoring rules.
        counts: pixels of each class in mask, prediction and both.
        unsure: histograms of entropy and of the largest probability.
        changes: of calibrated predictions, pixels whose class is another one than before.
        logits: sums of logit distances.
        uniform, objects, kept: for `--profile mbls`: distances from the uniform distribution; top-label cells of pixels
            whose class is not 0; every confidence.
        rechosen: for `--profile selectivecal`: top-label cells whose class is the argmax of float32 probabilities.
        left_closed: for `--profile torchmetrics`: 600 left-closed cells and one for exactly 1.
        scores, facts, aslp: further rows of 8-bit maps; None where they were not collected.
        conventions: what was declared or inferred when pixels were read (kind of scores, mask coding, void, resizing).
        regions: the same statistics of parts of the images, by name.
        region: the part of the images that these rows are of.
    """

    histogram: JointHistogram | None = None
    top_label: ReliabilityCells | None = None
    foreground: ReliabilityCells | None = None
    classes: ReliabilityCells | None = None
    sums: ScoreSums | None = None
    counts: ClassCounts | None = None
    unsure: Uncertainty | None = None
    changes: ClassChanges | None = None
    logits: LogitSums | None = None
    uniform: UniformSums | None = None
    objects: ReliabilityCells | None = None
    rechosen: ReliabilityCells | None = None
    left_closed: ReliabilityCells | None = None
    kept: KeptScores | None = None
    scores: ImageScores | None = None
    facts: ImageFacts | None = None
    aslp: AslpRows | None = None
    conventions: Mapping[str, Any] = field(default_factory=dict)
    regions: Mapping[str, Statistics] = field(default_factory=dict)
    region: str = ALL

    @property
    def parts(self) -> dict[str, Any]:
        """The kinds of rows that were collected."""
        return {name: getattr(self, name) for name in PARTS if getattr(self, name) is not None}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the rows, sorted; empty once pooled."""
        return next(iter(self.parts.values())).names if self.parts else ()

    @property
    def exact_histogram(self) -> JointHistogram | None:
        """The joint histogram where it is all there is to know, rather than a rounded copy."""
        return self.histogram if self.top_label is None else None

    @property
    def n_pixels(self) -> Array:
        """Valid pixels of each row, `(...,)`."""
        if self.exact_histogram is not None:
            return np.asarray(self.exact_histogram.counts.sum((-2, -1)))
        if self.top_label is not None:
            return np.asarray(self.top_label.count.sum(-1))
        return self.unsure.count if self.unsure is not None else np.zeros(len(self.names), np.int64)

    @property
    def calibrator(self) -> str:
        """The calibrator that the predictions passed through; "none" of those that passed through none."""
        return str(self.conventions.get("calibrator", UNCALIBRATED))

    @property
    def rows_are_whole(self) -> bool:
        """Whether a row is an image or a sample, rather than a group of many samples."""
        return bool(self.conventions.get("samples", 0) == self.conventions.get("groups", 0))

    def reliability(self, event: Event) -> ReliabilityCells | None:
        """Reliability cells of an event; None for "foreground" where there are several classes."""
        if self.exact_histogram is not None:
            return self.exact_histogram.reliability(event)
        return self.top_label if event == "top-label" else self.foreground

    def score_sums(self) -> ScoreSums | None:
        """Sums of the scoring rules; None for tables that hold no probabilities."""
        return self.sums if self.exact_histogram is None else self.exact_histogram.score_sums()

    def class_counts(self) -> ClassCounts | None:
        """Pixels of each class in mask, prediction and both."""
        return self.counts if self.exact_histogram is None else self.exact_histogram.class_counts()

    def uncertainty(self) -> Uncertainty | None:
        """Histograms of entropy and largest probability."""
        return self.unsure if self.exact_histogram is None else self.exact_histogram.uncertainty()

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
            if piece.parts.keys() != first.parts.keys() or piece.regions.keys() != first.regions.keys():
                raise MergeError("one part of the statistics holds rows that another lacks; collect with one profile")
        parts: dict[str, Any] = {
            name: PARTS[name].concat([piece.parts[name] for piece in pieces]) for name in first.parts
        }
        regions = {name: Statistics.concat([piece.regions[name] for piece in pieces]) for name in first.regions}
        return replace(first, **parts, regions=regions)

    def select(self, rows: slice | Sequence[int] | Array) -> Self:
        """The images at these positions."""
        parts: dict[str, Any] = {name: part.select(rows) for name, part in self.parts.items()}
        return replace(self, **parts, regions={name: region.select(rows) for name, region in self.regions.items()})

    def under(self, conventions: Mapping[str, Any]) -> Self:
        """The same rows, and those of the regions, under these conventions."""
        regions = {name: replace(region, conventions=conventions) for name, region in self.regions.items()}
        return replace(self, conventions=conventions, regions=regions)

    def only(self, parts: Collection[str]) -> Self:
        """A bundle of these parts alone, without regions."""
        dropped: dict[str, Any] = {name: None for name in PARTS if name not in parts}
        return replace(self, **dropped, regions={})

    def total(self, weights: Array | None = None) -> Self:
        """The pooled counts (see `Rows.total`); scores and facts, which only make sense per image, are left out."""
        counted = self.only(PARTS.keys() - set(PER_IMAGE))
        parts: dict[str, Any] = {name: part.total(weights) for name, part in counted.parts.items()}
        return replace(counted, **parts)

    def grouped(self, unit_of_row: Array, n_units: int) -> Self:
        """The counts summed over each resampling unit (see `Rows.grouped`), without scores and facts."""
        counted = self.only(PARTS.keys() - set(PER_IMAGE))
        parts: dict[str, Any] = {name: part.grouped(unit_of_row, n_units) for name, part in counted.parts.items()}
        return replace(counted, **parts)


@dataclass(frozen=True, eq=False)
class Run:
    """Every method x data set of one evaluation: `combinations[dataset, method]`, in sorted order.

    Attributes:
        options: the resolved options that pixels were read under.
        notes: what was skipped, resized or left incomplete, for people.
        ood: statistics of out-of-distribution sets, `ood[name, method]`.
        calibrated: the same images after calibration, `calibrated[dataset, method, calibrator]`.
    """

    combinations: Mapping[tuple[str, str], Statistics]
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    ood: Mapping[tuple[str, str], Statistics] = field(default_factory=dict)
    calibrated: Mapping[tuple[str, str, str], Statistics] = field(default_factory=dict)
