"""In-distribution against out-of-distribution: how well uncertainty tells the two apart, by pixel and by image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import product
from typing import Any, Literal

import numpy as np

from calbench.errors import InputError
from calbench.evaluate import Evaluator, Settings, Value, option_text
from calbench.intervals import NO_INTERVAL, percentile_interval
from calbench.metrics import Metric
from calbench.statistics import Statistics, Uncertainty
from calbench.statistics.reliability import divide
from calbench.statistics.rows import Array, pool

Score = Literal["entropy", "maxprob"]
Level = Literal["pixel", "image"]
Sides = dict[tuple[Level, Score], tuple[Array, Array]]
"""Something of the outside, and of the inside."""
Placed = tuple[Array, Array]
"""The resampling unit of each image, and its cell in a ranking."""
SCORES: tuple[Score, ...] = ("entropy", "maxprob")
LEVELS: tuple[Level, ...] = ("pixel", "image")


class Separation:
    """The OOD detection metrics of one method: out-of-distribution images are positive, unsure ones should be.

    Both sides are resampled, independently, by images (the in-distribution side by its groups).

    Args:
        inside: the in-distribution set.
        outside: the out-of-distribution set, of the same method.
        settings: of both.
        label: stated among the options, to tell several in-distribution sets apart.
    Raises:
        InputError: predictions of different kinds, whose uncertainty cannot be ranked together.
    """

    def __init__(
        self, inside: Evaluator, outside: Evaluator, settings: Settings, label: Mapping[str, str] | None = None
    ) -> None:
        self.inside, self.outside, self.settings, self.label = inside, outside, settings, dict(label or {})
        kinds = [(u.classes, u.exact) for u in (self._unsure(inside.statistics), self._unsure(outside.statistics))]
        if kinds[0] != kinds[1]:
            names = [f"{'8-bit' if exact else 'float'} with {classes} classes" for classes, exact in kinds]
            raise InputError(
                f"the in-distribution predictions are {names[0]}, the out-of-distribution ones {names[1]}; "
                "their uncertainty can be compared only if both are saved in the same way"
            )

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """The chosen metrics that compare the two sides."""
        return tuple(metric for metric in self.settings.chosen if metric.scope == "id-ood")

    def values(self) -> Iterator[Value]:
        """Every metric from entropy and from the largest probability, by pixel and by image."""
        for metric, level, score in product(self.metrics, LEVELS, SCORES):
            yield self._value(metric, level, score)

    def _value(self, metric: Metric, level: Level, score: Score) -> Value:
        positives, negatives = self._pooled[level, score]
        value = float(metric.function(positives, negatives))
        n_units = min(self.inside.n_units, self.outside.n_units)
        interval = NO_INTERVAL
        if self.settings.n_boot and n_units:
            drawn = metric.function(*self._replicates[level, score])
            interval = percentile_interval(value, drawn, n_units, self.settings.ci, metric.bounds)
        details: dict[str, Any] = {
            "id_images": len(self.inside.statistics.names),
            "id_pixels": int(self.inside.n_pixels.sum()),
        }
        if (
            metric.details
            and level == "pixel"
            and not self._unsure(self.outside.statistics).exact
            and np.isfinite(value)
        ):
            details |= metric.details(positives, negatives)
        options = {"level": level, "score": score} | self.label
        return Value(
            metric.name,
            option_text(options),
            "pixels" if level == "pixel" else "images",
            value,
            interval.low,
            interval.high,
            interval.median_unbiased,
            interval.p_calibrated,
            len(self.outside.statistics.names),
            int((self.outside.n_pixels == 0).sum()),
            int(self.outside.n_pixels.sum()),
            details,
        )

    @staticmethod
    def _unsure(statistics: Statistics) -> Uncertainty:
        found = statistics.uncertainty()
        if found is None:
            raise InputError("OOD detection needs probabilities or logits on both sides; a table of classes has none")
        return found

    @cached_property
    def _pooled(self) -> Sides:
        """Positives and negatives by cell, `(cells,)` each; cells ascend from sure to unsure."""
        pooled: Sides = {key: (out.sum(0), inn.sum(0)) for key, (out, inn) in self._pixel_rows.items()}
        for key, (((_, out), (_, inn)), n_cells) in self._image_cells.items():
            pooled[key] = np.bincount(out, minlength=n_cells), np.bincount(inn, minlength=n_cells)
        return pooled

    @cached_property
    def _replicates(self) -> Sides:
        """The same of every bootstrap replicate, `(n_boot, cells)`."""
        outside, inside = self.outside.unit_weights, self.inside.unit_weights
        drawn: Sides = {key: (pool(out, outside), pool(inn, inside)) for key, (out, inn) in self._pixel_rows.items()}
        for key, ((out, inn), n_cells) in self._image_cells.items():
            drawn[key] = _scattered(outside, *out, n_cells), _scattered(inside, *inn, n_cells)
        return drawn

    @cached_property
    def _pixel_rows(self) -> Sides:
        """Pixels of each resampling unit by cell, `(units, cells)`, outside and inside."""
        out, inn = (self._unsure(side.units) for side in (self.outside, self.inside))
        return {
            ("pixel", "entropy"): (out.entropy, inn.entropy),
            ("pixel", "maxprob"): (out.confidence[:, ::-1], inn.confidence[:, ::-1]),
        }

    @cached_property
    def _image_cells(self) -> dict[tuple[Level, Score], tuple[tuple[Placed, Placed], int]]:
        """Unit and rank of each image, outside and inside, by its mean score; images without a valid pixel are left out."""
        cells: dict[tuple[Level, Score], tuple[tuple[Placed, Placed], int]] = {}
        sides = (self.outside, self.inside)
        unsure = [self._unsure(side.statistics) for side in sides]
        for score in SCORES:
            sums = [u.entropy_sum if score == "entropy" else -u.confidence_sum for u in unsure]
            # images of one score tie whatever their size: the last digits of a mean are the order of its sum
            means = [np.round(divide(total, u.count), 12) for total, u in zip(sums, unsure, strict=True)]
            known = [np.isfinite(mean) for mean in means]
            distinct = np.unique(np.concatenate([mean[k] for mean, k in zip(means, known, strict=True)]))
            ranked = [
                (side.unit_of_row[k], np.searchsorted(distinct, mean[k]))
                for side, mean, k in zip(sides, means, known, strict=True)
            ]
            cells["image", score] = ((ranked[0], ranked[1]), len(distinct))
        return cells


def _scattered(weights: Array, unit: Array, cell: Array, n_cells: int) -> Array:
    """Weights `(n_boot, units)` of the units of images, added up by the cells of the images, `(n_boot, cells)`."""
    counts = np.zeros((n_cells, len(weights)))
    np.add.at(counts, cell, weights[:, unit].T)
    return counts.T
