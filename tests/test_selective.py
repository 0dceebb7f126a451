"""Misprediction-aware calibrators: Meta-Cal and selective scaling."""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import entr, expit, softmax

from calbench.calibrators.calibrator import nll
from calbench.calibrators.meta_cal import MetaCal, _entropies, _threshold
from calbench.calibrators.selective import SelectiveScaling
from calbench.calibrators.selective_network import MispredictionNetwork, judged_right, read_checkpoint
from calbench.calibrators.temperature import Temperature
from calbench.errors import FormatError, InputError, OptionError
from calbench.statistics.reliability import bin_index

Array = np.ndarray
C = 10
FAST: dict[str, Any] = {"epochs": 30, "batch": 1, "lr": 5e-3}


def tell_tale(n: int, seed: int, *, told: bool = True, share: float = 0.3) -> tuple[Array, Array]:
    """Pixels as sure when wrong as when right; if `told`, the other classes show which: one of them is far below."""
    generator = np.random.default_rng(seed)
    z = generator.normal(size=(n, C)) * 0.1
    winner = generator.integers(C, size=n)
    wrong = generator.random(n) < share
    z[np.arange(n), winner] += generator.uniform(3, 9, n)
    if told:
        z[wrong, (winner[wrong] + 1) % C] -= 6
    target = np.where(wrong, (winner + generator.integers(2, C, size=n)) % C, winner)
    return z + generator.normal(size=(n, 1)), target


def binary_tell_tale(n: int, seed: int) -> tuple[Array, Array]:
    """A binary map that is wrong where its logit is between 2 and 4, and right where it is larger."""
    generator = np.random.default_rng(seed)
    size = generator.uniform(2, 8, n)
    foreground = generator.random(n) < 0.4
    z = np.where(foreground, size, -size)
    return z, np.where(size < 4, ~foreground, foreground).astype(int)


def ece(p: Array, target: Array, bins: int = 10) -> float:
    confidence, correct = p.max(1), p.argmax(1) == target
    return float(np.abs(np.bincount(bin_index(confidence, bins), correct - confidence, bins)).sum() / len(p))


@pytest.fixture(scope="module")
def fitted() -> SelectiveScaling:
    return SelectiveScaling(**FAST).fit(*tell_tale(3000, 0))


def test_selective_beats_temperature_where_wrong_pixels_show(fitted: SelectiveScaling) -> None:
    z, y = tell_tale(3000, 1)
    ours, plain = fitted.transform(z), Temperature().fit(*tell_tale(3000, 0)).transform(z)
    weight = np.ones(len(y))
    assert fitted.summary_["recall"] > 0.95
    assert fitted.summary_["precision"] > 0.95
    assert nll(ours, y, weight) < nll(plain, y, weight) - 0.4
    assert ece(ours, y) < ece(plain, y) - 0.05
    np.testing.assert_array_equal(ours.argmax(1), z.argmax(1))


def test_selective_gains_nothing_where_wrong_pixels_do_not_show() -> None:
    z, y = tell_tale(3000, 0, told=False, share=0.2)
    fitted = SelectiveScaling(**FAST).fit(z, y)
    assert fitted.summary_["recall"] < 0.05
    test_z, test_y = tell_tale(3000, 1, told=False, share=0.2)
    weight = np.ones(len(test_y))
    plain = Temperature().fit(z, y).transform(test_z)
    assert nll(fitted.transform(test_z), test_y, weight) > nll(plain, test_y, weight) + 0.1


def test_temperature_of_wrong_pixels_minimises_the_validation_nll(fitted: SelectiveScaling) -> None:
    z, y = tell_tale(3000, 0)
    flagged = fitted._flagged(z)
    losses = [nll(softmax(z[flagged] / t, axis=1), y[flagged], np.ones(flagged.sum())) for t in (2.0, fitted.t_wrong_)]
    assert losses[1] < losses[0]
    assert fitted.summary_["t_wrong"] == fitted.t_wrong_
    assert 1 <= fitted.summary_["best_epoch"] <= 30
    assert fitted.summary_["accuracy"] == (z.argmax(1) == y).mean()


def test_given_temperatures_are_used() -> None:
    z, y = tell_tale(2000, 0)
    fitted = SelectiveScaling(t_wrong=3.0, t_correct=2.0, **FAST).fit(z, y)
    t = np.where(fitted._flagged(z), 3.0, 2.0)
    np.testing.assert_allclose(fitted.transform(z), softmax(z / t[:, None], axis=1), atol=1e-12)


def test_extreme_temperature_keeps_the_class_or_takes_the_first() -> None:
    z, y = tell_tale(2000, 0)
    kept = SelectiveScaling(t_wrong=1e10, **FAST).fit(z, y)
    taken_again = SelectiveScaling(t_wrong=1e10, keep_class=False, **FAST).fit(z, y)
    flagged = kept._flagged(z)
    assert flagged.any()
    np.testing.assert_array_equal(kept.transform(z).argmax(1), z.argmax(1))
    p = taken_again.transform(z)
    assert (p[flagged] == np.float32(1 / C)).all()
    assert (p[flagged].argmax(1) == 0).all()
    np.testing.assert_array_equal(p[~flagged].argmax(1), z[~flagged].argmax(1))
    for calibrator in (kept, taken_again):
        module = calibrator.to_torch()(torch.from_numpy(z)).numpy()
        np.testing.assert_array_equal(module.argmax(1), calibrator.transform(z).argmax(1))


@pytest.mark.parametrize("keep", [True, False])
def test_selective_of_binary_maps(keep: bool) -> None:
    z, y = binary_tell_tale(3000, 0)
    fitted = SelectiveScaling(t_wrong=1e10, keep_class=keep, **FAST).fit(z, y)
    p = fitted.transform(z)
    assert p.shape == z.shape
    flagged = fitted._flagged(np.stack([-z / 2, z / 2], axis=1))
    assert flagged[np.abs(z) < 3.5].mean() > 0.9
    np.testing.assert_allclose(p[flagged], 0.5, atol=1e-9)
    np.testing.assert_allclose(p[~flagged], expit(z[~flagged]), atol=1e-12 if keep else 1e-6)
    np.testing.assert_array_equal(p >= 0.5, z >= 0 if keep else (z >= 0) & ~flagged)
    np.testing.assert_allclose(fitted.to_torch()(torch.from_numpy(z)).numpy(), p, rtol=0, atol=1e-6)


def test_module_agrees_and_leaves_the_calibrator_alone(fitted: SelectiveScaling) -> None:
    z, _ = tell_tale(60, 3)
    maps = torch.from_numpy(z.reshape(2, 5, 6, C)).movedim(-1, 1)
    module = fitted.to_torch()
    p = module(maps).movedim(1, -1).reshape(-1, C).numpy()
    np.testing.assert_allclose(p, fitted.transform(z), rtol=0, atol=1e-6)
    assert module(maps.float()).dtype == torch.float32
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    np.testing.assert_array_equal(fitted.transform(z), p)


def test_state_returns(fitted: SelectiveScaling) -> None:
    z, _ = tell_tale(50, 3)
    again = SelectiveScaling(**fitted.get_params())
    again.n_classes_ = C
    again.restore({name: np.array(array) for name, array in fitted.state().items()})
    np.testing.assert_array_equal(again.transform(z), fitted.transform(z))


def test_seed_reproduces() -> None:
    z, y = tell_tale(1000, 0)
    state = torch.get_rng_state()
    one, two, other = (SelectiveScaling(seed=seed, **FAST).fit(z, y).state() for seed in (5, 5, 6))
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name])
    assert not np.array_equal(one["linear_1.weight"], other["linear_1.weight"])
    assert torch.equal(torch.get_rng_state(), state)


def test_groups_are_the_images() -> None:
    z, y = tell_tale(2000, 0)
    groups = np.random.default_rng(0).permutation(np.arange(2000) % 10)
    one, two = (SelectiveScaling(**FAST).fit(z, y, groups=names) for names in (groups, groups * 7 + 3))
    np.testing.assert_array_equal(one.transform(z), two.transform(z))
    runs = SelectiveScaling(**FAST).fit(z, y)
    assert runs.summary_["validation_loss"] != one.summary_["validation_loss"]
    with pytest.raises(InputError, match="1 image"):
        SelectiveScaling().fit(z, y, groups=np.zeros(2000))


def test_all_weights_doubled_change_nothing() -> None:
    z, y = tell_tale(1000, 0)
    one = SelectiveScaling(epochs=3).fit(z, y)
    two = SelectiveScaling(epochs=3).fit(z, y, np.full(1000, 2.0))
    np.testing.assert_allclose(two.transform(z), one.transform(z), atol=1e-6)


def test_weight_zero_is_absence() -> None:
    z, y = tell_tale(1200, 0)
    weight = np.where(np.arange(1200) < 1000, 1.0, 0.0)
    with_zero = SelectiveScaling(epochs=3).fit(z, y, weight)
    np.testing.assert_array_equal(
        with_zero.transform(z), SelectiveScaling(epochs=3).fit(z[:1000], y[:1000]).transform(z)
    )


def test_wrong_weight_finds_more_wrong_pixels() -> None:
    """Half told: the more a wrong pixel weighs, the more are found, at a lower precision."""
    z, y = tell_tale(3000, 0)
    generator = np.random.default_rng(0)
    hidden = generator.random(3000) < 0.5  # of these, wrong and right look alike
    z[hidden] = tell_tale(3000, 0, told=False)[0][hidden]
    few, many = (SelectiveScaling(wrong_weight=weight, **FAST).fit(z, y).summary_ for weight in (1.0, 6.0))
    assert many["recall"] > few["recall"] + 0.2
    assert many["precision"] < few["precision"] - 0.2


def test_note_where_the_class_kept_cannot_gain() -> None:
    """Flags at a precision of the share of wrong pixels, and a temperature far too large for it."""
    z, y = tell_tale(3000, 0, told=False)
    fitted = SelectiveScaling(t_wrong=1e10, wrong_weight=20.0, **FAST).fit(z, y)
    assert fitted.summary_["precision"] < 0.4
    assert any("does not help here with the class kept" in note for note in fitted.notes_)
    again = SelectiveScaling(t_wrong=1e10, wrong_weight=20.0, keep_class=False, **FAST).fit(z, y)
    assert not any("does not help" in note for note in again.notes_)


def test_nothing_flagged_is_said() -> None:
    z, y = tell_tale(2000, 0, told=False, share=0.03)
    fitted = SelectiveScaling(**FAST).fit(z, y)
    assert fitted.summary_["flagged"] == 0
    assert fitted.summary_["precision"] is None
    assert fitted.t_wrong_ == 1.0
    assert fitted.notes_ == ["the misprediction classifier takes no validation pixel for wrong"]
    assert np.isfinite(fitted.transform(z)).all()


def test_absent_classes_are_scaled_as_all_others() -> None:
    z, y = tell_tale(2000, 0)
    shown = (y != 3) & (z.argmax(1) != 3)
    for calibrator in (SelectiveScaling(epochs=3), MetaCal()):
        p = calibrator.fit(z[shown], y[shown]).transform(z)
        assert np.isfinite(p).all()
        np.testing.assert_allclose(p.sum(1), 1)


@pytest.mark.parametrize("outcome", ["right", "wrong"])
def test_one_outcome_is_nothing_to_learn(outcome: str) -> None:
    z, _ = tell_tale(1000, 0)
    y = z.argmax(1) if outcome == "right" else z.argmin(1)
    with pytest.raises(InputError, match=f"all 1,000 predictions are {outcome}; there is nothing to learn"):
        SelectiveScaling().fit(z, y)


@pytest.mark.parametrize(
    "options",
    [{"t_wrong": 0.0}, {"t_wrong": "nll"}, {"t_correct": -1.0}, {"t_wrong": np.inf}, {"batch": 0}, {"wrong_weight": 0.0},
     {"validation": 1.0}, {"epochs": 0}],
)  # fmt: skip
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        SelectiveScaling(**options).fit(*tell_tale(700, 0))


def test_keys_and_shapes_of_the_network() -> None:
    c = 7
    state = MispredictionNetwork(c).state_dict()
    linear = {"dirichlet_linear": (c, c), "linear_1": (2 * c, c), "linear_2": (c, 2 * c), "binary_linear": (2, c)}
    expected: dict[str, tuple[int, ...]] = {}
    for name, shape in linear.items():
        expected |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name, width in {"bn0": c, "bn1": 2 * c, "bn2": c}.items():
        expected |= {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}
        expected[f"{name}.num_batches_tracked"] = ()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected
    assert torch.equal(state["dirichlet_linear.weight"], torch.eye(c))
    n_learned = sum(p.numel() for p in MispredictionNetwork(c).parameters())
    assert SelectiveScaling(t_wrong=2.0).n_parameters(c) == n_learned
    assert SelectiveScaling().n_parameters(c) == n_learned + 1


def test_network_is_the_formula() -> None:
    torch.manual_seed(0)
    network = MispredictionNetwork(3)
    network.train()(torch.randn(50, 3))  # running statistics other than those of the start
    network.eval().double()
    z = np.random.default_rng(0).normal(size=(20, 3))
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}

    def linear(name: str, x: Array) -> Array:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def normalised(name: str, x: Array) -> Array:
        scale = state[f"{name}.weight"] / np.sqrt(state[f"{name}.running_var"] + 1e-5)
        return np.maximum((x - state[f"{name}.running_mean"]) * scale + state[f"{name}.bias"], 0)

    x = normalised("bn0", linear("dirichlet_linear", np.log(softmax(z, axis=1) + 1e-16)))
    x = linear("binary_linear", normalised("bn2", linear("linear_2", normalised("bn1", linear("linear_1", x)))))
    with torch.no_grad():
        np.testing.assert_allclose(network(torch.from_numpy(z)).numpy(), x, atol=1e-12)
        np.testing.assert_array_equal(judged_right(network, torch.from_numpy(z)).numpy(), x[:, 1] > x[:, 0])


def released(network: torch.nn.Module, prefix: str) -> dict[str, Any]:
    """What the released files hold, numpy's scalars included."""
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-6)
    return {
        "epoch": 29,
        "state_dict": {prefix + name: tensor for name, tensor in network.state_dict().items()},
        "optimizer": optimiser.state_dict(),
        "acc": np.float64(0.7897),
        "corr_acc": np.float32(0.8564),
        "mis_acc": np.int64(1),
        "corr_auc": np.float64(0.9066),
        "mis_auc": np.float64(0.5566),
    }


@pytest.mark.parametrize("prefix", ["module.", ""])
def test_released_checkpoint_loads(tmp_path: Path, prefix: str) -> None:
    network = MispredictionNetwork(5)
    network.train()(torch.randn(50, 5))
    torch.save(released(network, prefix), tmp_path / "best.pth.tar")
    allowed = set(torch.serialization.get_safe_globals())
    loaded = SelectiveScaling.load_checkpoint(tmp_path / "best.pth.tar", t_wrong=2.0)
    assert (loaded.n_classes_, loaded.summary_["epoch"], loaded.t_wrong_) == (5, 29, 2.0)
    z = np.random.default_rng(0).normal(size=(200, 5)) * 3
    right = judged_right(network.eval(), torch.from_numpy(z)).numpy()
    np.testing.assert_allclose(
        loaded.transform(z), softmax(z / np.where(right, 1, 2)[:, None], axis=1), rtol=0, atol=1e-12
    )
    assert set(torch.serialization.get_safe_globals()) == allowed


def test_checkpoint_written_with_numpy_1_loads(tmp_path: Path) -> None:
    """Its scalars are of the module numpy.core, which numpy 2 calls numpy._core."""
    path = tmp_path / "best.pth"
    torch.save(released(MispredictionNetwork(3), "module."), path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert b"cnumpy._core.multiarray\n" in content
    path.write_bytes(content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    assert read_checkpoint(path)[0].binary_linear.in_features == 3


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("harm"),)


def test_code_in_a_checkpoint_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(released(MispredictionNetwork(3), "module.") | {"acc": Harmful()}, "harmful.pth")
    Path("plain.pth").write_bytes(pickle.dumps(Harmful(), protocol=2))
    for name in ("harmful.pth", "plain.pth"):
        with pytest.raises(FormatError, match="may run code"):
            read_checkpoint(name)
    assert not Path("harm").exists()


def test_other_files_are_no_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="there is no file"):
        read_checkpoint(tmp_path / "absent.pth")
    (tmp_path / "text.pth").write_text("hello")
    torch.save({"weights": 1}, tmp_path / "other.pth")
    torch.save({"state_dict": {"a": torch.zeros(2)}}, tmp_path / "keys.pth")
    torch.save({"state_dict": {"module.binary_linear.weight": torch.zeros(2, 5)}}, tmp_path / "few.pth")
    messages = {"text.pth": "damaged", "other.pth": "holds no state_dict", "keys.pth": "no binary_linear.weight"}
    for name, message in (messages | {"few.pth": "another network"}).items():
        with pytest.raises(FormatError, match=message):
            read_checkpoint(tmp_path / name)
    with pytest.raises(OptionError, match="t_wrong"):
        SelectiveScaling.load_checkpoint(tmp_path / "text.pth", t_wrong=0)


# Meta-Cal


def sharpened(n: int, seed: int, t: float = 2.0, c: int = 3) -> tuple[Array, Array]:
    generator = np.random.default_rng(seed)
    z = generator.normal(size=(n, c)) * 3
    return z * t, (z + generator.gumbel(size=z.shape)).argmax(1)


def test_threshold_is_the_smallest_that_keeps_the_miscoverage() -> None:
    z, y = sharpened(4000, 0)
    fitted = MetaCal(miscoverage=0.05).fit(z, y)
    entropy, right = entr(softmax(z, axis=1)).sum(1), z.argmax(1) == y
    assert (entropy[right] >= fitted.threshold_).mean() == fitted.summary_["miscoverage"] <= 0.05
    lower = entropy[right & (entropy < fitted.threshold_)].max()
    assert (entropy[right] >= lower).mean() > 0.05
    assert fitted.summary_["threshold"] == fitted.threshold_
    assert fitted.summary_["flattened"] == (entropy >= fitted.threshold_).mean()
    assert "0.05" in fitted.summary_["threshold_rule"]


def test_threshold_with_ties_and_weights() -> None:
    entropy = np.array([0.1, 0.2, 0.3, 0.3, 0.3])
    assert _threshold(entropy, np.ones(5), 0.4) > 0.3  # three of five share the largest entropy: none is flattened
    assert _threshold(entropy, np.ones(5), 0.6) == pytest.approx(0.25)
    assert _threshold(entropy + np.arange(5) * 1e-15, np.ones(5), 0.4) > 0.3 + 1e-10
    assert _threshold(entropy, np.array([1, 1, 0, 0, 0.5]), 0.2) == pytest.approx(0.25)
    z, y = sharpened(500, 0)
    twice = MetaCal().fit(np.repeat(z, 2, axis=0), np.repeat(y, 2))
    weighted = MetaCal().fit(z, y, np.full(500, 2.0))
    assert (weighted.threshold_, weighted.temperature_) == pytest.approx((twice.threshold_, twice.temperature_))


def test_temperature_is_of_wrong_pixels_and_a_run_of_right_ones() -> None:
    z, y = sharpened(3000, 0)
    fitted = MetaCal(threshold=0.6, seed=4).fit(z, y)
    right = z.argmax(1) == y
    start = np.random.default_rng(4).uniform(0, 1 / 3) * right.sum()
    run = np.clip(np.arange(1, right.sum() + 1) - start, 0, 1) - np.clip(
        np.arange(1, right.sum() + 1) - start - right.sum() / 2, 0, 1
    )
    weight = np.ones(3000)
    weight[right] = run
    weight[entr(softmax(z, axis=1)).sum(1) >= 0.6] = 0
    assert fitted.temperature_ == pytest.approx(Temperature().fit(z, y, weight).temperature_)
    assert fitted.temperature_ > Temperature().fit(z, y).temperature_  # right pixels count half
    assert fitted.temperature_ != MetaCal(threshold=0.6, seed=5).fit(z, y).temperature_
    assert fitted.summary_["threshold_rule"] == "given"


def test_both_flattenings() -> None:
    z, y = sharpened(2000, 0)
    kept, ones = MetaCal(threshold=0.5).fit(z, y), MetaCal(threshold=0.5, keep_class=False).fit(z, y)
    flat = entr(softmax(z, axis=1)).sum(1) >= 0.5
    p, q = kept.transform(z), ones.transform(z)
    np.testing.assert_allclose(p, q, rtol=0, atol=1e-15)
    np.testing.assert_allclose(p[~flat], softmax(z[~flat] / kept.temperature_, axis=1), atol=1e-15)
    np.testing.assert_array_equal(p.argmax(1), z.argmax(1))
    assert (q[flat] == 1 / 3).all()
    np.testing.assert_array_equal(q.argmax(1), np.where(flat, 0, z.argmax(1)))


@pytest.mark.parametrize("keep", [True, False])
def test_meta_cal_of_binary_maps(keep: bool) -> None:
    generator = np.random.default_rng(0)
    z = generator.normal(size=2000) * 4
    y = (generator.random(2000) < expit(z / 2)).astype(int)
    fitted = MetaCal(miscoverage=0.1, keep_class=keep).fit(z, y)
    p = fitted.transform(z)
    flat = entr(expit(z)) + entr(expit(-z)) >= fitted.threshold_
    assert flat.any()
    np.testing.assert_allclose(p, np.where(flat, 0.5, expit(z / fitted.temperature_)), atol=1e-15)
    np.testing.assert_array_equal(p >= 0.5, z >= 0 if keep else (z >= 0) & ~flat)
    module = fitted.to_torch()(torch.from_numpy(z.reshape(40, 50))).numpy().ravel()
    np.testing.assert_allclose(module, p, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(module >= 0.5, p >= 0.5)


@pytest.mark.parametrize("keep", [True, False])
def test_meta_cal_module_agrees(keep: bool) -> None:
    z, y = sharpened(600, 0, c=5)
    fitted = MetaCal(miscoverage=0.2, keep_class=keep).fit(z, y)
    maps = torch.from_numpy(z.reshape(2, 12, 25, 5)).movedim(-1, 1)
    p = fitted.to_torch()(maps).movedim(1, -1).reshape(-1, 5).numpy()
    np.testing.assert_allclose(p, fitted.transform(z), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(p.argmax(1), fitted.transform(z).argmax(1))


def test_entropy_of_certainty_is_zero() -> None:
    assert _entropies(np.array([[1e4, 0, 0]])) == 0
    np.testing.assert_allclose(_entropies(np.zeros(1)), np.log(2))


def test_note_where_flattening_takes_right_pixels() -> None:
    z, y = sharpened(3000, 0)
    fitted = MetaCal().fit(z, y)
    assert any("flattening does not help here" in note for note in fitted.notes_)
    assert not any("flattening" in note for note in MetaCal(keep_class=False).fit(z, y).notes_)


def test_meta_cal_refusals() -> None:
    z, y = sharpened(500, 0)
    with pytest.raises(OptionError, match="miscoverage"):
        MetaCal(miscoverage=1.0).fit(z, y)
    with pytest.raises(InputError, match="entropy below 0 nats"):
        MetaCal(threshold=0.0).fit(z, y)
    with pytest.raises(InputError, match="all 500 predictions are wrong"):
        MetaCal().fit(z, z.argmin(1))


def test_benchmark_of_kept_and_changed_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published synthetic: 0.163 uncalibrated; t_wrong = 1e10: 0.139 with the class kept, 0.062 without."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    benchmark = importlib.import_module("selective")
    drawn = benchmark.draw(20_000, 0)
    plain, extreme = benchmark.scaled(drawn, 1.0), benchmark.scaled(drawn, 1e10)
    flagged = drawn.flagged(0.6)
    assert (~drawn.right[flagged]).mean() == pytest.approx(0.6, abs=0.03)
    again = np.where(flagged, extreme.reargmax, plain.kept)
    assert benchmark.ece(plain.confidence, plain.kept) == pytest.approx(0.163, abs=0.008)
    assert benchmark.kept_ece(plain, extreme, flagged) == pytest.approx(0.139, abs=0.008)
    assert benchmark.ece(np.where(flagged, extreme.confidence, plain.confidence), again) == pytest.approx(
        0.062, abs=0.008
    )
