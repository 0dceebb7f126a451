"""Intervals resample images; the norm interval holds its promises near 0, and the cluster estimate is unbiased."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import norm as normal
from scipy.stats import t as student
from strategies import KINDS, metrics_of, scenes, statistics_of, values, without_masks

from calbench.errors import InputError
from calbench.intervals import (
    Norm,
    ResampledResiduals,
    norm_interval,
    percentile_interval,
    resampling_weights,
    small_sample_factor,
)
from calbench.metrics import METRICS
from calbench.metrics.calibration_error import (
    root_mean_squared_calibration_error,
    squared_error_debiased,
    squared_error_debiased_cluster,
)
from calbench.statistics import JointHistogram, ReliabilityCells, Statistics

GAUGES = {
    "l1": lambda vector: np.abs(vector).sum(-1),
    "l2": lambda vector: np.sqrt((vector**2).sum(-1)),
    "maximum": lambda vector: np.abs(vector).max(-1),
}
WITH_NORM = [
    (kind, name)
    for kind in KINDS
    for scope in ("id", "ood")
    for name in metrics_of(kind, scope)
    if METRICS[name].norm or METRICS[name].class_norm
]
SLACK = 1e-12


@pytest.fixture(scope="module")
def twelve() -> Statistics:
    return statistics_of(scenes(12, first=40))


# --- weights and the percentile interval ----------------------------------------------------------------------------


@pytest.mark.parametrize(("n_units", "n_boot"), [(1, 3), (7, 50), (300, 20)])
def test_every_replicate_draws_as_many_units_as_there_are(n_units, n_boot):
    weights = resampling_weights(n_units, n_boot, seed=3)
    assert weights.shape == (n_boot, n_units)
    assert (weights.sum(1) == n_units).all()


def test_weights_are_multinomial():
    """Mean 1, variance 1 − 1/n, covariance −1/n: not Poisson, whose totals vary."""
    weights = resampling_weights(4, 40_000, seed=0).astype(float)
    covariance = np.cov(weights.T)
    np.testing.assert_allclose(weights.mean(0), 1, atol=0.03)
    np.testing.assert_allclose(covariance, np.eye(4) - 1 / 4, atol=0.03)


def test_seed_decides_everything(twelve):
    first, again, other = (
        [values(twelve, name, n_boot=200, seed=seed)["pixels"] for name in ("ece", "brier")] for seed in (7, 7, 8)
    )
    assert first == again
    assert all(a.low != b.low and a.high != b.high and a.value == b.value for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(("n", "level"), [(5, 0.95), (20, 0.9), (500, 0.99)])
def test_small_sample_factor(n, level):
    """k = √(n / (n − 1)) · t / z."""
    tail = (1 + level) / 2
    expected = np.sqrt(n / (n - 1)) * student(n - 1).ppf(tail) / normal.ppf(tail)
    assert small_sample_factor(n, level) == pytest.approx(expected, rel=1e-12)
    assert expected > 1


def test_percentile_interval_is_stretched_about_the_value():
    replicates = np.linspace(0, 1, 1001)
    interval = percentile_interval(0.4, replicates, 10, 0.9)
    k = small_sample_factor(10, 0.9)
    assert interval.low == pytest.approx(0.4 + k * (0.05 - 0.4))
    assert interval.high == pytest.approx(0.4 + k * (0.95 - 0.4))


def test_percentile_interval_of_a_mean_is_the_t_interval():
    """For a mean over images it comes close to mean ± t s / √n, which is exact for normal values."""
    sample = np.random.default_rng(0).normal(size=12)
    drawn = resampling_weights(12, 20_000, 1) @ sample / 12
    interval = percentile_interval(sample.mean(), drawn, 12, 0.95)
    half = student(11).ppf(0.975) * sample.std(ddof=1) / np.sqrt(12)
    assert interval.low == pytest.approx(sample.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(sample.mean() + half, abs=0.1 * half)


@pytest.mark.parametrize("name", ["ece", "brier", "mae", "max_f", "rmsce_debiased_cluster", "ks"])
def test_no_interval_below_five_images(name):
    four, five = statistics_of(scenes(4)), statistics_of(scenes(5))
    for value in values(four, name, n_boot=100).values():
        assert np.isfinite(value.value)
        assert np.isnan([value.low, value.high]).all()
    for value in values(five, name, n_boot=100).values():
        assert value.low < value.high


# --- the norm interval ----------------------------------------------------------------------------------------------


@st.composite
def residuals(draw):
    """Residual sums `(units, bins)` and pixel counts of a few images: centred, shifted, heavy-tailed, or with gaps."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    units, bins = draw(st.integers(5, 14)), draw(st.integers(1, 5))
    count = generator.integers(draw(st.sampled_from([0, 30])), 50, units)
    rate = draw(st.sampled_from([0, 0.02, 0.3])) + draw(st.sampled_from([0, 1e-6, 0.02, 0.2])) * generator.standard_t(
        3, (units, bins)
    )
    hit = generator.random((units, bins)) < draw(st.sampled_from([0.5, 1]))
    assume(count.sum())
    return np.clip(rate, -1, 1) * hit * count[:, None], count


@settings(deadline=None, max_examples=150)
@given(residuals(), st.sampled_from(sorted(GAUGES)), st.sampled_from([0.9, 0.95]), st.sampled_from([1, 2]))
def test_norm_interval_encloses_the_plug_in(data, gauge, level, power):
    """0 <= low <= plug-in <= high, the median-unbiased value inside, and a probability."""
    residual, count = data
    norm = Norm(np.eye(residual.shape[1]), GAUGES[gauge], power=power)
    weights = resampling_weights(len(count), 200, 0)
    interval = norm_interval(norm, ResampledResiduals(residual, count, weights), level)
    plug_in = float(norm.gauge(residual.sum(0) / count.sum())) ** power
    assert 0 <= interval.low <= plug_in + SLACK
    assert plug_in <= interval.high + SLACK
    assert interval.low <= interval.median_unbiased <= interval.high + SLACK
    assert 0 <= interval.p_calibrated <= 1


@pytest.mark.parametrize("gauge", GAUGES)
def test_images_that_agree_leave_no_width(gauge):
    """All images alike: resampling changes nothing, and the interval is the plug-in, which it must not leave."""
    residual, count = np.tile([1.0, -2.0, 0.5], (8, 1)), np.full(8, 100)
    interval = norm_interval(
        Norm(np.eye(3), GAUGES[gauge]), ResampledResiduals(residual, count, resampling_weights(8, 200, 0)), 0.95
    )
    plug_in = float(GAUGES[gauge](residual.sum(0) / count.sum()))
    assert interval.low <= plug_in + SLACK
    assert interval.low <= interval.high
    assert interval.low == pytest.approx(plug_in, rel=1e-3)
    assert interval.high == pytest.approx(plug_in, rel=1e-9)
    assert interval.p_calibrated == 0


def test_error_of_zero_starts_at_zero():
    """Residuals that cancel over images: the plug-in is 0, the truth may still be above."""
    residual, count = np.array([[3.0], [-3.0], [2.0], [-2.0], [0.0], [0.0]]), np.full(6, 50)
    interval = norm_interval(
        Norm(np.eye(1), GAUGES["l1"]), ResampledResiduals(residual, count, resampling_weights(6, 500, 0)), 0.95
    )
    assert (interval.low, interval.median_unbiased, interval.p_calibrated) == (0, 0, 1)
    assert interval.high > 0


def test_noise_alone_reaches_zero_and_signal_does_not():
    generator = np.random.default_rng(2)
    count, weights = np.full(60, 1000), resampling_weights(60, 500, 0)
    noise = 50 * generator.normal(size=(60, 10))
    for shift, calibrated in ((0, True), (100, False)):
        interval = norm_interval(
            Norm(np.eye(10), GAUGES["l1"]), ResampledResiduals(noise + shift, count, weights), 0.95
        )
        assert (interval.low == 0) is calibrated
        assert (interval.p_calibrated > 0.05) is calibrated
        assert interval.low <= 10 * shift / 1000 <= interval.high


def test_wider_level_wider_interval(twelve):
    nine, ninety_nine = (values(twelve, "ece", n_boot=400, ci=ci)["pixels"] for ci in (0.9, 0.99))
    assert ninety_nine.low <= nine.low < nine.high < ninety_nine.high


@cache
def twelve_of(kind: str, scope: str) -> Statistics:
    pictures = scenes(12, kind=kind, first=40)
    return statistics_of(pictures if scope == "id" else without_masks(pictures))


@pytest.mark.parametrize(("kind", "name"), WITH_NORM)
def test_interval_of_every_norm_metric_is_a_proper_one(kind, name):
    """Of the metric and, where it has a norm for each, of its classes."""
    for of, value in values(twelve_of(kind, METRICS[name].scope), name, n_boot=200).items():
        if of.startswith("pixels"):
            assert 0 <= value.low <= value.median_unbiased <= value.high
            assert value.low < value.high
            assert 0 <= value.p_calibrated <= 1
            if "debiased" not in name:  # those are signed estimates inside an interval of the plug-in error
                assert value.low <= value.value <= value.high


@pytest.mark.parametrize("name", ["mce", "quantisation_bound", "corp_miscalibration", "aslp_debias"])
def test_metrics_without_a_valid_interval_give_none(name, twelve):
    value = values(twelve, name, n_boot=50)["pixels"]
    assert np.isfinite(value.value)
    assert np.isnan([value.low, value.high, value.p_calibrated]).all()


def test_squared_norm_has_the_squared_interval(twelve):
    """ce2_debiased_cluster takes the limits of RMSCE, squared: same norm, power 2."""
    root, square = (values(twelve, name, n_boot=300)["pixels"] for name in ("rmsce", "ce2_debiased_cluster"))
    assert square.low == pytest.approx(root.low**2, rel=1e-12)
    assert square.high == pytest.approx(root.high**2, rel=1e-12)


# --- patients and videos --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def patients() -> tuple[Statistics, Statistics]:
    """Twelve images of six patients, and the same pixels as one row a patient."""
    names = [f"case{number % 6}_slice{number}" for number in range(12)]
    statistics = statistics_of(scenes(12, first=60), names)
    cases = np.array([name[4] for name in statistics.names])
    counts = np.stack([statistics.histogram.counts[cases == str(case)].sum(0) for case in range(6)])
    return statistics, Statistics(JointHistogram(tuple(f"case{case}" for case in range(6)), counts))


@pytest.mark.parametrize("pattern", [r"case\d", r"case(\d)_"])
@pytest.mark.parametrize("name", ["ece", "ce2_debiased_cluster", "ks", "brier", "auroc", "corp_discrimination"])
def test_group_by_equals_grouping_by_hand(name, pattern, patients):
    images, by_hand = patients
    grouped = values(images, name, n_boot=200, group_by=pattern)["pixels"]
    merged = values(by_hand, name, n_boot=200)["pixels"]
    alone = values(images, name, n_boot=200)["pixels"]
    for field in ("value", "low", "high", "median_unbiased", "p_calibrated"):
        assert getattr(grouped, field) == pytest.approx(getattr(merged, field), rel=1e-9, abs=1e-12, nan_ok=True)
    assert grouped.low != alone.low
    assert grouped.n_images == 12


@pytest.mark.parametrize("name", ["mae", "max_f", "s_measure", "ece"])
def test_group_by_of_means_draws_whole_patients(name, patients):
    """A replicate averages over the images of the patients it drew, as often as it drew them."""
    statistics, _ = patients
    grouped = values(statistics, name, n_boot=100, group_by=r"case(\d)")["images"]
    metric = METRICS[name]
    curves = metric.function(metric.reads(statistics), **dict.fromkeys(metric.options, 10))
    cases = np.array([int(image[4]) for image in statistics.names])
    summary = metric.summary or float
    drawn = []
    for weights in resampling_weights(6, 100, 0):
        picked = np.concatenate([np.flatnonzero(cases == case) for case in np.repeat(np.arange(6), weights)])
        drawn.append(float(summary(curves[picked].mean(0))))
    expected = percentile_interval(grouped.value, np.array(drawn), 6, 0.95)
    assert grouped.low == pytest.approx(expected.low, rel=1e-9)
    assert grouped.high == pytest.approx(expected.high, rel=1e-9)


@pytest.mark.parametrize("pattern", ["patient", "("])
def test_group_by_that_cannot_work_is_refused(pattern, patients):
    with pytest.raises(InputError, match="group_by"):
        values(patients[0], "ece", n_boot=40, group_by=pattern)


def test_four_patients_are_too_few_however_many_images():
    names = [f"case{number % 4}_{number}" for number in range(8)]
    statistics = statistics_of(scenes(8), names)
    value = values(statistics, "ece", n_boot=50, group_by=r"case\d")["pixels"]
    assert np.isnan([value.low, value.high]).all()


# --- the cluster estimate -------------------------------------------------------------------------------------------


def simulated(seed: int, deviation: np.ndarray, n_images: int = 10) -> ReliabilityCells:
    """Images whose pixels err together: accuracy = score + deviation + a shift of the image, in five bins."""
    generator = np.random.default_rng(seed)
    score = np.array([0.55, 0.65, 0.75, 0.85, 0.95])
    count = generator.integers(50, 500, (n_images, 5))
    rate = score + deviation + 0.05 * generator.normal(size=(n_images, 5))
    names = tuple(f"{i:02d}" for i in range(n_images))
    return ReliabilityCells.exact(names, count, count * rate, score)


@pytest.mark.parametrize("deviation", [np.zeros(5), np.array([0.02, -0.02, 0.03, 0, -0.01])])
def test_cluster_estimate_is_unbiased_where_the_others_are_not(deviation):
    """Mean over 400 data sets within three standard errors of the truth; plug-in and pixel-debiased are far above it."""
    errors = {"cluster": [], "plug-in": [], "pixels": []}
    for seed in range(400):
        cells = simulated(seed, deviation)
        pooled = cells.total()
        truth = (pooled.count * deviation**2).sum() / pooled.count.sum()
        errors["cluster"].append(squared_error_debiased_cluster(cells, bins=10) - truth)
        errors["plug-in"].append(root_mean_squared_calibration_error(pooled, bins=10) ** 2 - truth)
        errors["pixels"].append(squared_error_debiased(pooled, bins=10) - truth)
    z = {name: np.mean(e) / (np.std(e, ddof=1) / np.sqrt(len(e))) for name, e in errors.items()}
    assert abs(z["cluster"]) < 3
    assert z["plug-in"] > 10
    assert z["pixels"] > 5


def test_bins_of_one_image_contribute_nothing_and_are_reported():
    """The plug-in there would be pure noise; its pixel share is printed beside the value."""
    counts = np.zeros((2, 2, 256), np.int64)
    counts[:, 1, 255] = 90, 80
    counts[0, 0, 160] = 30
    statistics = Statistics(JointHistogram(("a", "b"), counts))
    value = values(statistics, "ce2_debiased_cluster")["pixels"]
    assert value.value == 0
    assert value.details["pixel_share_dropped"] == 30 / 200
    assert values(statistics, "rmsce")["pixels"].value > 0.2
