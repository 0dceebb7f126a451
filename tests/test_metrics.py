"""Metrics of float and multi-class predictions: textbook oracles, reference values, peer libraries, and bounds that hold."""

from __future__ import annotations

from fractions import Fraction

import netcal.metrics as netcal
import numpy as np
import pytest
import relplot
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    f1_score,
    jaccard_score,
    log_loss,
    recall_score,
    roc_auc_score,
)
from torchmetrics.classification import (
    BinaryCalibrationError,
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassJaccardIndex,
)

from calbench.errors import InputError, OptionError
from calbench.kernels import measure_float_map
from calbench.metrics import METRICS, mbls, ranking
from calbench.metrics import calibration_error as error
from calbench.profiles import DEFAULT_OPTIONS, PROFILES, home_of
from calbench.statistics import (
    ClassCounts,
    JointHistogram,
    KeptScores,
    LogitSums,
    ReliabilityCells,
    ScoreSums,
    Statistics,
    Uncertainty,
    UniformSums,
)
from calbench.statistics.reliability import CLASS_GRID, SCORE_GRID, THRESHOLD, Grid, bin_index

quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
EPS32 = float(np.finfo(np.float32).eps)


# --- builders: arrays of samples -> statistics, in plain numpy ----------------------------------------------------------


def summed(row, cell, shape, weights=None):
    """Σ weights by (row, cell), `(rows, cells)`; counts without weights."""
    found = np.bincount(row * shape[1] + cell, weights=weights, minlength=shape[0] * shape[1]).reshape(shape)
    return found.astype(np.int64) if weights is None else found


def on_grid(score, correct, row=None, *, names=("a",), grid: Grid = SCORE_GRID) -> ReliabilityCells:
    """Cells of flat scores."""
    row = np.zeros(len(score), int) if row is None else row
    cell, shape = grid.index(score), (len(names), grid.size)
    right = np.asarray(correct, bool)
    return ReliabilityCells.on_grid(
        tuple(names),
        summed(row, cell, shape),
        summed(row, cell, shape, score.astype(float)),
        summed(row[right], cell[right], shape),
        grid,
        rounded=score.dtype == np.float64,  # as the kernels say: 1 and the numbers next to it share the last cell
    )


def left_closed_of(score, correct, row, names) -> ReliabilityCells:
    """601 cells [i / 600, (i + 1) / 600), the last for exactly 1, by float32 comparison."""
    edges = (np.arange(601) / 600).astype(np.float32)
    cell, shape = np.searchsorted(edges, score.astype(np.float32), side="right") - 1, (len(names), 601)
    right = np.asarray(correct, bool)
    count, confidence = summed(row, cell, shape), summed(row, cell, shape, score.astype(float))
    correct = summed(row[right], cell[right], shape)
    return ReliabilityCells(tuple(names), count, confidence, correct, np.arange(601) / 600, np.zeros(601))


def totals(row, n_rows, values):
    return np.bincount(row, weights=values, minlength=n_rows)


def several(p, y, row=None, *, logits=None, clip=EPS32) -> Statistics:
    """Statistics of samples with probabilities `(N, C)` of several classes."""
    p, y = np.asarray(p, float), np.asarray(y)
    row = np.zeros(len(y), int) if row is None else row
    n_rows, n_classes = int(row.max()) + 1, p.shape[1]
    names = tuple(f"row{i:04d}" for i in range(n_rows))
    confidence, chosen = p.max(1), p.argmax(1)
    right, hot = chosen == y, np.eye(n_classes)[y]
    count = np.bincount(row, minlength=n_rows)
    per_class = [on_grid(p[:, k], y == k, row, names=names, grid=CLASS_GRID) for k in range(n_classes)]
    stacked = (np.stack([getattr(c, f) for c in per_class], 1) for f in ("count", "confidence", "correct"))
    entropy = -(p * np.log(np.where(p > 0, p, 1))).sum(1)
    taken = p[np.arange(len(y)), y]
    loss = -np.log(np.clip(taken, clip, 1 - clip)) if logits is None else -log_softmax(logits, 1)[np.arange(len(y)), y]
    ordered = None if logits is None else np.sort(logits, 1)
    kept_order = np.argsort(row, kind="stable")
    shape = (n_rows, SCORE_GRID.size)
    classes_shape = (n_rows, n_classes)
    return Statistics(
        top_label=on_grid(confidence, right, row, names=names),
        classes=ReliabilityCells.on_grid(names, *stacked, CLASS_GRID),
        sums=ScoreSums(
            names, count, totals(row, n_rows, loss), totals(row, n_rows, ((p - hot) ** 2).sum(1)),
            totals(row, n_rows, (p**2).sum(1)), totals(row, n_rows, entropy), 0.0 if logits is not None else clip,
            n_classes, binary=False,
        ),
        counts=ClassCounts(
            names, summed(row, y, classes_shape), summed(row, chosen, classes_shape),
            summed(row[right], y[right], classes_shape),
        ),
        unsure=Uncertainty.on_grid(
            names,
            entropy_sum=totals(row, n_rows, entropy),
            confidence_sum=totals(row, n_rows, confidence),
            entropy=summed(row, SCORE_GRID.index(np.clip(entropy / np.log(n_classes), 0, 1)), shape),
            confidence=summed(row, SCORE_GRID.index(confidence), shape),
            classes=n_classes,
        ),
        logits=None if logits is None else LogitSums(
            names, count,
            totals(row, n_rows, (ordered[:, -1:] - logits).sum(1) / (n_classes - 1)),
            totals(row, n_rows, ordered[:, -1] - ordered[:, 0]),
            totals(row, n_rows, ordered[:, -1] - ordered[:, -2]),
        ),
        uniform=UniformSums(
            names, count,
            totals(row, n_rows, (np.log(1 / n_classes) - np.log(p + 1e-10)).mean(1)),
            totals(row, n_rows, np.abs(1 / n_classes - p).mean(1)),
        ),
        objects=on_grid(confidence[y > 0], right[y > 0], row[y > 0], names=names),
        rechosen=on_grid(confidence, p.astype(np.float32).argmax(1) == y, row, names=names),
        left_closed=left_closed_of(confidence, right, row, names),
        kept=KeptScores(names, count, confidence[kept_order], right[kept_order]),
    )  # fmt: skip


def binary(p, y, row=None, *, clip=EPS32) -> Statistics:
    """Statistics of pixels with a float probability of foreground `(N,)`."""
    p, y = np.asarray(p, float), np.asarray(y, bool)
    row = np.zeros(len(y), int) if row is None else row
    n_rows = int(row.max()) + 1
    names = tuple(f"row{i:04d}" for i in range(n_rows))
    decided = p >= 0.5
    safe = np.clip(np.where(y, p, 1 - p), clip, 1 - clip)
    both = np.stack([p, 1 - p])
    entropy = -(both * np.log(np.where(both > 0, both, 1))).sum(0)
    shape = (n_rows, SCORE_GRID.size)
    return Statistics(
        top_label=on_grid(np.maximum(p, 1 - p), decided == y, row, names=names),
        foreground=on_grid(p, y, row, names=names),
        sums=ScoreSums(
            names, np.bincount(row, minlength=n_rows), totals(row, n_rows, -np.log(safe)),
            totals(row, n_rows, (p - y) ** 2), totals(row, n_rows, p**2), totals(row, n_rows, entropy), clip, 2, binary=True,
        ),
        counts=ClassCounts(
            names, *(summed(row[m], c[m].astype(int), (n_rows, 2))
                     for c, m in ((y, y | True), (decided, y | True), (y, y == decided)))
        ),
        unsure=Uncertainty.on_grid(
            names,
            entropy_sum=totals(row, n_rows, entropy),
            confidence_sum=totals(row, n_rows, np.maximum(p, 1 - p)),
            entropy=summed(row, SCORE_GRID.index(np.clip(entropy / np.log(2), 0, 1)), shape),
            confidence=summed(row, SCORE_GRID.index(np.maximum(p, 1 - p)), shape),
            classes=2,
        ),
        left_closed=left_closed_of(p, y, row, names),
    )  # fmt: skip


def eight_bit(levels, y, row=None) -> Statistics:
    """Statistics of an 8-bit map."""
    row = np.zeros(len(y), int) if row is None else row
    n_rows = int(row.max()) + 1
    counts = summed(row, levels.astype(int) + 256 * y, (n_rows, 512)).reshape(n_rows, 2, 256)
    return Statistics(histogram=JointHistogram(tuple(f"row{i:04d}" for i in range(n_rows)), counts))


def exact_cells(score, correct) -> ReliabilityCells:
    """One cell for each distinct score: nothing about the pixels but their order is lost."""
    distinct, cell = np.unique(np.asarray(score, float), return_inverse=True)
    right = np.bincount(cell, weights=correct, minlength=len(distinct)).astype(np.int64)
    return ReliabilityCells.exact((), np.bincount(cell, minlength=len(distinct)), right, distinct)


def value(statistics: Statistics, name: str, **options) -> float:
    """The pooled value of a metric."""
    metric = METRICS[name]
    view = metric.reads(statistics.total() if metric.rows == "pooled" else statistics)
    return float(metric.function(view, **options_of(name, **options)))


def details(statistics: Statistics, name: str, **options) -> dict:
    metric = METRICS[name]
    return dict(metric.details(metric.reads(statistics.total()), **options_of(name, **options)))


def options_of(name, **options):
    return {key: (DEFAULT_OPTIONS | {"debias_bins": 10} | options)[key] for key in METRICS[name].options}


def drawn(seed: int, n: int = 400, n_classes: int = 5, sharpness: float = 2.0):
    """Probabilities, labels and logits of `n` samples, off the bin edges, overconfident."""
    generator = np.random.default_rng(seed)
    z = generator.normal(size=(n, n_classes)) + np.linspace(1, -1, n_classes)
    y = (z + generator.gumbel(size=z.shape)).argmax(1)
    return softmax(sharpness * z, 1), y, sharpness * z


# --- the formula-defined input of the reference implementations ---------------------------------------------------------


@pytest.fixture(scope="module")
def formula() -> Statistics:
    """240 samples of 10 classes, one row a sample."""
    n, k = np.arange(240)[:, None], np.arange(10)[None]
    z = 12 * ((17 * n + 29 * k + 5 * n * k) % 97) / 97 - 6 + 0.01 * k
    n = n[:, 0]
    y = np.where(n % 4, z.argmax(1), (3 * n + n // 5) % 10)
    assert z.sum() == pytest.approx(-41.32, abs=1e-3)  # summed in float32 there
    assert y.sum() == 1073
    return several(softmax(z, 1), y, n, logits=z)


@pytest.mark.parametrize(
    ("name", "bins", "expected"),
    [
        ("accuracy", None, 0.7875),
        ("selectivecal_accuracy_rechosen", None, 0.7875),
        ("nll", None, 1.737114),
        ("ece", 10, 0.226973),
        ("ece", 15, 0.226973),
        ("selectivecal_ece_rechosen", 10, 0.226973),
        ("mbls_aece", 10, 0.207288),
        ("mbls_aece", 15, 0.213515),
        ("mbls_cece", 10, 0.0525179),
        ("mbls_cece", 15, 0.0597060),
        ("ece_classwise", 15, 0.0597060),
        ("brier", None, 0.520948),
        ("logit_mean_distance", None, 5.276570),
        ("logit_max_distance", None, 9.529469),
        ("logit_margin", None, 0.907539),
        ("entropy_normalised", None, 0.471156),
        ("mbls_kl", None, 3.062948),
        ("mbls_l1", None, 0.129718),
        ("mbls_objects_ece", 15, 0.221588),
    ],
)
def test_values_of_the_reference_implementations(formula, name, bins, expected):
    """Computed there in float32, here in float64: equal to their six digits."""
    assert value(formula, name, bins=bins) == pytest.approx(expected, abs=1e-6)


def test_batches_of_the_reference_implementation(formula):
    """Consecutive batches of 60 samples, label 0 dropped; one batch of all samples is the pooled error."""
    assert value(formula, "mbls_segmentation_ece", bins=15, batch=60) == pytest.approx(0.240341, abs=1e-6)
    assert value(formula, "mbls_segmentation_ece", bins=15, batch=240) == pytest.approx(0.221588, abs=1e-6)
    assert value(formula, "mbls_segmentation_ece", bins=15, batch=999) == pytest.approx(0.221588, abs=1e-6)


def test_conventions_are_stated(formula):
    assert METRICS["nll"].conventions(formula.sums) == {"clip": "none"}
    assert METRICS["brier"].conventions(formula.sums) == {"form": "multiclass"}
    assert METRICS["tace"].conventions(formula.classes) == {"epsilon": 0.01}
    p, y = np.array([0.2, 0.7]), np.array([False, True])
    for clip, text in ((1 / 510, "1/510"), (1 / 131070, "1/131070"), (EPS32, "1.19e-07")):
        assert METRICS["nll"].conventions(binary(p, y, clip=clip).sums) == {"clip": text}
    assert METRICS["brier"].conventions(binary(p, y).sums) == {"form": "binary"}
    assert METRICS["nll"].conventions(eight_bit(np.array([3]), np.array([True])).score_sums()) == {"clip": "1/510"}


# --- oracles of the binned errors ---------------------------------------------------------------------------------------


def textbook_gaps(score, correct, bins):
    """(share of samples, mean score − accuracy) of every occupied bin (l, r]."""
    index = np.maximum(np.ceil(score * bins).astype(int) - 1, 0)
    for b in np.unique(index):
        inside = index == b
        yield inside.mean(), score[inside].mean() - correct[inside].mean()


def textbook_equal_mass(score, correct, bins):
    """Every sample cut into `bins` pieces, tied samples sharing their mean correctness; N pieces a bin."""
    order = np.argsort(score)
    score, correct = score[order], correct[order]
    _, tie, size = np.unique(score, return_inverse=True, return_counts=True)
    shared = (np.bincount(tie, correct) / size)[tie]
    pieces = (np.repeat(a, bins).reshape(bins, len(score)).mean(1) for a in (score, shared))
    return np.abs(np.subtract(*pieces)).mean()


@pytest.mark.parametrize("bins", [10, 12, 15, 20, 30])
@pytest.mark.parametrize("seed", range(3))
def test_binned_errors_equal_the_textbook(seed, bins):
    p, y, _ = drawn(seed)
    statistics = several(p, y)
    confidence, right = p.max(1), p.argmax(1) == y
    gaps = list(textbook_gaps(confidence, right, bins))
    assert value(statistics, "ece", bins=bins) == pytest.approx(sum(w * abs(g) for w, g in gaps), abs=1e-12)
    assert value(statistics, "average_ce", bins=bins) == pytest.approx(np.mean([abs(g) for _, g in gaps]), abs=1e-12)
    assert details(statistics, "average_ce", bins=bins) == {"n_bins_occupied": len(gaps)}
    by_class = [sum(w * abs(g) for w, g in textbook_gaps(p[:, k], y == k, bins)) for k in range(p.shape[1])]
    assert error.class_wise_errors(statistics.classes.total(), bins=bins) == pytest.approx(by_class, abs=1e-12)
    assert value(statistics, "ece_classwise", bins=bins) == pytest.approx(np.mean(by_class), abs=1e-12)


@pytest.mark.parametrize("bins", [1, 4, 15])
@pytest.mark.parametrize("seed", range(3))
def test_thresholded_error_equals_the_textbook(seed, bins):
    """Probabilities of a few values, each alone in its cell, so that cells know the ties; one class stays below ε."""
    generator = np.random.default_rng(seed)
    rows = np.array(
        [[0.55, 0.26, 0.16, 0.025, 0.005], [0.88, 0.1, 0.015, 0.003, 0.002], [0.4, 0.35, 0.2, 0.041, 0.009]]
    )
    p = generator.permuted(rows[generator.integers(0, 3, 300)][:, :4], axis=1)
    p = np.concatenate([p, 1 - p.sum(1, keepdims=True)], axis=1)
    y = generator.integers(0, 3, 300)
    assert len(np.unique(CLASS_GRID.index(rows[:, :4][rows[:, :4] > THRESHOLD]))) == 11
    statistics = several(p, y)
    expected = [textbook_equal_mass(*(a[p[:, k] > 0.01] for a in (p[:, k], y == k)), bins) for k in range(4)]
    got = error.thresholded_errors(statistics.classes.total(), bins=bins)
    assert got[:4] == pytest.approx(expected, abs=1e-12)
    assert np.isnan(got[4])
    assert value(statistics, "tace", bins=bins) == pytest.approx(np.mean(expected), abs=1e-12)
    facts = details(statistics, "tace", bins=bins)
    assert (facts["classes_seen"], facts["classes_averaged"]) == (3, 4)
    assert facts["error_bound"] >= 0


def test_no_probability_above_the_threshold_is_undefined():
    p = np.full((7, 200), 1 / 200)
    assert np.isnan(value(several(p, np.zeros(7, int)), "tace", bins=15))


def test_classes_without_samples_count_in_the_class_wise_error():
    p, y, _ = drawn(0)
    y = np.where(y == 4, 0, y)
    statistics = several(p, y)
    assert details(statistics, "ece_classwise", bins=15) == {"classes_seen": 4}
    by_class = error.class_wise_errors(statistics.classes.total(), bins=15)
    assert by_class[4] == pytest.approx(p[:, 4].mean())
    assert value(statistics, "ece_classwise", bins=15) == pytest.approx(by_class.mean())


def test_interpolated_edges_drop_the_smallest_confidence():
    """Two samples in two bins: edges at 0.3, 0.9, 0.9; the sample at 0.3 lies in no bin, and the last bin is empty."""
    scores = KeptScores(("a",), np.array([2]), np.array([0.3, 0.9]), np.array([False, True]))
    assert float(mbls.interpolated_adaptive_error(scores, bins=2)) == pytest.approx(0.1 / 2)
    assert np.isnan(mbls.interpolated_adaptive_error(scores.select([]), bins=2))


def test_classes_above_the_largest_label_are_left_out():
    p, y, _ = drawn(1)
    statistics = several(p, np.where(y > 2, 1, np.where(y == 0, 2, y)))
    by_class = error.class_wise_errors(statistics.classes.total(), bins=15)
    assert value(statistics, "mbls_cece", bins=15) == pytest.approx(by_class[:3].mean())
    assert details(statistics, "mbls_cece", bins=15) == {"classes_averaged": 3, "classes_seen": 2}
    assert details(statistics, "mbls_cece", bins=7)["error_bound"] > 0


@pytest.mark.parametrize("bins", [7, 10, 13, 100, 601])
def test_edges_inside_cells_are_found(bins):
    """A cell is cut where scores at its two ends fall into different bins."""
    cells = on_grid(np.array([0.5]), np.array([True]))
    edges = SCORE_GRID.edges
    just_inside = bin_index(np.minimum(edges[:-1] + 3e-12, edges[1:]), bins)
    assert np.array_equal(error._edges_inside(cells, bins), bin_index(edges[1:], bins) - just_inside)
    assert error._edges_inside(cells, bins).sum() == sum(1 for k in range(1, bins) if Fraction(600 * k, bins) % 1)


# --- bounds ---------------------------------------------------------------------------------------------------------------


@st.composite
def floats_with_truth(draw):
    """Float scores: smooth, crowded into a cell, saturated, or mixed; outcomes that rise, fall or do not care."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(2, 150))
    centre = generator.random()
    kinds = (
        generator.random(n),
        np.clip(centre + generator.normal(0, 1e-3, n), 0, 1),
        1 / (1 + np.exp(-generator.normal(0, 12, n))),
        generator.choice([0, 1, centre, 1 - 1e-9, 1e-9], n),
    )
    p = np.choose(generator.integers(0, 4, n), kinds) if draw(st.booleans()) else kinds[draw(st.integers(0, 3))]
    truth = draw(st.sampled_from([p, 1 - p, np.full(n, 0.5), (p * 1e4) % 1]))
    return p, generator.random(n) < truth


TOP = (
    "ece",
    "over",
    "under",
    "aece",
    "ks",
    "auroc_error",
    "aupr_error",
    "aupr_success",
    "fpr95_error",
    "aurc",
    "eaurc",
    "augrc",
)
FOREGROUND = ("ece_fg", "aece_fg", "auroc", "ap")


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(floats_with_truth(), st.integers(1, 1000) | st.integers(1, 30), st.sampled_from(["split", "whole"]))
def test_bounds_hold(data, bins, ties):
    """The value on the scores themselves is at most `error_bound` away from the value on cells."""
    p, y = data
    statistics = binary(p, y)
    raw = {
        "top": exact_cells(np.maximum(p, 1 - p), (p >= 0.5) == y),
        "fg": exact_cells(p, y),
    }
    for name in (*TOP, *FOREGROUND):
        options = options_of(name, bins=bins, ties=ties)
        truth = float(METRICS[name].function(raw["fg" if name in FOREGROUND else "top"], **options))
        found = value(statistics, name, **options)
        assert np.isnan(truth) == np.isnan(found), name
        if np.isfinite(truth):
            bound = details(statistics, name, **options).get("error_bound", 0)
            assert abs(truth - found) <= bound + 1e-9, name


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(floats_with_truth(), st.integers(1, 100))
def test_class_wise_bounds_hold(data, bins):
    p, y = data
    p = np.stack([p, (1 - p) * 0.7, (1 - p) * 0.3], axis=1)
    statistics = several(p, np.where(y, 0, 1))
    raw = [exact_cells(p[:, k], y == (k == 0)) for k in range(2)] + [exact_cells(p[:, 2], np.zeros(len(y)))]
    truth = np.mean([error.expected_calibration_error(cells, bins=bins) for cells in raw])
    bound = details(statistics, "ece_classwise", bins=bins).get("error_bound", 0)
    assert abs(truth - value(statistics, "ece_classwise", bins=bins)) <= bound + 1e-9

    above = [
        exact_cells(p[p[:, k] > 0.01, k], ((np.where(y, 0, 1) == k) & (p[:, k] > 0.01))[p[:, k] > 0.01])
        for k in range(3)
    ]
    truth = np.mean([error.adaptive_calibration_error(cells, bins=bins) for cells in above if len(cells.score)])
    bound = details(statistics, "tace", bins=bins)["error_bound"]
    assert abs(truth - value(statistics, "tace", bins=bins)) <= bound + 1e-9


@quick
@given(floats_with_truth(), st.sampled_from(["split", "whole"]))
def test_bound_of_the_sweep_holds_for_its_bins(data, ties):
    p, y = data
    statistics = binary(p, y)
    facts = details(statistics, "ece_sweep", ties=ties)
    raw = exact_cells(np.maximum(p, 1 - p), (p >= 0.5) == y)
    truth = float(error.adaptive_calibration_error(raw, bins=facts["bins_chosen"], ties=ties))
    assert abs(truth - value(statistics, "ece_sweep", ties=ties)) <= facts["error_bound"] + 1e-9


def test_width_alone_would_be_no_bound():
    """Two samples of one cell, the lower wrong, in two bins: the order inside the cell moves the error by 0.1."""
    p, y = np.array([0.9001, 0.9002]), np.array([False, True])
    statistics, raw = binary(p, y), exact_cells(p, y)
    found, truth = value(statistics, "aece", bins=2), float(error.adaptive_calibration_error(raw, bins=2))
    assert truth - found == pytest.approx(0.1, abs=1e-3)
    facts = details(statistics, "aece", bins=2)
    assert facts["error_bound"] >= truth - found
    assert facts["split_width"] == pytest.approx(1 / 600)


def test_bounds_are_small_on_many_pixels():
    generator = np.random.default_rng(0)
    p = generator.beta(0.5, 0.8, 100_000)
    y = generator.random(len(p)) < p**1.3
    statistics = binary(p, y)
    largest = {"auroc": 1e-3, "ap": 2e-3, "aurc": 1e-3, "augrc": 1e-3, "fpr95_error": 5e-3, "aece": 1e-2, "ece": 0}
    for name, most in largest.items():
        assert details(statistics, name, bins=15, ties="split").get("error_bound", 0) <= most, name
    assert value(statistics, "auroc") == pytest.approx(roc_auc_score(y, p), abs=1e-5)
    assert value(statistics, "ap") == pytest.approx(average_precision_score(y, p), abs=1e-3)
    raw = exact_cells(np.maximum(p, 1 - p), (p >= 0.5) == y)
    for name in ("aurc", "augrc", "aupr_error"):
        assert value(statistics, name) == pytest.approx(float(METRICS[name].function(raw)), abs=1e-3), name
    width = details(statistics, "aece", bins=15, ties="split")["split_width"]
    assert width < 2e-4
    exact = float(error.adaptive_calibration_error(raw, bins=15))
    assert value(statistics, "aece", bins=15) == pytest.approx(exact, abs=width)


def test_exact_cells_report_no_bound():
    generator = np.random.default_rng(0)
    levels = generator.integers(0, 256, 500)
    statistics = eight_bit(levels, generator.random(500) < levels / 255)
    for name in (*TOP, *FOREGROUND):
        if METRICS[name].details:
            assert "error_bound" not in details(statistics, name, bins=7, ties="split"), name
    for name in ("mce", "rmsce", "oe", "average_ce"):
        assert "pixel_share_cut" not in details(statistics, name, bins=7), name


def test_saturated_scores_are_true_ties():
    """Half of the pixels at exactly 0 or 1, right and wrong: their order is known, the bound has no part of them."""
    generator = np.random.default_rng(0)
    p = generator.choice([0.0, 1.0], 1000)
    y = generator.random(1000) < 0.2 + 0.6 * p
    [statistics] = measure_float_map("a", p[None].astype(np.float32), "probabilities", y[None])
    for name in ("auroc", "ap", "auroc_error", "aupr_error", "fpr95_error", "aurc", "ks", "aece"):
        assert details(statistics, name, bins=15, ties="split")["error_bound"] == 0, name
    assert value(statistics, "auroc") == pytest.approx(roc_auc_score(y, p))


def test_bins_that_cut_cells_are_said():
    p, y, _ = drawn(0)
    statistics = several(p, y)
    for name in ("mce", "rmsce", "oe", "average_ce", "ce2_debiased"):
        assert "pixel_share_cut" not in details(statistics, name, bins=15), name
        assert 0 <= details(statistics, name, bins=7)["pixel_share_cut"] < 0.1, name
    rows = several(p, y, np.arange(len(y)) % 4)
    assert 0 <= error.cluster_details(rows.top_label, bins=7)["pixel_share_cut"] < 0.1
    assert "error_bound" not in details(statistics, "ece", bins=12)
    assert details(statistics, "ece", bins=13)["error_bound"] > 0
    assert details(statistics, "over", bins=13)["error_bound"] == details(statistics, "ece", bins=13)["error_bound"] / 2
    assert "error_bound" not in details(statistics, "ece_classwise", bins=20)
    assert details(statistics, "ece_classwise", bins=25)["error_bound"] > 0


# --- ranking --------------------------------------------------------------------------------------------------------------


def textbook_aurc(confidence, wrong):
    return np.mean([wrong[confidence >= c].mean() for c in confidence])


def textbook_augrc(confidence, wrong):
    """Trapezoids through (coverage, accepted errors / N) at every threshold."""
    points = [(0, 0)] + [
        ((confidence >= c).mean(), (wrong & (confidence >= c)).mean()) for c in np.unique(confidence)[::-1]
    ]
    coverage, errors = np.array(points).T
    return np.trapezoid(errors, coverage)


def textbook_fpr(score, positive, rate=0.95):
    """First threshold, from the top, with TPR >= rate."""
    for threshold in np.unique(score)[::-1]:
        if (score >= threshold)[positive].mean() >= rate:
            return (score >= threshold)[~positive].mean()
    raise AssertionError


@quick
@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.sampled_from([3, 50]))
def test_error_rankings_equal_the_textbook(seed, n, distinct):
    """Ties and few samples; peers where both outcomes are there."""
    generator = np.random.default_rng(seed)
    confidence = generator.choice(np.linspace(0.5, 1, distinct), n)
    right = generator.random(n) < generator.choice([confidence, 1 - confidence, np.full(n, 0.6)])
    cells = exact_cells(confidence, right)
    assert float(ranking.aurc(cells)) == pytest.approx(textbook_aurc(confidence, ~right), abs=1e-12)
    assert float(ranking.augrc(cells)) == pytest.approx(textbook_augrc(confidence, ~right), abs=1e-12)
    rate = 1 - right.mean()
    best = rate + (1 - rate) * np.log(1 - rate) if rate < 1 else 1.0
    assert float(ranking.excess_aurc(cells)) == pytest.approx(textbook_aurc(confidence, ~right) - best, abs=1e-12)
    assert float(ranking.excess_aurc(cells)) >= -1e-12
    if not right.any() or right.all():
        assert np.isnan(ranking.auroc_error(cells))
        assert np.isnan(ranking.fpr95_error(cells))
        assert float(ranking.augrc(cells)) == pytest.approx(rate**2 / 2)
        return
    assert float(ranking.auroc_error(cells)) == pytest.approx(roc_auc_score(right, confidence), abs=1e-12)
    assert float(ranking.aupr_success(cells)) == pytest.approx(average_precision_score(right, confidence), abs=1e-12)
    assert float(ranking.aupr_error(cells)) == pytest.approx(average_precision_score(~right, -confidence), abs=1e-12)
    assert float(ranking.fpr95_error(cells)) == pytest.approx(textbook_fpr(-confidence, ~right), abs=1e-12)
    identity = (1 - ranking.auroc_error(cells)) * (1 - rate) * rate + rate**2 / 2
    assert float(ranking.augrc(cells)) == pytest.approx(float(identity), abs=1e-12)


@quick
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40))
def test_detection_of_ood_equals_the_textbook(seed, n_out, n_in):
    generator = np.random.default_rng(seed)
    score = generator.integers(0, 12, n_out + n_in)
    out = np.arange(len(score)) < n_out
    score[out] += generator.integers(0, 5)
    positives, negatives = (np.bincount(score[side], minlength=17) for side in (out, ~out))
    got = {n: float(METRICS[n].function(positives, negatives)) for n in METRICS if METRICS[n].scope == "id-ood"}
    assert got == pytest.approx(
        {
            "ood_auroc": roc_auc_score(out, score),
            "ood_aupr_in": average_precision_score(~out, -score),
            "ood_aupr_out": average_precision_score(out, score),
            "ood_fpr95": textbook_fpr(score, out),
        },
        abs=1e-12,
    )
    apart = score + np.linspace(0, 0.9, len(score))[generator.permutation(len(score))]
    fine = {
        "ood_auroc": roc_auc_score(out, apart),
        "ood_aupr_in": average_precision_score(~out, -apart),
        "ood_aupr_out": average_precision_score(out, apart),
        "ood_fpr95": textbook_fpr(apart, out),
    }
    for name, exact in fine.items():
        bound = METRICS[name].details(positives, negatives)["error_bound"]
        assert abs(exact - got[name]) <= bound + 1e-12, name


def test_rates_of_exactly_95_percent_are_reached():
    """19 of 20: 0.95 is not a binary fraction, and no rounding may ask for the twentieth."""
    for n in (20, 60, 100, 2**24 * 20, 10**15):
        positives, negatives = np.array([n // 20, n - n // 20]), np.array([7, 3])
        assert float(ranking.fpr_at_tpr(positives, negatives)) == pytest.approx(0.3)


def test_rankings_keep_leading_axes():
    generator = np.random.default_rng(0)
    positives, negatives = generator.integers(0, 9, (2, 4, 3, 20))
    functions = (
        ranking.area_under_roc, ranking.average_precision_of, ranking.fpr_at_tpr, ranking.aupr_in,
        ranking.auroc_bound, ranking.average_precision_bound, ranking.fpr_bound,
    )  # fmt: skip
    for function in functions:
        together = function(positives, negatives)
        assert together.shape == (4, 3)
        for at in np.ndindex(4, 3):
            assert together[at] == function(positives[at], negatives[at]), function


def test_ood_metrics_of_one_set():
    generator = np.random.default_rng(0)
    p = generator.uniform(0, 0.4, 500)
    float_map = binary(p, np.zeros(500, bool))
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p)).mean()
    assert value(float_map, "ood_entropy") == pytest.approx(entropy)
    assert value(float_map, "ood_ece", bins=15) == value(float_map, "ece", bins=15)
    assert value(float_map, "ood_oe", bins=15) == value(float_map, "oe", bins=15)
    levels = eight_bit(np.rint(p * 255), np.zeros(500, bool))
    assert value(levels, "ood_entropy") == pytest.approx(entropy, rel=1e-2)
    assert value(levels, "ood_ece", bins=15) == value(levels, "ece", bins=15)
    p, y, _ = drawn(0)
    classes = several(p, y)
    assert value(classes, "ood_entropy") == pytest.approx(value(classes, "entropy"))
    assert not METRICS["ood_ece"].reads.available(classes)
    with pytest.raises(InputError, match="binary maps"):
        METRICS["ood_ece"].reads(classes)


# --- scoring rules and decompositions ---------------------------------------------------------------------------------------


def assert_decomposed(statistics: Statistics) -> dict[str, float]:
    got = {n: value(statistics, n) for n in METRICS if n.startswith(("brier", "corp"))}
    murphy = got["brier_reliability"] - got["brier_resolution"] + got["brier_uncertainty"]
    within = got["brier_within_variance"] - got["brier_within_covariance"]
    assert murphy + within == pytest.approx(got["brier"], abs=1e-12)
    corp = got["corp_miscalibration"] - got["corp_discrimination"] + got["brier_uncertainty"]
    assert corp + within == pytest.approx(got["brier"], abs=1e-12)
    assert got["corp_miscalibration"] >= -1e-12
    assert got["brier_within_variance"] >= -1e-12
    assert got["corp_discrimination"] >= -1e-12
    return got


@quick
@given(floats_with_truth())
def test_decompositions_add_up_on_float_maps(data):
    p, y = data
    got = assert_decomposed(binary(p, y))
    assert got["brier"] == pytest.approx(np.mean((p - y) ** 2), abs=1e-12)
    assert got["brier_uncertainty"] == pytest.approx(y.mean() * (1 - y.mean()), abs=1e-12)
    cell = SCORE_GRID.index(p)
    variance = sum(((p[cell == c] - p[cell == c].mean()) ** 2).sum() for c in np.unique(cell)) / len(p)
    covariance = sum(
        ((p[cell == c] - p[cell == c].mean()) * (y[cell == c] - y[cell == c].mean())).sum() for c in np.unique(cell)
    )
    assert got["brier_within_variance"] == pytest.approx(variance, abs=1e-12)
    assert got["brier_within_covariance"] == pytest.approx(2 * covariance / len(p), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_decompositions_add_up_on_several_classes(seed):
    p, y, _ = drawn(seed, n_classes=3 + seed)
    statistics = several(p, y)
    got = assert_decomposed(statistics)
    hot = np.eye(p.shape[1])[y]
    assert got["brier"] == pytest.approx(((p - hot) ** 2).sum(1).mean(), abs=1e-12)
    assert got["brier_uncertainty"] == pytest.approx((hot.mean(0) * (1 - hot.mean(0))).sum(), abs=1e-12)
    assert value(several(np.stack([1 - p[:, 0], p[:, 0]], 1), (y == 0).astype(int)), "brier") == pytest.approx(
        2 * value(binary(p[:, 0], y == 0), "brier"), abs=1e-12
    )


def test_within_terms_of_8_bit_maps_are_exactly_zero():
    generator = np.random.default_rng(0)
    levels = generator.integers(0, 256, 3000)
    statistics = eight_bit(levels, generator.random(3000) < levels / 255)
    got = assert_decomposed(statistics)
    assert got["brier_within_variance"] == 0.0
    assert got["brier_within_covariance"] == 0.0
    empty = Statistics(histogram=JointHistogram(("a",), np.zeros((1, 2, 256), np.int64)))
    assert all(np.isnan(value(empty, n)) for n in METRICS if n.startswith(("brier", "corp")))


@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_scikit_learn(seed):
    p, y, z = drawn(seed)
    assert value(several(p, y), "nll") == pytest.approx(log_loss(y, p), rel=1e-12)
    assert value(several(p, y, logits=z), "nll") == pytest.approx(log_loss(y, p), rel=1e-9)
    foreground = binary(p[:, 0], y == 0)
    assert value(foreground, "nll") == pytest.approx(log_loss(y == 0, p[:, 0]), rel=1e-12)
    assert value(foreground, "brier") == pytest.approx(brier_score_loss(y == 0, p[:, 0]), rel=1e-12)
    apart = SCORE_GRID.index(p[:, 0])
    assert len(np.unique(apart)) < len(apart)  # the grid ties some scores; the bound says what that may do
    for name, peer in (("auroc", roc_auc_score), ("ap", average_precision_score)):
        bound = details(foreground, name)["error_bound"]
        assert value(foreground, name) == pytest.approx(peer(y == 0, p[:, 0]), abs=bound)
        assert bound < 0.01


# --- segmentation -----------------------------------------------------------------------------------------------------------


def labelled(seed: int):
    """Truth and prediction of 6 classes: 4 is only predicted, 5 in neither, 3 only in the truth."""
    generator = np.random.default_rng(seed)
    y = generator.choice(4, 500, p=[0.6, 0.2, 0.15, 0.05])
    chosen = np.where(generator.random(500) < 0.7, y, generator.choice([0, 1, 2, 4], 500))
    chosen[chosen == 3] = 0
    return y, chosen, several(np.eye(6)[chosen] * 0.5 + 0.5 / 6, y)


@pytest.mark.parametrize("seed", range(3))
def test_segmentation_equals_scikit_learn(seed):
    y, chosen, statistics = labelled(seed)
    met = [0, 1, 2, 3, 4]
    averaged = {"labels": met, "average": None, "zero_division": 0}
    iou = jaccard_score(y, chosen, **averaged)
    share = np.bincount(y, minlength=5)[:5] / len(y)
    assert value(statistics, "pixel_accuracy") == pytest.approx((y == chosen).mean())
    assert value(statistics, "accuracy") == pytest.approx((y == chosen).mean())
    assert value(statistics, "miou") == pytest.approx(iou.mean())
    assert value(statistics, "fw_iou") == pytest.approx((share * iou).sum())
    assert value(statistics, "mdice") == pytest.approx(f1_score(y, chosen, **averaged).mean())
    recall = recall_score(y, chosen, **averaged)
    assert value(statistics, "class_accuracy") == pytest.approx(recall[:4].mean())
    assert details(statistics, "miou") == {"classes_seen": 4, "classes_absent": 1}
    by_class = METRICS["miou"].by_class(statistics.counts.total())
    assert by_class[:5] == pytest.approx(iou)
    assert np.isnan(by_class[5])


@pytest.mark.parametrize("seed", range(3))
def test_segmentation_equals_torchmetrics(seed):
    """Intersection over union agrees. Recall does not: a class that is only predicted counts 0 there, and not at all here."""
    y, chosen, statistics = labelled(seed)
    pair = torch.from_numpy(chosen), torch.from_numpy(y)
    assert value(statistics, "miou") == pytest.approx(float(MulticlassJaccardIndex(6)(*pair)), abs=1e-6)
    theirs = float(MulticlassAccuracy(6, average="macro")(*pair))
    assert value(statistics, "torchmetrics_class_accuracy") == pytest.approx(theirs, abs=1e-6)
    assert value(statistics, "class_accuracy") == pytest.approx(theirs * 5 / 4, abs=1e-6)
    assert value(statistics, "pixel_accuracy") == pytest.approx(
        float(MulticlassAccuracy(6, average="micro")(*pair)), abs=1e-6
    )


def test_binary_maps_have_two_classes():
    levels, y = np.array([127, 128, 255, 0]), np.array([True, True, True, False])
    for statistics in (eight_bit(levels, y), binary(levels / 255, y)):
        assert value(statistics, "miou") == pytest.approx((1 / 2 + 2 / 3) / 2)
        assert value(statistics, "class_accuracy") == pytest.approx((1 + 2 / 3) / 2)
        assert value(statistics, "pixel_accuracy") == value(statistics, "accuracy") == 0.75


# --- peers of the calibration errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bins", [10, 15, 20, 50])
@pytest.mark.parametrize("seed", range(2))
def test_left_closed_errors_equal_torchmetrics(seed, bins):
    p, y, _ = drawn(seed, n=3000)
    p[:40] = np.eye(5)[(y[:40] + (np.arange(40) % 4 == 0)) % 5]  # exactly 1, most of them right
    p = p.astype(np.float32)
    tensors = torch.from_numpy(p), torch.from_numpy(y)
    classes, foreground = several(p, y), binary(p[:, 0], y == 0)
    for name, norm in (("ece", "l1"), ("rmsce", "l2"), ("mce", "max")):
        theirs = MulticlassCalibrationError(5, n_bins=bins, norm=norm)(*tensors)
        assert value(classes, f"torchmetrics_{name}", bins=bins) == pytest.approx(float(theirs), rel=1e-5)
        theirs = BinaryCalibrationError(n_bins=bins, norm=norm)(tensors[0][:, 0], tensors[1] == 0)
        assert value(foreground, f"torchmetrics_{name}", bins=bins) == pytest.approx(float(theirs), rel=1e-5)
    facts = details(classes, "torchmetrics_mce", bins=bins)
    assert facts["bin"] == "1" or facts["bin"].startswith("[")


def test_difference_a_bin_for_exactly_one():
    """Right at 0.999, wrong at 1: torchmetrics keeps the two apart, our last bin (l, 1] holds both and their gaps cancel."""
    p, y = np.array([0.999] * 5 + [1.0] * 5), np.array([True] * 5 + [False] * 5)
    levels = np.array([254] * 5 + [255] * 5)
    for statistics in (binary(p, y), eight_bit(levels, y)):
        assert value(statistics, "torchmetrics_ece", bins=10) == pytest.approx(0.5, abs=1e-2)
        assert value(statistics, "ece_fg", bins=10) == pytest.approx(0.5, abs=1e-2)
        assert value(statistics, "torchmetrics_mce", bins=10) == 1
        assert details(statistics, "torchmetrics_mce", bins=10) == {"bin": "1"}
        assert value(statistics, "mce", bins=10) == pytest.approx(0.5, abs=1e-2)
    theirs = BinaryCalibrationError(n_bins=10, norm="max")(torch.from_numpy(p), torch.from_numpy(y.astype(int)))
    assert float(theirs) == 1


def test_left_closed_bins_must_be_unions_of_cells():
    p, y, _ = drawn(0)
    with pytest.raises(OptionError, match=r"bins is 7.*for example 6"):
        value(several(p, y), "torchmetrics_ece", bins=7)
    assert value(eight_bit(np.array([3, 200]), np.array([False, True])), "torchmetrics_ece", bins=7) > 0


def test_left_closed_bins_of_levels_on_their_edges():
    """Level 17 j lies on edge j / 15 exactly: it opens bin j, where right-closed bins let it close bin j − 1.

    In float32, though, three of the edges come out above their level; torchmetrics compares there, and so does its profile.
    """
    levels = np.arange(0, 256, 17)
    cells = eight_bit(levels, np.ones(16, bool)).histogram.reliability("foreground").total()
    found = METRICS["torchmetrics_ece"].norm(cells, bins=15).weights[::17].argmax(1)
    edges, scores = torch.linspace(0, 1, 16), torch.from_numpy(levels.astype(np.uint8)) / 255
    assert found.tolist() == (torch.bucketize(scores, edges, right=True) - 1).tolist()
    assert levels[found != np.arange(16)].tolist() == [51, 102, 119]
    assert bin_index(np.arange(16) / 15, 15).tolist() == [0, *range(15)]


@pytest.mark.parametrize("bins", [10, 15, 30])
def test_torchmetrics_profile_of_8_bit_maps_is_torchmetrics(bins):
    generator = np.random.default_rng(bins)
    levels = generator.integers(0, 256, 20_000).astype(np.uint8)
    y = generator.random(20_000) < (levels / 255) ** 1.5
    statistics = eight_bit(levels, y)
    for name, norm in (("torchmetrics_ece", "l1"), ("torchmetrics_rmsce", "l2"), ("torchmetrics_mce", "max")):
        peer = BinaryCalibrationError(n_bins=bins, norm=norm)
        expected = float(peer(torch.from_numpy(levels) / 255, torch.from_numpy(y.astype(np.int64))))
        assert value(statistics, name, bins=bins) == pytest.approx(expected, abs=2e-5)  # it adds in float32


def test_difference_torchmetrics_counts_stop_at_2_to_the_24():
    """Its float32 counters stop; ours do not. One wrong pixel in 2^24 + 3 of a cell, confidence ½."""
    counter = torch.full((1,), 2.0**24).scatter_add_(0, torch.zeros(3, dtype=torch.int64), torch.ones(3))
    assert float(counter) == 2**24
    n = 2**24 + 3
    for at in (300, 600):
        count, correct = np.zeros((2, 1, 601), np.int64)
        count[0, at], correct[0, at] = n, n - 1
        cells = ReliabilityCells(("a",), count, count * 0.5, correct, np.arange(601) / 600, np.zeros(601))
        assert value(Statistics(top_label=cells, left_closed=cells), "torchmetrics_ece", bins=15) == pytest.approx(
            float(Fraction(n - 2, 2 * n)), rel=1e-15
        )


@pytest.mark.parametrize("n", [2**24 + 1, 2**24 + 3, 2**33 + 1])
def test_a_cell_of_more_than_2_to_the_24_pixels_counts_exactly(n):
    count, correct = np.zeros((2, 3, SCORE_GRID.size), np.int64)
    count[:, -1], correct[:, -1] = n, n - 1
    statistics = Statistics(
        top_label=ReliabilityCells.on_grid(("a", "b", "c"), count, count * 1.0, correct, SCORE_GRID)
    )
    pooled = statistics.total().top_label
    assert int(pooled.count[-1]) == 3 * n
    assert int(pooled.correct[-1]) == 3 * n - 3
    for name in ("ece", "aece", "average_ce", "ks", "rmsce", "gap", "over"):
        assert value(statistics, name, bins=15, ties="split") == pytest.approx(float(Fraction(1, n)), rel=1e-12), name
    assert value(statistics, "accuracy") == float(1 - Fraction(1, n))
    assert value(statistics, "aurc") == pytest.approx(float(Fraction(1, n)), rel=1e-12)
    assert value(statistics, "augrc") == pytest.approx(float(Fraction(1, 2 * n)), rel=1e-12)


@pytest.mark.parametrize("bins", [10, 15, 20])
def test_top_label_ece_equals_netcal_off_the_edges(bins):
    p, y, _ = drawn(4, n=2000)
    assert value(several(p, y), "ece", bins=bins) == pytest.approx(netcal.ECE(bins=bins).measure(p, y), rel=1e-9)
    assert value(several(p, y), "average_ce", bins=bins) == pytest.approx(netcal.ACE(bins=bins).measure(p, y), rel=1e-9)


@pytest.mark.parametrize(("power", "tolerance"), [(3.0, 3e-3), (1.5, 1e-2)])
def test_smooth_ece_of_floats_agrees_with_relplot_on_interior_scores(power, tolerance):
    generator = np.random.default_rng(0)
    p = generator.uniform(0.55, 0.9, 20000)
    y = generator.random(20000) < p**power
    theirs = relplot.smECE(p, y.astype(float))
    assert value(binary(p, y), "smece") == pytest.approx(theirs, rel=tolerance)


def test_smooth_ece_places_cells_at_the_mean_of_their_scores():
    """Scores at the lower ends of their cells: on cells as on the scores themselves, for every row of a stack."""
    generator = np.random.default_rng(0)
    p = np.floor(generator.uniform(0.5, 0.99, 8000) * 600) / 600 + 1e-5
    y = generator.random(8000) < p**2
    row = np.arange(8000) % 3
    statistics = binary(p, y, row)
    exact = float(error.smooth_calibration_error(exact_cells(p, y)))
    assert value(statistics, "smece") == pytest.approx(exact, rel=1e-9)
    rows = error.smooth_calibration_error(statistics.top_label)
    for i in range(3):
        alone = error.smooth_calibration_error(exact_cells(p[row == i], y[row == i]))
        assert rows[i] == pytest.approx(float(alone), rel=1e-9)


# --- norms, leading axes, profiles -------------------------------------------------------------------------------------------


NEW_NORMS = [
    name for name, metric in METRICS.items()
    if metric.norm and metric.scope == "id" and not name.startswith("aslp_") and "debiased" not in name
]  # fmt: skip


@pytest.mark.parametrize("name", NEW_NORMS)
def test_norm_is_the_metric(name):
    p, y, z = drawn(3, n=3000)
    metric, pooled = METRICS[name], None
    for statistics in (several(p, y, logits=z), binary(p[:, 0], y == 0)):
        if metric.reads.available(statistics):
            pooled = metric.reads(statistics.total())
            options = options_of(name, bins=15)
            norm = metric.norm(pooled, **options)
            total = pooled.count.sum(-1).flat[0]
            gauge = float(norm.gauge(norm.vector(pooled.residual[None]) / total)[0]) ** norm.power
            assert gauge == pytest.approx(value(statistics, name, **options), rel=1e-9)
    assert pooled is not None


@pytest.mark.parametrize("name", ["ece_classwise", "tace"])
def test_norm_of_a_class_is_the_value_of_the_class(name):
    p, y, _ = drawn(3, n=3000)
    pooled, metric = several(p, y).classes.total(), METRICS[name]
    for k, expected in enumerate(metric.by_class(pooled, bins=15)):
        norm = metric.class_norm(pooled, k, bins=15)
        gauge = norm.gauge(norm.vector(pooled.residual[k]) / pooled.count[k].sum())
        assert float(gauge) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    "name", [name for name, metric in METRICS.items() if metric.scope != "id-ood" and metric.per_image]
)
def test_stack_of_rows_gives_each_row_its_own_value(name):
    p, y, z = drawn(5, n=300)
    row = np.repeat(np.arange(4), [100, 80, 1, 119])
    metric, options = METRICS[name], options_of(name, bins=15)
    for statistics in (several(p, y, row, logits=z), binary(p[:, 0], y == 0, row)):
        if not metric.reads.available(statistics) or metric.average == "images":
            continue
        stacked = metric.function(metric.reads(statistics), **options)
        assert stacked.shape == (4,)
        for i in range(4):
            one = statistics.select([i])
            np.testing.assert_allclose(
                stacked[i], metric.function(metric.reads(one), **options)[0], rtol=1e-12, atol=1e-15
            )
            np.testing.assert_allclose(stacked[i], value(one, name, **options), rtol=1e-12, atol=1e-12)
            if metric.by_class:
                by_class = metric.by_class(metric.reads(statistics), **options)
                np.testing.assert_allclose(stacked[i], error.defined_mean(by_class)[i], rtol=1e-12)


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.scope != "id-ood"])
def test_rows_without_pixels_are_undefined(name):
    p, y, z = drawn(5, n=30)
    metric, options = METRICS[name], options_of(name, bins=15)
    row = np.array([0] * 29 + [2])
    for statistics in (several(p, y, row, logits=z), binary(p[:, 0], y == 0, row)):
        if metric.reads.available(statistics) and metric.per_image and metric.average == "pixels":
            assert np.isnan(metric.function(metric.reads(statistics), **options)[1])


def test_every_metric_has_a_home_and_profiles_know_their_metrics():
    for name, metric in METRICS.items():
        assert name in home_of(name).metrics
        if metric.scope != "id":
            assert [p.name for p in PROFILES.values() if name in p.metrics] == ["calbench"]
    for profile in PROFILES.values():
        assert set(profile.metrics) <= set(METRICS)
        assert set(profile.headline) <= set(profile.metrics)
        assert len(set(profile.metrics)) == len(profile.metrics)
        assert set(DEFAULT_OPTIONS) <= {"bins", "ties", "batch"}
    p, y, z = drawn(0)
    statistics = several(p, y, logits=z)
    for profile in ("mbls", "selectivecal", "torchmetrics"):
        assert all(METRICS[name].reads.available(statistics) for name in PROFILES[profile].metrics)
        extras = {METRICS[name].reads.extra for name in PROFILES[profile].metrics} - {None}
        assert extras == {profile}


def test_metrics_of_profiles_need_what_they_read():
    p, y, _ = drawn(0)
    bare = several(p, y).only({"top_label", "classes", "sums", "counts", "unsure"})
    for name in ("mbls_kl", "mbls_aece", "selectivecal_ece_rechosen", "torchmetrics_ece", "logit_margin", "aslp_ece"):
        assert not METRICS[name].reads.available(bare)
        with pytest.raises(InputError, match="not collected"):
            METRICS[name].reads(bare)
