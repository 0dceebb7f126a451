"""Temperature: known truth, other tools' answers, bounds, hard starts, and the grid of the MbLS code."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit, softmax
from test_seeds import table

from calbench.calibrators.temperature import BOUNDS, GRID, SUBSAMPLE, Temperature, map_derivatives, minimise
from calbench.errors import OptionError
from calbench.synthetic import SyntheticScene, draw_image, histograms, sharpen
from calbench.synthetic_classes import ClassScene, draw_classes

KINDS = ("binary", "19 classes")
TEMPERATURES = (0.4, 1.0, 2.5)


def picture(kind: str, seed: int, size: tuple[int, int] = (32, 48)) -> tuple[np.ndarray, np.ndarray]:
    """An image of a known population: calibrated logits `(H, W)` or `(19, H, W)`, and the truth."""
    rng = np.random.default_rng([7, seed])
    if kind == "binary":
        p, mask = draw_image(rng, SyntheticScene(*size))
        return logit(np.clip(p, 1e-15, 1 - 1e-15)), mask.astype(np.intp)
    logits, labels = draw_classes(rng, ClassScene(*size, spread=4.0))
    return logits, labels.astype(np.intp)


def pixels_of(kind: str, n_images: int) -> tuple[np.ndarray, np.ndarray]:
    """The pixels of some images, `(n,)` or `(n, 19)`, and the truth."""
    pictures = [picture(kind, seed) for seed in range(n_images)]
    logits = [z.ravel() if kind == "binary" else z.reshape(len(z), -1).T for z, _ in pictures]
    return np.concatenate(logits), np.concatenate([y.ravel() for _, y in pictures])


def outcomes(rng: np.random.Generator, z: np.ndarray) -> np.ndarray:
    """The truth drawn for each pixel on its own from calibrated logits."""
    if z.ndim == 1:
        return (rng.random(len(z)) < expit(z)).astype(np.intp)
    return (z + rng.gumbel(size=z.shape)).argmax(1)


def sums(z: np.ndarray, y: np.ndarray, beta: float) -> np.ndarray:
    """NLL of flat pixels, its first and its second derivative by β = 1 / T."""
    image = z[None] if z.ndim == 1 else z.T[:, None]
    return map_derivatives(image, y[None], None, np.array([beta]))[:, 0]


# --- known truth ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("true", TEMPERATURES)
def test_recovers_the_temperature_of_independent_pixels(kind, true):
    """Logits T · z of calibrated logits z, each pixel's outcome drawn on its own.

    The standard error follows from the curvature of the NLL, 1 / √NLL'' of β: over 60 draws the errors in this unit have
    mean 0 and spread 1.
    """
    z = pixels_of(kind, 2)[0][::3]
    rng, errors = np.random.default_rng(0), []
    for _ in range(60):
        y = outcomes(rng, z)
        beta = 1 / Temperature().fit(true * z, y).temperature_
        errors.append((beta - 1 / true) * np.sqrt(sums(true * z, y, beta)[2]))
    assert abs(np.mean(errors)) < 3 / np.sqrt(60)
    assert 0.7 < np.std(errors) < 1.3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("true", TEMPERATURES)
def test_recovers_the_temperature_of_images(kind, true):
    """Pixels of an image depend on each other: the standard error is that of sums over images, √Σ slope² / curvature."""
    pictures = [picture(kind, seed, (24, 36)) for seed in range(120)]
    beta = minimise(lambda b: sum(map_derivatives(true * z, y, None, b) for z, y in pictures), np.ones(1)).beta
    parts = np.array([map_derivatives(true * z, y, None, beta)[1:, 0] for z, y in pictures])
    error = np.sqrt((parts[:, 0] ** 2).sum()) / parts[:, 1].sum()
    assert error * true < 0.1
    assert abs(beta[0] - 1 / true) < 3 * error


@pytest.mark.parametrize("kind", KINDS)
def test_slope_and_curvature_are_those_of_the_likelihood(kind):
    z, y = pixels_of(kind, 1)
    step = 1e-4
    for beta in (0.3, 1.0, 2.0):
        low, here, high = (sums(z, y, b) for b in (beta - step, beta, beta + step))
        assert here[1] == pytest.approx((high[0] - low[0]) / (2 * step), rel=1e-6)
        assert here[2] == pytest.approx((high[1] - low[1]) / (2 * step), rel=1e-6)


def test_binary_maps_are_two_classes():
    z, y = pixels_of("binary", 3)
    two = Temperature().fit(np.stack([5 - z, np.full(len(z), 5.0)], axis=1), y)
    assert two.temperature_ == pytest.approx(Temperature().fit(z, y).temperature_, rel=1e-9)


def test_start_from_a_subsample_changes_nothing():
    """With eight times as many pixels as the subsample has, the search starts elsewhere and ends in the same place."""
    z, y = pixels_of("binary", 4)
    z *= 2.5
    many = 9 * SUBSAMPLE // len(y)
    expected = Temperature().fit(z, y)
    found = Temperature().fit(np.tile(z, many), np.tile(y, many))
    assert found.temperature_ == pytest.approx(expected.temperature_, rel=1e-9)
    assert found.summary_["steps"] < expected.summary_["steps"]


@pytest.mark.parametrize("kind", KINDS)
def test_float32_gives_the_same_temperature(kind):
    z, y = pixels_of(kind, 4)
    expected = Temperature().fit(2.5 * z, y).temperature_
    small = (2.5 * z).astype(np.float32)
    assert Temperature().fit(small, y).temperature_ == pytest.approx(expected, rel=1e-6)
    assert Temperature().fit(small.astype(np.float64), y).temperature_ == pytest.approx(
        Temperature().fit(small, y).temperature_, rel=1e-9
    )


# --- other tools --------------------------------------------------------------------------------------------------------


def by_netcal(z: np.ndarray, y: np.ndarray) -> float:
    """netcal takes probabilities; of float32 ones it silently returns 1."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from netcal.scaling import TemperatureScaling

        p = expit(z) if z.ndim == 1 else softmax(z, axis=1)
        assert TemperatureScaling().fit(p.astype(np.float32), y, tensorboard=False).temperature.item() == 1
        return 1 / TemperatureScaling().fit(p, y, tensorboard=False).temperature.item()


def by_torch(z: np.ndarray, y: np.ndarray) -> float:
    import torch
    from torch.nn import functional

    logits, target, beta = torch.tensor(z), torch.tensor(y), torch.ones((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([beta], max_iter=100, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        if z.ndim == 1:
            loss = functional.binary_cross_entropy_with_logits(beta * logits, target.double())
        else:
            loss = functional.cross_entropy(beta * logits, target)
        loss.backward()
        return loss

    optimiser.step(closure)
    return 1 / beta.item()


def by_logistic_regression(z: np.ndarray, y: np.ndarray) -> float:
    """Without intercept and penalty the slope of one logit is 1 / T."""
    from sklearn.linear_model import LogisticRegression

    return 1 / LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-8).fit(z[:, None], y).coef_.item()


def by_calibrated_classifier(z: np.ndarray, y: np.ndarray) -> float:
    """scikit-learn's own temperature, of a classifier whose decision function is the logits; (−z, z) of binary ones."""
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator

    class Given(ClassifierMixin, BaseEstimator):
        def fit(self, _: np.ndarray, target: np.ndarray) -> Given:
            self.classes_ = np.unique(target)
            return self

        def predict(self, x: np.ndarray) -> np.ndarray:
            raise NotImplementedError("a classifier has to have it; its scores are what is asked for")

        def decision_function(self, x: np.ndarray) -> np.ndarray:
            return x[:, 0] if x.shape[1] == 1 else x

    x = z.reshape(len(z), -1)
    fitted = CalibratedClassifierCV(FrozenEstimator(Given().fit(x, y)), method="temperature", ensemble=False).fit(x, y)
    beta = float(fitted.calibrated_classifiers_[0].calibrators[0].beta_)
    return 1 / beta if z.ndim == 2 else 1 / (2 * beta)


TOOLS = [
    (kind, tool)
    for kind in KINDS
    for tool in (by_netcal, by_torch, by_logistic_regression, by_calibrated_classifier)
    if kind == "binary" or tool is not by_logistic_regression
]


@pytest.mark.parametrize(("kind", "tool"), TOOLS, ids=lambda value: getattr(value, "__name__", value))
def test_other_tools_give_the_same_temperature(kind: str, tool: Callable[[np.ndarray, np.ndarray], float]):
    """Logits within ±12: netcal sees probabilities, which round to 1 beyond."""
    z, _ = pixels_of(kind, 6)
    z = np.clip(z[::4], -12, 12)
    y = outcomes(np.random.default_rng(1), z / 1.7)
    assert Temperature().fit(z, y).temperature_ == pytest.approx(tool(z, y), rel=1e-4)


# --- bounds and hard starts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bounds", [BOUNDS, (0.2, 5.0)])
def test_bounds_are_reported(kind, bounds):
    z, _ = pixels_of(kind, 1)
    right = (z >= 0).astype(int) if kind == "binary" else z.argmax(1)
    wrong = 1 - right if kind == "binary" else z.argmin(1)
    for y, bound, reason in ((right, bounds[0], "every pixel is right"), (wrong, bounds[1], "the logits tell nothing")):
        fitted = Temperature(bounds=bounds).fit(z, y)
        assert fitted.temperature_ == pytest.approx(bound, rel=1e-12)
        assert fitted.summary_["at_bound"]
        assert fitted.summary_["steps"] <= 10  # Newton's method alone would creep along the tail
        assert fitted.summary_["nll_after"] <= fitted.summary_["nll_before"]
        assert reason in fitted.notes_[0]
        assert f"at its bound {bound:g}" in fitted.notes_[0]


def test_logits_without_differences_leave_the_temperature():
    """All classes alike: any temperature is as good, and the slope is 0 from the start."""
    fitted = Temperature().fit(np.full((6, 3), 2.0), np.array([0, 1, 2, 0, 1, 2]))
    assert fitted.temperature_ == 1
    assert not fitted.summary_["at_bound"]
    assert fitted.notes_ == []


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (2.0, 1.0), (-1.0, 1.0), (1.0, 1.0)])
def test_bounds_that_are_none_are_refused(bounds):
    with pytest.raises(OptionError, match="expected 0 < low < high"):
        Temperature(bounds=bounds).fit(*pixels_of("binary", 1))


@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 2**32 - 1), st.integers(2, 40), st.sampled_from([1, 2, 5]),
    st.sampled_from([1e-3, 0.1, 1, 30, 1e4]), st.sampled_from([1.0, 0.95, 0.5, 0.0]), st.floats(*np.log(BOUNDS)),
)  # fmt: skip
def test_no_start_and_no_data_mislead_the_search(seed, n, classes, size, accuracy, start):
    """As low as SciPy's bounded search over log T and the bounds themselves, from wherever; all problems at once."""
    rng = np.random.default_rng(seed)
    z = size * rng.normal(size=(classes, 1, n)) ** rng.choice([1, 3])
    right = (z[0, 0] >= 0).astype(np.intp) if classes == 1 else z[:, 0].argmax(0)
    y = np.where(rng.random(n) < accuracy, right, rng.integers(0, max(classes, 2), n))[None]
    weight = rng.choice([0.0, 1.0, 1e3], (1, n))
    weight[0, 0] = 1
    logits = z[0] if classes == 1 else z

    def evaluate(beta: np.ndarray) -> np.ndarray:
        return map_derivatives(logits, y, weight, beta)

    def loss(log_t: float) -> float:
        return float(evaluate(np.array([np.exp(-log_t)]))[0, 0])

    ends = np.log(BOUNDS)
    best = min(loss(ends[0]), loss(ends[1]), minimize_scalar(loss, bounds=ends, method="bounded").fun)
    found = minimise(evaluate, np.exp([start, 0, *ends]))
    assert found.converged.all()
    assert found.steps < 100
    for beta in found.beta:
        assert 1 / BOUNDS[1] <= beta <= 1 / BOUNDS[0]
        assert loss(-np.log(beta)) <= best + 1e-9 * (1 + best)


# --- the grid of MbLS -----------------------------------------------------------------------------------------------------


def test_grid_of_mbls():
    """The fixture of its evaluators: ECE of 15 bins and NLL pull T in opposite directions."""
    z, y = table()
    by_ece, by_nll = (Temperature(grid=by).fit(z, y) for by in ("ece", "nll"))
    assert by_ece.temperature_ == pytest.approx(0.6, abs=1e-12)
    assert by_nll.temperature_ == pytest.approx(1.9, abs=1e-12)
    assert by_nll.summary_["nll_after"] == pytest.approx(1.552412, abs=1e-6)
    p = by_ece.transform(z)
    bins = np.clip(np.ceil(p.max(1) * 15) - 1, 0, 14)
    gaps = [((p.argmax(1) == y) - p.max(1))[bins == b].sum() for b in range(15)]
    assert np.abs(gaps).sum() / len(y) == pytest.approx(0.150853, abs=1e-6)
    assert abs(Temperature().fit(z, y).temperature_ - 1.9) < 0.1


@pytest.mark.parametrize("by", ["nll", "ece"])
@pytest.mark.parametrize("kind", KINDS)
def test_grid_takes_the_best_of_its_temperatures(kind, by):
    """By weights, too; binary maps as well."""
    z, y = pixels_of(kind, 2)
    w = np.random.default_rng(0).integers(0, 3, len(y))
    weighted = Temperature(grid=by).fit(2.5 * z, y, w)
    repeated = Temperature(grid=by).fit(np.repeat(2.5 * z, w, axis=0), np.repeat(y, w))
    assert weighted.temperature_ == repeated.temperature_
    assert weighted.temperature_ in GRID
    if by == "nll":
        assert weighted.temperature_ == pytest.approx(Temperature().fit(2.5 * z, y, w).temperature_, abs=0.1)


def test_unknown_grid_is_refused():
    with pytest.raises(OptionError, match="grid is 'brier'; expected nll or ece"):
        Temperature(grid="brier").fit(*pixels_of("binary", 1))


# --- 8-bit maps -----------------------------------------------------------------------------------------------------------


def test_levels_as_weighted_pixels_are_the_pixels():
    """A joint histogram is 512 weighted samples: the temperature is that of the pixels of its maps."""
    from calbench.calibrators.samples import level_logits

    [rows] = histograms(4, [2.5])
    logits, target = np.tile(level_logits(), 2), np.repeat([0, 1], 256)
    counts = rows.counts.sum(0).ravel()
    weighted = Temperature().fit(logits, target, counts)
    single = Temperature().fit(np.repeat(logits, counts), np.repeat(target, counts))
    assert weighted.temperature_ == pytest.approx(single.temperature_, rel=1e-9)
    assert weighted.summary_["nll_after"] == pytest.approx(single.summary_["nll_after"], rel=1e-9)


def test_temperature_of_a_method_undoes_its_sharpness():
    """`sharpen` by s and `transform` by T = s are inverse to each other."""
    p = np.linspace(0.01, 0.99, 99)
    fitted = Temperature()
    fitted.n_classes_, fitted.temperature_ = 1, 2.5
    np.testing.assert_allclose(fitted.transform(logit(sharpen(p, 2.5))), p, rtol=1e-12)
