"""Laws that every calibrator of the registry obeys, on binary maps and on several classes, and what its file may be.

Calibrators that read images next to predictions have the same laws in a file of their own. Networks are held to what
minibatches leave of a law; where that is less, the law says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load_file, save_file
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

from calbench.calibrators import CALIBRATORS, Calibrator, NotFitted, load_calibrator, save_calibrator
from calbench.calibrators.calibrator import nll, uncalibrated
from calbench.calibrators.storage import KEY, SCHEMA
from calbench.calibrators.temperature import Temperature, map_derivatives, minimise
from calbench.errors import FormatError, InputError, RangeError, ShapeError

PIXELWISE = [name for name, kind in CALIBRATORS.items() if not kind.needs_images]
KINDS = {"binary": 1, "classes": 4}
"""Number of classes of each kind of predictions; 1 of binary maps."""

ONE_ORDER = {"meta_cal"}
"""Its temperature is fitted to a run of right pixels in the order given, as in the study."""


def each_that(condition: Callable[[type[Calibrator]], bool], kinds: Iterable[str] = KINDS) -> pytest.MarkDecorator:
    """Parameters name and kind: the calibrators that fulfil the condition."""
    chosen = [name for name in PIXELWISE if condition(CALIBRATORS[name])]
    return pytest.mark.parametrize(("name", "kind"), [(name, kind) for name in chosen for kind in kinds])


each = each_that(lambda _: True)


def made(name: str) -> Calibrator:
    """A calibrator, networks with little training."""
    kind = CALIBRATORS[name]
    return kind(epochs=2) if kind.network else kind()


def draw(kind: str, n: int = 700, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Over-confident logits with offsets that they should not have, outcomes, and weights 1, 2 and 3."""
    generator = np.random.default_rng(seed)
    c = KINDS[kind]
    z = generator.normal(0, 3, (n, c))
    true = z / 2 + np.linspace(0.5, -0.5, c)
    target = (
        generator.random(n) < expit(true[:, 0]) if c == 1 else (true + generator.gumbel(size=z.shape)).argmax(1)
    ).astype(np.intp)
    return (z[:, 0] if c == 1 else z), target, generator.integers(1, 4, n).astype(float)


@cache
def fitted(name: str, kind: str) -> Calibrator:
    """A calibrator fitted on weighted pixels."""
    return made(name).fit(*draw(kind))


def fresh(kind: str, n: int = 300) -> np.ndarray:
    """Logits that no fit has seen."""
    return draw(kind, n, seed=1)[0]


def extreme(kind: str) -> np.ndarray:
    """Logits with ties, zeros, and ±50 besides ordinary ones."""
    generator = np.random.default_rng(2)
    values = np.array([-50.0, -3.0, -1e-9, -0.0, 0.0, 1e-300, 0.5, 0.5, 3.0, 50.0])
    return generator.choice(values, 400 if kind == "binary" else (400, KINDS[kind]))


def agree(one: Calibrator, other: Calibrator, kind: str, tolerance: float) -> None:
    z = fresh(kind)
    assert_allclose(one.transform(z), other.transform(z), rtol=0, atol=tolerance)


# --- the registry -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CALIBRATORS)
def test_calibrator_says_what_it_is(name):
    kind = CALIBRATORS[name]
    assert kind.name == name
    assert kind.definition
    assert kind.source
    assert kind.__doc__.count(">>>"), f"{name}: the docstring has no example"
    if not kind.needs_images:
        assert (
            isinstance(kind.torch_forward, type(Calibrator.torch_forward)) or kind.to_torch is not Calibrator.to_torch
        )


@pytest.mark.parametrize("name", CALIBRATORS)
def test_parameters_are_those_of_scikit_learn(name):
    """Constructors only store; a clone has the parameters and nothing that was learned."""
    calibrator = CALIBRATORS[name]()
    parameters = calibrator.get_params()
    assert vars(calibrator) == parameters
    assert CALIBRATORS[name](**parameters).get_params() == parameters
    json.dumps(parameters)  # the file's header holds them
    for parameter, value in parameters.items():
        assert calibrator.set_params(**{parameter: value}) is calibrator


@each
def test_clone_has_learned_nothing(name, kind):
    copy = clone(fitted(name, kind))
    assert copy.get_params() == fitted(name, kind).get_params()
    assert not [attribute for attribute in vars(copy) if attribute.endswith("_")]


@pytest.mark.parametrize("name", PIXELWISE)
def test_nothing_works_before_fit(name, tmp_path):
    calibrator = made(name)
    for use in (
        lambda: calibrator.transform(np.zeros(3)),
        calibrator.to_torch,
        lambda: save_calibrator(calibrator, tmp_path / "c.safetensors"),
    ):
        with pytest.raises(NotFitted, match=f"{name} was not fitted; call fit"):
            use()


# --- weights, order, types --------------------------------------------------------------------------------------------


@each
def test_weight_two_is_the_pixel_twice(name, kind):
    """Networks batch by images: there, the same factor on all weights changes nothing, since losses are weighted means."""
    z, y, w = draw(kind)
    if CALIBRATORS[name].network:
        agree(made(name).fit(z, y, 2 * w), fitted(name, kind), kind, 1e-6)
        return
    often = w.astype(int)
    repeated = made(name).fit(np.repeat(z, often, axis=0), np.repeat(y, often))
    agree(repeated, fitted(name, kind), kind, 1e-6)
    assert repeated.summary_["weight"] == fitted(name, kind).summary_["weight"]
    for nll_of in ("nll_before", "nll_after"):
        assert repeated.summary_[nll_of] == pytest.approx(fitted(name, kind).summary_[nll_of], abs=1e-9)


@each
def test_weight_zero_leaves_a_pixel_out(name, kind):
    """Whatever it holds: NaN, a class that there is not."""
    z, y, w = draw(kind)
    void = np.random.default_rng(3).random(len(y)) < 0.3
    scribbled = z.copy()
    scribbled[void] = np.nan
    without = made(name).fit(z[~void], y[~void], w[~void])
    with_them = made(name).fit(scribbled, np.where(void, 255, y), np.where(void, 0, w))
    agree(with_them, without, kind, 0)
    assert with_them.summary_ == without.summary_


@each_that(lambda kind: not kind.network and kind.name not in ONE_ORDER)
def test_order_of_pixels_is_irrelevant(name, kind):
    """Networks are exempt, since the order makes their minibatches; so is Meta-Cal, which fits to a run of pixels."""
    z, y, w = draw(kind)
    order = np.random.default_rng(4).permutation(len(y))
    agree(made(name).fit(z[order], y[order], w[order]), fitted(name, kind), kind, 1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_temperature_in_chunks_is_that_of_all_at_once(kind):
    """Sums over images of other sizes, each pass over all of them, void pixels among them."""
    sizes = ((5, 8), (20, 3), (13, 40), (1, 80))
    pixels = [draw(kind, h * w, seed=number) for number, (h, w) in enumerate(sizes)]
    pictures = []
    for (z, y, w), size in zip(pixels, sizes, strict=True):
        w[::7] = 0
        logits = z.reshape(size) if kind == "binary" else z.T.reshape(-1, *size)
        pictures.append((logits, y.reshape(size), w.reshape(size)))
    streamed = minimise(lambda beta: sum(map_derivatives(*image, beta) for image in pictures), np.ones(1))
    z, y, w = (np.concatenate(parts) for parts in zip(*pixels, strict=True))
    assert 1 / streamed.beta[0] == pytest.approx(Temperature().fit(z, y, w).temperature_, rel=1e-9)
    assert streamed.converged.all()


@each
def test_float32_logits_are_as_good_as_float64(name, kind):
    z, y, w = draw(kind)
    small, x = z.astype(np.float32), fresh(kind).astype(np.float32)
    one, other = made(name).fit(small, y, w), made(name).fit(small.astype(np.float64), y, w)
    assert_allclose(one.transform(x), other.transform(x.astype(np.float64)), rtol=0, atol=1e-5)
    assert one.transform(x).dtype == np.float64


# --- what comes out ---------------------------------------------------------------------------------------------------


def assert_probabilities(p: np.ndarray, logits: np.ndarray) -> None:
    assert p.shape == logits.shape
    assert p.dtype == np.float64
    assert ((p >= 0) & (p <= 1)).all()  # of NaN neither holds
    if p.ndim == 2:
        assert_allclose(p.sum(1), 1, rtol=0, atol=1e-9)


@each
def test_probabilities_are_probabilities(name, kind):
    for logits in (fresh(kind), extreme(kind), fresh(kind)[:1], fresh(kind)[:0]):
        assert_probabilities(fitted(name, kind).transform(logits), logits)


@each
@pytest.mark.parametrize("size", [50.0, 700.0, 1e5, 1e30])
def test_extreme_logits_give_probabilities(name, kind, size):
    logits = np.random.default_rng(5).choice([-size, 0, 1, size], 200 if kind == "binary" else (200, KINDS[kind]))
    assert_probabilities(fitted(name, kind).transform(logits), logits)


@each
def test_maps_are_calibrated_pixel_by_pixel(name, kind):
    """`(H, W)` and `(C, H, W)`: more rows than columns, more columns than classes."""
    z, size = fresh(kind, 7 * 5), (7, 5)
    calibrator = fitted(name, kind)
    logits = z.reshape(size) if kind == "binary" else z.T.reshape(-1, *size)
    expected = calibrator.transform(z)
    expected = expected.reshape(size) if kind == "binary" else expected.T.reshape(-1, *size)
    assert_allclose(calibrator.transform_map(logits), expected, rtol=0, atol=1e-12)


@each_that(lambda kind: kind.keeps_order, ["binary"])
def test_order_of_pixels_by_probability_is_kept(name, kind):
    """AUROC to the last bit, and the probability rises strictly where float64 can tell it from 1/2 and from 1."""
    calibrator = fitted(name, kind)
    for logits in (fresh(kind), extreme(kind).round(6)):
        y = np.random.default_rng(6).random(len(logits)) < expit(logits)
        assert roc_auc_score(y, calibrator.transform(logits)) == roc_auc_score(y, logits)
    assert (np.diff(calibrator.transform(np.linspace(-20, 20, 2001))) > 0).all()


@each_that(lambda kind: kind.keeps_class)
def test_class_is_kept(name, kind):
    calibrator = fitted(name, kind)
    for logits in (fresh(kind), extreme(kind), 1e4 * extreme(kind)):
        p = calibrator.transform(logits)
        if kind == "binary":
            assert_array_equal(p >= 0.5, logits >= 0)
        else:
            assert_array_equal(p.argmax(1), logits.argmax(1))


@each
def test_module_agrees(name, kind):
    """`(N, C, H, W)` with unequal sides; binary maps of any shape. In float32, about as well as float32 can."""
    import torch

    module, calibrator = fitted(name, kind).to_torch(), fitted(name, kind)
    sizes = [(2, 3, 5), (3, 1, 7), (6,)] if kind == "classes" else [(2, 1, 3, 5), (3, 7), (6,), ()]
    for size in sizes:
        z = fresh(kind, int(np.prod(size)))
        logits = z.reshape(size + z.shape[1:])
        channels = torch.tensor(np.moveaxis(logits, -1, 1) if kind == "classes" else logits)
        with torch.no_grad():
            p, p32 = (module(x) for x in (channels, channels.float()))
        assert p.shape == p32.shape == channels.shape
        assert (p.dtype, p32.dtype) == (torch.float64, torch.float32)
        expected = calibrator.transform(z).reshape(logits.shape)
        found = np.moveaxis(p.numpy(), 1, -1) if kind == "classes" else p.numpy()
        assert_allclose(found, expected, rtol=0, atol=1e-6)
        assert np.median(np.abs(p32.numpy() - p.numpy())) < 1e-4


# --- likelihood -------------------------------------------------------------------------------------------------------


@st.composite
def adversarial(draw, kind: str, largest: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Few pixels or many, small logits or saturated ones, few levels or many, outcomes that fit them or not."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(2, 80))
    shape = (n,) if kind == "binary" else (n, KINDS[kind])
    z = draw(st.sampled_from([0.01, 1, largest / 4])) * generator.normal(size=shape)
    if draw(st.booleans()):
        z = generator.choice(np.append(z.ravel()[:2], [0, largest, -largest]), shape)
    z = np.clip(z, -largest, largest)
    decided = (z >= 0).astype(int) if kind == "binary" else z.argmax(1)
    most = max(KINDS[kind], 2)
    wrong = generator.random(n) < draw(st.sampled_from([0, 0.1, 1]))
    y = np.where(wrong, (decided + generator.integers(1, most, n)) % most, decided)
    if draw(st.booleans()):
        y = generator.integers(0, most, n)
    return z, y, generator.choice([0.5, 1, 3, 1000], n)


@each_that(lambda kind: kind.parametric)
@pytest.mark.parametrize("largest", [12, 300])
@settings(deadline=None, max_examples=15, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_fit_never_raises_its_likelihood(name, kind, largest, data):
    """By the fit's own word whatever the logits; from the probabilities where these resolve it: 1 − p does not below 1e-16."""
    z, y, w = data.draw(adversarial(kind, largest))
    try:
        calibrator = made(name).fit(z, y, w)
    except InputError:  # too few pixels, one class, or what looks like probabilities
        return
    after = calibrator.transform(z)
    assert_probabilities(after, z)
    assert calibrator.summary_["nll_after"] <= calibrator.summary_["nll_before"] + 1e-9
    if largest == 12:
        assert nll(after, y, w) <= nll(uncalibrated(z), y, w) + 1e-9


@each_that(lambda kind: kind.parametric)
def test_fit_lowers_the_likelihood_of_logits_that_are_off(name, kind):
    z, y, w = draw(kind)
    summary = fitted(name, kind).summary_
    assert summary["nll_before"] == pytest.approx(nll(uncalibrated(z), y, w), rel=1e-9)
    assert summary["nll_after"] == pytest.approx(nll(fitted(name, kind).transform(z), y, w), rel=1e-9)
    assert name == "identity" or summary["nll_after"] < summary["nll_before"] - 0.01


# --- bad and strange data -----------------------------------------------------------------------------------------------


@each
def test_bad_logits_are_refused(name, kind):
    z, y, w = draw(kind)
    for bad in (np.nan, np.inf, -np.inf):
        logits = z.copy()
        logits[3] = bad
        with pytest.raises(RangeError, match=f"{name}: 1 of 700 pixels have NaN or infinite logits"):
            made(name).fit(logits, y, w)
        with pytest.raises(RangeError, match=f"{name}: 1 of 700 pixels have NaN or infinite logits"):
            fitted(name, kind).transform(logits)
    with pytest.raises(RangeError, match="these are probabilities; give their logarithm"):
        made(name).fit(uncalibrated(z), y, w)
    with pytest.raises(RangeError, match="the logits are int64; expected floats"):
        made(name).fit(z.astype(np.int64), y)


@each
def test_arrays_that_do_not_fit_are_refused(name, kind):
    z, y, w = draw(kind)
    for arrays in ((z[:-1], y), (z, y, w[:-1]), (z, y, -w), (z[None, None], y), (z.reshape(len(y), -1)[:, :1], y)):
        with pytest.raises(ShapeError, match=f"{name}: .*expected"):
            made(name).fit(*arrays)
    with pytest.raises(ShapeError, match="expected one a pixel"):
        made(name).fit(z, y, w, groups=np.zeros(3))
    with pytest.raises(RangeError, match=r"expected 0\.\."):
        made(name).fit(z, y + 1)
    with pytest.raises(InputError, match="no pixel to fit on"):
        made(name).fit(z, y, 0 * w)


@each
def test_another_number_of_classes_is_refused(name, kind):
    others = [np.zeros((5, 3)), np.zeros((5, 4)) if kind == "binary" else np.zeros(5)]
    for logits in others:
        with pytest.raises(ShapeError, match=f"{name} was fitted on"):
            fitted(name, kind).transform(logits)


@each
def test_one_class_only_is_refused(name, kind):
    z = draw(kind)[0]
    if name == "identity":
        assert made(name).fit(z, np.ones(len(z), int)).notes_ == []
        return
    with pytest.raises(InputError, match="all 700 pixels are of class 1; a calibrator is fitted on two at least"):
        made(name).fit(z, np.ones(len(z), int))


@pytest.mark.parametrize(
    ("name", "kind"), [(n, k) for n in PIXELWISE for k, c in KINDS.items() if made(n).n_parameters(c) > 2]
)
def test_fewer_pixels_than_parameters_are_refused(name, kind):
    """Networks say so and go on, as other pixels choose their epoch. Of the rest, two pixels of two classes are enough."""
    needed = made(name).n_parameters(KINDS[kind])
    z, y, _ = draw(kind, needed - 1)
    y[:2] = 0, 1
    few = f"{needed:,} parameters for .*, but there are {needed - 1:,} pixels"
    if CALIBRATORS[name].network:
        assert re.search(few, made(name).fit(z, y).notes_[0])
        return
    with pytest.raises(InputError, match=few):
        made(name).fit(z, y)


@pytest.mark.parametrize("name", PIXELWISE)
def test_class_that_is_absent_is_left_alone(name):
    """Calibrators with parameters for each class say which ones were not fitted; others serve all classes alike."""
    z, y, w = draw("classes")
    there = y != 2
    calibrator = made(name).fit(z[there], y[there], w[there])
    for logits in (fresh("classes"), extreme("classes")):
        assert_probabilities(calibrator.transform(logits), logits)
    kind = CALIBRATORS[name]
    each_class_its_own = kind().n_parameters(5) > kind().n_parameters(4) and not kind.network
    note = "class 2 is absent from the fitting data; it keeps its uncalibrated scores"
    assert (note in calibrator.notes_) == each_class_its_own


@each
def test_nothing_wrong_to_learn_from(name, kind):
    """All predictions are right: an error that says so, or probabilities; surer ones of the same classes by likelihood."""
    z, _, w = draw(kind)
    y = (z >= 0).astype(int) if kind == "binary" else z.argmax(1)
    if name == "selective":
        with pytest.raises(InputError, match="all 700 predictions are right; there is nothing to learn"):
            made(name).fit(z, y, w)
        return
    calibrator = made(name).fit(z, y, w)
    p = calibrator.transform(z)
    assert_probabilities(p, z)
    if calibrator.parametric:
        assert_array_equal(p >= 0.5 if kind == "binary" else p.argmax(1), y)
        assert calibrator.summary_["nll_after"] <= calibrator.summary_["nll_before"]


# --- files --------------------------------------------------------------------------------------------------------------


@each
def test_saved_and_loaded_calibrator_is_the_same(name, kind, tmp_path):
    calibrator, path = clone(fitted(name, kind)).fit(*draw(kind)), tmp_path / "ü.safetensors"
    calibrator.notes_.append("a note: é")
    calibrator.origin_ = {"input": "logits", "images": {"a": 17}}
    save_calibrator(calibrator, path)
    back = load_calibrator(path)
    assert type(back) is type(calibrator)
    for attribute in ("n_classes_", "summary_", "notes_", "origin_"):
        assert getattr(back, attribute) == getattr(calibrator, attribute)
    assert back.get_params() == calibrator.get_params()
    for logits in (fresh(kind), extreme(kind)):
        assert_array_equal(back.transform(logits), calibrator.transform(logits))
    for array, again in zip(calibrator.state().items(), back.state().items(), strict=True):
        assert array[0] == again[0]
        assert_array_equal(array[1], again[1])
    save_calibrator(back, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


@pytest.fixture
def path(tmp_path):
    """The file of a temperature."""
    save_calibrator(fitted("temperature", "binary"), tmp_path / "t.safetensors")
    return tmp_path / "t.safetensors"


def with_header(path, **changes):
    """The file with another header; None takes an entry away."""
    header = json.loads(header_of(path)) | changes
    save_file(load_file(path), path, {KEY: json.dumps({k: v for k, v in header.items() if v is not None})})


def header_of(path) -> str:
    data = path.read_bytes()
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"][KEY]


def test_file_has_no_pickle_and_says_what_it_is(path):
    header = json.loads(header_of(path))
    assert header["calibrator"] == "temperature"
    assert header["schema"] == SCHEMA
    assert header["n_classes"] == 1
    assert header["summary"]["nll_after"] < header["summary"]["nll_before"]
    assert b"pickle" not in path.read_bytes()


def test_newer_schema_is_refused(path):
    with_header(path, schema=SCHEMA + 1, version="9.9")
    with pytest.raises(
        FormatError, match=f"has schema {SCHEMA + 1}, this calbench reads up to {SCHEMA}; update calbench"
    ) as e:
        load_calibrator(path)
    assert "9.9" in str(e.value)


def test_unknown_calibrator_is_refused(path):
    with_header(path, calibrator="astrology")
    with pytest.raises(FormatError, match="holds the calibrator 'astrology', which this calbench does not know"):
        load_calibrator(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"calibrator": None}, {"n_classes": None}, {"n_classes": "many"}, {"parameters": {"colour": 1}}, {"parameters": 3},
        {"summary": None}, {"calibrator": ["temperature"]}, {"schema": "new"}, {"schema": None},
    ],
)  # fmt: skip
def test_header_that_makes_no_sense_is_refused(path, changes):
    with_header(path, **changes)
    with pytest.raises(FormatError, match=r"is damaged: .*fit the calibrator again"):
        load_calibrator(path)


def test_file_without_what_was_learned_is_refused(path):
    save_file({"other": np.zeros(2)}, path, {KEY: header_of(path)})
    with pytest.raises(FormatError, match=r"is damaged: .*temperature_"):
        load_calibrator(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {KEY: "{}"}, {KEY: "[]"}, {KEY: '{"format": "recipe"}'}])
def test_other_safetensors_file_is_refused(tmp_path, metadata):
    save_file({"weight": np.zeros(3)}, tmp_path / "x.safetensors", metadata)
    with pytest.raises(FormatError, match="is a safetensors file of something else; expected a calibrator"):
        load_calibrator(tmp_path / "x.safetensors")


def test_damaged_file_is_refused(path, tmp_path):
    whole = path.read_bytes()
    for broken in (whole[:-3], whole[:20], b"", b"\x89PNG\r\n", whole[:8] + b"{" * (len(whole) - 8)):
        path.write_bytes(broken)
        with pytest.raises(FormatError, match="is damaged, or no calibrator"):
            load_calibrator(path)
    with pytest.raises(FormatError, match="there is no file"):
        load_calibrator(tmp_path / "nothing.safetensors")
    with pytest.raises(FormatError, match="is damaged, or no calibrator"):
        load_calibrator(tmp_path)


def test_softmax_of_binary_logits_is_their_sigmoid():
    """`uncalibrated` of `(n,)` is that of the logits of two classes."""
    z = fresh("binary")
    assert_allclose(uncalibrated(z), softmax(np.stack([0 * z, z], 1), axis=1)[:, 1], rtol=1e-12)
