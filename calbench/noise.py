"""What is noise between methods on one data set, and which of them are as good as the best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from calbench.differences import ALPHA, can_be_tested, holm, noise_level, paired_difference
from calbench.evaluate import Evaluator
from calbench.metrics import Metric


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
    pairs = [
        pair for pair in combinations(evaluators.values(), 2) if pair[0].statistics.names == pair[1].statistics.names
    ]
    found = []
    for metric in metrics:
        both = [pair for pair in pairs if can_be_tested(metric) and all(metric in e.metrics for e in pair)]
        levels = np.array([noise_level(*pair, metric) for pair in both if pair[0].settings.n_boot])
        levels = levels[np.isfinite(levels)]
        if len(levels):
            middle, least, most = float(np.median(levels)), float(levels.min()), float(levels.max())
            found.append(Noise(metric.name, middle, least, most, len(levels)))
    return found


def as_good(evaluators: Mapping[str, Evaluator], metric: Metric) -> frozenset[str]:
    """The best method, and those that the paired test does not tell apart from it at 5 %.

    p-values are corrected by Holm's method over the comparisons with the best. Methods on other images than the best are
    not tested, and not among them. Empty where neither direction is better.

    Args:
        evaluators: of one data set, by method.
        metric: to rank them by.
    """
    if metric.better not in ("lower", "higher"):
        return frozenset()
    values = {name: e.value_of(metric).value for name, e in evaluators.items() if metric in e.metrics}
    values = {name: value for name, value in values.items() if math.isfinite(value)}
    if not values:
        return frozenset()
    best = (min if metric.better == "lower" else max)(values, key=values.__getitem__)
    names = evaluators[best].statistics.names
    others = [name for name in values if name != best and evaluators[name].statistics.names == names]
    p_values = holm([paired_difference(evaluators[best], evaluators[name], metric).p_value for name in others])
    return frozenset({best, *(name for name, p in zip(others, p_values, strict=True) if p >= ALPHA)})
