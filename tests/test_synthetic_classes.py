"""The multi-class population is what its formulas say: calibrated at every pixel, with cells known by integration."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from scipy.integrate import quad
from scipy.special import expit, logit, softmax
from scipy.stats import chisquare, kstest

from calbench.errors import InputError
from calbench.metrics.calibration_error import expected_calibration_error
from calbench.statistics.reliability import CLASS_GRID, SCORE_GRID, ReliabilityCells
from calbench.synthetic import expected_histogram
from calbench.synthetic_classes import (
    CLASS_DEMO_SHARPNESS,
    CLASS_SCENE,
    OOD_SCENE,
    VOID,
    ClassScene,
    class_samples,
    draw_classes,
    expected_classwise,
    expected_reliability,
    expected_score_sums,
    ood_maps,
    sharpness_for_class_ece,
    top_label_rows,
    write_class_demo,
)

SMALL = ClassScene(height=12, width=18)
FEW = ClassScene(height=4, width=7, classes=5, spread=2.0)
UNSURE = ClassScene(classes=7, spread=0.9)


def true_ece(sharpness: float, scene: ClassScene = CLASS_SCENE, bins: int = 15) -> float:
    return float(expected_calibration_error(expected_reliability(sharpness, scene=scene), bins=bins))


def class_cells(probability: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Textbook class-wise cells of one image: share, Σ p and Σ (label = k) by class and cell, divided by pixels."""
    classes = len(probability)
    sums = np.zeros((3, classes, CLASS_GRID.size))
    for k in range(classes):
        p = probability[k].ravel()
        for values, out in zip((np.ones(p.size), p, (labels == k).ravel()), sums[:, k], strict=True):
            np.add.at(out, CLASS_GRID.index(p), values)
    return sums / labels.size


def within(images: np.ndarray, expected: np.ndarray, errors: float = 5) -> bool:
    """Whether means over images lie within so many of their own standard errors of what is expected."""
    error = images.std(0, ddof=1) / np.sqrt(len(images))
    return bool((np.abs(images.mean(0) - expected) <= errors * error + 1e-12).all())


@pytest.fixture(scope="module")
def pixels() -> tuple[np.ndarray, np.ndarray]:
    """Logits `(images, classes)` and labels `(images,)` at one pixel of independent images."""
    drawn = [draw_classes(np.random.default_rng([5, i]), FEW) for i in range(6000)]
    return np.stack([z[:, 2, 3] for z, _ in drawn]), np.array([y[2, 3] for _, y in drawn])


@pytest.mark.parametrize("low", [0.0, 0.4, 0.5, 0.7, 0.9, 0.99])
def test_labels_follow_the_softmax_at_a_single_pixel(pixels, low):
    """Class by class within bins of confidence: residuals within four standard errors of their binomial variance."""
    logits, labels = pixels
    high = {0.0: 0.4, 0.4: 0.5, 0.5: 0.7, 0.7: 0.9, 0.9: 0.99, 0.99: 1.0}[low]
    p = softmax(logits, axis=1)
    chosen = (p.max(1) > low) & (p.max(1) <= high)
    assert chosen.sum() > 50
    residual = (np.eye(FEW.classes)[labels] - p)[chosen].sum(0)
    assert (np.abs(residual) < 4 * np.sqrt((p * (1 - p))[chosen].sum(0))).all()


def test_favourite_and_lead_have_the_stated_distribution(pixels):
    logits, _ = pixels
    favourite = logits.argmax(1)
    assert chisquare(np.bincount(favourite), len(logits) * FEW.shares).pvalue > 1e-3
    runner_up, best = np.sort(logits, axis=1)[:, -2:].T
    share = FEW.shares[favourite]
    u = expit(logit(share) - (best - runner_up) / FEW.spread) / share
    assert kstest(u, "uniform").pvalue > 1e-3
    assert kstest(u[favourite == 0], "uniform").pvalue > 1e-3


def test_logits_are_the_log_shares_but_for_the_favourite():
    logits, _ = draw_classes(np.random.default_rng(1))
    favourite = logits.argmax(0)
    others = np.arange(CLASS_SCENE.classes)[:, None, None] != favourite
    log_shares = np.broadcast_to(np.log(CLASS_SCENE.shares)[:, None, None], logits.shape)
    np.testing.assert_array_equal(logits[others], log_shares[others])
    assert (logits.max(0) > np.where(others, logits, -np.inf).max(0)).all()


def test_labels_come_in_regions_and_are_mostly_right():
    drawn = [draw_classes(np.random.default_rng([2, i])) for i in range(30)]
    labels = np.stack([y for _, y in drawn])
    assert np.mean(labels[:, :, 1:] == labels[:, :, :-1]) > 0.85
    right = np.array([np.mean(z.argmax(0) == y) for z, y in drawn])
    assert within(right, expected_reliability().correct.sum())
    assert expected_reliability().correct.sum() == pytest.approx(0.853, abs=1e-3)


def test_pixels_of_an_image_depend_on_each_other():
    """The residual's mean over an image varies far more than independent pixels would let it."""
    rows = top_label_rows(60, [1.0], seed=6)[0]
    n_pixels = CLASS_SCENE.height * CLASS_SCENE.width
    variance = (rows.residual.sum(-1) / n_pixels).var()
    truth = expected_reliability()
    independent = (truth.correct * (1 - truth.position)).sum() / n_pixels
    assert variance > 20 * independent


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.5])
def test_images_follow_the_expected_cells(sharpness):
    """Sums over 20 bins, per pixel, within five standard errors of 1 500 images."""
    rows = top_label_rows(1500, [sharpness], seed=3, scene=SMALL)[0].binned(20)
    truth = expected_reliability(sharpness, scene=SMALL).binned(20)
    for name in ("count", "confidence", "correct"):
        assert within(getattr(rows, name) / (SMALL.height * SMALL.width), getattr(truth, name)), name


@pytest.mark.parametrize("sharpness", [0.5, 2.5])
def test_images_follow_the_expected_class_cells_and_scores(sharpness):
    cells, scores = [], []
    for _, logits, labels in class_samples(1500, sharpness, seed=4, scene=FEW):
        p = softmax(logits, axis=0)
        cells.append(class_cells(p, labels))
        true = np.moveaxis(np.eye(FEW.classes)[labels], -1, 0)
        log_loss, entropy = -(true * np.log(p)).sum(0), -(p * np.log(p)).sum(0)
        scores.append([a.mean() for a in (log_loss, ((p - true) ** 2).sum(0), (p**2).sum(0), entropy)])
    truth = expected_classwise(sharpness, scene=FEW)
    drawn = ReliabilityCells.on_grid((), *np.moveaxis(cells, 1, 0), CLASS_GRID)
    for name in ("count", "confidence", "correct"):
        expected = getattr(truth, name)
        used = expected > 1e-3  # rarer ones have no standard error: no image may hit them
        assert within(getattr(drawn, name)[:, used], expected[used]), name
    sums = expected_score_sums(sharpness, scene=FEW)
    assert within(np.array(scores), np.array([sums.log_loss, sums.squared_error, sums.squared_score, sums.entropy]))


@pytest.mark.parametrize("scene", [CLASS_SCENE, UNSURE, ClassScene(classes=2, spread=40.0)])
@pytest.mark.parametrize("sharpness", [0.05, 1.0, 3.0, 40.0])
def test_expected_cells_equal_brute_force_integration(scene, sharpness):
    """Adaptive quadrature in the lead, with softmax and its edges by root bracketing, on cells at the ends and between."""
    top, classwise = expected_reliability(sharpness, scene=scene), expected_classwise(sharpness, scene=scene)
    assert top.count.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(classwise.count.sum(-1), 1, atol=1e-12)
    share = scene.shares
    last = scene.classes - 1

    def probability(lead: float, favourite: int, s: float) -> np.ndarray:
        z = np.log(share)
        z[favourite] = np.delete(z, favourite).max() + scene.spread * lead
        return softmax(s * z)

    def brute(favourite: int, event: int, low: float, high: float) -> np.ndarray:
        """Share, Σ p and Σ q of the event where `low` < p <= `high`."""

        def reached(score: float) -> float:
            left, right = 0.0, 800.0
            rises = event == favourite
            for _ in range(200):
                middle = (left + right) / 2
                over = probability(middle, favourite, sharpness)[event] > score
                left, right = (left, middle) if over == rises else (middle, right)
            return left

        start, end = sorted((reached(low), reached(high)))
        a = logit(share[favourite])
        steps = np.unique(np.clip([start, *np.linspace(0, 3, 31), 6, 12, 24, 50, end], start, end))
        parts = [
            [quad(lambda m, f=f: f(m) * expit(a - m) * expit(m - a), x, y, epsabs=1e-14)[0] for f in (
                lambda _: 1.0,
                lambda m: probability(m, favourite, sharpness)[event],
                lambda m: probability(m, favourite, 1.0)[event],
            )]
            for x, y in pairwise(steps)
        ]  # fmt: skip
        return np.sum(parts, axis=0) if parts else np.zeros(3)

    cells = np.searchsorted(SCORE_GRID.edges, [0.2505, 0.5005, 0.9005]) - 1
    for cell in cells:
        low, high = SCORE_GRID.edges[cell : cell + 2]
        expected = np.sum([brute(c, c, low, high) for c in range(scene.classes)], axis=0)
        found = [top.count[cell], top.confidence[cell], top.correct[cell]]
        np.testing.assert_allclose(found, expected, atol=1e-11)
    for cell in (0, 1, 30):
        low, high = CLASS_GRID.edges[cell : cell + 2]
        low = low if cell else -1.0
        expected = np.sum([brute(c, last, low, high) for c in range(scene.classes)], axis=0)
        found = [classwise.count[last, cell], classwise.confidence[last, cell], classwise.correct[last, cell]]
        np.testing.assert_allclose(found, expected, atol=1e-11)


@pytest.mark.parametrize("scene", [CLASS_SCENE, UNSURE, ClassScene(classes=255)])
def test_calibrated_truth_is_zero(scene):
    np.testing.assert_allclose(expected_reliability(scene=scene).residual, 0, atol=1e-14)
    assert expected_score_sums(scene=scene).log_loss == pytest.approx(expected_score_sums(scene=scene).entropy)


def test_calibrated_truth_is_zero_class_by_class():
    np.testing.assert_allclose(expected_classwise().residual, 0, atol=1e-14)


def test_error_grows_with_sharpness_on_one_side():
    errors = [true_ece(s) for s in (1.0, 1.01, 1.3, 2.0, 5.0, 50.0, 1e3)]
    assert errors[0] < 1e-12
    assert (np.diff(errors) > 0).all()
    under = [true_ece(s) for s in (0.9, 0.5, 0.1, 0.01)]
    assert (np.diff(under) > 0).all()
    assert (expected_reliability(2.0).residual <= 1e-15).all()
    assert (expected_reliability(0.5).residual >= -1e-15).all()
    assert true_ece(2.0, bins=1) == pytest.approx(true_ece(2.0, bins=100), abs=1e-12)


@pytest.mark.parametrize("sharpness", [0.02, 0.4, 2.0, 300.0])
def test_truths_agree_with_each_other(sharpness):
    classwise, sums = expected_classwise(sharpness), expected_score_sums(sharpness)
    assert classwise.confidence.sum() == pytest.approx(1, abs=1e-12)
    assert classwise.correct.sum() == pytest.approx(1, abs=1e-12)
    # labels do not depend on the method
    np.testing.assert_allclose(classwise.correct.sum(-1), expected_classwise().correct.sum(-1), atol=1e-12)
    assert expected_reliability(sharpness).correct.sum() == pytest.approx(
        expected_reliability().correct.sum(), abs=1e-12
    )
    calibrated = expected_score_sums()
    assert sums.log_loss > calibrated.log_loss
    assert sums.squared_error > calibrated.squared_error
    assert calibrated.squared_error == pytest.approx(1 - calibrated.squared_score)


def test_rows_are_those_of_the_samples():
    rows = top_label_rows(3, [0.5, 2.0], seed=1, scene=SMALL)
    for sharpness, found in zip([0.5, 2.0], rows, strict=True):
        for i, (name, logits, labels) in enumerate(class_samples(3, sharpness, seed=1, scene=SMALL)):
            p = softmax(logits, axis=0)
            confidence, right = p.max(0).ravel(), (p.argmax(0) == labels).ravel()
            cell = SCORE_GRID.index(confidence)
            assert found.names[i] == name
            # the outermost cells are narrower than the rounding of a softmax: whole bins instead
            image = found.select([i]).binned(600)
            bins = np.searchsorted(np.arange(1, 600) / 600, SCORE_GRID.edges[cell + 1], side="left")
            np.testing.assert_array_equal(image.count[0], np.bincount(bins, minlength=600))
            np.testing.assert_array_equal(image.correct[0], np.bincount(bins, right, 600))
            np.testing.assert_allclose(image.confidence[0], np.bincount(bins, confidence, 600), rtol=1e-12)
        assert found.count.sum() == 3 * SMALL.height * SMALL.width
        assert found.count.dtype == found.correct.dtype == np.int64


def test_methods_share_labels_and_decisions():
    for one, other in zip(class_samples(3, 1.0, seed=4), class_samples(3, 3.0, seed=4), strict=True):
        assert one[0] == other[0]
        np.testing.assert_array_equal(one[2], other[2])
        np.testing.assert_allclose(other[1], 3 * one[1])
        np.testing.assert_array_equal(one[1].argmax(0), other[1].argmax(0))


def test_image_depends_on_seed_and_index_only():
    few, many = list(class_samples(2, 2.0, seed=9, scene=SMALL)), list(class_samples(4, 2.0, seed=9, scene=SMALL))
    np.testing.assert_array_equal(few[1][1], many[1][1])
    np.testing.assert_array_equal(few[1][2], many[1][2])
    other = next(class_samples(1, 2.0, seed=10, scene=SMALL))
    assert (other[1] != few[0][1]).any()
    assert (few[0][1] != few[1][1]).any()


def test_global_random_state_is_untouched():
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    list(class_samples(1, scene=SMALL))
    list(ood_maps(1))
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


@pytest.mark.parametrize("scene", [CLASS_SCENE, UNSURE])
@pytest.mark.parametrize("target", [0.0005, 0.002, 0.01, 0.05, 0.12])
def test_sharpness_hits_the_target(scene, target):
    sharpness = sharpness_for_class_ece(target, scene=scene)
    assert sharpness > 1
    assert true_ece(sharpness, scene) == pytest.approx(target, abs=1e-9)


def test_sharpness_one_is_calibrated():
    assert sharpness_for_class_ece(0) == 1


@pytest.mark.parametrize("target", [0.2, -0.01, float("nan")])
def test_targets_out_of_reach_are_refused(target):
    with pytest.raises(InputError, match="target ECE"):
        sharpness_for_class_ece(target)


@pytest.mark.parametrize("sharpness", [0.0, -1.0, float("nan"), float("inf")])
def test_sharpness_must_be_positive(sharpness):
    for function in (expected_reliability, expected_classwise, expected_score_sums):
        with pytest.raises(InputError, match="sharpness"):
            function(sharpness)
    for generator in (class_samples(1, sharpness), ood_maps(1, sharpness)):
        with pytest.raises(InputError, match="sharpness"):
            next(generator)
    with pytest.raises(InputError, match="sharpness"):
        top_label_rows(1, [1.0, sharpness])


@pytest.mark.parametrize(
    "wrong", [{"height": 0}, {"seen_length": -1.0}, {"spread": float("nan")}, {"classes": 1}, {"classes": 256}]
)
def test_scene_is_checked(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        ClassScene(**wrong)


def test_most_classes_fit_the_labels():
    scene = ClassScene(height=3, width=5, classes=255)
    labels = np.stack([y for _, _, y in class_samples(40, scene=scene)])
    assert 100 < labels.max() < VOID


def test_demo_holds_the_samples(tmp_path):
    folder = write_class_demo(tmp_path / "demo", n_images=3, scene=SMALL)
    for method, sharpness in CLASS_DEMO_SHARPNESS.items():
        for name, logits, labels in class_samples(3, sharpness, scene=SMALL):
            stored = np.load(folder / "preds" / method / "synthetic-classes" / f"{name}.npy")
            assert (stored.dtype, stored.shape) == (np.float16, (19, 12, 18))
            np.testing.assert_allclose(stored, logits, rtol=2**-11)
            difference = softmax(stored.astype(np.float64), axis=0) - softmax(logits, axis=0)
            assert np.abs(difference).max() < (2e-4 if sharpness == 1 else 1e-3)
            with Image.open(folder / "data" / "synthetic-classes" / "gt" / f"{name}.png") as image:
                assert (image.size, image.mode) == ((18, 12), "L")
                mask = np.asarray(image)
            np.testing.assert_array_equal(mask[:-1], labels[:-1])
            assert (mask[-1] == VOID).all()


def test_demo_is_deterministic_and_repeatable(tmp_path):
    first, second = (write_class_demo(tmp_path / name, n_images=2, scene=SMALL) for name in "ab")
    files = sorted(path.relative_to(first) for path in first.rglob("*.*"))
    assert len(files) == 6
    assert all((first / file).read_bytes() == (second / file).read_bytes() for file in files)
    assert write_class_demo(first, n_images=2, scene=SMALL) == first


@pytest.mark.parametrize(
    "foreign", ["data/synthetic-classes/gt/000000.npy", "preds/calibrated/synthetic-classes/a.npy"]
)
def test_demo_refuses_a_folder_with_other_files(tmp_path, foreign):
    write_class_demo(tmp_path, n_images=2, scene=SMALL)
    with pytest.raises(InputError, match="choose an empty folder"):
        write_class_demo(tmp_path, n_images=1, scene=SMALL)
    (tmp_path / foreign).write_bytes(b"")
    with pytest.raises(InputError, match="choose an empty folder"):
        write_class_demo(tmp_path, n_images=2, scene=SMALL)


@pytest.mark.parametrize("sharpness", [1.0, 6.0])
def test_ood_maps_follow_the_expected_levels(sharpness):
    shares = np.stack(
        [np.bincount(levels.ravel(), minlength=256) / levels.size for _, levels in ood_maps(300, sharpness, seed=2)]
    )
    expected = expected_histogram(sharpness, scene=OOD_SCENE).counts.sum(0)
    assert within(shares @ np.arange(256), expected @ np.arange(256))
    used = expected > 1e-3
    assert within(shares[:, used], expected[used])
    assert expected @ np.arange(256) / 255 == pytest.approx({1.0: 0.30, 6.0: 0.01}[sharpness], abs=0.005)


def test_ood_maps_are_reproducible():
    few, many = list(ood_maps(2, seed=3)), list(ood_maps(4, seed=3))
    assert [name for name, _ in many] == ["000000", "000001", "000002", "000003"]
    np.testing.assert_array_equal(few[1][1], many[1][1])
    assert (next(ood_maps(1, seed=4))[1] != few[0][1]).any()
    assert few[0][1].dtype == np.uint8
