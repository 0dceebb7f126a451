"""Paired differences: what one set of predictions gains over another on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from calbench.errors import InputError
from calbench.evaluate import Evaluator, option_text
from calbench.intervals import MIN_UNITS, NO_INTERVAL, Interval, percentile_interval, small_sample_factor
from calbench.metrics import Metric
from calbench.statistics.rows import Array

ALPHA = 0.05
"""Two are told apart where p is below."""


@dataclass(frozen=True)
class Difference:
    """One metric before and after.

    Attributes:
        metric, options: of the metric.
        before, after: its values on the same pixels, each under the metric's own average.
        difference: after − before.
        low, high: interval of the difference.
        interval: "percentile" (paired bootstrap, of metrics that are means), "box" (the limits of the one less those of the
            other: conservative, of errors that are norms, whose difference a bootstrap understates), or "none".
        p_value: of "the two are equal", paired bootstrap, two-sided; NaN where no resampled value is known.
        n_images: images that both values rest on; a mean over images leaves out those on which either is undefined.
    """

    metric: str
    options: str
    before: float
    after: float
    difference: float
    low: float
    high: float
    interval: Literal["percentile", "box", "none"]
    p_value: float
    n_images: int

    @property
    def differs(self) -> bool:
        """Whether the two are told apart at 5 %."""
        return self.p_value < ALPHA


def paired_difference(before: Evaluator, after: Evaluator, metric: Metric) -> Difference:
    """The difference of a metric, under its own average, between two sets of predictions of the same images.

    Both are resampled together: a replicate draws the same images of both. A mean over images is taken over those on which
    both have a value.

    Raises:
        InputError: other images.
    """
    if before.statistics.names != after.statistics.names:
        raise InputError("the two were measured on other images; a paired difference needs the same")
    before, after = _where_both_are_defined(before, after, metric)
    first, second = before.value_of(metric), after.value_of(metric)
    value = second.value - first.value
    limits, p_value = NO_INTERVAL, float("nan")
    kind: Literal["percentile", "box", "none"] = "none"
    n_units = before.n_units_of(metric)
    if metric.interval and before.settings.n_boot and n_units >= MIN_UNITS and np.isfinite(value):
        if can_be_tested(metric):
            drawn = after.replicated(metric) - before.replicated(metric)
            p_value = _p_value(value, drawn, n_units, before.settings.ci)
            if metric.norm is None:
                kind = "percentile"
                limits = percentile_interval(value, drawn, n_units, before.settings.ci)
        if metric.norm is not None:
            kind = "box"
            limits = Interval(second.low - first.high, second.high - first.low)
    return Difference(
        metric.name, option_text(after.settings.options_of(metric)), first.value, second.value, value,
        limits.low, limits.high, kind, p_value,
        second.n_images - (second.n_undefined if metric.average == "images" else 0),
    )  # fmt: skip


def can_be_tested(metric: Metric) -> bool:
    """Whether resampled values are known: one computed from products of different images is none of a replicate, which
    holds images twice.
    """
    return metric.interval and metric.rows == "pooled"


def paired_draws(one: Evaluator, other: Evaluator, metric: Metric) -> tuple[float, Array]:
    """other − one of a metric under its own average, and the same of each bootstrap replicate, `(n_boot,)`.

    Deviations of the replicates are widened by the small-sample factor; NaN where there are too few units. A mean over
    images is taken over those on which both have a value.
    """
    one, other = _where_both_are_defined(one, other, metric)
    value = other.value_of(metric).value - one.value_of(metric).value
    n_units = one.n_units_of(metric)
    factor = small_sample_factor(n_units, one.settings.ci) if n_units >= MIN_UNITS else float("nan")
    return value, value + factor * (other.replicated(metric) - one.replicated(metric) - value)


def win_rate(before: Evaluator, after: Evaluator, metric: Metric) -> float:
    """Share of the images on which `after` has the better value, ties counting half, in [0, 1].

    A signed metric is better nearer to 0. Images on which either is undefined are left out; NaN where none is left, where
    one image does not define the metric, and where neither direction is better.
    """
    if metric.better == "none" or not (metric.per_image and before.has_images):
        return float("nan")
    first, second = before.image_values(metric), after.image_values(metric)
    if metric.better == "zero":
        first, second = np.abs(first), np.abs(second)
    gain = first - second if metric.better != "higher" else second - first
    gain = gain[np.isfinite(gain)]
    return float(((gain > 0) + 0.5 * (gain == 0)).mean()) if len(gain) else float("nan")


def holm(p_values: Sequence[float]) -> Array:
    """p-values corrected for their number: each below α keeps the chance of any false alarm below α.

    p̃₍ᵢ₎ = max_{j ≤ i} min(1, (m − j + 1) p₍ⱼ₎) over the m sorted p-values. NaN stays and is not counted.

    Reference: Holm, 1979, Scandinavian Journal of Statistics 6(2) (www.jstor.org/stable/4615733).

    >>> holm([0.01, 0.04, 0.03]).round(4).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.array(p_values, np.float64)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    p[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1)
    return p


def _where_both_are_defined(one: Evaluator, other: Evaluator, metric: Metric) -> tuple[Evaluator, Evaluator]:
    """For a mean over images the two on the images on which both have a value; they stay as they are if those are one's."""
    if metric.average == "pixels":
        return one, other
    ours, theirs = (np.isfinite(evaluator.image_values(metric)) for evaluator in (one, other))
    if np.array_equal(ours, theirs):
        return one, other
    both = np.flatnonzero(ours & theirs)
    settings = replace(one.settings, metrics=(metric.name,), exclude=())
    first, second = (Evaluator(e.statistics.select(both), settings, e.scope) for e in (one, other))
    return first, second


def _p_value(value: float, drawn: Array, n_units: int, level: float) -> float:
    """Twice the smaller share of replicates on one side of 0, widened by the small-sample factor; at least 2 / (n + 1)."""
    spread = value + small_sample_factor(n_units, level) * (drawn[np.isfinite(drawn)] - value)
    share = (1 + min(np.count_nonzero(spread <= 0), np.count_nonzero(spread >= 0))) / (1 + len(spread))
    return float(min(1.0, 2 * share))
