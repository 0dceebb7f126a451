"""Calibrators that treat every pixel alike: own parameters, references, and data that leave something undetermined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit, log_expit, log_softmax, logit, softmax
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

import calbench.calibrators
from calbench.calibrators.affine import LogLoss, minimise, probabilities
from calbench.calibrators.beta import Beta
from calbench.calibrators.calibrator import Calibrator, uncalibrated
from calbench.calibrators.dirichlet import Dirichlet
from calbench.calibrators.ensemble_temperature import EnsembleTemperature, mixture
from calbench.calibrators.histogram_binning import HistogramBinning, equal_mass_edges
from calbench.calibrators.isotonic import Isotonic
from calbench.calibrators.matrix import Matrix
from calbench.calibrators.one_vs_rest import against_rest
from calbench.calibrators.platt import Platt
from calbench.calibrators.storage import load_calibrator, save_calibrator
from calbench.calibrators.temperature import Temperature
from calbench.calibrators.vector import Vector
from calbench.errors import InputError, OptionError
from calbench.statistics.reliability import FLOAT32_TOLERANCE, bin_index, equal_mass

Array = NDArray[Any]

PIXELWISE = [
    Vector(),
    Matrix(),
    Matrix(off_diagonal=0.1, intercept=0.1),
    Dirichlet(),
    Dirichlet(off_diagonal=0.0, intercept=0.0, epsilon=1e-10),
    Platt(),
    Beta(),
    HistogramBinning(),
    HistogramBinning(bins=7, binning="mass"),
    Isotonic(),
    EnsembleTemperature(),
]
AFFINE = (Vector, Matrix, Dirichlet)


def named(calibrator: Calibrator) -> str:
    return "-".join([calibrator.name, *(f"{value}" for value in calibrator.get_params().values())])


every = pytest.mark.parametrize("calibrator", PIXELWISE, ids=named)


def drawn(scores: Array, rng: np.random.Generator) -> Array:
    """Classes by the softmax of scores `(n, C)`, outcomes by the sigmoid of `(n,)`."""
    if scores.ndim == 1:
        return (rng.random(len(scores)) < expit(scores)).astype(np.intp)
    return (scores + rng.gumbel(size=scores.shape)).argmax(1)


def pixels(n_classes: int, n: int = 3000, seed: int = 0) -> tuple[Array, Array]:
    """Logits that are too sure, askew and of unequal classes, and the truth."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, n_classes)) * 3
    if n_classes == 1:
        return z[:, 0], drawn(0.5 * z[:, 0] - 0.7, rng)
    return z, drawn(0.5 * z - 0.3 * np.arange(n_classes), rng)


def contrast(weight: Array) -> Array:
    """Rows up to one row that is added to all: what the probabilities determine."""
    return weight - weight.mean(0)


# --- own parameters ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [1, 4])
def test_vector_recovers_its_parameters(n_classes: int) -> None:
    rng = np.random.default_rng(1)
    n = 40_000
    scale, offset = rng.uniform(0.3, 1.2, n_classes), rng.normal(size=n_classes)
    z = rng.normal(size=(n, n_classes)) * 2
    scores = z * scale + offset
    if n_classes == 1:
        z, scores = z[:, 0], scores[:, 0]
    else:
        offset -= offset.mean()
    fitted = Vector().fit(z, drawn(scores, rng))
    # a score's slope and offset have standard errors of about 1 / sqrt(n p (1 − p) x²), below 0.03 here
    np.testing.assert_allclose(fitted.scale_, scale, atol=0.08)
    np.testing.assert_allclose(fitted.offset_, offset, atol=0.08)


def test_dirichlet_recovers_its_parameters() -> None:
    rng = np.random.default_rng(2)
    n, n_classes = 60_000, 3
    weight = 0.7 * np.eye(n_classes) + 0.2 * rng.normal(size=(n_classes, n_classes))
    bias = rng.normal(size=n_classes) / 2
    z = rng.normal(size=(n, n_classes)) * 2
    features = log_softmax(z, axis=1)
    fitted = Dirichlet(off_diagonal=0.0, intercept=0.0).fit(z, drawn(features @ weight.T + bias, rng))
    errors = standard_errors(np.column_stack([features, np.ones(n)]), fitted.transform(z))
    found = contrast(np.column_stack([fitted.weight_, fitted.bias_]))
    assert (np.abs(found - contrast(np.column_stack([weight, bias]))) < 4 * errors).all()


def standard_errors(features: Array, p: Array) -> Array:
    """Of the contrasts of maximum-likelihood parameters: the inverse of the Fisher information, `(C, m)`."""
    n_classes, m = p.shape[1], features.shape[1]
    information = np.zeros((n_classes, m, n_classes, m))
    for j in range(n_classes):
        for k in range(n_classes):
            q = p[:, j] * ((j == k) - p[:, k])
            information[j, :, k] = features.T @ (q[:, None] * features)
    size = n_classes * m
    return np.sqrt(np.diag(np.linalg.pinv(information.reshape(size, size)))).reshape(n_classes, m)


def test_ensemble_temperature_recovers_a_mixture() -> None:
    rng = np.random.default_rng(3)
    p = np.column_stack([rng.beta(2, 1, 50_000), rng.beta(1, 2, 50_000), np.full(50_000, 0.25)])
    # P(outcome) of two parts that are right by turns: the weights of the likelihood are those of the draw
    true = np.array([0.2, 0.5, 0.3])
    q = np.stack([np.column_stack([part, 1 - part]) for part in p.T[:2]] + [np.full((len(p), 2), 0.5)])
    y = (rng.random(len(p)) > np.tensordot(true, q, 1)[:, 0]).astype(int)
    outcome = np.column_stack([part[np.arange(len(p)), y] for part in q])
    found = mixture(outcome, np.ones(len(p)))
    np.testing.assert_allclose(found, true, atol=0.03)
    slope = (outcome / (outcome @ found)[:, None]).mean(0)  # all 1 at an inner maximum
    np.testing.assert_allclose(slope, 1, atol=1e-6)


# --- the loss ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_scores", "diagonal"), [(1, False), (4, False), (4, True)])
@pytest.mark.parametrize("ridged", [False, True])
def test_the_gradient_is_that_of_the_loss(n_scores: int, diagonal: bool, ridged: bool) -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(50, n_scores if diagonal else 3))
    shape = (n_scores, 2 if diagonal else 4)
    ridge = rng.uniform(0, 1, shape) if ridged else None
    loss = LogLoss(x, rng.integers(0, max(n_scores, 2), 50), rng.uniform(1, 9, 50), diagonal, ridge)
    theta, step = rng.normal(size=shape), 1e-6
    numeric = np.zeros(shape)
    for at in np.ndindex(shape):
        moved = np.zeros(shape)
        moved[at] = step
        numeric[at] = (loss(theta + moved)[0] - loss(theta - moved)[0]) / (2 * step)
    np.testing.assert_allclose(loss(theta)[1], numeric, atol=1e-8)


def test_the_subsample_changes_the_way_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    z, y = pixels(4)
    whole = Matrix().fit(z, y).transform(z)
    monkeypatch.setattr("calbench.calibrators.affine.SUBSAMPLE", 100)
    np.testing.assert_allclose(Matrix().fit(z, y).transform(z), whole, atol=1e-9)


def test_squares_are_those_of_the_row_that_makes_them_least() -> None:
    z, y = pixels(3)
    fitted = Matrix(off_diagonal=0.5, intercept=0.2).fit(z, y)

    def objective(weight: Array, bias: Array) -> float:
        log_p = log_softmax(z @ weight.T + bias, axis=1)
        off = weight[~np.eye(3, dtype=bool)]
        return float(-log_p[np.arange(len(y)), y].mean() + 0.5 * (off**2).mean() + 0.2 * (bias**2).mean())

    best = objective(fitted.weight_, fitted.bias_)
    rng = np.random.default_rng(5)
    for size in (1e-1, 1e-2, 1e-3):
        for _ in range(20):
            moved = fitted.weight_ + size * rng.normal(size=(3, 3)), fitted.bias_ + size * rng.normal(size=3)
            assert objective(*moved) > best


def test_a_binary_map_counts_as_two_classes() -> None:
    z, y = pixels(1)
    two = np.column_stack([-z / 2, z / 2])
    for calibrator in (Matrix(intercept=0.5), Dirichlet(intercept=0.5), Dirichlet(), Vector()):
        binary = clone(calibrator).fit(z, y).transform(z)
        np.testing.assert_allclose(binary, clone(calibrator).fit(two, y).transform(two)[:, 1], atol=1e-7)


# --- references -------------------------------------------------------------------------------------------------------


def test_platt_is_logistic_regression() -> None:
    z, y = pixels(1)
    weight = np.random.default_rng(6).uniform(0.5, 2, len(y))
    reference = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12).fit(z[:, None], y, weight)
    fitted = Platt().fit(z, y, weight)
    np.testing.assert_allclose(
        [fitted.slope_[0], fitted.intercept_[0]], [reference.coef_[0, 0], reference.intercept_[0]], rtol=1e-6
    )
    vector = Vector().fit(z, y, weight)
    np.testing.assert_allclose([vector.scale_[0], vector.offset_[0]], [fitted.slope_[0], fitted.intercept_[0]])


def test_platt_of_classes_is_one_regression_against_the_rest_each() -> None:
    z, y = pixels(3)
    p = softmax(z, axis=1)
    q = np.column_stack([
        LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12)
        .fit(logit(p[:, [k]]), y == k)
        .predict_proba(logit(p[:, [k]]))[:, 1]
        for k in range(3)
    ])  # fmt: skip
    np.testing.assert_allclose(Platt().fit(z, y).transform(z), q / q.sum(1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("calibrator", [Matrix(), Dirichlet(off_diagonal=0.0, intercept=0.0)], ids=named)
def test_matrix_and_dirichlet_are_multinomial_regressions(calibrator: Calibrator) -> None:
    z, y = pixels(4)
    x = z if calibrator.name == "matrix" else log_softmax(z, axis=1)
    reference = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10).fit(x, y)
    np.testing.assert_allclose(clone(calibrator).fit(z, y).transform(z), reference.predict_proba(x), atol=1e-6)


def test_the_seed_s_epsilon_is_that_of_the_study() -> None:
    z, y = pixels(3)
    z[:5] = [[90.0, 0.0, 0.0]]  # probabilities of e-39, which the study counts as 1e-10
    x = np.log(softmax(z, axis=1) + 1e-10)
    reference = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10).fit(x, y)
    fitted = Dirichlet(off_diagonal=0.0, intercept=0.0, epsilon=1e-10).fit(z, y)
    np.testing.assert_allclose(fitted.transform(z), reference.predict_proba(x), atol=1e-6)


def test_beta_is_logistic_regression_on_both_logarithms() -> None:
    z, y = pixels(1)
    x = np.column_stack([log_expit(z), -log_expit(-z)])
    reference = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12).fit(x, y)
    fitted = Beta().fit(z, y)
    np.testing.assert_allclose([fitted.a_[0], fitted.b_[0]], reference.coef_[0], rtol=1e-5)
    np.testing.assert_allclose(fitted.c_, reference.intercept_, rtol=1e-5)


@pytest.mark.parametrize("negative", ["a", "b"])
def test_beta_sets_a_negative_parameter_to_0_and_fits_again(negative: str) -> None:
    rng = np.random.default_rng(7)
    z = rng.normal(size=4000) * 2
    log_p, log_rest = log_expit(z), -log_expit(-z)
    y = drawn(-0.5 * log_p + log_rest if negative == "a" else log_p - 0.5 * log_rest, rng)
    fitted = Beta().fit(z, y)
    kept = log_rest if negative == "a" else log_p
    reference = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12).fit(kept[:, None], y)
    zero, other = (fitted.a_[0], fitted.b_[0]) if negative == "a" else (fitted.b_[0], fitted.a_[0])
    assert zero == 0
    np.testing.assert_allclose([other, fitted.c_[0]], [reference.coef_[0, 0], reference.intercept_[0]], rtol=1e-5)


def test_beta_of_logits_the_wrong_way_round_is_constant() -> None:
    z, y = pixels(1)
    fitted = Beta().fit(-z, y)
    assert (fitted.a_[0], fitted.b_[0]) == (0, 0)
    np.testing.assert_allclose(fitted.transform(z), y.mean())


def test_netcal_agrees_where_its_definitions_do() -> None:
    from netcal.binning import HistogramBinning as NetcalHistogram
    from netcal.binning import IsotonicRegression as NetcalIsotonic

    z, y = pixels(1)
    p = expit(z)
    # netcal's bins are left-closed and its empty bins get the middle; here no p is on an edge and no bin is empty
    np.testing.assert_allclose(
        HistogramBinning(bins=10).fit(z, y).transform(z), NetcalHistogram(bins=10).fit(p, y).transform(p), atol=1e-12
    )
    np.testing.assert_allclose(Isotonic().fit(z, y).transform(z), NetcalIsotonic().fit(p, y).transform(p), atol=1e-12)


@pytest.mark.filterwarnings("ignore:independent is deprecated:DeprecationWarning")
def test_netcal_s_logistic_and_beta_calibration_are_near() -> None:
    from netcal.scaling import BetaCalibration, LogisticCalibration

    z, y = pixels(1)
    p = expit(z)
    # netcal stops its optimiser early, in float32, and clips p: hence no more than 1e-3
    for ours, theirs in ((Platt(), LogisticCalibration(method="mle")), (Beta(), BetaCalibration(method="mle"))):
        reference = np.ravel(theirs.fit(p, y).transform(p))
        np.testing.assert_allclose(ours.fit(z, y).transform(z), reference, atol=1e-3)


def test_isotonic_of_classes_is_scikit_learn_s_one_against_the_rest() -> None:
    from sklearn.isotonic import IsotonicRegression

    z, y = pixels(3)
    p = softmax(z, axis=1)
    q = np.column_stack([IsotonicRegression(out_of_bounds="clip").fit_transform(p[:, k], y == k) for k in range(3)])
    q = np.where(q.sum(1, keepdims=True) == 0, p, q)
    np.testing.assert_allclose(Isotonic().fit(z, y).transform(z), q / q.sum(1, keepdims=True), atol=1e-9)


# --- bins -------------------------------------------------------------------------------------------------------------


def test_equal_widths_follow_the_one_rule() -> None:
    levels = np.arange(1, 255) / 255
    z = np.tile(logit(levels), 2)
    y = np.repeat([0, 1], len(levels))
    for stored in (z, z.astype(np.float32)):  # 17 levels lie on the edges of 15 bins
        fitted = HistogramBinning(bins=15).fit(stored, y)
        inside = np.bincount(bin_index(levels, 15, FLOAT32_TOLERANCE), minlength=15)
        assert fitted.masses_[0].tolist() == (2 * inside).tolist()


def test_equal_masses_keep_tied_levels_whole() -> None:
    rng = np.random.default_rng(8)
    level = np.sort(rng.random(40))
    for skewed in (np.ones(40), rng.integers(1, 50, 40), np.r_[1000, np.ones(39)], np.r_[np.ones(39), 1000]):
        count = skewed.astype(int)
        p = np.repeat(level, count)
        for bins in (1, 2, 7, 15, 60):
            edges = equal_mass_edges(p, np.ones(len(p)), bins)
            expected = equal_mass(count, bins, "whole").argmax(1)
            assert np.searchsorted(edges, level).tolist() == expected.tolist()


def test_bins_reach_0_and_1_and_empty_ones_change_nothing() -> None:
    z, y = np.repeat([-5.0, 5.0], 10), np.repeat([0, 1], 10)
    fitted = HistogramBinning(bins=10).fit(z, y)
    np.testing.assert_allclose(fitted.transform(np.array([-5.0, 0.3, 5.0])), [0, expit(0.3), 1], rtol=1e-15)


@pytest.mark.parametrize("calibrator", [HistogramBinning(bins=2), Isotonic()], ids=named)
def test_a_pixel_whose_classes_are_all_0_keeps_its_probabilities(calibrator: Calibrator) -> None:
    z = np.repeat(8 * np.eye(3), 5, axis=0)
    fitted = clone(calibrator).fit(z, np.repeat([0, 1, 2], 5))  # likely classes are certain, unlikely ones impossible
    unsure = np.array([[0.1, 0.0, -0.1]])
    if calibrator.name == "isotonic":
        fitted.thresholds_[:] = np.linspace(0, 1, fitted.thresholds_.shape[1])
        fitted.values_[:] = 0
    np.testing.assert_allclose(fitted.transform(unsure), softmax(unsure, axis=1))


# --- data that leave something undetermined ---------------------------------------------------------------------------


@every
def test_absent_classes_keep_their_scores(calibrator: Calibrator) -> None:
    z, y = pixels(5)
    y[y == 3] = 0
    y[y == 1] = 2
    fitted = clone(calibrator).fit(z, y)
    p, before = fitted.transform(z), softmax(z, axis=1)
    assert np.isfinite(p).all()
    np.testing.assert_allclose(p.sum(1), 1)
    if calibrator.name == "ensemble_temperature":  # it has no parameters of classes
        return
    assert any("classes 1, 3 are absent from the fitting data" in note for note in fitted.notes_)
    if isinstance(calibrator, AFFINE):
        np.testing.assert_allclose(p[:, [1, 3]], before[:, [1, 3]], rtol=1e-12)
        assert fitted.summary_["nll_after"] < fitted.summary_["nll_before"]
    else:
        np.testing.assert_allclose(p[:, 1] * before[:, 3], p[:, 3] * before[:, 1], atol=1e-12)  # one common factor


def test_absent_classes_keep_the_identity() -> None:
    z, y = pixels(4)
    y[y == 2] = 0
    vector, matrix, platt = Vector().fit(z, y), Matrix().fit(z, y), Platt().fit(z, y)
    assert (vector.scale_[2], vector.offset_[2], platt.slope_[2], platt.intercept_[2]) == (1, 0, 1, 0)
    assert matrix.weight_[2].tolist() == [0, 0, 1, 0]
    assert matrix.bias_[2] == 0


@every
@pytest.mark.parametrize("n_classes", [1, 3])
@pytest.mark.parametrize("size", [1e3, 0.0])
def test_saturated_and_constant_logits_stay_finite(calibrator: Calibrator, n_classes: int, size: float) -> None:
    z, y = pixels(n_classes, 400)
    z = np.where(z > 0, size, -size) + (0 if size else 1.5)
    fitted = clone(calibrator).fit(z, y)
    for probe in (z, z / 1e3, -z):
        p = fitted.transform(probe)
        assert np.isfinite(p).all()
        if n_classes > 1:
            np.testing.assert_allclose(p.sum(1), 1)
    if calibrator.parametric:
        assert fitted.summary_["nll_after"] <= fitted.summary_["nll_before"]
    frequencies = calibrator.name != "ensemble_temperature" and not calibrator.get_params().get("intercept")
    if size == 0 and frequencies:  # all there is to learn
        frequency = y.mean() if n_classes == 1 else np.bincount(y) / len(y)
        np.testing.assert_allclose(fitted.transform(z), np.broadcast_to(frequency, z.shape), atol=1e-6)


@every
@pytest.mark.parametrize("n_classes", [1, 3])
def test_pixels_that_are_all_right_raise_nothing(calibrator: Calibrator, n_classes: int) -> None:
    z, _ = pixels(n_classes, 400)
    y = (z > 0).astype(int) if n_classes == 1 else z.argmax(1)
    p = clone(calibrator).fit(z, y).transform(z)
    assert np.isfinite(p).all()


@every
@pytest.mark.parametrize("n_classes", [1, 4])
def test_weights_of_any_size_count_as_pixels(calibrator: Calibrator, n_classes: int) -> None:
    z, y = pixels(n_classes, 512)
    weight = np.random.default_rng(9).integers(1, 4, len(y))
    expected = clone(calibrator).fit(np.repeat(z, weight, axis=0), np.repeat(y, weight)).transform(z)
    for factor in (1.0, 1e8):
        np.testing.assert_allclose(clone(calibrator).fit(z, y, factor * weight).transform(z), expected, atol=1e-6)


@every
@pytest.mark.parametrize("n_classes", [1, 4])
def test_float32_gives_what_float64_gives(calibrator: Calibrator, n_classes: int) -> None:
    z, y = pixels(n_classes)
    z = z.astype(np.float32).astype(np.float64)
    single, double = clone(calibrator).fit(z.astype(np.float32), y), clone(calibrator).fit(z, y)
    np.testing.assert_allclose(single.transform(z), double.transform(z), atol=1e-9)


def test_fewer_pixels_than_parameters_and_options_out_of_range() -> None:
    z, y = pixels(4, 12)
    with pytest.raises(InputError, match="matrix has 20 parameters for 4 classes, but there are 12 pixels"):
        Matrix().fit(z, y)
    z, y = pixels(3)
    for calibrator, message in (
        (Matrix(off_diagonal=-1.0), "off_diagonal is -1.0"),
        (Dirichlet(intercept=float("nan")), "intercept is nan"),
        (Dirichlet(epsilon=-1e-3), "epsilon is -0.001"),
        (HistogramBinning(bins=0), "bins is 0"),
        (HistogramBinning(binning="size"), "binning is 'size'"),  # type: ignore[arg-type]
    ):
        with pytest.raises(OptionError, match=message):
            calibrator.fit(z, y)


# --- promises ---------------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("n_classes", [1, 4])
def test_torch_computes_the_same(calibrator: Calibrator, n_classes: int) -> None:
    torch = pytest.importorskip("torch")
    z, y = pixels(n_classes)
    if n_classes > 1:
        y[y == 2] = 0
    fitted = clone(calibrator).fit(z, y)
    z[:20] *= 300
    module = fitted.to_torch()
    p = fitted.transform(z)
    np.testing.assert_allclose(module(torch.as_tensor(z)).numpy(), p, atol=1e-9)
    single = module(torch.as_tensor(z, dtype=torch.float32)).numpy()
    assert single.dtype == np.float32
    assert np.isfinite(single).all()
    assert np.median(np.abs(single - p)) < 1e-5  # bins and steps may move pixels on their edges


@every
@pytest.mark.parametrize("n_classes", [1, 4])
def test_saved_calibrators_come_back(
    calibrator: Calibrator, n_classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(calbench.calibrators.CALIBRATORS, calibrator.name, type(calibrator))
    z, y = pixels(n_classes)
    fitted = clone(calibrator).fit(z, y)
    save_calibrator(fitted, tmp_path / "c.safetensors")
    again = load_calibrator(tmp_path / "c.safetensors")
    assert again.get_params() == calibrator.get_params()
    assert again.summary_ == fitted.summary_
    assert np.array_equal(again.transform(z), fitted.transform(z))


@pytest.mark.parametrize("n_classes", [1, 4])
def test_ensemble_temperature_is_no_worse_than_temperature(n_classes: int) -> None:
    for seed in range(5):
        z, y = pixels(n_classes, 400, seed)
        for logits in (z, 3 * z, -z):
            ensemble, single = EnsembleTemperature().fit(logits, y), Temperature().fit(logits, y)
            assert ensemble.summary_["nll_after"] <= single.summary_["nll_after"] + 1e-12
            np.testing.assert_allclose(ensemble.weights_.sum(), 1)
            p = ensemble.transform(logits)
            if n_classes == 1:
                assert (np.diff(p[np.argsort(logits)]) > 0).all()
            else:
                assert (p.argmax(1) == logits.argmax(1)).all()


def test_against_rest_is_the_logit_of_the_probability() -> None:
    z, _ = pixels(4)
    np.testing.assert_allclose(against_rest(z), logit(softmax(z, axis=1)), rtol=1e-9, atol=1e-9)
    assert np.isfinite(against_rest(z * 1e3)).all()
    assert against_rest(np.array([[0.0, 0.0]])).tolist() == [[0.0, 0.0]]


def test_identity_is_where_fits_start() -> None:
    """The probabilities of an affine fit of well calibrated logits are those of the identity, but for noise."""
    rng = np.random.default_rng(10)
    z = rng.normal(size=(50_000, 3)) * 2
    y = drawn(z, rng)
    for kind in AFFINE:
        fitted = kind().fit(z, y)
        assert np.abs(fitted.transform(z) - uncalibrated(z)).max() < 0.05
        assert 0 <= fitted.summary_["nll_before"] - fitted.summary_["nll_after"] < 1e-3


def test_a_fit_without_a_maximum_ends() -> None:
    z = np.repeat([-1.0, 1.0], 20)
    end = minimise(LogLoss(z[:, None], (z > 0).astype(int), np.ones(40)), np.array([[1.0, 0.0]]))
    assert np.isfinite(end.theta).all()
    assert end.theta[0, 0] > 10


@pytest.mark.parametrize("calibrator", [Vector(), Platt(), Beta()], ids=named)
def test_a_fit_that_was_cut_short_says_so(calibrator: Calibrator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calbench.calibrators.affine.ROUNDS", 1)
    monkeypatch.setattr("calbench.calibrators.affine.STEPS", 1)
    z, y = pixels(3)
    fitted = clone(calibrator).fit(z, y)
    assert "without converging: the pixels do not determine all parameters" in fitted.notes_[0]
    if calibrator.name != "vector":
        assert len(fitted.notes_) == 3
        assert "the fit of class 0 stopped" in fitted.notes_[0]


def test_no_probability_exceeds_one_where_a_class_is_absent() -> None:
    """What an absent class leaves to the others is a sum that rounding can carry past 1."""
    logits = np.random.default_rng(0).normal(0, 5, (200_000, 4))
    logits[:, 1] = -800
    scores = np.where([True, False, False, False], 300.0, logits)
    assert probabilities(scores, logits, np.array([True, False, True, True])).max() == 1
