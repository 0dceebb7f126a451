"""The benchmark of intervals: its contenders are what it says, and its tables hold the numbers where they belong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from calbench.differences import paired_difference
from calbench.evaluate import Evaluator, Settings
from calbench.metrics import METRICS
from calbench.statistics import Statistics
from calbench.synthetic import histograms


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
        import interval_methods

        patch.setattr(interval_methods, "SIZES", (20, 40))
        yield interval_methods


def evaluators(bench: ModuleType, *, n_images: int = 20) -> tuple[Evaluator, Evaluator]:
    settings = Settings(metrics=bench.METRIC_NAMES, n_boot=200, seed=3)
    drawn = histograms(n_images, [1.0, 2.0], seed=3, scene=bench.SCENE)
    before, after = (Evaluator(Statistics(rows), settings) for rows in drawn)
    return before, after


def test_single_limits_are_calbenchs_and_those_of_three_bootstraps(bench: ModuleType) -> None:
    method, _ = evaluators(bench)
    limits = bench.single_limits(method, np.random.default_rng(0))
    for metric, (calbench, percentile, basic, pixels) in zip(method.metrics, limits, strict=True):
        value = method.pooled_value(metric)
        drawn = np.sort(method.replicated(metric))
        assert calbench.tolist() == [value.low, value.high]
        # of 200 sorted replicates the 2.5 % quantile lies between the fifth and the sixth
        assert drawn[4] <= percentile[0] <= drawn[5]
        assert drawn[-6] <= percentile[1] <= drawn[-5]
        np.testing.assert_allclose(basic + percentile[::-1], 2 * value.value)
        assert np.ptp(pixels) < 0.7 * np.ptp(percentile)


def test_the_percentile_bootstrap_lies_above_the_error_that_it_was_drawn_from(bench: ModuleType) -> None:
    method, _ = evaluators(bench)
    ece = bench.METRIC_NAMES.index("ece")
    (low, high), percentile, *_ = bench.single_limits(method, np.random.default_rng(0))[ece]
    truth = bench.true_values(1.0, ["ece"])["ece"]
    assert low <= truth <= high
    assert percentile[0] > truth


def test_paired_limits_are_those_of_compare(bench: ModuleType) -> None:
    before, after = evaluators(bench)
    limits, p_values = bench.paired_limits(before, after)
    for j, metric in enumerate(before.metrics):
        found = paired_difference(before, after, metric)
        assert limits[j, 0].tolist() == [found.low, found.high]
        assert p_values[j] == found.p_value
        drawn = after.replicated(metric) - before.replicated(metric)
        np.testing.assert_allclose(limits[j, 1], np.quantile(drawn, [0.025, 0.975]))


def test_resampled_pixels_are_a_draw_from_the_pooled_counts(bench: ModuleType) -> None:
    pooled = evaluators(bench)[0].pooled
    counts = pooled.exact_histogram.counts  # type: ignore[union-attr]
    drawn = bench.resampled_pixels(pooled, 500, np.random.default_rng(0)).exact_histogram.counts
    assert drawn.shape == (500, 2, 256)
    assert (drawn.sum((1, 2)) == counts.sum()).all()
    assert not drawn[:, counts == 0].any()
    share = counts / counts.sum()
    largest = np.unravel_index(counts.argmax(), counts.shape)
    spread = np.sqrt(counts.sum() * share * (1 - share))[largest]
    assert abs(drawn[:, *largest].mean() - counts[largest]) < 5 * spread / np.sqrt(500)
    assert drawn[:, *largest].std() == pytest.approx(spread, rel=0.15)


def test_the_under_confident_method_has_the_error_it_should_have_on_the_other_side(bench: ModuleType) -> None:
    sharpness = bench.under_confident(0.01)
    values = bench.true_values(sharpness, ["ece", "over", "under"])
    assert values["ece"] == pytest.approx(0.01, abs=1e-9)
    assert values["under"] > 0.9 * values["ece"] > values["over"]


def test_a_set_of_images_begins_with_the_smaller_set(bench: ModuleType) -> None:
    sharpnesses = [1.0, 1.02, 1.13, 2.2, 0.9]
    found = bench.one_set(3, 200, sharpnesses)
    assert found.single.shape == (2, 4, 2, 4, 2)
    assert found.paired.shape == (2, 3, 2, 3, 2)
    assert found.p_value.shape == (2, 3, 2)
    settings = Settings(metrics=bench.METRIC_NAMES, n_boot=200, seed=bench.BOOT_SEED + 3)
    for i, n in enumerate((20, 40)):
        rows = histograms(n, sharpnesses[3:4], seed=3, scene=bench.SCENE)[0]
        value = Evaluator(Statistics(rows), settings).pooled_value(METRICS["nll"])
        assert found.single[i, 3, bench.METRIC_NAMES.index("nll"), 0].tolist() == [value.low, value.high]


def test_coverage_and_width_of_known_limits(bench: ModuleType) -> None:
    limits = np.zeros((4, 2, 1, 1, 1, 2))  # seeds, sizes, rows, metrics, contenders, ends
    limits[:, 0, ..., 1] = np.array([0.1, 0.2, 0.3, 0.4])[:, None, None, None]
    limits[:, 1, ..., 0], limits[:, 1, ..., 1] = 0.25, 0.5
    assert bench.coverage(limits, np.array([[0.25]])).ravel().tolist() == [50, 100]
    np.testing.assert_allclose(bench.mean_width(limits).ravel(), [250, 250])


def test_a_table_holds_each_number_in_its_place(bench: ModuleType) -> None:
    size, row, metric, column = np.meshgrid([1, 2], [1, 2], [1, 2, 3], [1, 2], indexing="ij")
    numbers = 1000 * metric + 100 * row + 10 * column + size
    labels = [[f"m{j}", f"r{i}"] for j in (1, 2, 3) for i in (1, 2)]
    lines = list(bench.table("Title", ["metric", "row", "c1", "c2"], labels, numbers, ".0f"))
    assert lines[1] == "**Title**"
    assert lines[3:5] == ["| metric | row | c1 | c2 |", "|---|---|---|---|"]
    assert lines[5] == "| m1 | r1 | 1111 / 1112 | 1121 / 1122 |"
    assert lines[8] == "| m2 | r2 | 2211 / 2212 | 2221 / 2222 |"
    assert len(lines) == 5 + 6
