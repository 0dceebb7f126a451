"""19 classes with known truth: a calibrated field is called calibrated, a sharpened one has the error of the formula.

`benchmarks/coverage_classes.py` measures the same for more metrics, with more seeds.
"""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from calbench.evaluate import Evaluator, Settings, Value
from calbench.io.sample import Sample
from calbench.measure import measure_sample
from calbench.metrics import METRICS
from calbench.metrics.calibration_error import expected_calibration_error
from calbench.statistics import ReliabilityCells, Statistics
from calbench.synthetic_classes import (
    ClassScene,
    class_samples,
    expected_reliability,
    expected_score_sums,
    sharpness_for_class_ece,
    top_label_rows,
)

pytestmark = pytest.mark.slow

TARGETS = (0.0, 0.01, 0.05)
SEEDS = 150
IMAGES = 60
SCENE = ClassScene(height=16, width=24)


@pytest.fixture(scope="module")
def simulated() -> dict[float, list[Value]]:
    """The pooled ECE of every seed, at each true ECE."""
    sharpnesses = [sharpness_for_class_ece(target, scene=SCENE) for target in TARGETS]
    found: dict[float, list[Value]] = {target: [] for target in TARGETS}
    with threadpool_limits(1):
        for seed in range(SEEDS):
            drawn = top_label_rows(IMAGES, sharpnesses, seed=seed, scene=SCENE)
            for target, cells in zip(TARGETS, drawn, strict=True):
                found[target].append(pooled_ece(cells, seed))
    return found


def pooled_ece(cells: ReliabilityCells, seed: int) -> Value:
    evaluator = Evaluator(Statistics(top_label=cells), Settings(metrics=("ece",), n_boot=1000, seed=seed))
    return evaluator.pooled_value(METRICS["ece"])


def test_calibrated_field_is_called_calibrated(simulated):
    """Nominal 95 %; Monte Carlo error 1.8."""
    found = simulated[0.0]
    assert np.mean([value.p_calibrated > 0.05 for value in found]) >= 0.90
    assert np.mean([value.low == 0 for value in found]) >= 0.90


@pytest.mark.parametrize("target", TARGETS)
def test_interval_covers_the_truth_of_the_formula(simulated, target):
    covered = [value.low <= target <= value.high for value in simulated[target]]
    assert np.mean(covered) >= 0.90


def test_miscalibration_is_found(simulated):
    assert np.mean([value.p_calibrated <= 0.05 for value in simulated[0.05]]) >= 0.95


def test_sharpened_field_has_the_error_that_the_formula_gives():
    """Through the kernel, on 400 images: within four standard errors of the images' mean."""
    scene = ClassScene(height=32, width=48)
    drawn = class_samples(400, 2.5, seed=3, scene=scene)
    rows = Statistics.concat(measure_sample(Sample(name, z, y, kind="logits")) for name, z, y in drawn)
    evaluator = Evaluator(rows, Settings(metrics=("ece", "nll", "brier"), n_boot=200))
    truth = {
        "ece": float(expected_calibration_error(expected_reliability(2.5, scene=scene))),
        **{name: float(METRICS[name].function(expected_score_sums(2.5, scene=scene))) for name in ("nll", "brier")},
    }
    for value in evaluator.values():
        if value.average == "pixels":
            spread = (value.high - value.low) / (2 * 1.96)
            assert value.value == pytest.approx(truth[value.metric], abs=4 * spread), value.metric
            assert spread < truth[value.metric] / 20
