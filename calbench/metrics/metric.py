"""What a metric is: a pure function of a statistic, with its definition, source, direction and kind of interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from calbench.errors import InputError
from calbench.intervals import Norm
from calbench.statistics import ClassCounts, JointHistogram, ReliabilityCells, Statistics
from calbench.statistics.bundle import ALL
from calbench.statistics.rows import Array


@dataclass(frozen=True)
class Reader:
    """Picks the statistic that a metric reads out of a bundle.

    Attributes:
        view: bundle -> statistic, or None where these predictions have none.
        needs: what predictions must be to have one, for people.
        extra: what must be asked for while pixels are read, or None for what is always collected.
    """

    view: Callable[[Statistics], Any]
    needs: str
    extra: str | None = None

    def available(self, statistics: Statistics) -> bool:
        """Whether these rows have the statistic."""
        return self.view(statistics.select(slice(0, 0))) is not None

    def __call__(self, statistics: Statistics) -> Any:
        """The statistic itself.

        Raises:
            InputError: these predictions have none.
        """
        found = self.view(statistics)
        if found is None:
            raise InputError(f"the metric needs {self.needs}, which these statistics were not collected from")
        return found


Average = Literal["pixels", "images"]
Rows = Literal["pooled", "units", "images"]
Scope = Literal["id", "ood", "id-ood"]
Better = Literal["lower", "higher", "zero", "none"]

ARROWS: dict[Better, str] = {"lower": "↓", "higher": "↑", "zero": "→0", "none": ""}


@dataclass(frozen=True)
class Metric:
    """One line of the registry.

    Attributes:
        name: the name in every table.
        function: statistic and options -> array over the statistic's leading axes (one number, one per image, or one per
            replicate). With `average="images"` it may add a trailing axis of thresholds, which `summary` reduces after the
            mean over images.
        reads: picks the statistic out of a bundle.
        average: "pixels" pools all pixels first (and is reported as mean over images, too); "images" is a mean over
            images only.
        better: "lower", "higher", "zero" (signed), or "none" (descriptive).
        definition: formula or sentence, one line.
        source: one reference.
        options: names of the settings the function takes, as keyword arguments.
        summary: reduces the mean curve to the number; None when the function already gives it.
        norm: for errors that are a norm of residual sums: (pooled statistic, options) -> Norm, which gives the interval.
        bounds: smallest and largest value there can be; percentile limits are cut off there.
        interval: False where no valid interval is known.
        inflated: whether noise makes the value too large, and a replicate's, which has it twice, even larger: replicates are
            then moved down by twice what they exceed the value by on average.
        per_image: False where one image does not define the value.
        rows: what the pooled value is computed from: "pooled" counts, the resampling "units", or the "images" in order of
            their names.
        by_class: statistic and options -> `(..., classes)`, of which the function is a mean; each class gets a row, too.
        class_norm: of a class-wise norm, (pooled statistic, class, options) -> Norm of that class alone.
        scope: what the metric is of: a data set, an out-of-distribution set ("ood"), or one against the other ("id-ood",
            whose function takes positives and negatives by cell of a ranking, see `metrics.ranking`; so do its `details`,
            which are only asked for where cells hold more than one score).
        conventions: pooled statistic -> conventions of the data that the `options` column states beside the options.
        details: (pooled statistic, options) -> facts to print beside the value.
    """

    name: str
    function: Callable[..., Array]
    reads: Reader
    average: Average
    better: Better
    definition: str
    source: str
    options: tuple[str, ...] = ()
    summary: Callable[[Array], Array] | None = None
    norm: Callable[..., Norm] | None = None
    bounds: tuple[float, float] = (0.0, 1.0)
    interval: bool = True
    inflated: bool = False
    per_image: bool = True
    details: Callable[..., Mapping[str, Any]] | None = None
    rows: Rows = "pooled"
    by_class: Callable[..., Array] | None = None
    class_norm: Callable[..., Norm] | None = None
    scope: Scope = "id"
    conventions: Callable[[Any], Mapping[str, Any]] | None = None

    @property
    def needs(self) -> str:
        """What predictions must be to have the metric, for people."""
        if self.scope == "id-ood":
            return "an out-of-distribution set (--ood NAME=FOLDER)"
        return self.reads.needs + (" of an out-of-distribution set (--ood NAME=FOLDER)" if self.scope == "ood" else "")

    @property
    def arrow(self) -> str:
        """Arrow that tells the better direction."""
        return ARROWS[self.better]

    @property
    def heading(self) -> str:
        """Name and arrow, as tables and figures head their columns and axes."""
        return f"{self.name} {self.arrow}".strip()


def _top_label(statistics: Statistics) -> ReliabilityCells | None:
    return statistics.reliability("top-label")


def _foreground(statistics: Statistics) -> ReliabilityCells | None:
    return statistics.reliability("foreground")


def _binary_top_label(statistics: Statistics) -> ReliabilityCells | None:
    return _top_label(statistics) if _foreground(statistics) is not None else None


def _whole_class_counts(statistics: Statistics) -> ClassCounts | None:
    return statistics.class_counts() if statistics.region == ALL else None


def _whole_histogram(statistics: Statistics) -> JointHistogram | None:
    return statistics.histogram if statistics.region == ALL else None


top_label = Reader(_top_label, "a class and its confidence for each pixel")
"""Reliability of the decision: confidence (the largest probability) against being right."""

foreground = Reader(_foreground, "binary maps")
"""Reliability of the foreground probability: p against being foreground."""

classes = Reader(lambda statistics: statistics.classes, "probabilities or logits of several classes")
"""Class-wise reliability: p_k against being of class k."""

scoring = Reader(Statistics.score_sums, "probabilities or logits")
"""Sums of the scoring rules."""

overlaps = Reader(_whole_class_counts, "predictions with a ground truth")
"""Pixels of each class in mask, prediction and both, of whole images: a region cuts objects, and with them their overlap."""

class_counts = Reader(Statistics.class_counts, "predictions with a ground truth")
"""Pixels of each class in mask, prediction and both."""

changes = Reader(lambda statistics: statistics.changes, "predictions that passed through a calibrator")
"""Pixels whose class a calibrator changed."""

logit_sums = Reader(lambda statistics: statistics.logits, "logits of several classes")
"""Sums of logit distances."""

exact_levels = Reader(lambda statistics: statistics.exact_histogram, "8-bit binary maps")
"""The joint histogram of an 8-bit map."""

levels = Reader(_whole_histogram, "binary maps")
"""The joint histogram of outcome and 8-bit level, of whole images; that of a float map is rounded."""

uncertainty = Reader(Statistics.uncertainty, "probabilities or logits")
"""Histograms of entropy and of the largest probability."""

binary_top_label = Reader(_binary_top_label, "binary maps")
"""Reliability of the decision of binary maps alone: an out-of-distribution image of several classes has no truth."""

rechosen = Reader(
    lambda statistics: statistics.rechosen,
    "probabilities or logits of several classes, read with --profile selectivecal",
    "selectivecal",
)
"""Reliability of the class chosen anew from float32 probabilities."""

aslp = Reader(
    lambda statistics: statistics.aslp,
    "8-bit binary maps, read with --profile aslp (it looks at raw mask bytes)",
    "aslp",
)
"""What the official ASLP scripts measure."""


READ_FOR_IT = "pixels that were read for it"
"""What the rows of a run that was not asked for a positional score lack."""


def score_column(column: str) -> Reader:
    """A reader of one positional score."""

    def read(statistics: Statistics) -> Array | None:
        if statistics.scores is None or column not in statistics.scores or statistics.region != ALL:
            return None
        return statistics.scores[column]

    return Reader(read, f"{READ_FOR_IT}, of binary maps")
