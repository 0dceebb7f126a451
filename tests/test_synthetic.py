"""The synthetic population is what its formulas say: calibrated at every pixel, with histograms known by integration."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy.integrate import quad
from scipy.stats import norm

from calbench.collect import collect
from calbench.errors import InputError
from calbench.metrics.calibration_error import expected_calibration_error
from calbench.metrics.scoring_rules import brier_score
from calbench.synthetic import (
    DEMO_SHARPNESS,
    SCENE,
    SyntheticScene,
    draw_image,
    expected_histogram,
    histograms,
    quantise,
    samples,
    sharpen,
    sharpness_for_ece,
    smooth_field,
    write_demo,
)

SMALL = SyntheticScene(height=24, width=32)


def true_ece(sharpness: float, scene: SyntheticScene = SCENE, bins: int = 15) -> float:
    return float(
        expected_calibration_error(expected_histogram(sharpness, scene=scene).reliability("top-label"), bins=bins)
    )


@pytest.mark.parametrize("blur", [0.3, 2.0, 9.0])
def test_fields_have_unit_variance_at_every_pixel(blur):
    shape, n = (6, 9), 4000
    fields = np.stack([smooth_field(np.random.default_rng([7, i]), shape, blur) for i in range(n)])
    # five standard errors of a variance of n normal values: no pixel of 54 lies beyond by chance
    np.testing.assert_allclose((fields**2).mean(0), 1, atol=5 * np.sqrt(2 / n))
    np.testing.assert_allclose(fields.mean(0), 0, atol=5 / np.sqrt(n))


def test_fields_are_smooth():
    field = smooth_field(np.random.default_rng(0), (96, 128), 8.0)
    neighbours = np.corrcoef(field[:, 1:].ravel(), field[:, :-1].ravel())[0, 1]
    # the correlation of Gaussian-blurred noise at distance d is exp(−d² / (4 blur²))
    assert neighbours == pytest.approx(np.exp(-1 / 256), abs=2e-3)


@pytest.mark.parametrize("sharpness", [0.4, 1.0, 2.5])
def test_images_follow_the_expected_histogram(sharpness):
    """Shares of (outcome, bin of 16 levels) over 2 000 images, each within five of its own standard errors."""
    rows = histograms(2000, [sharpness], seed=3, scene=SMALL)[0].counts
    share = rows.reshape(2000, 2, 16, 16).sum(-1) / (SMALL.height * SMALL.width)
    expected = expected_histogram(sharpness, scene=SMALL).counts.reshape(2, 16, 16).sum(-1)
    error = share.std(0, ddof=1) / np.sqrt(2000)
    assert np.abs((share.mean(0) - expected) / error).max() < 5


def test_probability_is_calibrated_at_a_single_pixel():
    drawn = [draw_image(np.random.default_rng([5, i]), SMALL) for i in range(6000)]
    probability = np.array([p[11, 17] for p, _ in drawn])
    mask = np.array([m[11, 17] for _, m in drawn])
    for low, high in [(0, 0.05), (0.05, 0.3), (0.3, 0.7), (0.7, 0.95), (0.95, 1)]:
        chosen = (probability >= low) & (probability <= high)
        p = probability[chosen]
        assert abs((mask[chosen] - p).sum()) < 4 * np.sqrt((p * (1 - p)).sum())


def test_pixels_of_an_image_depend_on_each_other():
    """The residual's mean over an image varies far more than independent pixels would let it."""
    drawn = [draw_image(np.random.default_rng([6, i]), SMALL) for i in range(300)]
    variance = np.var([(mask - p).mean() for p, mask in drawn])
    independent = np.mean([(p * (1 - p)).sum() / p.size**2 for p, _ in drawn])
    assert variance > 10 * independent


@pytest.mark.parametrize("sharpness", [0.05, 0.4, 1.0, 3.0, 40.0])
@pytest.mark.parametrize("scene", [SCENE, SyntheticScene(mean=0.6, seen=0.7, hidden=1.3)])
def test_expected_histogram_equals_brute_force_integration(sharpness, scene):
    """Adaptive quadrature in the seen field, with edges found by another route, on levels at the ends and between."""
    counts = expected_histogram(sharpness, scene=scene).counts
    assert counts.sum() == pytest.approx(1, abs=1e-12)
    assert counts[1].sum() == pytest.approx(scene.foreground_share, abs=1e-12)

    def edge(level: int) -> float:
        log_odds = np.log((level - 0.5) / (255.5 - level)) / sharpness
        below, above = -np.logaddexp(0, -log_odds), -np.logaddexp(0, log_odds)
        inner = norm.ppf(np.exp(below)) if log_odds < 0 else norm.isf(np.exp(above))
        return float(np.clip(scene.hidden * inner, scene.mean - 12 * scene.seen, scene.mean + 12 * scene.seen))

    for level in (0, 1, 20, 127, 128, 200, 254, 255):
        low = scene.mean - 12 * scene.seen if level == 0 else edge(level)
        high = scene.mean + 12 * scene.seen if level == 255 else edge(level + 1)
        for outcome, sign in ((0, -1), (1, 1)):
            brute, _ = quad(
                lambda g, sign=sign: norm.cdf(sign * g / scene.hidden) * norm.pdf(g, scene.mean, scene.seen),
                low, high, epsabs=1e-13, limit=400,
            )  # fmt: skip
            assert counts[outcome, level] == pytest.approx(brute, abs=1e-11)


def test_expected_histogram_is_self_consistent():
    """At sharpness 1 foreground mass of a level is its mass times a probability that rounds to the level."""
    counts = expected_histogram(1.0).counts
    rate = counts[1] / counts.sum(0)
    assert (np.abs(rate - np.arange(256) / 255) <= 1 / 510).all()


def test_score_truth_matches_images():
    rows = histograms(1500, [2.0], seed=8, scene=SMALL)[0]
    by_image = brier_score(rows.score_sums())
    truth = brier_score(expected_histogram(2.0, scene=SMALL).score_sums())
    assert abs(by_image.mean() - truth) < 4 * by_image.std() / np.sqrt(1500)


def test_methods_share_masks():
    for one, other in zip(samples(3, 1.0, seed=4), samples(3, 3.0, seed=4), strict=True):
        np.testing.assert_array_equal(one.target, other.target)
        assert one.name == other.name
        assert (one.scores != other.scores).any()
        np.testing.assert_array_equal(one.scores >= 128, other.scores >= 128)


def test_image_depends_on_seed_and_index_only():
    few, many = list(samples(2, 2.0, seed=9, scene=SMALL)), list(samples(4, 2.0, seed=9, scene=SMALL))
    np.testing.assert_array_equal(few[1].scores, many[1].scores)
    np.testing.assert_array_equal(few[1].target, many[1].target)
    other = next(samples(1, 2.0, seed=10, scene=SMALL))
    assert (other.scores != few[0].scores).any()
    assert (few[0].scores != few[1].scores).any()


def test_global_random_state_is_untouched():
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    list(samples(1))
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_histograms_are_the_rows_of_the_samples():
    rows = histograms(3, [0.5, 2.0], seed=1, scene=SMALL)
    for sharpness, expected in zip([0.5, 2.0], rows, strict=True):
        run = collect(samples(3, sharpness, seed=1, scene=SMALL), scores=())
        found = run.combinations["dataset", "method"].histogram
        assert found.names == expected.names
        np.testing.assert_array_equal(found.counts, expected.counts)


@pytest.mark.parametrize("bins", [10, 15])
@pytest.mark.parametrize("target", [0.0005, 0.002, 0.01, 0.05, 0.09])
def test_sharpness_hits_the_target(target, bins):
    sharpness = sharpness_for_ece(target, bins=bins)
    assert sharpness > 1
    assert true_ece(sharpness, bins=bins) == pytest.approx(target, abs=1e-9)


def test_sharpness_one_is_calibrated_up_to_rounding():
    assert sharpness_for_ece(0) == 1
    assert true_ece(1.0) == pytest.approx(6.2e-5, abs=1e-6)
    assert true_ece(0.4) > 0.05


@pytest.mark.parametrize("target", [1e-5, 0.2, -0.01])
def test_targets_out_of_reach_are_refused(target):
    with pytest.raises(InputError, match="target ECE"):
        sharpness_for_ece(target)


@pytest.mark.parametrize("sharpness", [0.0, -1.0, float("nan"), float("inf")])
def test_sharpness_must_be_positive(sharpness):
    with pytest.raises(InputError, match="sharpness"):
        sharpen(np.array([0.5]), sharpness)
    with pytest.raises(InputError, match="sharpness"):
        expected_histogram(sharpness)
    with pytest.raises(InputError, match="sharpness"):
        next(samples(1, sharpness))


@pytest.mark.parametrize("wrong", [{"height": 0}, {"seen_length": -1.0}, {"hidden": 0.0}, {"seen": float("nan")}])
def test_scene_is_checked(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        SyntheticScene(**wrong)


def test_sharpen_keeps_ends_and_composes():
    p = np.array([0.0, 0.1, 0.5, 0.9, 1.0])
    np.testing.assert_array_equal(sharpen(p, 3.0)[[0, 2, 4]], [0, 0.5, 1])
    np.testing.assert_allclose(sharpen(sharpen(p, 3.0), 1 / 3), p, atol=1e-12)


def test_levels_round_to_nearest():
    np.testing.assert_array_equal(quantise(np.arange(256) / 255), np.arange(256))
    np.testing.assert_array_equal(quantise((np.arange(255) + 0.51) / 255), np.arange(1, 256))


def test_demo_collects(tmp_path):
    folder = write_demo(tmp_path / "demo", n_images=6)
    run = collect(pred=folder / "preds" / "{method}" / "{dataset}", gt=folder / "data" / "{dataset}" / "gt", jobs=1)
    assert list(run.combinations) == [("synthetic", method) for method in sorted(DEMO_SHARPNESS)]
    for (_, method), statistics in run.combinations.items():
        expected = histograms(6, [DEMO_SHARPNESS[method]])[0]
        assert statistics.names == expected.names
        np.testing.assert_array_equal(statistics.histogram.counts, expected.counts)
        assert statistics.conventions["mask_coding"] == "0/255"


def test_demo_is_deterministic_and_repeatable(tmp_path):
    first, second = write_demo(tmp_path / "a", n_images=2), write_demo(tmp_path / "b", n_images=2)
    files = sorted(path.relative_to(first) for path in first.rglob("*.png"))
    assert len(files) == 8
    assert all((first / file).read_bytes() == (second / file).read_bytes() for file in files)
    assert write_demo(first, n_images=2) == first
    with Image.open(first / files[0]) as image:
        assert (image.size, image.mode) == ((SCENE.width, SCENE.height), "L")


def test_demo_refuses_a_folder_with_other_files(tmp_path):
    write_demo(tmp_path, n_images=3)
    with pytest.raises(InputError, match="choose an empty folder"):
        write_demo(tmp_path, n_images=2)
