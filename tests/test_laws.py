"""Laws that every metric of the registry obeys, the one binning rule, and equality with the textbook oracles."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np
import oracles
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from strategies import (
    OPTIONS,
    Image,
    histogram_of,
    images,
    number,
    row,
    scene,
    scenes,
    statistics_of,
    values,
)

from calbench.evaluate import Evaluator, Settings
from calbench.metrics import METRICS
from calbench.statistics import JointHistogram, Run, Statistics
from calbench.statistics.reliability import bin_index, equal_mass, equal_width
from calbench.statistics.storage import load_run, save_run

quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
every_metric = pytest.mark.parametrize("name", METRICS)
with_norm = pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.norm])
per_image_metrics = pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.per_image])
pooled_metrics = pytest.mark.parametrize(
    "name", [name for name, metric in METRICS.items() if metric.average == "pixels" and metric.per_image]
)

ASKED_FOR = (
    "ece", "ece_fg", "aece", "aece_fg", "ece_sweep", "ce2_debiased", "ce2_debiased_cluster", "rmsce_debiased",
    "rmsce_debiased_cluster", "mce", "rmsce", "oe", "over", "under", "gap", "ks", "smece", "brier", "brier_reliability",
    "brier_resolution", "brier_uncertainty", "nll", "entropy", "accuracy", "auroc", "ap", "mae", "mae_raw", "max_f",
    "mean_f", "adp_f", "weighted_f", "max_e", "mean_e", "adp_e", "s_measure", "max_iou", "mean_iou", "adp_iou",
    "max_dice", "mean_dice", "adp_dice",
)  # fmt: skip

NOISE_SUBTRACTED = {
    "ce2_debiased",
    "ce2_debiased_cluster",
    "rmsce_debiased",
    "rmsce_debiased_cluster",
    "aslp_debias",
    "aslp_debias_oe",
}
"""Estimates that subtract sampling noise: signed, and twice the data is less noise."""

SOFTENED = {"aslp_ece", "aslp_oe"}
"""Cell means are divided by n + 1e-6."""


@pytest.fixture(scope="module")
def six() -> Statistics:
    return statistics_of(scenes(6, void=True))


@pytest.fixture(scope="module")
def forty() -> Statistics:
    return statistics_of(scenes(40, first=100))


def options_of(metric):
    return {name: OPTIONS[name] for name in metric.options}


def same(a: Statistics, b: Statistics) -> bool:
    """Bit for bit the same rows under the same names."""
    return a.names == b.names and all(
        np.array_equal(getattr(a.parts[part], name), getattr(b.parts[part], name), equal_nan=True)
        and getattr(a.parts[part], name).dtype == getattr(b.parts[part], name).dtype
        for part in a.parts
        for name in a.parts[part].row_fields()
    )


# --- the registry ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ASKED_FOR)
def test_metric_asked_for_exists(name):
    assert METRICS[name].name == name


@every_metric
def test_metric_says_what_it_is(name):
    metric = METRICS[name]
    assert metric.definition
    assert metric.source
    assert metric.function.__doc__, f"{name}: the function has no docstring"


# --- merging, order, leading axes -----------------------------------------------------------------------------------


@quick
@given(st.lists(images(), min_size=2, max_size=5), st.data())
def test_split_anywhere_and_concat_is_the_whole(pictures, data):
    whole = statistics_of(pictures)
    cut = data.draw(st.integers(1, len(pictures) - 1))
    order = data.draw(st.permutations(range(len(pictures))))
    parts = [whole.select(order[:cut]), whole.select(order[cut:])]
    assert same(Statistics.concat(parts), whole)
    assert np.array_equal(sum(part.total().histogram.counts for part in parts), whole.total().histogram.counts)


@every_metric
def test_order_of_images_is_irrelevant(name, six):
    """Other names, hence other rows: counts pool to the same bits; sums of floats differ in the last bits only."""
    turned = statistics_of(scenes(6, void=True)[::-1])
    for average, value in values(six, name).items():
        other = values(turned, name)[average].value
        exact = average == "pixels" and not METRICS[name].needs_images
        assert other == (value.value if exact else pytest.approx(value.value, rel=1e-12, abs=1e-15))


@per_image_metrics
def test_stack_of_images_gives_each_image_its_own_value(name, six):
    metric, options = METRICS[name], options_of(METRICS[name])
    stacked = metric.function(metric.reads(six), **options)
    for i in range(len(six.names)):
        alone = metric.function(metric.reads(six.select([i])), **options)[0]
        np.testing.assert_allclose(stacked[i], alone, rtol=1e-12, atol=1e-15)
        if metric.average == "pixels":
            pooled = metric.function(metric.reads(six.select([i]).total()), **options)
            np.testing.assert_allclose(stacked[i], pooled, rtol=1e-12, atol=1e-15)


@pooled_metrics
def test_any_leading_axes(name, six):
    """`(replicates, images, ...)` gives the values of each, in its place."""
    metric, options = METRICS[name], options_of(METRICS[name])

    def folded(rows):
        arrays = {f: getattr(rows, f).reshape(2, 3, *getattr(rows, f).shape[1:]) for f in rows.row_fields()}
        return dataclasses.replace(rows, names=(), **arrays)

    folded_six = Statistics(folded(six.histogram), aslp=folded(six.aslp))
    flat, grid = (metric.function(metric.reads(statistics), **options) for statistics in (six, folded_six))
    np.testing.assert_allclose(grid, flat.reshape(2, 3), rtol=1e-12, atol=1e-15)


@every_metric
def test_all_images_twice_is_the_same_value(name, six):
    """Except where sampling noise is subtracted: twice the pixels are taken for twice the evidence.

    The ASLP scripts divide cell means by n + 1e-6, so that doubling n moves their errors by about 1e-6 / n.
    """
    twice = statistics_of(scenes(6, void=True) * 2)
    once, doubled = number(six, name), number(twice, name)
    if name in NOISE_SUBTRACTED:
        assert once != doubled
    else:
        assert doubled == pytest.approx(once, rel=1e-7 if name in SOFTENED else 1e-12, abs=1e-15)


@every_metric
def test_saved_and_loaded_statistics_give_the_same_bits(name, tmp_path_factory, six):
    path = saved_once(tmp_path_factory, six)
    run = load_run(path)
    loaded = run.combinations["DUTS-TE", "méthode"]
    assert same(loaded, six)
    assert number(loaded, name) == number(six, name)


def saved_once(tmp_path_factory, statistics: Statistics):
    path = tmp_path_factory.getbasetemp() / "laws-stats.npz"
    if not path.exists():
        save_run(Run({("DUTS-TE", "méthode"): statistics}, {"bins": 15}, ("a note",)), path)
    return path


@quick
@given(st.lists(images(), min_size=1, max_size=3))
def test_any_statistics_survive_the_file(tmp_path_factory, pictures):
    path = tmp_path_factory.getbasetemp() / "any-stats.npz"
    names = ["ünïcode/ß", "b.b", "空"][: len(pictures)]
    statistics = statistics_of(pictures, names)
    save_run(Run({("d", "m"): statistics}), path)
    assert same(load_run(path).combinations["d", "m"], statistics)


# --- what counts ----------------------------------------------------------------------------------------------------


@every_metric
def test_values_under_void_change_no_number(name, six):
    """Predictions and mask bytes under void are free, also for the metrics that look at positions."""
    generator = np.random.default_rng(5)

    def scribbled(image: Image) -> Image:
        noise = generator.integers(0, 256, (2, *image.levels.shape), dtype=np.uint8)
        return Image(*(np.where(image.valid, a, b) for a, b in zip(image[:2], noise, strict=True)), image.valid)

    other = statistics_of([scribbled(image) for image in scenes(6, void=True)])
    for average, value in values(six, name).items():
        assert values(other, name)[average].value == value.value


@quick
@given(images(), st.integers(0, 2**32 - 1))
def test_values_under_void_change_no_row(image, seed):
    assume(image.valid is not None)
    levels, mask = np.random.default_rng(seed).integers(0, 256, (2, *image.levels.shape), dtype=np.uint8)
    other = Image(np.where(image.valid, image.levels, levels), np.where(image.valid, image.mask, mask), image.valid)
    assert same(row("a", image), row("a", other))


@every_metric
def test_image_without_valid_pixels_is_undefined_and_counted(name, six):
    empty = scene(1)._replace(valid=np.zeros((37, 53), bool))
    with_empty = Statistics.concat([six, row("zzz", empty)])
    for average, value in values(with_empty, name).items():
        assert value.n_undefined == 1
        assert value.value == pytest.approx(values(six, name)[average].value, rel=1e-12, abs=1e-15)
    column = Evaluator(with_empty, Settings(metrics=(name,), options=OPTIONS)).per_image().get(name)
    if METRICS[name].per_image:
        assert np.isnan(column[-1])
        assert np.isfinite(column[:-1]).all()


@every_metric
def test_nothing_but_void_is_undefined(name):
    empty = statistics_of([scene(seed)._replace(valid=np.zeros((37, 53), bool)) for seed in range(2)])
    for value in values(empty, name, n_boot=40).values():
        assert np.isnan(value.value)
        assert value.n_undefined == 2


@pytest.mark.parametrize("event", ["top-label", "foreground"])
def test_counts_add_up_for_every_number_of_bins(event, six):
    pooled = six.total().histogram
    valid = sum(np.count_nonzero(image.valid) for image in scenes(6, void=True))
    cells = pooled.reliability(event)
    assert pooled.counts.sum() == cells.count.sum() == valid
    for bins in range(1, 1001):
        assert cells.binned(bins).count.sum() == valid
        assert len(cells.binned(bins).count) == bins
    for bins in range(1, 60):
        np.testing.assert_allclose(cells.equal_mass(bins).count, valid / bins, rtol=1e-12)
        assert cells.equal_mass(bins, "whole").count.sum() == valid


@every_metric
def test_perfect_prediction_is_best(name, forty):
    """The mask itself as prediction scores no worse than any map, by `better`."""
    metric = METRICS[name]
    perfect = number(statistics_of([image._replace(levels=image.mask) for image in scenes(40, first=100)]), name)
    real = number(forty, name)
    inverted = number(statistics_of([image._replace(levels=255 - image.mask) for image in scenes(40, first=100)]), name)
    if name in NOISE_SUBTRACTED or metric.better == "zero":
        assert perfect == pytest.approx(0, abs=1e-8)
    elif metric.better == "lower":
        assert perfect <= min(real, inverted)
        assert perfect == pytest.approx(-np.log(509 / 510) if name == "nll" else 0, abs=1e-8)
    elif metric.better == "higher":
        assert perfect >= max(real, inverted)
        assert perfect > real
    else:
        assert metric.better == "none"


# --- one binning rule -----------------------------------------------------------------------------------------------


def test_bin_index_is_right_for_every_level_and_number_of_bins():
    """Against ⌈k · B / 255⌉ − 1 in integers, for p and for max(p, 1 − p) as float64 writes them."""
    k = np.arange(256)
    p = k / 255
    for bins in range(1, 1001):
        assert np.array_equal(bin_index(p, bins), oracles.right_closed_bin(k, bins))
        assert np.array_equal(
            bin_index(np.maximum(p, 1 - p), bins), oracles.right_closed_bin(np.maximum(k, 255 - k), bins)
        )


def test_integer_rule_is_the_definition():
    """The oracle's integers against exact fractions: the bin's left edge < score <= its right edge, 0 in the first."""
    for bins in (1, 2, 7, 10, 15, 49, 50, 51, 85, 100, 255, 999):
        for k in range(256):
            b, score = int(oracles.right_closed_bin(k, bins)), Fraction(k, 255)
            assert Fraction(b, bins) < score <= Fraction(b + 1, bins) or (k == 0 and b == 0)


def test_confidence_and_its_mirror_share_a_cell():
    """Levels k and 255 − k are one confidence, although 1 − k / 255 is another float."""
    counts = np.ones((1, 2, 256), np.int64)
    cells = JointHistogram(("a",), counts).reliability("top-label")
    assert np.allclose(cells.score * 255, np.arange(128, 256), rtol=0, atol=1e-10)
    assert (cells.count == 4).all()


# --- decompositions and norms ---------------------------------------------------------------------------------------


@quick
@given(images())
def test_sums_that_must_hold(image):
    statistics = row("a", image)
    got = {name: number(statistics, name) for name in ASKED_FOR if METRICS[name].average == "pixels"}
    got |= {name: number(statistics, name) for name in ("corp_miscalibration", "corp_discrimination")}
    if not image.pixels[0].size:
        assert all(np.isnan(value) for value in got.values())
        return
    uncertainty = got["brier_uncertainty"]
    assert got["over"] + got["under"] == pytest.approx(got["ece"], abs=1e-12)
    assert got["over"] - got["under"] == pytest.approx(got["gap"], abs=1e-12)
    assert got["brier_reliability"] - got["brier_resolution"] + uncertainty == pytest.approx(got["brier"], abs=1e-12)
    assert got["corp_miscalibration"] - got["corp_discrimination"] + uncertainty == pytest.approx(
        got["brier"], abs=1e-12
    )
    assert abs(got["gap"]) <= got["ece"] + 1e-12
    assert got["ece"] <= got["rmsce"] + 1e-12 <= got["mce"] + 2e-12
    assert got["corp_miscalibration"] >= -1e-12
    assert got["corp_discrimination"] >= -1e-12


@with_norm
def test_norm_is_the_metric(name, forty):
    """(gauge of pooled residuals times weights per pixel) to its power equals the metric's own function.

    Where noise is subtracted the norm is that of the plug-in error, RMSCE or its square. The ASLP scripts divide cell
    means by n + 1e-6, which the norm leaves out: at most 1e-6 / n of a cell.
    """
    metric, options = METRICS[name], options_of(METRICS[name])
    pooled = metric.reads(forty.total())
    norm = metric.norm(pooled, **options)
    gauge = float(norm.gauge(pooled.residual @ norm.weights / pooled.count.sum())) ** norm.power
    plug_in = number(forty, "rmsce")
    expected = {
        "ce2_debiased": plug_in**2,
        "ce2_debiased_cluster": plug_in**2,
        "rmsce_debiased": plug_in,
        "rmsce_debiased_cluster": plug_in,
    }.get(name, number(forty, name))
    assert gauge == pytest.approx(expected, rel=1e-7 if name in SOFTENED else 1e-12)


@with_norm
@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_gauge_scales_and_is_convex(name, factor, six):
    metric, options = METRICS[name], options_of(METRICS[name])
    norm = metric.norm(metric.reads(six.total()), **options)
    a, b = np.random.default_rng(0).normal(size=(2, 50, norm.weights.shape[1]))
    np.testing.assert_allclose(norm.gauge(factor * a), factor * norm.gauge(a))
    assert (norm.gauge((a + b) / 2) <= (norm.gauge(a) + norm.gauge(b)) / 2 + 1e-12).all()
    np.testing.assert_allclose(norm.gauge(norm.direction(a)), norm.gauge(a))


# --- big counts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2**24 + 1, 2**32 + 1, 2**40 + 1])
def test_big_counts_stay_exact(n, tmp_path):
    """One wrong pixel among n in a bin, in three images: float32 counters would stop at 2^24, int32 at 2^31."""
    counts = np.zeros((3, 2, 256), np.int64)
    counts[:, 1, 255] = n - 1
    counts[:, 0, 255] = 1
    statistics = Statistics(JointHistogram(("a", "b", "c"), counts))
    pooled = statistics.total()
    cells = pooled.histogram.reliability("top-label")
    assert int(cells.count[-1]) == 3 * n
    assert int(cells.correct[-1]) == 3 * n - 3
    assert cells.binned(15).count[-1] == 3 * n
    for name in ("ece", "ece_fg", "aece", "mce", "over", "gap", "ks", "rmsce", "brier", "mae_raw"):
        assert number(statistics, name) == pytest.approx(float(Fraction(1, n)), rel=1e-12), name
    assert number(statistics, "accuracy") == float(1 - Fraction(1, n))
    weights = np.array([[2, 0, 1]], np.uint16)
    assert statistics.total(weights).histogram.counts[0, 1, 255] == 3 * (n - 1)
    save_run(Run({("d", "m"): statistics}), tmp_path / "big.npz")
    assert same(load_run(tmp_path / "big.npz").combinations["d", "m"], statistics)


# --- oracles --------------------------------------------------------------------------------------------------------

BINNED = ["ece", "over", "under", "oe", "mce", "rmsce", "ce2_debiased"]


@quick
@given(images(), st.integers(1, 40))
def test_binned_errors_equal_the_oracles(image, bins):
    q, y = image.pixels
    assume(q.size)
    statistics = row("a", image)
    for name in BINNED:
        expected = getattr(oracles, name)(*oracles.top_label(q, y), bins)
        assert number(statistics, name, bins=bins) == pytest.approx(expected, abs=1e-10), name
    squared = oracles.ce2_debiased(*oracles.top_label(q, y), bins)
    assert number(statistics, "rmsce_debiased", bins=bins) ** 2 == pytest.approx(max(squared, 0), abs=1e-10)
    assert number(statistics, "ece_fg", bins=bins) == pytest.approx(
        oracles.ece(*oracles.foreground(q, y), bins), abs=1e-10
    )


@quick
@given(images(), st.integers(1, 40))
def test_equal_mass_errors_equal_the_oracles(image, bins):
    q, y = image.pixels
    assume(q.size)
    statistics = row("a", image)
    for name, event in (("aece", oracles.top_label), ("aece_fg", oracles.foreground)):
        pixels = event(q, y)
        assert number(statistics, name, bins=bins) == pytest.approx(oracles.aece(*pixels, bins), abs=1e-10)
        whole = number(statistics, name, bins=bins, ties="whole")
        assert whole == pytest.approx(oracles.aece_whole(*pixels, bins), abs=1e-10)


@quick
@given(images())
def test_binless_errors_equal_the_oracles(image):
    q, y = image.pixels
    assume(q.size)
    statistics = row("a", image)
    for name in ("ece_sweep", "ks", "gap"):
        assert number(statistics, name) == pytest.approx(getattr(oracles, name)(*oracles.top_label(q, y)), abs=1e-10)


@pytest.mark.parametrize("seed", range(4))
def test_sweep_equals_the_oracle_on_real_looking_maps(seed):
    """Noisy labels of many levels, so that the sweep goes on for several bins and stops before it runs out of levels."""
    generator = np.random.default_rng(seed)
    q = generator.integers(0, 256, 3000).astype(np.uint8)
    y = generator.random(3000) < q / 255
    expected = oracles.ece_sweep(*oracles.top_label(q, y))
    value = values(histogram_of(q, y), "ece_sweep")["pixels"]
    assert value.value == pytest.approx(expected, abs=1e-12)
    assert 2 < value.details["bins_chosen"] < 128


@quick
@given(images())
def test_scores_equal_the_oracles(image):
    q, y = image.pixels
    assume(q.size)
    statistics = row("a", image)
    for name in ("brier", "nll", "entropy", "accuracy", "mae_raw"):
        assert number(statistics, name) == pytest.approx(getattr(oracles, name)(q, y), abs=1e-10), name
    for names, expected in (
        (("brier_reliability", "brier_resolution", "brier_uncertainty"), oracles.brier_decomposition(q, y)),
        (("corp_miscalibration", "corp_discrimination"), oracles.corp(q, y)),
    ):
        assert [number(statistics, name) for name in names] == pytest.approx(expected, abs=1e-10)


@quick
@given(images())
def test_rankings_equal_the_oracles_or_are_undefined(image):
    q, y = image.pixels
    statistics = row("a", image)
    both = y.any() and not y.all()
    assert number(statistics, "auroc") == pytest.approx(oracles.auroc(q, y) if both else np.nan, nan_ok=True)
    expected = oracles.average_precision(q, y) if y.any() else np.nan
    assert number(statistics, "ap") == pytest.approx(expected, nan_ok=True)


@quick
@given(st.lists(images(), min_size=1, max_size=5), st.integers(1, 12))
def test_cluster_debiased_error_equals_its_pairs(pictures, bins):
    pixels = [oracles.top_label(*image.pixels) for image in pictures]
    statistics = statistics_of(pictures)
    expected = oracles.ce2_debiased_cluster(pixels, bins) if sum(len(k) for k, _ in pixels) else np.nan
    assert number(statistics, "ce2_debiased_cluster", bins=bins) == pytest.approx(expected, abs=1e-10, nan_ok=True)
    rooted = number(statistics, "rmsce_debiased_cluster", bins=bins)
    assert rooted == pytest.approx(np.sqrt(np.maximum(expected, 0)), abs=1e-5, nan_ok=True)


@pytest.mark.parametrize("seed", range(4))
def test_smooth_error_equals_a_brute_force_kernel(seed):
    q, y = scene(seed).pixels
    statistics = histogram_of(q, y)
    assert number(statistics, "smece") == pytest.approx(oracles.smece(*oracles.top_label(q, y)), abs=1e-5)


@pytest.mark.parametrize("name", ["ece", "aece", "ks", "rmsce", "oe", "smece", "brier", "nll", "auroc", "ap"])
def test_pooling_images_equals_pooling_their_pixels(name):
    pictures = scenes(5)
    levels, masks = (np.concatenate(parts) for parts in zip(*(image.pixels for image in pictures), strict=True))
    assert number(statistics_of(pictures), name) == pytest.approx(number(histogram_of(levels, masks), name), rel=1e-12)


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from([0.05, 1.0, 8.0]))
def test_rounding_to_8_bits_stays_within_the_stated_bound(seed, bins, spread):
    generator = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-generator.normal(0, spread, generator.integers(1, 400))))
    y = generator.random(len(p)) < generator.choice([p, 1 - p, np.full(len(p), 0.5)])
    statistics = histogram_of(np.rint(p * 255).astype(np.uint8), y)
    bound = number(statistics, "quantisation_bound", bins=bins)
    error = abs(number(statistics, "ece", bins=bins) - oracles.ece_of_probabilities(p, y, bins))
    assert error <= bound + 1e-12


@quick
@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(1, 20))
def test_equal_mass_shares_are_whole_cells_cut_in_order(count, bins):
    """Every occupied cell is used up once, bins hold N / bins each, and no bin holds cells on both sides of another's."""
    count = np.array(count)
    assume(count.sum())
    shares = equal_mass(count, bins)
    np.testing.assert_allclose(shares.sum(1), count > 0, atol=1e-12)
    np.testing.assert_allclose(count @ shares, count.sum() / bins, atol=1e-9)
    used = shares > 1e-9
    last_of_each, first_of_each = len(count) - 1 - used[::-1].argmax(0), used.argmax(0)
    assert (last_of_each[:-1] <= first_of_each[1:]).all()


def test_equal_width_shares_are_the_bin_rule():
    score = np.arange(256) / 255
    assert np.array_equal(equal_width(score, 12).argmax(1), bin_index(score, 12))
    assert (equal_width(score, 12).sum(1) == 1).all()
