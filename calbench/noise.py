"""What is noise between methods on one data set, and which of them are as good as the best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from calbench.differences import ALPHA, can_be_tested, paired_draws
from calbench.evaluate import Evaluator
from calbench.intervals import MIN_UNITS, small_sample_factor
from calbench.metrics import Metric
from calbench.statistics.rows import Array


@dataclass(frozen=True)
class Noise:
    """How large a difference between two methods must be, on one data set, to be told from chance.

    Half the width of the interval of the paired difference at the level of the settings, over all pairs of methods.

    Attributes:
        metric: name.
        median, least, most: over the pairs.
        n_pairs: how many.
    """

    metric: str
    median: float
    least: float
    most: float
    n_pairs: int


def noise(evaluators: Mapping[str, Evaluator], metrics: Sequence[Metric]) -> list[Noise]:
    """The noise level of each metric over all pairs of methods that were measured on the same images.

    Metrics that no such pair has, or that have no resampled values, are left out.

    Args:
        evaluators: of one data set, by method.
        metrics: to say it of.
    """
    found = []
    for metric in metrics:
        pairs = combinations(_tested(evaluators, metric).values(), 2)
        levels = np.array(
            [
                _half_width(paired_draws(*pair, metric)[1], pair[0].settings.ci)
                for pair in pairs
                if pair[0].statistics.names == pair[1].statistics.names
            ]
        )
        levels = levels[np.isfinite(levels)]
        if len(levels):
            middle, least, most = float(np.median(levels)), float(levels.min()), float(levels.max())
            found.append(Noise(metric.name, middle, least, most, len(levels)))
    return found


def as_good(evaluators: Mapping[str, Evaluator], metric: Metric) -> frozenset[str]:
    """The best method, and those that are not told apart from it at 5 %.

    The best is known from these images alone, and so could be any: a method differs from it where |d| > c · s, d their
    difference, s the spread of its replicates, and c the 95 % quantile of the largest |d* − d| / s over all pairs of methods.
    Methods on other images than the best are not tested, and not among them. Empty where neither direction is better, and
    where too few images have a value.

    Args:
        evaluators: of one data set, by method.
        metric: to rank them by.
    Reference: Romano & Wolf, 2005 (doi:10.1198/016214504000000539), in one step.
    """
    if metric.better not in ("lower", "higher"):
        return frozenset()
    known = _tested(evaluators, metric)
    values = {name: e.value_of(metric).value for name, e in known.items()}
    values = {name: value for name, value in values.items() if math.isfinite(value)}
    if not values:
        return frozenset()
    best = (min if metric.better == "lower" else max)(values, key=values.__getitem__)
    n_units, level = known[best].n_units_of(metric), known[best].settings.ci
    if n_units < MIN_UNITS:
        return frozenset()
    alike = [name for name in values if known[name].statistics.names == known[best].statistics.names]
    found = {pair: paired_draws(known[pair[0]], known[pair[1]], metric) for pair in combinations(alike, 2)}
    largest = np.zeros(known[best].settings.n_boot)
    size: dict[tuple[str, str], float] = {}
    for pair, (value, drawn) in found.items():
        spread = np.nanstd(drawn) if np.isfinite(drawn).any() else np.nan
        if spread > 0:
            largest = np.fmax(largest, np.abs(drawn - value) / spread)
            size |= dict.fromkeys((pair, pair[::-1]), float(abs(value) / spread))
        elif value == 0:  # the same predictions
            size |= dict.fromkeys((pair, pair[::-1]), 0.0)
    # draws are widened for an interval of one difference; the largest of many lies further out, where t is wider
    further = small_sample_factor(n_units, 1 - ALPHA / max(len(found), 1)) / small_sample_factor(n_units, level)
    limit = further * np.quantile(largest, 1 - ALPHA, method="higher")
    return frozenset({best, *(name for name in alike if size.get((best, name), math.inf) <= limit)})


def _tested(evaluators: Mapping[str, Evaluator], metric: Metric) -> dict[str, Evaluator]:
    """The methods that have resampled values of a metric which are their own, not those of the maps before calibration."""
    return {
        name: evaluator
        for name, evaluator in evaluators.items()
        if can_be_tested(metric)
        and evaluator.settings.n_boot
        and metric in evaluator.metrics
        and not evaluator.value_of(metric).as_stored
    }


def _half_width(drawn: Array, level: float) -> float:
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return math.nan
    low, high = np.quantile(drawn, ((1 - level) / 2, (1 + level) / 2))
    return float(high - low) / 2
