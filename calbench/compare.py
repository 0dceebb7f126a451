"""Paired differences: what one set of predictions gains over another on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from calbench.errors import InputError
from calbench.evaluate import Evaluator, option_text
from calbench.intervals import MIN_UNITS, percentile_interval, small_sample_factor
from calbench.metrics import Metric
from calbench.statistics.rows import Array


@dataclass(frozen=True)
class Difference:
    """One metric before and after.

    Attributes:
        metric, options: of the metric.
        before, after: its values on the same pixels.
        difference: after − before.
        low, high: interval of the difference.
        interval: "percentile" (paired bootstrap, of metrics that are means), "box" (the limits of the one less those of the
            other: conservative, of errors that are norms, whose difference a bootstrap understates), or "none".
        p_value: of "the two are equal", paired bootstrap, two-sided.
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

    @property
    def differs(self) -> bool:
        """Whether the two are told apart at 5 %."""
        return self.p_value < 0.05


def paired_difference(before: Evaluator, after: Evaluator, metric: Metric) -> Difference:
    """The difference of a pooled metric between two sets of predictions of the same images.

    Both are resampled together: a replicate draws the same images of both.

    Raises:
        InputError: other images.
    """
    if before.statistics.names != after.statistics.names:
        raise InputError("the two were measured on other images; a paired difference needs the same")
    first, second = before.pooled_value(metric), after.pooled_value(metric)
    value = second.value - first.value
    low = high = p_value = float("nan")
    kind: Literal["percentile", "box", "none"] = "none"
    if metric.interval and before.settings.n_boot and before.n_units >= MIN_UNITS and np.isfinite(value):
        drawn = after.replicated(metric) - before.replicated(metric)
        p_value = _p_value(value, drawn, before.n_units, before.settings.ci)
        if metric.norm is None:
            kind = "percentile"
            limits = percentile_interval(value, drawn, before.n_units, before.settings.ci)
            low, high = limits.low, limits.high
        else:
            kind = "box"
            low, high = second.low - first.high, second.high - first.low
    options = option_text(after.settings.options_of(metric))
    return Difference(metric.name, options, first.value, second.value, value, low, high, kind, p_value)


def _p_value(value: float, drawn: Array, n_units: int, level: float) -> float:
    """Twice the smaller share of replicates on one side of 0, widened by the small-sample factor; at least 2 / (n + 1)."""
    spread = value + small_sample_factor(n_units, level) * (drawn[np.isfinite(drawn)] - value)
    share = (1 + min(np.count_nonzero(spread <= 0), np.count_nonzero(spread >= 0))) / (1 + len(spread))
    return float(min(1.0, 2 * share))
