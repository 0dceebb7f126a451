"""The interval of ECE holds the truth as often as it says, where the percentile bootstrap does not.

Simulated data sets of 100 images with known true ECE; every seed is one data set, seen by four methods. The same
comparison for other metrics, and in more detail, is `benchmarks/coverage.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from calbench.evaluate import Evaluator, Settings, Value
from calbench.metrics.calibration_error import expected_calibration_error
from calbench.statistics import JointHistogram, Statistics
from calbench.synthetic import SyntheticScene, expected_histogram, histograms, sharpness_for_ece

pytestmark = pytest.mark.slow

TARGETS = (0.0, 0.002, 0.01, 0.05)
SEEDS = 200
IMAGES = 100
SCENE = SyntheticScene(height=32, width=48)
"""Small for speed; lengths are in image heights, so pixels depend on each other as in the default scene."""


@dataclass(frozen=True)
class Simulated:
    """What 200 data sets gave at one true ECE: arrays over seeds."""

    truth: float
    low: np.ndarray
    high: np.ndarray
    median_unbiased: np.ndarray
    p_calibrated: np.ndarray
    percentile_low: np.ndarray
    percentile_high: np.ndarray


@pytest.fixture(scope="module")
def simulated() -> dict[float, Simulated]:
    sharpnesses = [sharpness_for_ece(target, scene=SCENE) for target in TARGETS]
    rows: list[list[tuple[float, ...]]] = [[] for _ in TARGETS]
    # thousands of small matrix products: on a busy machine the threads of BLAS wait for each other, six times as long
    with threadpool_limits(1):
        for seed in range(SEEDS):
            for found, histogram in zip(rows, histograms(IMAGES, sharpnesses, seed=seed, scene=SCENE), strict=True):
                value, limits = evaluated(histogram, seed)
                found.append((value.low, value.high, value.median_unbiased, value.p_calibrated, *limits))
    truths = [
        float(expected_calibration_error(expected_histogram(sharpness, scene=SCENE).reliability("top-label")))
        for sharpness in sharpnesses
    ]
    return {
        target: Simulated(truth, *np.array(found).T) for target, truth, found in zip(TARGETS, truths, rows, strict=True)
    }


def evaluated(histogram: JointHistogram, seed: int) -> tuple[Value, np.ndarray]:
    """The pooled ECE as the package reports it, and percentile limits from the same replicates."""
    evaluator = Evaluator(Statistics(histogram), Settings(metrics=("ece",), n_boot=1000, seed=seed))
    value = next(value for value in evaluator.values() if value.average == "pixels")
    binned = histogram.reliability("top-label").binned(15).total(evaluator.unit_weights)
    replicates = np.abs(binned.residual).sum(-1) / binned.count.sum(-1)
    return value, np.quantile(replicates, [0.025, 0.975])


def coverage(low: np.ndarray, high: np.ndarray, truth: float) -> float:
    return float(np.mean((low <= truth) & (truth <= high)))


@pytest.mark.parametrize("target", TARGETS)
def test_interval_covers_the_truth(simulated, target):
    """Nominal 95 %; measured 96, 96, 94 and 96.5 %, with a Monte Carlo error of 1.5."""
    found = simulated[target]
    assert found.truth == pytest.approx(target, abs=1e-4)
    assert coverage(found.low, found.high, found.truth) >= 0.90


@pytest.mark.parametrize(("target", "most"), [(0.0, 0.05), (0.002, 0.80)])
def test_percentile_bootstrap_does_not(simulated, target, most):
    """Measured 0 and 69 %: noise only ever adds to ECE, so replicates lie above a small truth."""
    found = simulated[target]
    assert coverage(found.percentile_low, found.percentile_high, found.truth) <= most
    assert np.mean(found.percentile_low > found.truth) > np.mean(found.percentile_high < found.truth)


@pytest.mark.parametrize("target", TARGETS)
def test_median_unbiased_value_is_above_the_truth_half_the_time(simulated, target):
    """Measured 57.5, 44.5, 49 and 50 %, with a Monte Carlo error of 3.5; at 0 the value itself is often 0."""
    found = simulated[target]
    assert 0.35 <= np.mean(found.median_unbiased > found.truth) <= 0.65


def test_perfect_calibration_is_rarely_rejected(simulated):
    """Nominal 5 %; measured 6 %."""
    assert np.mean(simulated[0.0].p_calibrated <= 0.05) <= 0.08


@pytest.mark.parametrize("target", [0.01, 0.05])
def test_miscalibration_is_found(simulated, target):
    assert np.mean(simulated[target].p_calibrated <= 0.05) >= 0.95
