"""What a metric is: a pure function of a statistic, with its definition, source, direction and kind of interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from calbench.intervals import Norm
from calbench.statistics import AslpRows, JointHistogram, ReliabilityCells, ScoreSums, Statistics
from calbench.statistics.rows import Array

Average = Literal["pixels", "images"]
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
        per_image: False where one image does not define the value.
        details: (pooled statistic, options) -> facts to print beside the value.
    """

    name: str
    function: Callable[..., Array]
    reads: Callable[[Statistics], Any]
    average: Average
    better: Better
    definition: str
    source: str
    options: tuple[str, ...] = ()
    summary: Callable[[Array], Array] | None = None
    norm: Callable[..., Norm] | None = None
    bounds: tuple[float, float] = (0.0, 1.0)
    interval: bool = True
    per_image: bool = True
    details: Callable[..., Mapping[str, Any]] | None = None

    @property
    def arrow(self) -> str:
        """Arrow that tells the better direction."""
        return ARROWS[self.better]

    @property
    def needs_images(self) -> bool:
        """Whether the value needs the spread between images, so that pooled statistics do not define it."""
        return self.average == "pixels" and not self.per_image


def top_label(statistics: Statistics) -> ReliabilityCells:
    """Reliability of the decision: confidence max(p, 1 − p) against being right."""
    return statistics.histogram.reliability("top-label")


def foreground(statistics: Statistics) -> ReliabilityCells:
    """Reliability of the foreground probability: p against being foreground."""
    return statistics.histogram.reliability("foreground")


def levels(statistics: Statistics) -> JointHistogram:
    """The joint histogram of outcome and level."""
    return statistics.histogram


def scoring(statistics: Statistics) -> ScoreSums:
    """Sums of the scoring rules."""
    return statistics.histogram.score_sums()


def score_column(column: str) -> Callable[[Statistics], Array]:
    """A reader of one positional score."""

    def read(statistics: Statistics) -> Array:
        return statistics.score(column)

    return read


def aslp(statistics: Statistics) -> AslpRows:
    """What the official ASLP scripts measure."""
    return statistics.aslp_rows()
