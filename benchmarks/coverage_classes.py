"""How often 95 % intervals cover the truth, measured on synthetic fields of 19 classes.

    python benchmarks/coverage_classes.py --seeds 200 --images 60

Every seed is a data set of its own, drawn from one population (`calbench.synthetic_classes`, 16 x 24 pixels) and measured
by the kernel that folders of logits go through. Truths follow from the population by integration. One table a true
top-label ECE, one line a metric; the columns are those of `benchmarks/coverage.py`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np
from coverage import HEADER, TARGETS, Row, summary
from joblib import Parallel, delayed

from calbench.evaluate import Evaluator, Settings
from calbench.io.sample import Sample
from calbench.measure import measure_sample
from calbench.metrics import METRICS
from calbench.statistics import Statistics
from calbench.synthetic_classes import (
    ClassScene,
    class_samples,
    expected_classwise,
    expected_reliability,
    expected_score_sums,
    sharpness_for_class_ece,
)

METRIC_NAMES = (
    "ece",
    "aece",
    "rmsce",
    "ks",
    "smece",
    "over",
    "gap",
    "ece_classwise",
    "tace",
    "nll",
    "brier",
    "entropy",
)
SCENE = ClassScene(height=16, width=24)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, default=200, help="data sets")
    parser.add_argument("--images", type=int, default=60, help="images a data set")
    parser.add_argument("--boot", type=int, default=1000, help="bootstrap replicates")
    parser.add_argument("--jobs", type=int, default=-1, help="processes; -1 for all cores")
    given = parser.parse_args()
    started = time.perf_counter()
    sharpnesses = [sharpness_for_class_ece(target, scene=SCENE) for target in TARGETS]
    runs = Parallel(n_jobs=given.jobs)(
        delayed(one_data_set)(seed, given.images, given.boot, sharpnesses) for seed in range(given.seeds)
    )
    print(f"{given.seeds} data sets of {given.images} images, {given.boot} replicates, nominal 95 %\n")
    for number, (target, sharpness) in enumerate(zip(TARGETS, sharpnesses, strict=True)):
        truth = true_values(sharpness)
        print(f"true ECE {target} (sharpness {sharpness:.4f})")
        print(HEADER)
        for index, (name, *_) in enumerate(runs[0][number]):
            print(f"{name:22}" + summary(truth[name], np.array([run[number][index][1:] for run in runs], np.float64)))
        print()
    print(f"{time.perf_counter() - started:.0f} s")


def one_data_set(seed: int, n_images: int, n_boot: int, sharpnesses: Sequence[float]) -> list[list[Row]]:
    """The intervals of each metric for each sharpness on the images of one seed."""
    settings = Settings(metrics=METRIC_NAMES, n_boot=n_boot, seed=seed)
    return [intervals(measured(n_images, sharpness, seed), settings) for sharpness in sharpnesses]


def measured(n_images: int, sharpness: float, seed: int) -> Statistics:
    """The rows of one data set."""
    drawn = class_samples(n_images, sharpness, seed=seed, scene=SCENE)
    return Statistics.concat(measure_sample(Sample(name, z, y, kind="logits")) for name, z, y in drawn)


def intervals(rows: Statistics, settings: Settings) -> list[Row]:
    """What `calbench evaluate` prints of the pooled errors, and next to it plain percentile limits."""
    evaluator = Evaluator(rows, settings)
    found = []
    for metric in settings.chosen:
        value = evaluator.pooled_value(metric)
        drawn = metric.function(metric.reads(rows).total(evaluator.unit_weights), **settings.options_of(metric))
        limits = np.quantile(drawn, [0.025, 0.975])
        found.append(
            (value.metric, value.value, value.low, value.high, value.median_unbiased, value.p_calibrated, *limits)
        )
    return found


def true_values(sharpness: float) -> dict[str, float]:
    """The pooled metrics of the population, by integration."""
    settings = Settings(metrics=METRIC_NAMES, n_boot=0)
    population = Statistics(
        top_label=expected_reliability(sharpness, scene=SCENE),
        classes=expected_classwise(sharpness, scene=SCENE),
        sums=expected_score_sums(sharpness, scene=SCENE),
    )
    return {
        name: float(METRICS[name].function(METRICS[name].reads(population), **settings.options_of(METRICS[name])))
        for name in METRIC_NAMES
    }


if __name__ == "__main__":
    main()
