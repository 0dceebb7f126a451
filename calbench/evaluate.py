"""Statistics -> results: the only place that averages, bootstraps and puts intervals around numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from numbers import Integral
from types import MappingProxyType
from typing import Any, Literal

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
from calbench.metrics.metric import Reader, Scope, levels
from calbench.metrics.saliency import CURVES
from calbench.profiles import DEFAULT_OPTIONS, Profile, home_of, profile_named
from calbench.statistics import Statistics
from calbench.statistics.histogram import LEVELS, Event
from calbench.statistics.reliability import BinSums, divide, equal_width
from calbench.statistics.rows import Array, owner, pool

TIES = ("split", "whole")
MAX_BINS = 1000
"""The binning rule is verified for 8-bit levels up to here."""
ENTROPY_BINS = 20
_BLOCK = 256  # rows per step of per-image values: bounds the memory of equal-mass shares
_FEW_CLASSES = 20


@dataclass(frozen=True)
class Settings:
    """How statistics become numbers; nothing here touches pixels.

    Attributes:
        profile: name of the convention, see `calbench.profiles`.
        metrics: names to compute; None for all of the profile.
        exclude: names to leave out.
        options: settings of the metrics (`bins`, `ties`, `debias_bins`, `batch`); what is not given comes from the profile.
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
        if self.group_by is not None:
            resampling_units((), self.group_by)
        for name, value in self.options.items():
            if name == "ties" and value not in TIES:
                raise UnknownName("tie rule", str(value), TIES)
            if name == "batch" and not (_is_whole(value) and value >= 1):
                raise OptionError(f"batch is {value!r}; it is a number of images, at least 1")
            if name.endswith("bins") and not (_is_whole(value) and 1 <= value <= MAX_BINS):
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
    def extras(self) -> tuple[str, ...]:
        """What must be collected beyond what every run collects, by the profile that needs it."""
        return tuple(sorted({metric.reads.extra for metric in self.chosen if metric.reads.extra}))

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

    @property
    def as_stored(self) -> bool:
        """Whether the predictions were calibrated, but this number is of the map before."""
        return "levels=uncalibrated" in self.options


@dataclass(frozen=True)
class ReliabilityBin:
    """One bin of a reliability diagram: edges, pixels, mean score, accuracy and its interval."""

    event: Event | Literal["class"]
    bin: int
    low_edge: float
    high_edge: float
    n: int
    confidence: float
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class JointPoints:
    """Points of the joint density of confidence and accuracy, `(points,)` each.

    Attributes:
        confidence, accuracy: means over the pixels of a point, in [0, 1].
        weight: its pixels; 1 for a copy of a bin of all images together.
        pooled: whether points are such copies, rather than an image and bin each.
    """

    confidence: Array
    accuracy: Array
    weight: Array
    pooled: bool


@dataclass(frozen=True)
class EntropyBin:
    """One bin of the histogram of predictive entropy: edges in nats, and pixels."""

    bin: int
    low_edge: float
    high_edge: float
    n: int


class Evaluator:
    """The numbers of one method on one data set; pooled, grouped and resampled statistics are computed once and shared."""

    def __init__(self, statistics: Statistics, settings: Settings, scope: Scope = "id") -> None:
        self.statistics = statistics
        self.settings = settings
        self.scope = scope
        self._views: dict[tuple[str, Reader], Any] = {}
        self._residuals: dict[Reader, ResampledResiduals] = {}
        self._pooled: dict[str, Value] = {}
        self._replicated: dict[str, Array] = {}
        self._columns: dict[str, Array] = {}

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """The chosen metrics that these rows can give."""
        return tuple(
            metric
            for metric in self.settings.chosen
            if metric.scope == self.scope and metric.reads.available(self.statistics)
        )

    @property
    def has_images(self) -> bool:
        """Whether rows are images, rather than groups of the samples of a table."""
        return "samples" not in self.statistics.conventions

    @property
    def unit(self) -> str:
        """What is resampled, for people."""
        if not self.has_images:
            return "groups of samples"
        if self.settings.group_by is not None:
            return "groups of images"
        return "volumes" if "volumes" in self.statistics.conventions else "images"

    @cached_property
    def unit_of_row(self) -> Array:
        """The resampling unit of each image, `(rows,)`."""
        names: Sequence[str] = self.statistics.names
        if not self.has_images and self.settings.group_by is not None:
            raise OptionError("--group-by groups images by their names; the samples of a table have none")
        if "volumes" in self.statistics.conventions:
            names = [owner(name) for name in names]
            if self.settings.group_by is None:
                return resampling_units(names, ".*")
        try:
            return resampling_units(names, self.settings.group_by)
        except InputError:
            if self.scope == "id":
                raise
            return np.arange(len(names))  # the pattern is of the data sets; other images stand for themselves

    @cached_property
    def n_units(self) -> int:
        """Number of resampling units."""
        return int(self.unit_of_row.max()) + 1 if len(self.unit_of_row) else 0

    @cached_property
    def unit_weights(self) -> Array:
        """Bootstrap weights of the units, `(n_boot, units)`; those of out-of-distribution sets are independent."""
        seed = (self.settings.seed,) if self.scope == "id" else (self.settings.seed, 1)
        return _weights(self.n_units, self.settings.n_boot, seed)

    @cached_property
    def pooled(self) -> Statistics:
        """All pixels together."""
        return self.statistics.total()

    @cached_property
    def units(self) -> Statistics:
        """One row a resampling unit."""
        if np.array_equal(self.unit_of_row, np.arange(len(self.statistics.names))):
            return self.statistics
        return self.statistics.grouped(self.unit_of_row, self.n_units)

    def values(self) -> list[Value]:
        """Every metric, pooled metrics also as mean over images, class-wise ones also for each class."""
        results = []
        for metric in self.metrics:
            if metric.average == "pixels":
                results.append(self.pooled_value(metric))
            over_images = self.has_images and (metric.average == "images" or metric.per_image)
            if over_images:
                results.append(self._mean_value(metric))
            if metric.by_class is not None:
                results += self._class_values(metric, over_images)
        return results

    def forget(self) -> None:
        """Let go of what led to the numbers, some 50 MB a thousand images; whatever needs it later computes it again."""
        self._views.clear()
        self._residuals.clear()
        for name in ("pooled", "units", "_image_values", "_replicate_means"):
            self.__dict__.pop(name, None)

    def per_image(self) -> dict[str, Array]:
        """One column a metric, `(rows,)`."""
        return {metric.name: self.image_values(metric) for metric in self.metrics if metric.per_image}

    def image_values(self, metric: Metric) -> Array:
        """One of the chosen metrics on each image, `(rows,)`; NaN where it has none."""
        if metric.name not in self._columns:
            self._columns[metric.name] = (metric.summary or _unchanged)(self._image_values[self._key(metric)])
        return self._columns[metric.name]

    @property
    def n_pixels(self) -> Array:
        """Valid pixels of each image, `(rows,)`."""
        return self.statistics.n_pixels

    def reliability(self, event: Event) -> list[ReliabilityBin]:
        """The bins of the profile's reliability diagram of an event; accuracy limits resample images.

        Σ n · |confidence − accuracy| / Σ n over them is the profile's error of that event.
        """
        metric = METRICS[self.settings.convention.diagrams[event]]
        bins = self.settings.options_of(metric)["bins"]
        return self._bins_of(
            event, self._view("pooled", metric.reads).binned(bins), self._view("units", metric.reads).binned(bins)
        )

    def class_reliability(self) -> dict[int, list[ReliabilityBin]]:
        """The reliability bins of each class's probability, by class; accuracy limits resample images.

        Score p_k against being of class k, in the bins of `ece_classwise`: Σ n · |confidence − accuracy| / Σ n over those of
        class k is its value of class k, and Σ n · accuracy its pixels in the ground truth. Empty for binary maps, and where
        rows hold the decision alone.
        """
        metric = METRICS["ece_classwise"]
        if not metric.reads.available(self.statistics):
            return {}
        bins = self.settings.options_of(metric)["bins"]
        pooled, units = (self._view(of, metric.reads).binned(bins) for of in ("pooled", "units"))
        return {k: self._bins_of("class", _of_class(pooled, k), _of_class(units, k)) for k in range(len(pooled.count))}

    def _bins_of(self, event: Event | Literal["class"], pooled: BinSums, units: BinSums) -> list[ReliabilityBin]:
        """Reliability bins from the sums of all pixels, `(bins,)`, and of each resampling unit, `(units, bins)`."""
        bins = len(pooled.count)
        hit = (units.count > 0).sum(0)
        accuracy, confidence = divide(pooled.correct, pooled.count), divide(pooled.confidence, pooled.count)
        if self.settings.n_boot:
            drawn = units.total(self.unit_weights)
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

    def joint(self) -> JointPoints:
        """Where confidence and accuracy meet: a point for each image and equal-width bin of its top-label confidence.

        Under the profile "aslp" the points of the ASLP study instead: of each bin b of all images together,
        ⌊images · n_b / N⌋ copies.
        """
        if self.settings.profile == "aslp":
            bins = [b for b in self.reliability("top-label") if b.n]
            n = np.array([b.n for b in bins], np.int64)
            copies = (len(self.statistics.names) * n) // n.sum()
            confidence, accuracy = (
                np.repeat([getattr(b, name) for b in bins], copies) for name in ("confidence", "accuracy")
            )
            return JointPoints(confidence, accuracy, np.ones(copies.sum()), pooled=True)
        metric = METRICS[self.settings.convention.diagrams["top-label"]]
        binned = self._view("images", metric.reads).binned(self.settings.options_of(metric)["bins"])
        filled = binned.count > 0
        count = binned.count[filled]
        return JointPoints(binned.confidence[filled] / count, binned.correct[filled] / count, count, pooled=False)

    def diagrams(self) -> dict[Event, tuple[list[ReliabilityBin], Value]]:
        """For each event of the profile that these rows have, the bins of its diagram and the error they add up to."""
        return {event: (self.reliability(event), error) for event, error in self.errors().items()}

    def errors(self) -> dict[Event, Value]:
        """The error that each reliability diagram shows, for the events of the profile that these rows have."""
        return {
            event: self.pooled_value(METRICS[name])
            for event, name in self.settings.convention.diagrams.items()
            if METRICS[name].reads.available(self.statistics)
        }

    def entropy_histogram(self) -> list[EntropyBin]:
        """Pixels by predictive entropy, in 20 equal bins from 0 to ln(classes)."""
        unsure = self.pooled.uncertainty()
        if unsure is None:
            return []
        counts = unsure.entropy @ equal_width(unsure.entropy_score, ENTROPY_BINS)
        edges = np.log(unsure.classes) * np.arange(ENTROPY_BINS + 1) / ENTROPY_BINS
        return [EntropyBin(b, float(edges[b]), float(edges[b + 1]), int(n)) for b, n in enumerate(counts)]

    def curves(self) -> dict[str, Array]:
        """Curves of the saliency metrics, means over the images, `(256,)`, by threshold 0 to 255; none without maps."""
        if not levels.available(self.statistics):
            return {}
        totals = {name: np.zeros(LEVELS) for name in CURVES}
        counted = 0
        for start in range(0, len(self.statistics.names), _BLOCK):
            block = levels(self.statistics).select(slice(start, start + _BLOCK))
            values = {name: curve(block) for name, curve in CURVES.items()}
            defined = _defined(values["f"])
            counted += int(defined.sum())
            totals = {name: totals[name] + values[name][defined].sum(0) for name in CURVES}
        return {name: divide(total, np.array(counted)) for name, total in totals.items()}

    def _view(self, of: Literal["pooled", "units", "images", "replicates"], reads: Reader) -> Any:
        """What a metric reads, of the pooled, grouped, single or resampled images."""
        key = (of, reads)
        if key not in self._views:
            if of == "replicates":
                self._views[key] = _resampled_view(self._view("units", reads), self.unit_weights)
            else:
                self._views[key] = reads({"pooled": self.pooled, "units": self.units, "images": self.statistics}[of])
        return self._views[key]

    def remember(self, values: Iterable[Value]) -> None:
        """Take values that were computed before from these rows under these settings, instead of computing them again."""
        self._pooled |= {v.metric: v for v in values if v.average == "pixels" and "class" not in v.details}

    def value_of(self, metric: Metric) -> Value:
        """One of the chosen metrics under its own average: of all pixels together, or the mean over the images."""
        return self.pooled_value(metric) if metric.average == "pixels" else self._mean_value(metric)

    def n_units_of(self, metric: Metric) -> int:
        """Resampling units that a value rests on: all, or of a mean over images those with an image that has one."""
        if metric.average == "pixels":
            return self.n_units
        return self._units_among(_defined(self._image_values[self._key(metric)]))

    def _units_among(self, rows: Array) -> int:
        return len(np.unique(self.unit_of_row[rows]))

    def pooled_value(self, metric: Metric) -> Value:
        """A metric of all pixels together, with its interval; computed once."""
        if metric.name not in self._pooled:
            self._pooled[metric.name] = self._computed(metric)
        return self._pooled[metric.name]

    def _computed(self, metric: Metric) -> Value:
        options = self.settings.options_of(metric)
        value = self._plain_value(metric)
        interval = NO_INTERVAL
        if metric.interval and self.settings.n_boot and self.n_units:
            if metric.norm is not None:
                if np.isfinite(value):
                    norm = metric.norm(self._view("pooled", metric.reads), **options)
                    interval = norm_interval(norm, self._resampled(metric.reads), self.settings.ci)
            else:
                interval = percentile_interval(
                    value, self.replicated(metric), self.n_units, self.settings.ci, metric.bounds
                )
        details: Mapping[str, Any] = {}
        if metric.details and np.isfinite(value):
            details = metric.details(self._view(metric.rows, metric.reads), **options)
        return self._value(metric, "pixels", value, interval, int((self.n_pixels == 0).sum()), details)

    def _plain_value(self, metric: Metric) -> float:
        return float(metric.function(self._view(metric.rows, metric.reads), **self.settings.options_of(metric)))

    def replicated(self, metric: Metric) -> Array:
        """One of the chosen metrics, under its own average, of each bootstrap replicate, `(n_boot,)`.

        Replicates of one data set draw the same images. Those of an inflated metric are moved down (see `Metric`).
        """
        if metric.name not in self._replicated:
            if metric.average == "images":
                drawn = self._replicated_mean(metric)
            else:
                view, options = self._view("replicates", metric.reads), self.settings.options_of(metric)
                drawn = np.asarray(metric.function(view, **options))
            if metric.inflated and np.isfinite(value := self._plain_value(metric)):
                drawn = drawn - 2 * (np.nanmean(drawn) - value)
            self._replicated[metric.name] = drawn
        return self._replicated[metric.name]

    def _resampled(self, reads: Reader) -> ResampledResiduals:
        """The residuals that a metric reads, resampled; metrics that read the same share them."""
        if reads not in self._residuals:
            units = self._view("units", reads)
            count = units.count.sum(-1)
            count = count[:, 0] if count.ndim > 1 else count  # every class counts every pixel
            self._residuals[reads] = ResampledResiduals(units.residual, count, self.unit_weights)
        return self._residuals[reads]

    def _class_values(self, metric: Metric, over_images: bool) -> list[Value]:
        """The values of each class, pooled and as mean over the images that have one."""
        assert metric.by_class is not None
        options = self.settings.options_of(metric)
        boot = metric.interval and self.settings.n_boot > 0 and self.n_units > 0
        values = metric.by_class(self._view("pooled", metric.reads), **options)
        intervals = [NO_INTERVAL] * len(values)
        if boot and metric.class_norm is not None:
            pooled, resampled = self._view("pooled", metric.reads), self._resampled(metric.reads)
            intervals = [
                norm_interval(metric.class_norm(pooled, k, **options), resampled.of_class(k), self.settings.ci)
                if np.isfinite(value)
                else NO_INTERVAL
                for k, value in enumerate(values)
            ]
        elif boot:
            drawn = metric.by_class(self._view("replicates", metric.reads), **options)
            intervals = [
                percentile_interval(float(value), drawn[:, k], self.n_units, self.settings.ci, metric.bounds)
                for k, value in enumerate(values)
            ]
        void = int((self.n_pixels == 0).sum())
        results = [
            self._value(metric, "pixels", float(value), interval, void, {"class": k}, {"class": k})
            for k, (value, interval) in enumerate(zip(values, intervals, strict=True))
        ]
        if over_images:
            results += self._class_means(metric, options, boot)
        return results

    def _class_means(self, metric: Metric, options: Mapping[str, Any], boot: bool) -> list[Value]:
        """Means over images of the values of each class; images without the class are left out."""
        assert metric.by_class is not None
        values = np.concatenate(
            [metric.by_class(metric.reads(block), **options) for block in self._blocks()]
        )  # (rows, classes)
        defined = np.isfinite(values)
        n = defined.sum(0)
        means = divide(np.where(defined, values, 0).sum(0), n)
        drawn = np.full((1, len(n)), np.nan)
        if boot:
            weights = self.unit_weights[:, self.unit_of_row]
            drawn = divide(pool(np.where(defined, values, 0), weights), pool(defined, weights))
        results = []
        for k, value in enumerate(means):
            interval = NO_INTERVAL
            if boot:
                n_units = self._units_among(defined[:, k])
                interval = percentile_interval(float(value), drawn[:, k], n_units, self.settings.ci, metric.bounds)
            undefined = len(values) - int(n[k])
            results.append(self._value(metric, "images", float(value), interval, undefined, {"class": k}, {"class": k}))
        return results

    def _mean_value(self, metric: Metric) -> Value:
        values = self._image_values[self._key(metric)]
        summary = metric.summary or _unchanged
        defined = _defined(values)
        if not defined.any():
            return self._value(metric, "images", float("nan"), NO_INTERVAL, len(values), {})
        value = float(summary(values[defined].mean(0)))
        interval = NO_INTERVAL
        if metric.interval and self.settings.n_boot:
            replicates, n_units = self._replicated_mean(metric), self._units_among(defined)
            interval = percentile_interval(value, replicates, n_units, self.settings.ci, metric.bounds)
        return self._value(metric, "images", value, interval, int((~defined).sum()), {})

    def _replicated_mean(self, metric: Metric) -> Array:
        return (metric.summary or _unchanged)(self._replicate_means[self._key(metric)])

    def _key(self, metric: Metric) -> tuple[Any, ...]:
        """Metrics that differ only in their summary share their values on images."""
        return (metric.function, metric.reads, *sorted(self.settings.options_of(metric).items()))

    @cached_property
    def _image_values(self) -> dict[tuple[Any, ...], Array]:
        """The functions of the chosen metrics on each image, `(rows, ...)`, a block of rows at a time."""
        metrics = {self._key(metric): metric for metric in self.metrics if metric.per_image}
        parts: dict[tuple[Any, ...], list[Array]] = {key: [] for key in metrics}
        for block in self._blocks():
            views = {reads: reads(block) for reads in {metric.reads for metric in metrics.values()}}
            for key, metric in metrics.items():
                parts[key].append(metric.function(views[metric.reads], **self.settings.options_of(metric)))
        return {key: np.concatenate(arrays) for key, arrays in parts.items()}

    def _blocks(self) -> Iterator[Statistics]:
        """The rows, some at a time: fewer where each holds cells of many classes."""
        classes = self.statistics.classes
        size = _BLOCK if classes is None else max(1, _BLOCK * _FEW_CLASSES // max(classes.count.shape[1], _FEW_CLASSES))
        for start in range(0, len(self.statistics.names), size):
            yield self.statistics.select(slice(start, start + size))

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
        self,
        metric: Metric,
        average: str,
        value: float,
        interval: Interval,
        undefined: int,
        details: Mapping[str, Any],
        more_options: Mapping[str, Any] = MappingProxyType({}),
    ) -> Value:
        stated = metric.conventions(self._view("pooled", metric.reads)) if metric.conventions else {}
        if metric.average == "images" and self.statistics.exact_histogram is None:
            # saliency metrics of float maps read their 8-bit copy; of 8-bit maps that were calibrated, what they were
            stated = {"levels": self.statistics.conventions.get("saliency", "rounded")}
        return Value(
            metric.name,
            option_text({**self.settings.options_of(metric), **stated, **more_options}),
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


def _resampled_view(view: Any, weights: Array) -> Any:
    """The pooled statistic of each bootstrap replicate, of one statistic or of several that belong together."""
    return tuple(part.total(weights) for part in view) if isinstance(view, tuple) else view.total(weights)


def _of_class(sums: BinSums, k: int) -> BinSums:
    """The bins `(..., bins)` of one class."""
    return BinSums(sums.names, *(getattr(sums, name)[..., k, :] for name in BinSums.row_fields()))


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
def _weights(n_units: int, n_boot: int, seed: tuple[int, ...]) -> Array:
    return resampling_weights(n_units, n_boot, seed)
