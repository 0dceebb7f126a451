"""How often 95 % intervals cover the truth, measured on synthetic maps.

    python benchmarks/coverage.py --seeds 200 --images 100

Every seed is a data set of its own, drawn from one population (`calbench.synthetic`, 32 x 48 pixels). The truth of a
pooled metric follows from the population by integration, that of a mean over images from `--truth-images` further images.
One table a true ECE (0 stands for what rounding to 8 bits leaves), one line a metric:

    truth     true value
    mean      mean of the estimates: its distance from the truth is the bias
    cover     share of the intervals that hold the truth, %; the Monte Carlo error at 95 % of 200 seeds is 1.5
    < and >   share of the intervals that lie below and above it, %
    perc      cover of the plain percentile bootstrap from the same replicates, for comparison
    width     median width of the interval
    med       share of the median-unbiased values that lie above the truth plus half of those that meet it, %
    p<.05     share of the seeds with a p-value of perfect calibration up to 0.05, %
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np
from joblib import Parallel, delayed

from calbench.evaluate import Evaluator, Settings
from calbench.metrics import METRICS
from calbench.statistics import JointHistogram, Statistics
from calbench.synthetic import SyntheticScene, expected_histogram, histograms, sharpness_for_ece

TARGETS = (0.0, 0.002, 0.01, 0.05)
METRIC_NAMES = (
    "ece", "ece_fg", "aece", "rmsce", "ks", "smece", "over", "oe", "brier_reliability", "brier_resolution",
    "corp_discrimination", "nll", "brier", "auroc",
)  # fmt: skip
BY_IMAGE = ("ece",)
SCENE = SyntheticScene(height=32, width=48)
TRUTH_SEED = 2**32
"""Far from the seeds of the data sets."""

HEADER = (
    f"{'metric':22}{'truth':>10}{'mean':>10}{'cover':>7}{'<':>6}{'>':>6}{'perc':>7}{'width':>10}{'med':>6}{'p<.05':>7}"
)

Row = tuple[str, float, float, float, float, float, float, float]
"""Metric, value, limits, median-unbiased value, p-value, and limits of the plain percentile bootstrap."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, default=200, help="data sets")
    parser.add_argument("--images", type=int, default=100, help="images a data set")
    parser.add_argument("--boot", type=int, default=1000, help="bootstrap replicates")
    parser.add_argument("--truth-images", type=int, default=5000, help="images behind the truth of means over images")
    parser.add_argument("--metrics", nargs="+", default=METRIC_NAMES, choices=list(METRICS), metavar="NAME")
    parser.add_argument("--jobs", type=int, default=-1, help="processes; -1 for all cores")
    given = parser.parse_args()
    started = time.perf_counter()
    sharpnesses = [sharpness_for_ece(target, scene=SCENE) for target in TARGETS]
    truths = [true_values(sharpness, given.metrics) for sharpness in sharpnesses]
    for truth, means in zip(truths, image_truths(sharpnesses, given.truth_images), strict=True):
        truth.update(means)
    runs = Parallel(n_jobs=given.jobs)(
        delayed(one_data_set)(seed, given.images, given.boot, sharpnesses, tuple(given.metrics))
        for seed in range(given.seeds)
    )
    print(f"{given.seeds} data sets of {given.images} images, {given.boot} replicates, nominal 95 %\n")
    for number, (target, sharpness, truth) in enumerate(zip(TARGETS, sharpnesses, truths, strict=True)):
        print(f"true ECE {target} (sharpness {sharpness:.4f})")
        print(HEADER)
        for index, (name, *_) in enumerate(runs[0][number]):
            table = np.array([run[number][index][1:] for run in runs], np.float64)
            print(f"{name:22}" + summary(truth[name], table))
        print()
    print(f"{time.perf_counter() - started:.0f} s")


def summary(truth: float, table: np.ndarray) -> str:
    """One line: what the columns of the module's docstring say, from `(seeds, 7)` numbers."""
    value, low, high, median, p_value, percentile_low, percentile_high = table.T
    cover = 100 * np.mean((low <= truth) & (truth <= high))
    percentile = 100 * np.mean((percentile_low <= truth) & (truth <= percentile_high))
    below, above = 100 * np.mean(high < truth), 100 * np.mean(low > truth)
    line = f"{truth:10.3g}{value.mean():10.3g}{cover:7.1f}{below:6.1f}{above:6.1f}{percentile:7.1f}"
    line += f"{np.median(high - low):10.3g}"
    if np.isfinite(median).all():
        high_share = np.mean(median > truth) + np.mean(median == truth) / 2
        line += f"{100 * high_share:6.1f}{100 * np.mean(p_value <= 0.05):7.1f}"
    return line


def one_data_set(
    seed: int, n_images: int, n_boot: int, sharpnesses: Sequence[float], names: tuple[str, ...]
) -> list[list[Row]]:
    """The intervals of each metric for each sharpness on the images of one seed."""
    settings = Settings(metrics=names, n_boot=n_boot, seed=seed)
    return [intervals(rows, settings) for rows in histograms(n_images, sharpnesses, seed=seed, scene=SCENE)]


def intervals(rows: JointHistogram, settings: Settings) -> list[Row]:
    """What `calbench evaluate` prints, and next to it plain percentile limits."""
    evaluator = Evaluator(Statistics(rows), settings)
    replicates = evaluator.units.total(evaluator.unit_weights)
    found = []
    for value in evaluator.values():
        metric = METRICS[value.metric]
        options = settings.options_of(metric)
        if value.average == "pixels":
            name = value.metric
            drawn = metric.function(metric.reads(replicates), **options)
        elif value.metric in BY_IMAGE:
            name = f"{value.metric} by image"
            drawn = evaluator.unit_weights @ evaluator.per_image()[value.metric] / len(rows)
        else:
            continue
        limits = np.quantile(drawn, [0.025, 0.975])
        found.append((name, value.value, value.low, value.high, value.median_unbiased, value.p_calibrated, *limits))
    return found


def true_values(sharpness: float, names: Sequence[str]) -> dict[str, float]:
    """The pooled metrics of the population, by integration."""
    settings = Settings(metrics=tuple(names), n_boot=0)
    population = Statistics(expected_histogram(sharpness, scene=SCENE))
    return {
        metric.name: float(metric.function(metric.reads(population), **settings.options_of(metric)))
        for metric in settings.chosen
        if metric.average == "pixels" and metric.rows == "pooled"
    }


def image_truths(sharpnesses: Sequence[float], n_images: int) -> list[dict[str, float]]:
    """Means over images of the population, from a large sample."""
    settings = Settings(metrics=BY_IMAGE, n_boot=0)
    drawn = histograms(n_images, sharpnesses, seed=TRUTH_SEED, scene=SCENE)
    columns = [Evaluator(Statistics(rows), settings).per_image() for rows in drawn]
    return [{f"{name} by image": float(values.mean()) for name, values in column.items()} for column in columns]


if __name__ == "__main__":
    main()
