"""Calibrators that look at images, and the pictures they read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import expit, log_softmax, softmax
from sklearn.base import clone

from calbench.calibrators import storage
from calbench.calibrators.calibration_net import CalibrationNet
from calbench.calibrators.calibrator import NotFitted
from calbench.calibrators.image_networks import crops
from calbench.calibrators.local_temperature import LocalTemperature
from calbench.calibrators.maps import MapCalibrator, Scene, tiles
from calbench.calibrators.stochastic_spatial import StochasticSpatial
from calbench.errors import FormatError, InputError, OptionError, RangeError, ShapeError, UnknownName
from calbench.io.pictures import fit_picture, read_picture

KINDS = (LocalTemperature, StochasticSpatial, CalibrationNet)
SIZES = ((12, 20), (17, 9), (12, 20), (25, 31), (8, 40))
MANY = 200.0
"""Weight of each pixel, so that few of them suffice for the parameters."""


def drawn(p: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A class of each pixel, from `(C, H, W)`."""
    return np.minimum((rng.random(p.shape[1:]) > p.cumsum(0)).sum(0), len(p) - 1)


def scene(rng: np.random.Generator, size: tuple[int, int], n_classes: int = 4, sharpen: float = 3.0) -> Scene:
    """The left part, where the image is bright, has logits that are `sharpen` times too large; n_classes = 1: binary."""
    height, width = size
    image = rng.uniform(0, 0.1, (3, height, width))
    bright = np.broadcast_to(np.arange(width) < width // 2, size)
    image[:, bright] += 0.9
    z = rng.normal(0, 1.5, (n_classes, height, width) if n_classes > 1 else size)
    p = np.stack([1 - expit(z), expit(z)]) if n_classes == 1 else softmax(z, axis=0)
    return Scene(
        (z * np.where(bright, sharpen, 1)).astype(np.float32),
        drawn(p, rng),
        np.full(size, MANY),
        image.astype(np.float32),
    )


def scenes(n_classes: int = 4, sizes: Any = SIZES, seed: int = 0, **options: Any) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [scene(rng, size, n_classes, **options) for size in sizes]


def quick(kind: type[MapCalibrator], **options: Any) -> MapCalibrator:
    return kind(**{"epochs": 2, "batch": 2, "crop": 10, "lr": 1e-3 if kind is LocalTemperature else 0.01} | options)


def nll_of(p: np.ndarray, target: np.ndarray) -> float:
    return float(-np.log(np.take_along_axis(p, target[None], 0)).mean())


def same(a: MapCalibrator, b: MapCalibrator) -> bool:
    """Bit for bit."""
    one, other = a.state(), b.state()
    return one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in one)


@pytest.mark.parametrize(("kind", "options"), [(kind, {}) for kind in KINDS] + [(StochasticSpatial, {"samples": 0})])
@pytest.mark.parametrize("n_classes", [1, 2, 19])
def test_the_number_of_parameters_is_that_of_the_network(
    kind: type[MapCalibrator], options: dict[str, Any], n_classes: int
) -> None:
    calibrator = kind(**options)
    network = calibrator._network(n_classes)
    assert calibrator.n_parameters(n_classes) == sum(parameter.numel() for parameter in network.parameters())


def test_the_published_sizes() -> None:
    assert CalibrationNet().n_parameters(25) == 141_913
    assert LocalTemperature().n_parameters(19) == 8 * (25 * 19 + 1) + 76


@pytest.mark.parametrize("start", [1.0, 2.0])
def test_local_temperature_starts_at_the_temperature_asked_for(start: float) -> None:
    network = LocalTemperature(start=start)._network(3)
    z, image = torch.randn(2, 3, 9, 7), torch.rand(2, 3, 9, 7)
    assert (network.temperature(z, image) == start).all()
    torch.testing.assert_close(network(z, image), torch.softmax(z / start, 1), rtol=0, atol=1e-7)


def test_local_temperature_follows_its_formula() -> None:
    torch.manual_seed(0)
    network = LocalTemperature(start=2.0)._network(3)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    z, image = torch.randn(1, 3, 9, 11), torch.rand(1, 3, 9, 11)

    def convolved(x: torch.Tensor, layer: torch.nn.Conv2d, channel: int) -> torch.Tensor:
        padded = torch.nn.functional.pad(x, (4, 4, 4, 4), mode="reflect")
        one = slice(channel, channel + 1)
        return torch.nn.functional.conv2d(padded, layer.weight[one], layer.bias[one], dilation=2)

    t1, t2, t3, t4 = (convolved(z, network.from_logits, i) + 1 for i in range(4))
    g1, g2, g3, g_image = (convolved(z, network.from_logits, i).sigmoid() for i in range(4, 8))
    t_image = convolved(image, network.from_image, 0) + 1
    a, b = t1 * g1 + t2 * (1 - g1), t3 * g2 + t4 * (1 - g2)
    u = a * g3 + b * (1 - g3)
    expected = torch.relu(u * g_image + t_image * (1 - g_image) + 1) + 1e-8
    torch.testing.assert_close(network.temperature(z, image), expected)


def test_local_temperature_stays_as_symmetric_as_its_zero_weights() -> None:
    """Of the published tree, four branches stay equal and three gates closed; the documentation says so."""
    fitted = quick(LocalTemperature, epochs=5).fit_scenes(scenes())
    weights = fitted.state()["from_logits.weight"]
    assert np.abs(weights[0]).max() > 1e-3
    np.testing.assert_allclose(weights[1:4], np.broadcast_to(weights[:1], weights[1:4].shape), atol=1e-6)
    np.testing.assert_allclose(weights[4:7], 0, atol=1e-6)
    assert np.abs(weights[7]).max() > 1e-4


def test_local_temperature_finds_what_the_image_shows() -> None:
    learning, held_out = scenes(sizes=[(32, 48)] * 10), scenes(sizes=[(32, 48)] * 4, seed=1)
    fitted = LocalTemperature(epochs=40, lr=1e-3, batch=2, crop=32).fit_scenes(learning)
    with torch.no_grad():
        temperature = fitted.network_.temperature(
            *(torch.as_tensor(np.stack([getattr(item, name) for item in held_out])) for name in ("logits", "image"))
        )[:, 0]
    sharpened, calibrated = temperature[..., 4:20].mean(), temperature[..., 28:44].mean()
    assert sharpened / calibrated > 2, (sharpened, calibrated)

    local = np.mean([nll_of(fitted.transform_map(item.logits, item.image), item.target) for item in held_out])
    best = min(
        np.mean([nll_of(softmax(item.logits / t, axis=0), item.target) for item in held_out])
        for t in np.geomspace(0.5, 5, 60)  # chosen in hindsight: no temperature of all pixels is better
    )
    truth = np.mean(
        [
            nll_of(softmax(np.where(item.image[0] > 0.5, item.logits / 3, item.logits), axis=0), item.target)
            for item in held_out
        ]
    )
    assert truth < local < best
    assert best - local > 0.5 * (best - truth)
    assert fitted.summary_["nll_after"] < fitted.summary_["nll_before"]
    assert fitted.notes_ == []


def test_local_temperature_keeps_the_class() -> None:
    fitted = quick(LocalTemperature).fit_scenes(scenes())
    with torch.no_grad():
        fitted.network_.from_image.bias.fill_(-9)  # T = 1e-8 wherever the ReLU closes
    for item in scenes(seed=2):
        p = fitted.transform_map(item.logits, item.image)
        assert np.isfinite(p).all()
        assert (p.argmax(0) == item.logits.argmax(0)).all()
    with torch.no_grad():
        fitted.network_.from_image.bias.fill_(1e12)
    for item in scenes(seed=2):
        assert (fitted.transform_map(item.logits, item.image).argmax(0) == item.logits.argmax(0)).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_classes", [1, 4])
def test_saved_loaded_and_as_module_it_is_the_same(
    kind: type[MapCalibrator], n_classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calbench.calibrators.CALIBRATORS", {kind.name: kind})
    fitted = quick(kind).fit_scenes(scenes(n_classes))
    storage.save_calibrator(fitted, tmp_path / "c.safetensors")
    loaded = storage.load_calibrator(tmp_path / "c.safetensors")
    assert isinstance(loaded, kind)
    assert same(fitted, loaded)
    assert loaded.get_params() == fitted.get_params()
    module = loaded.to_torch()
    for item in scenes(n_classes, seed=3):
        p = fitted.transform_map(item.logits, item.image)
        assert p.dtype == np.float64
        assert p.shape == item.logits.shape
        if n_classes > 1:
            np.testing.assert_allclose(p.sum(0), 1, atol=1e-12)
        assert (p == loaded.transform_map(item.logits, item.image)).all()
        channels = item.logits.reshape(1, -1, *item.target.shape)
        for dtype in (np.float32, np.float64):
            with torch.no_grad():
                q = module(torch.as_tensor(channels.astype(dtype)), torch.as_tensor(item.image)[None])
            np.testing.assert_allclose(q.numpy().reshape(p.shape), p, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_classes", [1, 4])
def test_void_pixels_have_no_influence(kind: type[MapCalibrator], n_classes: int) -> None:
    rng = np.random.default_rng(5)
    one, other = [], []
    for item in scenes(n_classes):
        void = rng.random(item.target.shape) < 0.2
        weight = np.where(void, 0, item.weight)
        one.append(Scene(item.logits, item.target, weight, item.image))
        spoilt = np.where(void, np.float32(np.nan), item.logits)
        other.append(Scene(spoilt, np.where(void, 255, item.target), weight, item.image))
    a, b = (quick(kind).fit_scenes(data) for data in (one, other))
    assert same(a, b)
    assert a.summary_ == b.summary_
    assert all(np.isfinite(array).all() for array in a.state().values())


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides(kind: type[MapCalibrator]) -> None:
    torch.manual_seed(1)
    a = quick(kind).fit_scenes(scenes())
    state = torch.random.get_rng_state()
    b = quick(kind).fit_scenes(scenes())
    assert (torch.random.get_rng_state() == state).all()  # nobody else's random numbers are touched
    assert same(a, b)
    assert not same(a, quick(kind, seed=1).fit_scenes(scenes()))


@pytest.mark.parametrize("kind", KINDS)
def test_without_images_it_says_where_to_get_them(kind: type[MapCalibrator]) -> None:
    data = scenes()
    logits, target = [item.logits for item in data], [item.target for item in data]
    with pytest.raises(InputError, match="--images DIR"):
        kind().fit(logits, target)
    fitted = quick(kind).fit_scenes(data)
    with pytest.raises(InputError, match="--images DIR"):
        fitted.transform_map(logits[0])
    with pytest.raises(InputError, match="transform_map"):
        fitted.transform(logits[0])
    with pytest.raises(NotFitted):
        kind().transform_map(logits[0], data[0].image)


def test_arrays_in_memory_are_the_same_as_scenes() -> None:
    data = scenes()
    parts = {name: [getattr(item, name) for item in data] for name in ("logits", "target", "weight", "image")}
    a = quick(LocalTemperature).fit(parts["logits"], parts["target"], parts["weight"], images=parts["image"])
    assert same(a, quick(LocalTemperature).fit_scenes(data))


@pytest.mark.parametrize("kind", [StochasticSpatial, CalibrationNet])
def test_an_absent_class_keeps_its_score(kind: type[MapCalibrator]) -> None:
    data = [
        Scene(item.logits, np.where(item.target == 2, 0, item.target), item.weight, item.image)
        for item in scenes(sizes=[(24, 32)] * 4)
    ]
    fitted = quick(kind, samples=0, epochs=20) if kind is StochasticSpatial else quick(kind, epochs=20)
    fitted.fit_scenes(data)
    assert fitted.notes_[0].startswith(
        "classes 2 are absent from the fitting data; they keep their uncalibrated scores"
    )
    z, image = data[0].logits.astype(np.float64), data[0].image
    p = fitted.transform_map(z, image)
    assert np.isfinite(p).all()
    if kind is CalibrationNet:
        np.testing.assert_allclose(p[2], softmax(z, axis=0)[2], atol=1e-12)
    else:  # μ_2 = z_2: what the others' scores become, the absent class's is divided by the same sum
        with torch.no_grad():
            mean = fitted.network_.mean(torch.as_tensor(z[None], dtype=torch.float32))[0].numpy().astype(float)
        mean[2] = z[2]
        np.testing.assert_allclose(p, softmax(mean, axis=0), atol=1e-6)
    np.testing.assert_allclose(p.sum(0), 1, atol=1e-12)


def test_a_temperature_belongs_to_no_class() -> None:
    data = [Scene(i.logits, np.minimum(i.target, 2), i.weight, i.image) for i in scenes()]
    assert not any("absent" in note for note in quick(LocalTemperature).fit_scenes(data).notes_)


def test_the_published_stochastic_form_is_a_matrix() -> None:
    data = scenes()
    fitted = quick(StochasticSpatial, samples=0).fit_scenes(data)
    state = fitted.state()
    assert state.keys() == {"absent", "mean.weight", "mean.bias"}
    z = data[0].logits.astype(float)
    expected = np.einsum("ij,jhw->ihw", state["mean.weight"][..., 0, 0], z) + state["mean.bias"][:, None, None]
    np.testing.assert_allclose(fitted.transform_map(z, data[0].image), softmax(expected, axis=0), atol=1e-6)
    darker = fitted.transform_map(z, data[0].image / 2)
    np.testing.assert_array_equal(darker, fitted.transform_map(z, data[0].image))


def test_samples_are_averaged_after_the_softmax() -> None:
    """Noise flattens, as the mean of probabilities does, and follows the image."""
    learning = scenes(sizes=[(32, 48)] * 6)
    fitted = StochasticSpatial(epochs=30, lr=0.05, batch=2, crop=32).fit_scenes(learning)
    plain = StochasticSpatial(samples=0, epochs=30, lr=0.05, batch=2, crop=32).fit_scenes(learning)
    assert fitted.summary_["nll_after"] < plain.summary_["nll_after"] - 0.01
    item = scenes(sizes=[(32, 48)], seed=1)[0]
    z, image = item.logits.astype(float), item.image
    with torch.no_grad():
        x, y = torch.as_tensor(item.logits)[None], torch.as_tensor(image)[None]
        mean = fitted.network_.mean(x)[0].numpy().astype(float)
        spread = torch.nn.functional.softplus(fitted.network_.spread(torch.cat([x, y], 1)))[0].numpy().astype(float)
    noise = fitted.state()["noise"].astype(float)
    np.testing.assert_array_equal(noise[:5], -noise[5:])
    expected = np.exp([log_softmax(mean + spread * draw, axis=0) for draw in noise]).mean(0)
    np.testing.assert_allclose(fitted.transform_map(z, image), expected, atol=1e-6)
    assert spread[..., :20].mean() > 1.3 * spread[..., 28:].mean()


def test_the_calibration_net_learns_the_confusion_of_a_black_box() -> None:
    """The predicted class is right at 70 % of the bright pixels and at 95 % of the dark ones."""
    rng = np.random.default_rng(0)
    data = []
    for size in [(32, 48)] * 10:
        item = scene(rng, size, 3)
        right = rng.random(size) < np.where(item.image[0] > 0.5, 0.7, 0.95)
        winner = item.logits.argmax(0)
        data.append(Scene(item.logits, np.where(right, winner, (winner + 1) % 3), item.weight, item.image))
    fitted = CalibrationNet(epochs=12, lr=0.01, batch=2, crop=32).fit_scenes(data)
    p = fitted.transform_map(data[0].logits, data[0].image).max(0)
    assert abs(p[:, 4:20].mean() - 0.7) < 0.06
    assert abs(p[:, 28:44].mean() - 0.95) < 0.04
    other = fitted.transform_map(data[0].logits * 7, data[0].image)  # only the class is read
    np.testing.assert_allclose(other, fitted.transform_map(data[0].logits, data[0].image), atol=1e-6)


def test_the_calibration_net_can_read_probabilities() -> None:
    data = scenes()
    fitted = quick(CalibrationNet, inputs="probabilities").fit_scenes(data)
    z, image = data[0].logits, data[0].image
    assert np.abs(fitted.transform_map(z, image) - fitted.transform_map(z * 7, image)).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_classes", [1, 3])
def test_tiles_change_nothing(kind: type[MapCalibrator], n_classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = scenes(n_classes)
    fitted = quick(kind).fit_scenes(data)
    whole = [fitted.transform_map(item.logits, item.image) for item in data]
    monkeypatch.setattr("calbench.calibrators.maps.TILE", 7)
    for item, expected in zip(data, whole, strict=True):
        np.testing.assert_allclose(fitted.transform_map(item.logits, item.image), expected, rtol=0, atol=1e-6)
    again = quick(kind).fit_scenes(data)  # validated by tiles
    assert again.summary_["nll_after"] == pytest.approx(fitted.summary_["nll_after"], rel=1e-5)


@pytest.mark.parametrize("halo", [0, 5])
def test_tiles_cover_each_pixel_once(halo: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calbench.calibrators.maps.TILE", 7)
    count, numbers = np.zeros((15, 22), int), np.arange(15 * 22).reshape(15, 22)
    for window, core, inner in tiles((15, 22), halo):
        count[core] += 1
        np.testing.assert_array_equal(numbers[window][inner], numbers[core])
    assert (count == 1).all()


def test_an_epoch_is_a_crop_of_each_image() -> None:
    data = scenes()
    batches = list(crops([lambda item=item: item for item in data], 10, 3, np.random.default_rng(0)))
    assert sum(len(batch[0]) for batch in batches) == len(data)
    for logits, image, target, weight in batches:
        n, _, height, width = logits.shape
        assert (height, width) in {(10, 10), (10, 9), (8, 10)}
        assert image.shape == (n, 3, height, width)
        assert target.shape == weight.shape == (n, height, width)


def test_images_may_be_read_when_asked_for() -> None:
    class Files:
        def __len__(self) -> int:
            return len(SIZES)

        def __getitem__(self, i: int) -> Scene:
            return scenes()[i]

    epochs = []
    a = quick(LocalTemperature).fit_scenes(Files(), advance=lambda: epochs.append(1))
    assert len(epochs) == 2
    assert same(a, quick(LocalTemperature).fit_scenes(scenes()))


def test_given_validation_images_choose_the_epoch() -> None:
    data = scenes()
    fitted = quick(LocalTemperature, epochs=15).fit_scenes(data[:3], data[3:])
    assert fitted.summary_["validation_images"] == 2
    expected = [nll_of(fitted.transform_map(item.logits, item.image), item.target) for item in data[3:]]
    pixels = [item.target.size for item in data[3:]]
    assert fitted.summary_["nll_after"] == pytest.approx(np.average(expected, weights=pixels), rel=1e-5)
    before = [nll_of(softmax(item.logits.astype(float), axis=0), item.target) for item in data[3:]]
    assert fitted.summary_["nll_before"] == pytest.approx(np.average(before, weights=pixels), rel=1e-9)


def test_it_says_when_nothing_was_learned() -> None:
    learning = scenes(sizes=[(12, 20)] * 3)
    judging = [Scene(i.logits, i.logits.argmax(0), i.weight, i.image) for i in learning]  # overconfidence is right here
    fitted = quick(LocalTemperature).fit_scenes(learning, judging)
    assert fitted.summary_["best_epoch"] == 0
    assert "nothing was learned" in fitted.notes_[0]
    z = learning[0].logits.astype(float)
    np.testing.assert_allclose(fitted.transform_map(z, learning[0].image), softmax(z, axis=0), atol=1e-9)
    fitted = quick(LocalTemperature, start=2.0).fit_scenes(learning, judging)
    assert "do not use it" in fitted.notes_[0]


def test_a_learning_rate_that_closes_the_relu_is_told() -> None:
    fitted = LocalTemperature(epochs=3, lr=0.02, batch=2, crop=32).fit_scenes(scenes(sizes=[(32, 48)] * 5))
    assert fitted.summary_["best_epoch"] == 0
    assert "a lower learning rate may help" in fitted.notes_[0]


def replaced(item: Scene, **parts: np.ndarray) -> Scene:
    return Scene(**{name: parts.get(name, getattr(item, name)) for name in ("logits", "target", "weight", "image")})


def spoilt(array: np.ndarray, value: float) -> np.ndarray:
    array = array.copy()
    array[..., 3, 4] = value
    return array


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda i: replaced(i, logits=spoilt(i.logits, np.nan)), RangeError, "NaN or infinite"),
        (lambda i: replaced(i, logits=softmax(i.logits, axis=0)), RangeError, "these are probabilities"),
        (lambda i: replaced(i, logits=(i.logits * 9).astype(int)), RangeError, "expected floats"),
        (lambda i: replaced(i, target=i.target + 1), RangeError, r"expected 0\.\.3"),
        (lambda i: replaced(i, target=np.full_like(i.target, 2)), InputError, "show 1 class only"),
        (lambda i: replaced(i, weight=i.weight * 0), InputError, "no pixel of positive weight"),
        (lambda i: replaced(i, weight=-i.weight), RangeError, "weights below 0"),
        (lambda i: replaced(i, image=i.image * 255), RangeError, "divide 8-bit levels"),
        (lambda i: replaced(i, image=spoilt(i.image, np.nan)), RangeError, "expected .0, 1."),
        (lambda _: scene(np.random.default_rng(0), (4, 30)), ShapeError, "more than"),
    ],
)
@pytest.mark.parametrize("kind", [LocalTemperature, CalibrationNet])
def test_bad_images_are_refused(
    kind: type[MapCalibrator], change: Callable[[Scene], Scene], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        quick(kind).fit_scenes([change(item) for item in scenes()])


def test_a_network_with_more_parameters_than_pixels_says_so() -> None:
    fitted = quick(CalibrationNet).fit_scenes([replaced(item, weight=item.weight * 1e-9) for item in scenes()])
    assert any("parameters" in note and "validation images" in note for note in fitted.notes_)


def test_other_classes_and_images_are_refused() -> None:
    with pytest.raises(ShapeError, match="fitted on 4 classes"):
        quick(LocalTemperature).fit_scenes(scenes() + scenes(3))
    fitted = quick(LocalTemperature).fit_scenes(scenes())
    item = scenes()[0]
    with pytest.raises(ShapeError, match="fitted on 4 classes"):
        fitted.transform_map(item.logits[:3], item.image)
    with pytest.raises(ShapeError, match="the image has shape"):
        fitted.transform_map(item.logits, item.image[:, 1:])
    with pytest.raises(RangeError, match="NaN or infinite"):
        fitted.transform_map(spoilt(item.logits, np.inf), item.image)


@pytest.mark.parametrize(
    ("calibrator", "error", "message"),
    [
        (quick(LocalTemperature, crop=4), OptionError, "crop 4; expected at least 1 image and 5 pixels"),
        (quick(LocalTemperature, batch=0), OptionError, "batch is 0"),
        (quick(LocalTemperature, epochs=0), OptionError, "epochs is 0"),
        (quick(LocalTemperature, validation=1.0), OptionError, "validation is 1.0"),
        (quick(LocalTemperature, start=0.0), OptionError, "start is 0.0"),
        (quick(LocalTemperature, device="tpu"), OptionError, "expected cpu or cuda"),
        (quick(StochasticSpatial, samples=3), OptionError, "samples is 3"),
        (quick(CalibrationNet, inputs="onehot"), UnknownName, "did you mean 'one_hot'"),
    ],
)
def test_parameters_out_of_range_are_refused(calibrator: MapCalibrator, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        calibrator.fit_scenes(scenes())


@pytest.mark.parametrize("kind", KINDS)
def test_constructors_only_store(kind: type[MapCalibrator]) -> None:
    parameters = kind().get_params()
    assert parameters == clone(kind(**parameters)).get_params()
    assert vars(kind()) == parameters


def test_one_image_is_not_enough() -> None:
    with pytest.raises(InputError, match="there is 1 image"):
        quick(LocalTemperature).fit_scenes(scenes()[:1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", [LocalTemperature, StochasticSpatial])
def test_cuda_agrees_with_the_cpu(kind: type[MapCalibrator]) -> None:
    cpu, cuda = (quick(kind, device=device).fit_scenes(scenes()) for device in ("cpu", "cuda"))
    for item in scenes(seed=1):
        np.testing.assert_allclose(
            cuda.transform_map(item.logits, item.image), cpu.transform_map(item.logits, item.image), atol=1e-3
        )
        z, image = (torch.as_tensor(part)[None].cuda() for part in (item.logits, item.image))
        with torch.no_grad():
            p = cuda.to_torch().cuda()(z, image)[0].cpu().numpy()
        np.testing.assert_allclose(p, cuda.transform_map(item.logits, item.image), atol=1e-3)


def test_a_picture_is_three_channels_in_the_unit_interval(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (5, 7, 3), np.uint8)
    for suffix in ("png", "bmp", "tif"):
        Image.fromarray(colour).save(tmp_path / f"a.{suffix}")
        picture = read_picture(tmp_path / f"a.{suffix}")
        assert (picture.dtype, picture.shape) == (np.float32, (3, 5, 7))
        np.testing.assert_array_equal(picture, np.moveaxis(colour, -1, 0) / np.float32(255))
    Image.fromarray(np.full((5, 7, 3), 200, np.uint8)).save(tmp_path / "a.jpg")
    np.testing.assert_allclose(read_picture(tmp_path / "a.jpg"), 200 / 255, atol=2 / 255)

    grey = colour[..., 0]
    deep = rng.integers(0, 65536, (5, 7)).astype(np.uint16)
    for array, most in ((grey, 255), (deep, 65535), (grey > 100, 1)):
        Image.fromarray(array).save(tmp_path / "grey.png")
        np.testing.assert_allclose(read_picture(tmp_path / "grey.png"), np.stack([array / most] * 3), atol=1e-7)
    palette = Image.fromarray(colour).quantize(8)
    palette.save(tmp_path / "p.png")
    np.testing.assert_allclose(
        read_picture(tmp_path / "p.png"), np.moveaxis(np.asarray(palette.convert("RGB")), -1, 0) / 255, atol=1e-7
    )


def test_an_alpha_channel_is_dropped_only_where_it_hides_nothing(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (5, 7, 4), np.uint8)
    colour[..., 3] = 255
    Image.fromarray(colour).save(tmp_path / "a.png")
    np.testing.assert_allclose(read_picture(tmp_path / "a.png"), np.moveaxis(colour[..., :3], -1, 0) / 255, atol=1e-7)
    colour[2, 3, 3] = 254
    Image.fromarray(colour).save(tmp_path / "a.png")
    with pytest.raises(RangeError, match="transparent"):
        read_picture(tmp_path / "a.png")


def test_a_picture_that_is_stored_turned_is_refused(tmp_path: Path) -> None:
    image = Image.fromarray(np.zeros((5, 7, 3), np.uint8))
    for suffix in ("jpg", "png", "tif"):
        for orientation in (1, 6):
            exif = Image.Exif()
            exif[274] = orientation
            image.save(tmp_path / f"{orientation}.{suffix}", exif=exif)
        assert read_picture(tmp_path / f"1.{suffix}").shape == (3, 5, 7)
        with pytest.raises(FormatError, match="EXIF orientation 6"):
            read_picture(tmp_path / f"6.{suffix}")


def test_pictures_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    Image.new("CMYK", (4, 3)).save(tmp_path / "a.jpg")
    with pytest.raises(FormatError, match="mode 'CMYK'"):
        read_picture(tmp_path / "a.jpg")
    Image.fromarray(np.zeros((3, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(FormatError, match="float32 image"):
        read_picture(tmp_path / "a.tif")
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(FormatError, match="cannot read"):
        read_picture(tmp_path / "a.png")


def test_a_picture_is_resized_only_when_asked_for() -> None:
    picture = np.random.default_rng(0).random((3, 6, 9), np.float32)
    assert fit_picture(picture, (6, 9), resize=False, where="a") is picture
    with pytest.raises(ShapeError, match=r"a.jpg has 6 x 9 pixels, its prediction 9 x 6"):
        fit_picture(picture, (9, 6), resize=False, where="a.jpg")
    small = fit_picture(picture, (2, 3), resize=True, where="a")
    assert (small.shape, small.dtype) == ((3, 2, 3), np.float32)
    np.testing.assert_allclose(small.mean((1, 2)), picture.mean((1, 2)), atol=0.05)
