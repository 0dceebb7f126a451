"""Equality with the libraries that users know; where a library differs by definition, a test states the difference."""

from __future__ import annotations

import warnings

import netcal.metrics as netcal
import numpy as np
import oracles
import py_sod_metrics as peers
import pytest
import relplot
import torch
from hypothesis import HealthCheck, example, given, settings
from scipy.ndimage import gaussian_filter
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score
from strategies import Image, histogram_of, images, number, row, scene, scenes, statistics_of
from torchmetrics.classification import BinaryCalibrationError

from calbench.metrics import saliency
from calbench.statistics import JointHistogram

CURVES = {
    "f": (peers.FmeasureHandler, saliency.f_curve),
    "iou": (peers.IOUHandler, saliency.iou_curve),
    "dice": (peers.DICEHandler, saliency.dice_curve),
    "precision": (peers.PrecisionHandler, saliency.precision_curve),
    "recall": (peers.RecallHandler, saliency.recall_curve),
}


# --- PySODMetrics ---------------------------------------------------------------------------------------------------


def by_peer(pictures: list[Image]) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Numbers under our names, and curves by threshold 0..255, of fresh PySODMetrics objects on these images."""
    handlers = {name: kind(with_dynamic=True, with_adaptive=True) for name, (kind, _) in CURVES.items()}
    tools = peers.FmeasureV2(handlers), peers.MAE(), peers.Smeasure(), peers.Emeasure(), peers.WeightedFmeasure()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # its S-measure averages empty quadrants
        for image in pictures:
            for tool in tools:
                tool.step(image.scores, image.mask)
        curves, mae, s, e, weighted = (tool.get_results() for tool in tools)
    dynamic = {name: result["dynamic"][::-1] for name, result in curves.items()} | {"e": e["em"]["curve"][::-1]}
    numbers = {"mae": mae["mae"], "s_measure": s["sm"], "weighted_f": weighted["wfm"], "adp_e": e["em"]["adp"]}
    for name in ("f", "iou", "dice"):
        numbers[f"adp_{name}"] = curves[name]["adaptive"]
    for name in ("f", "e", "iou", "dice"):
        numbers |= {f"max_{name}": dynamic[name].max(), f"mean_{name}": dynamic[name].mean()}
    return numbers, dynamic


def assert_equal_to_peer(pictures: list[Image], *, without: tuple[str, ...] = ()) -> None:
    statistics = statistics_of(pictures)
    numbers, dynamic = by_peer(pictures)
    for name in numbers.keys() - set(without):
        assert number(statistics, name) == pytest.approx(numbers[name], rel=1e-9, abs=1e-9, nan_ok=True), name
    for name, function in {**{name: ours for name, (_, ours) in CURVES.items()}, "e": saliency.e_curve}.items():
        ours = function(statistics.histogram).mean(0)
        np.testing.assert_allclose(ours, dynamic[name], rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("seed", range(12))
def test_image_equals_pysodmetrics(seed):
    assert_equal_to_peer([scene(seed)])


def test_data_set_equals_pysodmetrics():
    """Curves are averaged over images before their maximum is taken."""
    assert_equal_to_peer(scenes(8, first=20))


@pytest.mark.parametrize("seed", range(4))
def test_grey_mask_bytes_are_cut_above_128_as_in_pysodmetrics(seed):
    image = scene(seed)
    soft = gaussian_filter(image.mask.astype(float), 1.5).round().astype(np.uint8)
    soft[5:8] = np.array([[127], [128], [129]])
    grey = [soft, np.clip(soft, 120, 136), np.full_like(soft, 128), np.full_like(soft, 129)]
    for mask in grey:
        assert_equal_to_peer([image._replace(mask=mask)])


def quadrants(image: Image) -> list[tuple[np.ndarray, np.ndarray]]:
    """(levels, foreground) left and right, above and below the mask's centroid + 1; empty ones left out."""
    row, column = (round(c) + 1 for c in np.argwhere(image.foreground).mean(0))
    cuts = np.s_[:row, :column], np.s_[:row, column:], np.s_[row:, :column], np.s_[row:, column:]
    return [(image.scores[cut], image.foreground[cut]) for cut in cuts if image.scores[cut].size]


def constant_quadrant(image: Image) -> bool:
    """Whether the S-measure meets a quadrant of constant mask and of one level strictly inside the min-max range.

    Its structure term is then 0 / 0; the peer sees rounding noise above or below the line.
    """
    if image.foreground.all() or not image.foreground.any():
        return False
    ends = {image.scores.min(), image.scores.max()}
    ends = ends if len(ends) == 2 else {0, 255}
    return any(
        len(np.unique(y)) == 1 and set(np.unique(x)) - ends and len(np.unique(x)) == 1 for x, y in quadrants(image)
    )


def on_the_adaptive_threshold(image: Image) -> bool:
    """Whether a level equals twice the mean exactly, in integers: there the peer's float mean decides by rounding."""
    low, high = (int(end) for end in (image.scores.min(), image.scores.max()))
    height = image.scores.astype(np.int64) - (low if high > low else 0)
    return bool((height * height.size == 2 * height.sum()).any() and height.any())


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(images(void=False))
@example(Image(np.array([[0, 100, 255]], np.uint8), np.array([[0, 255, 255]], np.uint8)))
@example(Image(np.full((3, 5), 255, np.uint8), np.full((3, 5), 255, np.uint8)))
@example(Image(np.zeros((3, 5), np.uint8), np.zeros((3, 5), np.uint8)))
@example(Image(np.full((3, 5), 77, np.uint8), np.full((3, 5), 255, np.uint8)))
@example(Image(np.array([[9]], np.uint8), np.array([[255]], np.uint8)))
def test_any_small_map_equals_pysodmetrics(image):
    """Constant maps, empty and full masks, one pixel high, bytes around 128; the two roundings of the peer apart."""
    without = ("s_measure",) if constant_quadrant(image) else ()
    if on_the_adaptive_threshold(image):
        without += ("adp_f", "adp_e", "adp_iou", "adp_dice")
    assert_equal_to_peer([image], without=without)


def test_difference_s_measure_of_constant_quadrants():
    """The one exception: on a quadrant of constant map and constant mask the peer's variance is 0 or rounding noise.

    By the definition the variance is 0 and the quadrant counts 1; the peer counts 1 or 0, by how its mean of equal
    numbers rounds. Here one level always gives one answer.
    """
    mask = np.zeros((7, 10), np.uint8)
    mask[2:4, 3:5] = 255
    ours, theirs = [], []
    for level in range(1, 255):
        image = Image(np.full(mask.shape, level, np.uint8), mask)
        assert constant_quadrant(image)
        expected = s_of_constant(image)
        ours.append(abs(number(row("a", image), "s_measure") - expected) < 1e-9)
        theirs.append(abs(by_peer([image])[0]["s_measure"] - expected) < 1e-9)
    assert all(ours)
    assert any(theirs)
    assert not all(theirs)


def s_of_constant(image: Image) -> float:
    """S-measure of a constant map, by hand: object scores without spread; only the quadrant with mixed mask counts 0."""
    x, target = image.scores[0, 0] / 255, image.foreground
    share = target.mean()
    objects = share * 2 * x / (x**2 + 1) + (1 - share) * 2 * (1 - x) / ((1 - x) ** 2 + 1)
    regions = sum(y.size / target.size for _, y in quadrants(image) if y.all() or not y.any())
    return objects / 2 + regions / 2


def test_difference_a_level_on_the_adaptive_threshold():
    """A level that equals twice the mean is selected here, always; the peer selects it as its float mean rounds."""
    chosen = []
    for zeros in range(3, 60):
        for top in range(1, zeros):
            levels = np.array([[0] * zeros + [255] * top + [85]], np.uint8)
            if 2 * (255 * top + 85) != 85 * levels.size:
                continue
            image = Image(levels, np.where(levels == 85, 255, 0).astype(np.uint8))
            assert on_the_adaptive_threshold(image)
            assert number(row("a", image), "adp_iou") == pytest.approx(1 / (top + 1))
            chosen.append(by_peer([image])[0]["adp_iou"] > 0)
    assert len(chosen) > 5
    assert not all(chosen), "the peer agrees everywhere: compare ties too"


# --- scikit-learn ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_scores_equal_scikit_learn(seed):
    image = scene(seed)
    statistics = row("a", image)
    q, y = image.pixels
    p = q / 255
    assert number(statistics, "brier") == pytest.approx(brier_score_loss(y, p), rel=1e-12)
    assert number(statistics, "nll") == pytest.approx(log_loss(y, np.clip(p, 1 / 510, 509 / 510)), rel=1e-12)
    assert number(statistics, "auroc") == pytest.approx(roc_auc_score(y, p), rel=1e-12)
    assert number(statistics, "ap") == pytest.approx(average_precision_score(y, p), rel=1e-12)


def test_difference_log_loss_clips_at_the_smallest_float():
    """8-bit maps hold exact 0 on foreground: scikit-learn charges −ln 2.2e-16 = 36 nats, we half a level, ln 510 = 6.2."""
    q, y = np.array([0, 255, 255, 0], np.uint8), np.array([True, True, False, False])
    assert log_loss(y, q / 255) == pytest.approx(-np.log(np.finfo(float).eps) / 2)
    assert number(histogram_of(q, y), "nll") == pytest.approx((np.log(510) - np.log(509 / 510)) / 2)


# --- torchmetrics and netcal ----------------------------------------------------------------------------------------


def off_the_edges(seed: int, bins: int, n: int = 5000) -> tuple[np.ndarray, np.ndarray]:
    """Levels that lie on no bin edge, 0 and 255 left out, with labels of a skewed truth."""
    generator = np.random.default_rng(seed)
    inside = [k for k in range(1, 255) if k * bins % 255]
    q = generator.choice(inside, n).astype(np.uint8)
    return q, generator.random(n) < (q / 255) ** 1.5


def torch_ece(q, y, bins: int, norm: str = "l1") -> float:
    metric = BinaryCalibrationError(n_bins=bins, norm=norm)
    return float(metric(torch.from_numpy(q / 255), torch.from_numpy(y.astype(np.int64))))


@pytest.mark.parametrize("bins", [10, 13, 15, 20, 50])
def test_foreground_ece_equals_torchmetrics_off_the_edges(bins):
    """Its confidence is p, not max(p, 1 − p): `ece_fg`. Off the edges, without p = 1, the bins are the same."""
    q, y = off_the_edges(0, bins)
    assert number(histogram_of(q, y), "ece_fg", bins=bins) == pytest.approx(torch_ece(q, y, bins), rel=1e-6)
    assert number(histogram_of(q, y), "ece", bins=bins) != pytest.approx(torch_ece(q, y, bins), rel=1e-2)


@pytest.mark.parametrize("bins", [10, 13, 15, 20])
def test_foreground_ece_equals_netcal_off_the_edges(bins):
    q, y = off_the_edges(1, bins)
    theirs = netcal.ECE(bins=bins).measure(q / 255, y.astype(int))
    assert number(histogram_of(q, y), "ece_fg", bins=bins) == pytest.approx(theirs, rel=1e-9)


def left_closed_ece(q, y, bins: int, *, one_apart: bool) -> float:
    """ECE of p in bins [l, r); p = 1 in a bin of its own or in the last."""
    index = q.astype(np.int64) * bins // 255
    index = index if one_apart else np.minimum(index, bins - 1)
    return sum(n * abs(gap) for n, gap, _, _ in oracles.gaps(*oracles.foreground(q, y), index)) / len(q)


def on_the_edges() -> tuple[np.ndarray, np.ndarray]:
    """Levels on the edges of 15 bins and in their middles; an edge errs as the bin above it, against the bin below."""
    edge = np.arange(15)
    q = np.stack([17 * edge, 17 * edge + 8], 1).ravel()
    share = np.clip(q / 255 + np.repeat(np.where(edge % 2, 0.1, -0.1), 2), 0, 1)
    return np.repeat(q, 100).astype(np.uint8), np.concatenate([np.arange(100) < round(100 * s) for s in share])


def test_difference_edges_and_ones_in_torchmetrics_and_netcal():
    """Both close bins on the left. torchmetrics puts p = 1 in a bin of its own (B + 1 bins), netcal in the last.

    Ours close on the right, as Guo et al. write them, with 0 in the first bin; on 8-bit maps levels sit on the edges.
    """
    q, y = np.array([0, 60, 200, 255, 255], np.uint8), np.array([True, False, True, False, True])
    apart, together = (left_closed_ece(q, y, 4, one_apart=apart) for apart in (True, False))
    assert torch_ece(q, y, 4) == pytest.approx(apart, rel=1e-6)
    assert netcal.ECE(bins=4).measure(q / 255, y.astype(int)) == pytest.approx(together, rel=1e-6)
    assert number(histogram_of(q, y), "ece_fg", bins=4) == pytest.approx(together)
    assert apart - together > 0.05

    q, y = on_the_edges()
    left, right = left_closed_ece(q, y, 15, one_apart=True), oracles.ece(*oracles.foreground(q, y), 15)
    assert torch_ece(q, y, 15) == pytest.approx(left, abs=0.01)  # k / 255 hits float edges, not all on the same side
    assert netcal.ECE(bins=15).measure(q / 255, y.astype(int)) == pytest.approx(left, abs=0.01)
    assert number(histogram_of(q, y), "ece_fg", bins=15) == pytest.approx(right, abs=1e-12)
    assert left - right > 0.05


def test_difference_float32_counters_stop_at_2_to_the_24():
    """torchmetrics counts pixels by adding ones in the dtype of the prediction: float32 stays at 16 777 216."""
    counter = torch.full((1,), 2.0**24).scatter_add_(0, torch.zeros(1000, dtype=torch.int64), torch.ones(1000))
    assert float(counter) == 2**24
    counts = np.zeros((1, 2, 256), np.int64)
    counts[0, 1, 200] = 2**24 + 1000
    cells = JointHistogram(("a",), counts).reliability("foreground")
    assert cells.binned(15).count.sum() == 2**24 + 1000


def test_difference_torchmetrics_rmsce_is_ours_off_the_edges():
    """The L2 norm weighs squared gaps by pixels, as `rmsce`; ours takes max(p, 1 − p), so it is held on p > 0.5."""
    q, y = off_the_edges(3, 15)
    y, q = y[q >= 128], q[q >= 128]
    assert number(histogram_of(q, y), "rmsce", bins=15) == pytest.approx(torch_ece(q, y, 15, "l2"), rel=1e-6)
    assert number(histogram_of(q, y), "mce", bins=15) == pytest.approx(torch_ece(q, y, 15, "max"), rel=1e-6)


# --- relplot --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("power", "tolerance"), [(3.0, 2e-3), (1.5, 5e-3), (1.0, 1e-2)])
def test_smooth_ece_agrees_with_relplot_on_interior_scores(power, tolerance):
    """Scores away from 0 and 1: the same kernel, other grids. Within 1 %, 0.2 % where the error is large."""
    generator = np.random.default_rng(0)
    q = generator.integers(140, 230, 20000).astype(np.uint8)
    y = generator.random(20000) < (q / 255) ** power
    theirs = relplot.smECE(q / 255, y.astype(float))
    assert number(histogram_of(q, y), "smece") == pytest.approx(theirs, rel=tolerance)


def test_difference_relplot_loses_half_of_the_mass_at_the_ends():
    """Half the pixels at p = 1 with accuracy 0.9, the rest calibrated: the truth is 0.05, relplot says 0.034.

    Its reflection repeats the end point once, so mass exactly at 0 or 1 counts half; moved off the end it counts whole.
    """
    q = np.repeat(np.array([255, 153], np.uint8), 5000)
    y = np.concatenate([np.arange(5000) < 4500, np.arange(5000) < 3000])
    assert number(histogram_of(q, y), "smece") == pytest.approx(0.05, abs=5e-4)
    assert relplot.smECE(q / 255, y.astype(float)) == pytest.approx(0.034, abs=1e-3)
    assert relplot.smECE(np.where(q == 255, 0.999, q / 255), y.astype(float)) == pytest.approx(0.05, abs=1e-3)
