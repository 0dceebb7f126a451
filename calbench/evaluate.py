"""Statistics -> results: the only place that averages, bootstraps and puts intervals around numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from numbers import Integral
from typing import Any

import numpy as np

from calbench.errors import InputError, OptionError, UnknownName, listing
from calbench.intervals import (
    NO_INTERVAL,
    Interval,
    ResampledResiduals,
    norm_interval,
    percentile_interval,
    resampling_weights,
)
from calbench.kernels import IMAGE_SCORES
from calbench.metrics import METRICS, Metric
from calbench.metrics.saliency import CURVES
from calbench.profiles import DEFAULT_OPTIONS, Profile, home_of, profile_named
from calbench.statistics import Statistics
from calbench.statistics.histogram import LEVELS, Event
from calbench.statistics.reliability import divide
from calbench.statistics.rows import Array, pool

TIES = ("split", "whole")
MAX_BINS = 1000
"""The binning rule is verified for 8-bit levels up to here."""
_BLOCK = 256  # rows per step of per-image values: bounds the memory of equal-mass shares


@dataclass(frozen=True)
class Settings:
    """How statistics become numbers; nothing here touches pixels.

    Attributes:
        profile: name of the convention, see `calbench.profiles`.
        metrics: names to compute; None for all of the profile.
        exclude: names to leave out.
        options: settings of the metrics (`bins`, `ties`, `debias_bins`); what is not given comes from the profile.
        ci: level of the intervals, in (0, 1).
        n_boot: bootstrap replicates, at least 2 / (1 − ci); 0 for no intervals.
        seed: of the bootstrap.
        group_by: regular expression on image names; images with the same match (its first group, if it has one) are
            resampled together, as one patient or one video.
    """

    profile: str = "calbench"
    metrics: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    ci: float = 0.95
    n_boot: int = 1000
    seed: int = 0
    group_by: str | None = None

    def __post_init__(self) -> None:
        for given in ("metrics", "exclude"):  # one name stands for a tuple of one
            if isinstance(getattr(self, given), str):
                object.__setattr__(self, given, (getattr(self, given),))
        for name in (*(self.metrics or ()), *self.exclude):
            if name not in METRICS:
                raise UnknownName("metric", name, METRICS)
        if not self.chosen:
            raise OptionError("no metric is left to compute; name some, or exclude fewer")
        if not 0 < self.ci < 1:
            raise OptionError(f"ci is {self.ci}; it is the level of the intervals, between 0 and 1, for example 0.95")
        fewest = int(np.ceil(2 / (1 - self.ci) - 1e-9))
        if not _is_whole(self.n_boot) or (self.n_boot != 0 and self.n_boot < fewest):
            raise OptionError(
                f"n_boot is {self.n_boot}; it is a number of bootstrap replicates, at least {fewest} for {self.ci:.4g} "
                "intervals, or 0 for none"
            )
        if not _is_whole(self.seed) or self.seed < 0:
            raise OptionError(f"seed is {self.seed}; it is a whole number, at least 0")
        for name, value in self.options.items():
            if name == "ties" and value not in TIES:
                raise UnknownName("tie rule", str(value), TIES)
            if name != "ties" and not (_is_whole(value) and 1 <= value <= MAX_BINS):
                raise OptionError(f"{name} is {value!r}; it is a number of bins, 1 to {MAX_BINS}")

    @cached_property
    def convention(self) -> Profile:
        """The profile itself."""
        return profile_named(self.profile)

    @cached_property
    def chosen(self) -> tuple[Metric, ...]:
        """The metrics to compute, each once, in the order asked for or the profile's."""
        names = dict.fromkeys(self.convention.metrics if self.metrics is None else self.metrics)
        return tuple(METRICS[name] for name in names if name not in self.exclude)

    @property
    def positional_scores(self) -> tuple[str, ...]:
        """Scores that must be computed while pixels are read."""
        return tuple(name for name in IMAGE_SCORES if name in {metric.name for metric in self.chosen})

    @property
    def raw_bytes(self) -> bool:
        """Whether raw mask bytes must be looked at while pixels are read."""
        return any(metric.name.startswith("aslp_") for metric in self.chosen)

    def options_of(self, metric: Metric) -> dict[str, Any]:
        """The options of one metric: given ones, else those of the profile, or of the metric's own profile."""
        home = self.convention if metric.name in self.convention.metrics else home_of(metric.name)
        resolved = DEFAULT_OPTIONS | dict(home.options) | dict(self.options)
        return {name: resolved[name] for name in metric.options}


@dataclass(frozen=True)
class Value:
    """One number and what it takes to trust it.

    `low`, `high`, `median_unbiased` and `p_calibrated` are NaN where they are not defined; `n_undefined` counts images
    without a value (or without a valid pixel, for pooled values); `details` are facts found on the way.
    """

    metric: str
    options: str
    average: str
    value: float
    low: float
    high: float
    median_unbiased: float
    p_calibrated: float
    n_images: int
    n_undefined: int
    n_pixels: int
    details: Mapping[str, Any]


@dataclass(frozen=True)
class ReliabilityBin:
    """One bin of a reliability diagram: edges, pixels, mean score, accuracy and its interval."""

    event: Event
    bin: int
    low_edge: float
    high_edge: float
    n: int
    confidence: float
    accuracy: float
    low: float
    high: float


class Evaluator:
    """The numbers of one method on one data set; pooled, grouped and resampled statistics are computed once and shared."""

    def __init__(self, statistics: Statistics, settings: Settings) -> None:
        self.statistics = statistics
        self.settings = settings
        self._views: dict[tuple[int, Callable[..., Any]], Any] = {}
        self._residuals: dict[Callable[..., Any], ResampledResiduals] = {}

    @cached_property
    def unit_of_row(self) -> Array:
        """The resampling unit of each image, `(rows,)`."""
        return resampling_units(self.statistics.names, self.settings.group_by)

    @cached_property
    def n_units(self) -> int:
        """Number of resampling units."""
        return int(self.unit_of_row.max()) + 1 if len(self.unit_of_row) else 0

    @cached_property
    def unit_weights(self) -> Array:
        """Bootstrap weights of the units, `(n_boot, units)`."""
        return _weights(self.n_units, self.settings.n_boot, self.settings.seed)

    @cached_property
    def pooled(self) -> Statistics:
        """All pixels together."""
        return self.statistics.total()

    @cached_property
    def units(self) -> Statistics:
        """One row a resampling unit."""
        if self.settings.group_by is None:
            return self.statistics
        return self.statistics.grouped(self.unit_of_row, self.n_units)

    @cached_property
    def replicates(self) -> Statistics:
        """Pooled counts of every bootstrap replicate."""
        return self.units.total(self.unit_weights)

    def values(self) -> list[Value]:
        """Every chosen metric, pooled metrics also as mean over images."""
        results = []
        for metric in self.settings.chosen:
            if metric.average == "pixels":
                results.append(self.pooled_value(metric))
            if metric.average == "images" or metric.per_image:
                results.append(self._mean_value(metric))
        return results

    def per_image(self) -> dict[str, Array]:
        """One column a metric, `(rows,)`."""
        columns = {}
        for metric in self.settings.chosen:
            if metric.per_image:
                values = self._image_values[self._key(metric)]
                columns[metric.name] = values if metric.summary is None else metric.summary(values)
        return columns

    @property
    def n_pixels(self) -> Array:
        """Valid pixels of each image, `(rows,)`."""
        return np.asarray(self.statistics.histogram.counts.sum((-2, -1)))

    def reliability(self, event: Event) -> list[ReliabilityBin]:
        """The bins of the profile's reliability diagram of an event; accuracy limits resample images.

        Σ n · |confidence − accuracy| / Σ n over them is the profile's error of that event.
        """
        metric = METRICS[self.settings.convention.diagrams[event]]
        bins = self.settings.options_of(metric)["bins"]
        pooled = self._view(self.pooled, metric).binned(bins)
        hit = (self._view(self.units, metric).binned(bins).count > 0).sum(0)
        accuracy, confidence = divide(pooled.correct, pooled.count), divide(pooled.confidence, pooled.count)
        if self.settings.n_boot:
            drawn = self._view(self.replicates, metric).binned(bins)
            replicates = divide(drawn.correct, drawn.count)
        rows = []
        for b in range(bins):
            interval = NO_INTERVAL
            if self.settings.n_boot and pooled.count[b]:
                interval = percentile_interval(
                    float(accuracy[b]), replicates[:, b], int(hit[b]), self.settings.ci, (0.0, 1.0)
                )
            rows.append(
                ReliabilityBin(
                    event, b, b / bins, (b + 1) / bins, int(pooled.count[b]), float(confidence[b]), float(accuracy[b]),
                    interval.low, interval.high,
                )
            )  # fmt: skip
        return rows

    def diagrams(self) -> dict[Event, tuple[list[ReliabilityBin], Value]]:
        """For each event of the profile, the bins of its reliability diagram and the error they add up to."""
        return {
            event: (self.reliability(event), self.pooled_value(METRICS[name]))
            for event, name in self.settings.convention.diagrams.items()
        }

    def curves(self) -> dict[str, Array]:
        """Curves of the saliency metrics, means over the images, `(256,)`, by threshold 0 to 255."""
        totals = {name: np.zeros(LEVELS) for name in CURVES}
        counted = 0
        for start in range(0, len(self.statistics.names), _BLOCK):
            block = self.statistics.histogram.select(slice(start, start + _BLOCK))
            values = {name: curve(block) for name, curve in CURVES.items()}
            defined = _defined(values["f"])
            counted += int(defined.sum())
            totals = {name: totals[name] + values[name][defined].sum(0) for name in CURVES}
        return {name: divide(total, np.array(counted)) for name, total in totals.items()}

    def _view(self, statistics: Statistics, metric: Metric) -> Any:
        key = (id(statistics), metric.reads)
        if key not in self._views:
            self._views[key] = metric.reads(statistics)
        return self._views[key]

    def pooled_value(self, metric: Metric) -> Value:
        """A metric of all pixels together, with its interval."""
        options = self.settings.options_of(metric)
        pooled = self._view(self.pooled, metric)
        value = float(metric.function(self._view(self.units, metric) if metric.needs_images else pooled, **options))
        interval = NO_INTERVAL
        if metric.interval and self.settings.n_boot and self.n_units:
            if metric.norm is not None:
                if np.isfinite(value):
                    norm = metric.norm(pooled, **options)
                    interval = norm_interval(norm, self._resampled(metric), self.settings.ci)
            else:
                drawn = metric.function(self._view(self.replicates, metric), **options)
                interval = percentile_interval(value, drawn, self.n_units, self.settings.ci, metric.bounds)
        details = metric.details(self._view(self.units, metric) if metric.needs_images else pooled, **options) \
            if metric.details and np.isfinite(value) else {}  # fmt: skip
        return self._value(metric, "pixels", value, interval, int((self.n_pixels == 0).sum()), details)

    def _resampled(self, metric: Metric) -> ResampledResiduals:
        """The residuals that a metric reads, resampled; metrics that read the same share them."""
        if metric.reads not in self._residuals:
            units = self._view(self.units, metric)
            self._residuals[metric.reads] = ResampledResiduals(units.residual, units.count.sum(-1), self.unit_weights)
        return self._residuals[metric.reads]

    def _mean_value(self, metric: Metric) -> Value:
        values = self._image_values[self._key(metric)]
        summary = metric.summary or _unchanged
        defined = _defined(values)
        if not defined.any():
            return self._value(metric, "images", float("nan"), NO_INTERVAL, len(values), {})
        value = float(summary(values[defined].mean(0)))
        interval = NO_INTERVAL
        if metric.interval and self.settings.n_boot:
            n_units = len(np.unique(self.unit_of_row[defined]))
            replicates = summary(self._replicate_means[self._key(metric)])
            interval = percentile_interval(value, replicates, n_units, self.settings.ci, metric.bounds)
        return self._value(metric, "images", value, interval, int((~defined).sum()), {})

    def _key(self, metric: Metric) -> tuple[Any, ...]:
        """Metrics that differ only in their summary share their values on images."""
        return (metric.function, metric.reads, *sorted(self.settings.options_of(metric).items()))

    @cached_property
    def _image_values(self) -> dict[tuple[Any, ...], Array]:
        """The functions of the chosen metrics on each image, `(rows, ...)`, a block of rows at a time."""
        metrics = {self._key(metric): metric for metric in self.settings.chosen if not metric.needs_images}
        parts: dict[tuple[Any, ...], list[Array]] = {key: [] for key in metrics}
        for start in range(0, len(self.statistics.names), _BLOCK):
            block = self.statistics.select(slice(start, start + _BLOCK))
            views = {reads: reads(block) for reads in {metric.reads for metric in metrics.values()}}
            for key, metric in metrics.items():
                parts[key].append(metric.function(views[metric.reads], **self.settings.options_of(metric)))
        return {key: np.concatenate(arrays) for key, arrays in parts.items()}

    @cached_property
    def _replicate_means(self) -> dict[tuple[Any, ...], Array]:
        """Means over the images of each bootstrap replicate, `(n_boot, ...)`, of all functions in one product.

        Images without a value are left out; a replicate that drew none with one has no mean.
        """
        flat = {key: values.reshape(len(values), -1) for key, values in self._image_values.items()}
        defined = np.stack([_defined(values) for values in flat.values()], axis=1)
        filled = [np.where(known[:, None], values, 0) for known, values in zip(defined.T, flat.values(), strict=True)]
        weights = self.unit_weights[:, self.unit_of_row]
        sums = pool(np.concatenate([*filled, defined], axis=1), weights)
        drawn = sums[:, -len(flat) :]
        ends = np.cumsum([values.shape[1] for values in flat.values()])[:-1]
        return {
            key: (part / np.where(n > 0, n, np.nan)[:, None]).reshape(len(weights), *values.shape[1:])
            for (key, values), part, n in zip(
                self._image_values.items(), np.split(sums[:, : -len(flat)], ends, axis=1), drawn.T, strict=True
            )
        }

    def _value(
        self, metric: Metric, average: str, value: float, interval: Interval, undefined: int, details: Mapping[str, Any]
    ) -> Value:
        return Value(
            metric.name,
            option_text(self.settings.options_of(metric)),
            average,
            value,
            interval.low,
            interval.high,
            interval.median_unbiased,
            interval.p_calibrated,
            len(self.statistics.names),
            undefined,
            int(self.n_pixels.sum()),
            details,
        )


def _is_whole(number: Any) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool)


def _unchanged(mean: Array) -> Array:
    return mean


def _defined(values: Array) -> Array:
    """Images whose value, or whole curve, is a number, `(rows,)`."""
    return np.asarray(np.isfinite(values.reshape(len(values), -1)).all(1))


def option_text(options: Mapping[str, Any]) -> str:
    """Options as `key=value;...`, sorted: the `options` column.

    >>> option_text({"ties": "split", "bins": 15})
    'bins=15;ties=split'
    """
    return ";".join(f"{key}={options[key]}" for key in sorted(options))


def resampling_units(names: Sequence[str], group_by: str | None) -> Array:
    """The resampling unit of each image, `(images,)`, numbered from 0; without a pattern each image is its own.

    Raises:
        InputError: the pattern is no regular expression, or images do not match it.
    """
    if group_by is None:
        return np.arange(len(names))
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise OptionError(f"group_by {group_by!r} is not a regular expression: {error}") from error
    matches = [pattern.search(name) for name in names]
    keys = [match and (match.group(1) if pattern.groups else match.group(0)) for match in matches]
    missed = [name for name, key in zip(names, keys, strict=True) if key is None]
    if missed:
        raise InputError(
            f"{len(missed)} of {len(names)} image names do not match group_by {group_by!r}:\n{listing(missed)}"
        )
    return np.unique(np.array(keys, dtype=np.str_), return_inverse=True)[1].reshape(-1)


@lru_cache(maxsize=4)
def _weights(n_units: int, n_boot: int, seed: int) -> Array:
    return resampling_weights(n_units, n_boot, seed)
