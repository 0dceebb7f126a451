"""Confidence intervals that resample images (or patients, or videos), never pixels.

Errors that are a norm of residual sums (ECE and its relatives) are biased upwards by noise, and the percentile bootstrap
of such an error misses a small truth almost surely; they get the norm interval below. Everything else keeps the
percentile interval, widened by a small-sample factor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.special import ndtri, stdtrit

from calbench.statistics.rows import Array, pool

MIN_UNITS = 5
"""With fewer resampling units no interval is given."""
FEW_UNITS = 30
"""With fewer resampling units intervals are known to be somewhat short; a warning says so."""


@dataclass(frozen=True)
class Norm:
    """An error seen as a gauge of linear functions of residual sums: T = gauge(Σ residual · weights / N) ** power.

    Attributes:
        weights: `(cells, bins)`; cell residuals times this are the vector the gauge measures. Data-dependent bins are
            fixed on the full sample: the interval is conditional on them. Class-wise errors have residuals
            `(..., classes, cells)` and weights `(classes, cells, bins)`; their vector has classes · bins elements. None
            where the residuals are the vector already.
        gauge: `(..., bins)` -> `(...)`: a norm, or another convex function that scales with its argument.
        direction: the part of the vector that the gauge sees; the identity for a norm.
        power: 2 where the error is the square of a norm.
    """

    weights: Array | None
    gauge: Callable[[Array], Array]
    direction: Callable[[Array], Array] = lambda vector: vector
    power: int = 1

    def vector(self, residual: Array) -> Array:
        """What the gauge measures: cell residuals `(..., cells)` or `(..., classes, cells)` summed into bins."""
        if self.weights is None:
            return residual
        if self.weights.ndim == 2:
            return residual @ self.weights
        flat = residual.reshape(-1, *residual.shape[-2:])
        binned = np.matmul(np.moveaxis(flat, 1, 0), self.weights)
        return np.moveaxis(binned, 0, 1).reshape(*residual.shape[:-2], -1)


@dataclass(frozen=True)
class Interval:
    """Limits of an error, its median-unbiased value and the p-value of perfect calibration (NaN where not defined)."""

    low: float
    high: float
    median_unbiased: float = float("nan")
    p_calibrated: float = float("nan")


NO_INTERVAL = Interval(float("nan"), float("nan"))


def resampling_weights(n_units: int, n_boot: int, seed: int | Sequence[int]) -> Array:
    """Multinomial bootstrap weights `(n_boot, n_units)`: how often each replicate drew each unit.

    Drawn once a data set and shared by all its metrics and methods. uint16 holds them in a quarter of the memory of
    float64.
    """
    generator = np.random.default_rng(seed)
    weights = np.empty((n_boot, n_units), np.uint16)
    for replicate in weights:
        replicate[:] = np.bincount(generator.integers(0, n_units, n_units), minlength=n_units)
    return weights


def small_sample_factor(n_units: int, level: float) -> float:
    """k = √(n / (n − 1)) · t / z: what a bootstrap of n units is too narrow by."""
    tail = (1 + level) / 2
    return float(np.sqrt(n_units / (n_units - 1)) * stdtrit(n_units - 1, tail) / ndtri(tail))


def percentile_interval(
    value: float, replicates: Array, n_units: int, level: float, bounds: tuple[float, float] = (-np.inf, np.inf)
) -> Interval:
    """Percentile bootstrap limits, moved away from the value by the small-sample factor.

    Args:
        value: the estimate.
        replicates: `(n_boot,)` values of the estimate on resampled images; undefined ones are NaN and left out.
        n_units: resampling units.
        level: 0.95 for a 95 % interval.
        bounds: smallest and largest value there can be; limits are cut off there.
    """
    defined = replicates[np.isfinite(replicates)]
    if n_units < MIN_UNITS or not np.isfinite(value) or len(defined) < len(replicates) / 2:
        return NO_INTERVAL
    factor = small_sample_factor(n_units, level)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(
        float(max(value + factor * (low - value), bounds[0])), float(min(value + factor * (high - value), bounds[1]))
    )


class ResampledResiduals:
    """Residual sums of the resampling units and of every bootstrap replicate, shared by all norms of one score.

    Args:
        residual: `(units, cells)` or `(units, classes, cells)` Σ (correct − score) of each resampling unit.
        count: `(units,)` valid pixels of each unit.
        weights: `(n_boot, units)` bootstrap weights.
    """

    def __init__(self, residual: Array, count: Array, weights: Array) -> None:
        self.residual = residual
        self.count = count.astype(np.float64)
        self.weights = weights
        self.n_units = len(count)
        self.total = float(self.count.sum())

    @cached_property
    def replicates(self) -> Array:
        """Residuals per pixel of each replicate, `(n_boot, cells)`; 0 where a replicate drew no pixel."""
        return self._per_pixel(pool(self.residual, self.weights))

    @cached_property
    def cross(self) -> Array:
        """Σ residual · count of each replicate, `(n_boot, cells)`."""
        return pool(self.residual * self.count[:, None], self.weights)

    @cached_property
    def drawn(self) -> Array:
        """Pixels, and their squares by unit, of each replicate, `(n_boot, 2)`."""
        return pool(np.stack([self.count, self.count**2], axis=1), self.weights)

    def of_class(self, index: int) -> ResampledResiduals:
        """The residuals of one class."""
        return ResampledResiduals(self.residual[:, index], self.count, self.weights)

    def binned(self, norm: Norm) -> ResampledResiduals:
        """The residuals in the bins of a norm, mostly far fewer than its cells."""
        return ResampledResiduals(norm.vector(self.residual), self.count, self.weights)

    def relative_spread(self, norm: Norm) -> Array:
        """s* / s: spread of the residual vector in each replicate over that of the sample, `(n_boot,)`."""
        vector = self.residual.sum(0) / self.total
        deviation = self.residual - vector * self.count[:, None]
        squared = _squares_of(norm)
        spread = np.sqrt(max(float((squared(deviation) * deviation).sum()), 0.0)) / self.total
        if spread == 0:
            return np.ones(len(self.weights))
        squares = pool((squared(self.residual) * self.residual).sum(1)[:, None], self.weights)[:, 0]
        projected = squared(self.replicates)
        variance = squares + ((self.replicates * self.drawn[:, 1:] - 2 * self.cross) * projected).sum(1)
        return self._per_pixel(np.sqrt(np.clip(variance, 0, None))[:, None])[:, 0] / spread

    def _per_pixel(self, sums: Array) -> Array:
        pixels = self.drawn[:, :1]
        return np.divide(sums, pixels, out=np.zeros_like(sums), where=pixels > 0)


def norm_interval(norm: Norm, resampled: ResampledResiduals, level: float) -> Interval:
    """Interval for a norm of residual sums, valid near 0 where the percentile bootstrap is not.

    The upper limit is a quantile of ||R + k E|| (a norm is a supremum of linear functions, so this bounds each of them);
    the lower limit inverts the test "the truth is t along the observed direction", plainly and studentised, and takes the
    smaller. The median-unbiased value is the root at one half; `p_calibrated` is the chance of an error this large under
    perfect calibration.

    Args:
        norm: the error.
        resampled: residual sums of the units and replicates.
        level: 0.95 for a 95 % interval.
    """
    if resampled.n_units < MIN_UNITS or resampled.total == 0:
        return NO_INTERVAL
    if norm.weights is not None and (norm.weights.ndim == 3 or norm.weights.shape[1] < norm.weights.shape[0]):
        resampled, norm = resampled.binned(norm), replace(norm, weights=None)
    upper_tail = (1 + level) / 2
    vector = norm.vector(resampled.residual.sum(0) / resampled.total)
    observed = float(norm.gauge(vector))
    noise = norm.vector(resampled.replicates) - vector
    wide = small_sample_factor(resampled.n_units, level) * noise

    high = float(np.quantile(norm.gauge(vector + wide), upper_tail))
    if observed == 0:
        return Interval(0.0, high**norm.power, 0.0, 1.0)
    direction = norm.direction(vector) / observed

    def share_below(truth: float) -> float:
        return float(np.mean(norm.gauge(truth * direction + wide) <= observed))

    limit = observed * np.clip(resampled.relative_spread(norm), 0.2, 5)

    def studentised_share_below(truth: float) -> float:
        return float(np.mean(norm.gauge(truth * direction + noise) <= limit))

    # the observed error lies between the limits by convexity; the bisection's last step must not push it out
    high = max(high, observed)
    low = min(_root(share_below, upper_tail, observed), _root(studentised_share_below, upper_tail, observed), observed)
    median = min(max(_root(share_below, 0.5, observed), low), high)
    p_value = float(np.mean(norm.gauge(wide) >= observed))
    return Interval(low**norm.power, high**norm.power, median**norm.power, p_value)


def _squares_of(norm: Norm) -> Callable[[Array], Array]:
    """x -> x W Wᵀ, whose product with x is |x W|²: without the vectors, which may be longer than the residuals."""
    if norm.weights is None:
        return lambda residual: residual
    gram = norm.weights @ norm.weights.T
    return lambda residual: residual @ gram


def _root(share: Callable[[float], float], target: float, scale: float) -> float:
    """Where a decreasing share crosses `target`, by bisection on [0, 2 · scale]; 0 when it starts below."""
    if share(0.0) <= target:
        return 0.0
    low, high = 0.0, 2 * scale
    while share(high) > target:
        low, high = high, 2 * high
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (middle, high) if share(middle) > target else (low, middle)
    return (low + high) / 2
