"""Training losses: laws over the registry, published values, references, and label perturbation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import softmax
from sklearn.metrics import brier_score_loss, log_loss
from torch import Tensor
from torch.nn import functional

from calbench.errors import CalbenchError, OptionError, RangeError, ShapeError, UnknownName
from calbench.losses import LOSSES, LabelPerturbation, Loss, mixup, one_hot
from calbench.losses.loss import Pixels
from calbench.losses.perturbation import KINDS, truncated_normal, uniform_share

BATCHWISE = {"mmce", "mmce_weighted", "mdca"}
"""Losses that compare the pixels of a batch with each other, and are no mean over pixels."""
CASES = [
    pytest.param(kind, n_classes, soft, id=f"{kind.name}-{n_classes}{'-soft' * soft}")
    for kind in LOSSES.values()
    for n_classes, soft in ((1, False), (1, True), (3, False), (3, True))
    if n_classes > 1 or kind.binary
]
EVERY = pytest.mark.parametrize(("kind", "n_classes", "soft"), CASES)
PIXELWISE = pytest.mark.parametrize(
    ("kind", "n_classes", "soft"), [case for case in CASES if case.values[0].name not in BATCHWISE]
)
BINARY = pytest.mark.parametrize("kind", [kind for kind in LOSSES.values() if kind.binary], ids=lambda kind: kind.name)
ACTIVE: dict[str, dict[str, Any]] = {"margin": {"margin": 0.7}, "logit_norm": {"temperature": 0.5}}
"""Options under which every term of a loss has an effect on small logits."""


def batch(
    n_classes: int, soft: bool, dtype: torch.dtype = torch.float64, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, target and mask of 2 images of 4 x 5 pixels, some of them void."""
    rng = torch.Generator().manual_seed(seed)
    shape = (2, n_classes, 4, 5)
    z = 2 * torch.randn(shape, generator=rng, dtype=torch.float64)
    if n_classes == 1:
        target = torch.rand(shape, generator=rng, dtype=torch.float64)
        target = target if soft else (target > 0.6).double()
    elif soft:
        target = torch.rand(shape, generator=rng, dtype=torch.float64).softmax(1)
    else:
        target = torch.randint(n_classes, (2, 4, 5), generator=rng)
    valid = torch.rand(2, 4, 5, generator=rng) > 0.3
    assert not valid.all()
    return z.to(dtype), target.to(dtype) if target.is_floating_point() else target, valid


def made(kind: type[Loss], **options: Any) -> Loss:
    return kind(**ACTIVE.get(kind.name, {}) | options)


def slope(loss: Loss, z: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    z = z.clone().requires_grad_()
    loss(z, target, valid).backward()
    assert z.grad is not None
    return z.grad


def flat(z: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """The valid pixels alone, as one image of one row."""
    picked = z.movedim(1, -1)[valid].T[None, :, None]
    if target.ndim == 3:
        return picked, target[valid][None, None]
    return picked, target.movedim(1, -1)[valid].T[None, :, None]


def test_the_registry_describes_each_loss_under_its_name() -> None:
    assert len(LOSSES) == 13
    for name, kind in LOSSES.items():
        assert kind.name == name
        assert kind.definition
        assert "\n" not in kind.definition
        assert "doi:" in kind.source or "arXiv:" in kind.source or "proceedings" in kind.source


# Laws of every loss


@EVERY
def test_the_gradient_is_that_of_central_differences(kind: type[Loss], n_classes: int, soft: bool) -> None:
    z, target, valid = batch(n_classes, soft)
    loss = made(kind)
    assert torch.autograd.gradcheck(lambda logits: loss(logits, target, valid), z.requires_grad_(), eps=1e-6, atol=1e-7)
    assert slope(loss, z.detach(), target, valid)[valid[:, None].expand_as(z)].ne(0).all()


@EVERY
@pytest.mark.parametrize("rubbish", [255, -1, float("nan")])
def test_void_pixels_have_no_part(kind: type[Loss], n_classes: int, soft: bool, rubbish: float) -> None:
    z, target, valid = batch(n_classes, soft)
    loss = made(kind)
    if target.ndim == 4 or rubbish == rubbish:
        target = target.masked_fill(~valid if target.ndim == 3 else ~valid[:, None], rubbish)
    broken = z.masked_fill(~valid[:, None], float("nan"))
    value, gradient = loss(broken, target, valid), slope(loss, broken, target, valid)
    torch.testing.assert_close(value, loss(*flat(z, target, valid)), rtol=1e-12, atol=0)
    assert gradient.isfinite().all()
    assert (gradient[~valid[:, None].expand_as(z)] == 0).all()


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_void_is_zero_without_gradient(kind: type[Loss], n_classes: int, soft: bool, dtype: torch.dtype) -> None:
    z, target, valid = batch(n_classes, soft, dtype)
    nothing = torch.zeros_like(valid)
    assert made(kind)(z, target, nothing) == 0
    assert (slope(made(kind), z, target, nothing) == 0).all()


@EVERY
def test_a_mask_of_ones_is_no_mask(kind: type[Loss], n_classes: int, soft: bool) -> None:
    z, target, valid = batch(n_classes, soft)
    loss = made(kind)
    torch.testing.assert_close(loss(z, target, torch.ones_like(valid)), loss(z, target), rtol=1e-12, atol=0)


@EVERY
def test_the_order_of_pixels_and_images_does_not_matter(kind: type[Loss], n_classes: int, soft: bool) -> None:
    z, target, valid = batch(n_classes, soft)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))

    def shuffled(x: Tensor) -> Tensor:
        return x.flatten(-2)[..., order].reshape(*x.shape[:-2], 5, 4).flip(0)

    loss = made(kind)
    value = loss(shuffled(z), shuffled(target), shuffled(valid))
    torch.testing.assert_close(value, loss(z, target, valid), rtol=1e-12, atol=0)


@EVERY
def test_two_copies_of_a_batch_have_the_loss_of_one(kind: type[Loss], n_classes: int, soft: bool) -> None:
    z, target, valid = (torch.cat([x, x]) for x in batch(n_classes, soft))
    loss = made(kind)
    torch.testing.assert_close(loss(z, target, valid), loss(z[:2], target[:2], valid[:2]), rtol=1e-12, atol=0)


@PIXELWISE
def test_the_loss_of_a_batch_is_the_mean_over_its_pixels(kind: type[Loss], n_classes: int, soft: bool) -> None:
    z, target, valid = batch(n_classes, soft)
    loss = made(kind)
    weights = valid.sum((1, 2)).double() / valid.sum()
    parts = torch.stack([loss(z[i : i + 1], target[i : i + 1], valid[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(loss(z, target, valid), (weights * parts).sum(), rtol=1e-12, atol=0)


@EVERY
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_single(kind: type[Loss], n_classes: int, soft: bool, dtype: torch.dtype) -> None:
    z, target, valid = batch(n_classes, soft, torch.float32)
    half = z.to(dtype)
    value = made(kind)(half, target, valid)
    assert value.dtype == torch.float32
    assert value == made(kind)(half.float(), target, valid)
    gradient = slope(made(kind), half, target, valid)
    assert gradient.dtype == dtype
    assert gradient.isfinite().all()


@EVERY
def test_autocast_changes_nothing(kind: type[Loss], n_classes: int, soft: bool) -> None:
    z, target, valid = batch(n_classes, soft, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = made(kind)(z, target, valid)
    assert inside == made(kind)(z, target, valid)


@EVERY
def test_saturated_logits_have_finite_loss_and_gradient(kind: type[Loss], n_classes: int, soft: bool) -> None:
    z, target, valid = batch(n_classes, soft, torch.float32)
    extreme = 1e4 * z.sign()
    assert made(kind)(extreme, target, valid).isfinite()
    assert slope(made(kind), extreme, target, valid).isfinite().all()


@pytest.mark.parametrize("kind", LOSSES.values(), ids=LOSSES)
def test_labels_are_one_hot_probabilities(kind: type[Loss]) -> None:
    z, target, valid = batch(3, soft=False)
    value = made(kind)(z, one_hot(target, 3), valid)
    torch.testing.assert_close(value, made(kind)(z, target, valid), rtol=1e-12, atol=0)


@BINARY
@pytest.mark.parametrize("soft", [False, True])
def test_a_binary_map_is_two_classes(kind: type[Loss], soft: bool) -> None:
    z, y, valid = batch(1, soft)
    two = made(kind)(torch.cat([-z / 2, z / 2], 1), torch.cat([1 - y, y], 1), valid)
    torch.testing.assert_close(made(kind)(z, y, valid) * (2 if kind.name == "brier" else 1), two, rtol=1e-12, atol=0)


@BINARY
def test_the_two_outcomes_of_a_binary_map_are_alike(kind: type[Loss]) -> None:
    z, y, valid = batch(1, soft=True)
    torch.testing.assert_close(made(kind)(-z, 1 - y, valid), made(kind)(z, y, valid), rtol=1e-12, atol=0)


CONFIDENT_IS_BEST = {"bce", "brier", "focal", "flsd", "mmce", "mmce_weighted", "mdca"}
"""The loss of a right prediction without doubt is 0, the lowest value."""
SOFTENED = {"sc_bce", "ls", "entropy", "l1", "margin"}
"""Doubt costs less than certainty, by design."""
SCALELESS = {"logit_norm"}
"""The size of the logits does not matter."""


@EVERY
def test_a_right_prediction_without_doubt(kind: type[Loss], n_classes: int, soft: bool) -> None:
    assert {kind.name} <= CONFIDENT_IS_BEST | SOFTENED | SCALELESS
    z, target, valid = batch(n_classes, False)
    right = 2 * target - 1 if n_classes == 1 else 2 * one_hot(target, n_classes).double() - 1
    loss = kind()
    perfect = loss(40 * right, target, valid)
    doubtful = [loss(scale * right, target, valid) for scale in (1, 2, 4, 8, 12)]
    if kind.name in CONFIDENT_IS_BEST:
        assert 0 <= perfect < 1e-12 < min(doubtful[0], loss(z, target, valid))
    elif kind.name in SOFTENED:
        assert min(doubtful) < perfect < loss(-40 * right, target, valid)
    else:
        torch.testing.assert_close(torch.stack(doubtful), perfect.expand(5), rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", LOSSES.values(), ids=LOSSES)
def test_only_proper_losses_have_their_minimum_at_the_distribution_of_the_labels(kind: type[Loss]) -> None:
    _, q, valid = batch(3, soft=True)
    gradient = slope(kind(**{"margin": 0.0} if kind.name == "margin" else {}), q.log(), q, valid).abs().max()
    # At p = q the terms of mdca and of mmce, not of its weighted form, vanish.
    assert bool(gradient < 1e-12) == (kind.name in {"bce", "brier", "mdca", "mmce"})


def test_means_of_images_leave_out_void_pixels() -> None:
    z, target, valid = batch(1, soft=False)
    valid[1] = False
    pixels = Pixels.of(z, target, valid)
    expected = torch.stack([z[0, 0][valid[0]].mean(), torch.tensor(0.0).double()])
    torch.testing.assert_close(pixels.mean_by_image(z[:, 0]), expected)
    torch.testing.assert_close(Pixels.of(z, target).mean_by_image(z[:, 0]), z.mean((1, 2, 3)))


# Bad input


@pytest.mark.parametrize(
    ("logits", "target", "valid", "message"),
    [
        (torch.zeros(2, 4, 5), torch.zeros(2, 4, 5), None, "logits are float32"),
        (torch.zeros(2, 1, 0, 5), torch.zeros(2, 1, 0, 5), None, "logits are float32"),
        (torch.zeros(2, 1, 4, 5, dtype=torch.int64), torch.zeros(2, 1, 4, 5), None, "logits are int64"),
        (torch.zeros(2, 1, 4, 5), torch.zeros(2, 4, 5), None, "the target is float32"),
        (
            torch.zeros(2, 1, 4, 5),
            torch.zeros(2, 4, 5, dtype=torch.int64),
            None,
            "float probabilities of the same shape",
        ),
        (torch.zeros(2, 1, 4, 5), torch.zeros(2, 1, 5, 4), None, "the target is float32"),
        (torch.zeros(2, 1, 4, 5), torch.zeros(2, 1, 4, 5, dtype=torch.uint8), None, "the target is uint8"),
        (torch.zeros(2, 3, 4, 5), torch.zeros(2, 4, 5), None, "labels .* are int64"),
        (torch.zeros(2, 3, 4, 5), torch.zeros(2, 5, 4, dtype=torch.int64), None, "or int64 labels"),
        (torch.zeros(2, 3, 4, 5), torch.zeros(2, 2, 4, 5), None, "the target is float32"),
        (
            torch.zeros(2, 1, 4, 5),
            torch.zeros(2, 1, 4, 5),
            torch.ones(2, 1, 4, 5, dtype=torch.bool),
            "mask of valid pixels",
        ),
        (torch.zeros(2, 1, 4, 5), torch.zeros(2, 1, 4, 5), torch.ones(2, 4, 5), "mask of valid pixels is float32"),
        (
            torch.zeros(2, 3, 4, 5),
            torch.zeros(2, 4, 5).long(),
            torch.ones(2, 5, 4, dtype=torch.bool),
            "mask of valid pixels",
        ),
    ],
)
def test_shapes_that_do_not_go_together(logits: Tensor, target: Tensor, valid: Tensor | None, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        LOSSES["bce"]()(logits, target, valid)


@pytest.mark.parametrize("label", [-1, 3, 255])
def test_a_label_out_of_range_is_an_error_unless_void(label: int) -> None:
    z, target, valid = batch(3, soft=False)
    target = target.masked_fill(~valid, label)
    assert LOSSES["bce"]()(z, target, valid) > 0
    with pytest.raises(RangeError, match=r"expected 0 to 2 of 3 classes; mark void pixels"):
        LOSSES["bce"]()(z, target)


def test_logit_norm_refuses_a_single_logit() -> None:
    with pytest.raises(ShapeError, match="logit_norm needs"):
        LOSSES["logit_norm"]()(*batch(1, soft=False))


@pytest.mark.parametrize(
    ("name", "options", "error"),
    [
        ("ls", {"alpha": 1.1}, OptionError),
        ("sc_bce", {"alpha": -0.1}, OptionError),
        ("sc_bce", {"beta": 2.1}, OptionError),
        ("focal", {"gamma": -1}, OptionError),
        ("flsd", {"gamma": float("nan")}, OptionError),
        ("mmce", {"sample": 0}, OptionError),
        ("mmce_weighted", {"form": "papr"}, UnknownName),
        ("entropy", {"reduction": "avg"}, UnknownName),
        ("l1", {"weight": -1}, OptionError),
        ("margin", {"margin": -1}, OptionError),
        ("margin", {"reduction": "max"}, UnknownName),
        ("mdca", {"weight": -1}, OptionError),
        ("logit_norm", {"temperature": 0}, OptionError),
    ],
)
def test_options_out_of_range(name: str, options: dict[str, Any], error: type[CalbenchError]) -> None:
    with pytest.raises(error):
        LOSSES[name](**options)


# Published values and references


def fixture_classes() -> tuple[Tensor, Tensor]:
    """240 samples of 10 classes, as two images of 8 x 15 pixels."""
    n, k = np.arange(240)[:, None], np.arange(10)
    z = (12 * ((17 * n + 29 * k + 5 * n * k) % 97) / 97 - 6 + 0.01 * k).astype(np.float32)
    n = n[:, 0]
    y = np.where(n % 4 != 0, z.argmax(1), (3 * n + n // 5) % 10)
    assert round(float(z.sum()), 4) == pytest.approx(-41.3199, abs=2e-3)
    assert y.sum() == 1073
    return torch.from_numpy(z).reshape(2, 8, 15, 10).movedim(-1, 1), torch.from_numpy(y).reshape(2, 8, 15)


@pytest.mark.parametrize(
    ("name", "options", "value"),
    [
        ("bce", {}, 1.737114),
        ("focal", {"gamma": 3}, 1.307478),
        ("flsd", {"gamma": 3}, 1.282887),
        ("ls", {"alpha": 0.05}, 1.918535),
        ("margin", {"margin": 6, "weight": 0.1}, 1.836625),
        ("mmce", {"form": "code"}, 1.768850),
        ("mmce_weighted", {"form": "code"}, 1.744454),
        ("entropy", {"weight": 0.1, "reduction": "mean"}, 1.726265),
        ("l1", {"weight": 1}, 3.034292),
        ("brier", {}, 0.520948),
    ],
)
def test_values_of_the_official_code(name: str, options: dict[str, Any], value: float) -> None:
    assert float(LOSSES[name](**options)(*fixture_classes())) == pytest.approx(value, abs=1e-5)


def test_the_terms_of_the_official_code() -> None:
    z, y = fixture_classes()
    ce = LOSSES["bce"]()(z, y)
    assert float(LOSSES["margin"](margin=6, weight=1)(z, y) - ce) == pytest.approx(0.995114, abs=1e-5)
    assert float(ce - LOSSES["entropy"](weight=1, reduction="mean")(z, y)) == pytest.approx(0.108488, abs=1e-5)
    assert float(LOSSES["l1"]()(z, y) - ce) == pytest.approx(1.297178, abs=1e-5)


@pytest.mark.parametrize(("name", "sign"), [("margin", 1), ("entropy", -1)])
def test_the_two_reductions_differ_by_the_number_of_classes(name: str, sign: int) -> None:
    z, y = fixture_classes()
    ce = LOSSES["bce"]()(z, y)
    total, mean = ((LOSSES[name](reduction=one)(z, y) - ce) * sign for one in ("sum", "mean"))
    assert mean > 0
    torch.testing.assert_close(total, 10 * mean, rtol=1e-4, atol=0)


def test_margin_of_binary_maps_by_mean_is_half_of_that_by_sum() -> None:
    z, y, valid = batch(1, soft=False)
    one = LOSSES["margin"](margin=1, weight=0.1, reduction="mean")(z, y, valid)
    torch.testing.assert_close(one, LOSSES["margin"](margin=1, weight=0.05, reduction="sum")(z, y, valid))


def test_cross_entropy_is_that_of_torch() -> None:
    z, y, valid = batch(1, soft=True)
    expected = functional.binary_cross_entropy_with_logits(z[valid[:, None]], y[valid[:, None]])
    torch.testing.assert_close(LOSSES["bce"]()(z, y, valid), expected)
    z, labels, valid = batch(3, soft=False)
    ignored = labels.masked_fill(~valid, -100)
    torch.testing.assert_close(LOSSES["bce"]()(z, labels, valid), functional.cross_entropy(z, ignored))
    smoothed = functional.cross_entropy(z, ignored, label_smoothing=0.2)
    torch.testing.assert_close(LOSSES["ls"](alpha=0.2)(z, labels, valid), smoothed)
    z, q, _ = batch(3, soft=True)
    torch.testing.assert_close(LOSSES["bce"]()(z, q), functional.cross_entropy(z, q))


def test_brier_and_cross_entropy_are_those_of_scikit_learn() -> None:
    z, y, _ = batch(1, soft=False)
    p = z.sigmoid().flatten().numpy()
    assert float(LOSSES["brier"]()(z, y)) == pytest.approx(brier_score_loss(y.flatten().numpy(), p), abs=1e-12)
    assert float(LOSSES["bce"]()(z, y)) == pytest.approx(log_loss(y.flatten().numpy(), p), abs=1e-12)
    z, labels, _ = batch(3, soft=False)
    p = softmax(z.movedim(1, -1).reshape(-1, 3).numpy(), axis=1)
    assert float(LOSSES["bce"]()(z, labels)) == pytest.approx(log_loss(labels.flatten().numpy(), p), abs=1e-12)


def sampled(n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Confidence and correctness of the batch, by NumPy."""
    z, labels, _ = batch(n_classes, soft=False)
    p = softmax(z.movedim(1, -1).reshape(-1, n_classes).numpy(), axis=1)
    return p.max(1), (p.argmax(1) == labels.flatten().numpy()).astype(float)


def test_mmce_follows_its_formula() -> None:
    c, a = sampled(3)
    total = 0.0
    for i in range(len(c)):
        for j in range(len(c)):
            total += (a[i] - c[i]) * (a[j] - c[j]) * np.exp(-abs(c[i] - c[j]) / 0.4)
    z, labels, _ = batch(3, soft=False)
    ce = LOSSES["bce"]()(z, labels)
    mmce = LOSSES["mmce"](weight=2.0)(z, labels) - ce
    assert float(mmce) == pytest.approx(2 * np.sqrt(total / len(c) ** 2 + 1e-10), abs=1e-12)


def test_weighted_mmce_follows_the_formula_of_the_paper() -> None:
    c, a = sampled(3)
    right, wrong = c[a == 1], c[a == 0]
    assert 0 < len(right) != len(wrong) > 0
    total = 0.0
    for r in right:
        total += sum((1 - r) * (1 - s) * np.exp(-abs(r - s) / 0.4) for s in right) / len(right) ** 2
        total -= 2 * sum((1 - r) * w * np.exp(-abs(r - w) / 0.4) for w in wrong) / (len(right) * len(wrong))
    for w in wrong:
        total += sum(w * v * np.exp(-abs(w - v) / 0.4) for v in wrong) / len(wrong) ** 2
    z, labels, _ = batch(3, soft=False)
    weighted = LOSSES["mmce_weighted"]()(z, labels) - LOSSES["bce"]()(z, labels)
    assert float(weighted) == pytest.approx(np.sqrt(total + 1e-10), abs=1e-12)


@pytest.mark.parametrize("wrong", [False, True])
def test_weighted_mmce_is_zero_without_right_or_without_wrong_pixels(wrong: bool) -> None:
    z, _, _ = batch(1, soft=False)
    y = ((z > 0) ^ wrong).double()
    assert LOSSES["mmce_weighted"]()(z, y) == LOSSES["bce"]()(z, y)


def test_mdca_follows_its_formula() -> None:
    z, labels, valid = batch(3, soft=False)
    p, kept = z.softmax(1).movedim(1, -1)[valid], labels[valid]
    gap = sum(abs(p[:, k].mean() - (kept == k).double().mean()) for k in range(3)) / 3
    focal = LOSSES["focal"](gamma=2)(z, labels, valid)
    torch.testing.assert_close(LOSSES["mdca"](weight=0.5, gamma=2)(z, labels, valid), focal + 0.5 * gap)


def test_the_focal_exponent_follows_the_probability_of_the_target() -> None:
    p = torch.tensor([0.1, 0.19, 0.21, 0.49, 0.51, 0.9], dtype=torch.float64).reshape(1, 1, 1, 6)
    gamma = torch.tensor([5, 5, 3, 3, 2, 2]).reshape(1, 1, 1, 6)
    value = LOSSES["flsd"](gamma=2)(p.logit(), torch.ones_like(p))
    torch.testing.assert_close(value, -((1 - p) ** gamma * p.log()).mean())


def test_focal_without_exponent_is_cross_entropy() -> None:
    z, target, valid = batch(3, soft=True)
    torch.testing.assert_close(LOSSES["focal"](gamma=0)(z, target, valid), LOSSES["bce"]()(z, target, valid))


def test_a_small_focal_exponent_has_a_finite_slope_at_certainty() -> None:
    _, y, _ = batch(1, soft=False)
    certain = 1e4 * (2 * y - 1)
    assert (slope(LOSSES["focal"](gamma=0.5), certain, y) == 0).all()


def test_logit_norm_is_cross_entropy_of_unit_vectors() -> None:
    z, labels, valid = batch(3, soft=False)
    unit = functional.normalize(z, dim=1) / 0.3
    expected = LOSSES["bce"]()(unit, labels, valid)
    torch.testing.assert_close(LOSSES["logit_norm"](temperature=0.3)(z, labels, valid), expected, rtol=1e-6, atol=0)


# The sample of MMCE


def test_the_sample_is_of_valid_pixels_without_replacement() -> None:
    rng = torch.Generator().manual_seed(0)
    z = torch.arange(120.0, dtype=torch.float64).reshape(2, 1, 6, 10) / 100
    valid = torch.rand(2, 6, 10, generator=rng) > 0.3
    pixels = Pixels.of(z, torch.zeros_like(z), valid, rng)
    p, q = pixels.sample(50)
    drawn = p[:, 1].logit().mul(100).round().long()
    assert len(drawn) == 50 < valid.sum()
    assert len(drawn.unique()) == 50
    assert valid.flatten()[drawn].all()
    assert q.equal(torch.tensor([1.0, 0.0], dtype=torch.float64).expand(50, 2))
    everything, _ = pixels.sample(120)
    assert len(everything) == valid.sum()


@pytest.mark.parametrize("name", ["mmce", "mmce_weighted"])
def test_the_sample_comes_from_the_generator(name: str) -> None:
    rng = torch.Generator().manual_seed(0)
    z, y = torch.randn(2, 1, 30, 40, generator=rng), (torch.rand(2, 1, 30, 40, generator=rng) > 0.5).float()
    loss = LOSSES[name](sample=100)

    def value(seed: int) -> float:
        return float(loss(z, y, generator=torch.Generator().manual_seed(seed)))

    assert value(1) == value(1) != value(2)
    assert float(loss(z, y)) == float(loss(z, y))


def test_the_error_of_samples_is_that_of_all_pixels_but_for_the_diagonal() -> None:
    rng = torch.Generator().manual_seed(0)
    z, y = torch.randn(1, 1, 20, 30, generator=rng).double(), torch.ones(1, 1, 20, 30).double()
    c, a = torch.maximum(z.sigmoid(), (-z).sigmoid()), (z > 0).double()
    total, size = z.numel(), 60
    every = LOSSES["mmce"](form="code")(z, y) - LOSSES["bce"]()(z, y)
    diagonal = ((a - c) ** 2).mean()
    pairs = (every * total**2 - diagonal * total) / (total * (total - 1))
    loss = LOSSES["mmce"](form="code", sample=size)
    values = torch.stack([loss(z, y, generator=rng) for _ in range(400)]) - LOSSES["bce"]()(z, y)
    expected = diagonal / size + (1 - 1 / size) * pairs
    assert abs(values.mean() - expected) < 4 * values.std() / 20


# Label perturbation


def test_binary_perturbations_are_those_of_the_table() -> None:
    y = torch.tensor([0.0, 1.0, 0.4]).reshape(1, 1, 1, 3)
    for kind, expected in (
        ("hi", [1, 0, 0.6]),
        ("si", [0.75, 0.25, 0.55]),
        ("m", [0.5, 0.5, 0.5]),
        ("dm", [0.5, 0.5, 0.5]),
    ):
        torch.testing.assert_close(LabelPerturbation(kind).perturbed(y).flatten(), torch.tensor(expected).float())
    smoothed = LabelPerturbation("ls", beta=0.1)(y).flatten()
    torch.testing.assert_close(smoothed, torch.tensor([0.05, 0.95, 0.41]))


@pytest.mark.parametrize("kind", KINDS)
def test_beta_is_twice_the_strength_of_the_official_code(kind: str) -> None:
    perturb, y = LabelPerturbation(kind), torch.rand(2, 1, 3, 4, generator=torch.Generator().manual_seed(0))
    assert perturb.b == perturb.beta / 2
    torch.testing.assert_close(perturb.perturbed(y), (1 - 2 * perturb.b) * y + perturb.b)


def test_the_released_setting_leaves_the_range_of_probabilities() -> None:
    with pytest.raises(OptionError, match="twice the b"):
        LabelPerturbation("hi", beta=4.0)
    perturb, y = LabelPerturbation("hi", beta=4.0, unbounded=True), torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2)
    assert perturb.perturbed(y).flatten().tolist() == [2.0, -1.0]
    z = torch.tensor([5.0, -5.0]).reshape(1, 1, 1, 2)
    # The value that the official code gives for these logits.
    assert float(LOSSES["bce"]()(z, perturb.perturbed(y))) == pytest.approx(-4.9933, abs=1e-4)


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("soft", [False, True])
def test_two_classes_are_a_binary_map(kind: str, soft: bool) -> None:
    z, y, valid = batch(1, soft)
    two = torch.cat([1 - y, y], 1) if soft else y[:, 0].long()
    binary = LabelPerturbation(kind, alpha=0.6)(y, generator=generators(1, 2))
    classes = LabelPerturbation(kind, alpha=0.6, n_classes=2)(two, generator=generators(1, 2))
    torch.testing.assert_close(classes[:, 1:].double(), binary, rtol=0, atol=1e-7)
    torch.testing.assert_close(classes.sum(1), torch.ones_like(classes[:, 0]))
    slopes = [LabelPerturbation(kind).gradient(z, y, valid), LabelPerturbation(kind, n_classes=2).gradient(
        torch.cat([-z / 2, z / 2], 1), two, valid)]  # fmt: skip
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("beta", [0.3, 1.0, 1.5, 2.0])
def test_of_several_classes_half_of_beta_goes_to_the_others(beta: float) -> None:
    _, labels, _ = batch(5, soft=False)
    moved = LabelPerturbation("hi", beta=beta, n_classes=5).perturbed(labels)
    true = one_hot(labels, 5).bool()
    torch.testing.assert_close(moved[true], torch.full((40,), 1 - beta / 2), rtol=0, atol=1e-6)
    torch.testing.assert_close(moved[~true], torch.full((160,), beta / 8))


def test_the_uniform_distribution_of_several_classes() -> None:
    _, labels, _ = batch(5, soft=False)
    moved = LabelPerturbation("m", beta=2 * 4 / 5, n_classes=5).perturbed(labels)
    torch.testing.assert_close(moved, torch.full_like(moved, 0.2))


def test_an_image_is_perturbed_as_a_whole_where_its_number_is_below_its_alpha() -> None:
    y = torch.tensor([0.0, 1.0]).expand(4, 1, 3, 2)
    alpha, u = torch.tensor([0.0, 0.2, 0.2, 1.0]), torch.tensor([0.0, 0.2, 0.1999, 0.9999])
    perturbed = LabelPerturbation("hi")(y, alpha, u=u)
    assert [bool((perturbed[i] == 1 - y[i]).all()) for i in range(4)] == [False, False, True, True]
    assert perturbed[:2].equal(y[:2])


def test_images_are_drawn_with_probability_alpha() -> None:
    n_images, alpha = 2000, 0.15
    perturbed = LabelPerturbation("hi", alpha=alpha)(
        torch.zeros(n_images, 1, 2, 3), generator=torch.Generator().manual_seed(0)
    )
    count = int(perturbed[:, 0, 0, 0].sum())
    assert stats.binom.cdf(count, n_images, alpha) > 1e-3 < stats.binom.sf(count, n_images, alpha)


@pytest.mark.parametrize("kind", ["hi", "dm"])
@pytest.mark.parametrize("n_classes", [1, 3])
def test_with_a_generator_each_an_image_does_not_depend_on_its_batch(kind: str, n_classes: int) -> None:
    _, target, valid = batch(n_classes, soft=False)
    perturb = LabelPerturbation(kind, alpha=0.5, n_classes=n_classes)
    seeds = (5, 3)  # of which only the second draws a number below 0.5
    together = perturb(target, valid=valid, generator=generators(*seeds))
    alone = [perturb(target[i : i + 1], valid=valid[i : i + 1], generator=generators(seeds[i])) for i in (1, 0)]
    assert together.flip(0).equal(torch.cat(alone))
    unchanged = [together[i].equal(perturb.expected(target, torch.zeros(2), valid=valid)[i]) for i in range(2)]
    assert unchanged == [True, False]


@pytest.mark.parametrize("n_classes", [1, 4])
def test_the_noise_of_dynamic_moderation(n_classes: int) -> None:
    shape = (2, 1, 60, 70)
    target = torch.zeros(shape) if n_classes == 1 else torch.zeros(2, 60, 70, dtype=torch.int64)
    perturb = LabelPerturbation("dm", n_classes=n_classes)
    labels = perturb(target, u=torch.tensor([0.9, 0.0]), generator=torch.Generator().manual_seed(0))
    moved = labels[:, 0] if n_classes == 1 else 1 - labels[:, 0]
    assert (moved[0] == 0).all()
    noise = moved[1] - 0.5
    assert 0.249 < noise.abs().max() <= 0.25
    assert abs(noise.mean()) < 4 * 0.144 / np.sqrt(60 * 70)
    # Of a uniform distribution it would be 0.1443, of a normal one 1.
    assert noise.std() == pytest.approx(0.1437, abs=0.004)
    if n_classes > 1:
        torch.testing.assert_close(labels.sum(1), torch.ones(2, 60, 70))
        torch.testing.assert_close(labels[:, 1], labels[:, 3])


def test_truncated_noise_is_normal_between_its_cuts() -> None:
    uniform = torch.rand(20, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64).numpy()
    noise = truncated_normal((20, 30), torch.Generator().manual_seed(1)).numpy()
    np.testing.assert_allclose(noise, stats.truncnorm(-0.25, 0.25).ppf(uniform), rtol=0, atol=1e-12)


def test_void_labels_of_several_classes_may_be_out_of_range() -> None:
    _, target, valid = batch(3, soft=False)
    perturb = LabelPerturbation("si", n_classes=3, alpha=1.0)
    broken = target.masked_fill(~valid, 255)
    kept = valid[:, None].expand(2, 3, 4, 5)
    assert perturb.expected(broken, valid=valid)[kept].equal(perturb.expected(target)[kept])
    with pytest.raises(RangeError, match="0 to 255"):
        perturb.expected(broken)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: LabelPerturbation("inversion"), UnknownName, "label perturbation"),
        (lambda: LabelPerturbation("hi", beta=0.0), OptionError, "above 0 to 2"),
        (lambda: LabelPerturbation("hi", beta=-1.0, unbounded=True), OptionError, "above 0"),
        (lambda: LabelPerturbation("dm", beta=1.6), OptionError, "0.5 to 1.5"),
        (lambda: LabelPerturbation("hi", alpha=1.2), OptionError, "alpha is 1.2"),
        (lambda: LabelPerturbation("hi", n_classes=0), OptionError, "n_classes"),
        (lambda: LabelPerturbation("hi")(torch.zeros(2, 1, 3, 4)), OptionError, "hand in a generator"),
        (
            lambda: LabelPerturbation("dm")(torch.zeros(2, 1, 3, 4), u=torch.zeros(2)),
            OptionError,
            "hand in a generator",
        ),
        (lambda: LabelPerturbation("hi")(torch.zeros(2, 1, 3, 4), u=torch.zeros(3)), ShapeError, r"u has shape \(3,\)"),
        (lambda: LabelPerturbation("ls")(torch.zeros(2, 1, 3, 4), torch.zeros(2, 1)), ShapeError, "alpha has shape"),
        (
            lambda: LabelPerturbation("hi")(torch.zeros(2, 1, 3, 4), generator=generators(1)),
            ShapeError,
            "1 generators for 2 images",
        ),
        (lambda: LabelPerturbation("hi").expected(torch.zeros(2, 3, 4)), ShapeError, "is n_classes right"),
        (lambda: LabelPerturbation("hi").expected(torch.zeros(2, 3, 4).long()), ShapeError, "is n_classes right"),
        (lambda: LabelPerturbation("hi", n_classes=3).expected(torch.zeros(2, 1, 3, 4)), ShapeError, "n_classes right"),
    ],
)
def test_bad_options_of_label_perturbation(call: Callable[[], Any], error: type[CalbenchError], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# Self-calibrating cross-entropy


@pytest.mark.parametrize("n_classes", [1, 4])
@pytest.mark.parametrize("kind", ["hi", "si", "m"])
def test_the_mean_gradient_of_perturbed_labels_is_that_of_sc_bce_and_of_label_smoothing(
    kind: str, n_classes: int
) -> None:
    """Over u = 0.05, 0.15 … 0.95, of which 3 in 10 are below α = 0.3; the gradient is in the weights of a network."""
    rng = torch.Generator().manual_seed(0)
    _, target, valid = batch(n_classes, soft=n_classes == 1)
    images = torch.randn(2, 3, 4, 5, generator=rng, dtype=torch.float64)
    network = torch.nn.Conv2d(3, n_classes, 3, padding=1).double()

    def gradient(loss: Loss, labels: Tensor) -> Tensor:
        return torch.cat(
            [g.flatten() for g in torch.autograd.grad(loss(network(images), labels, valid), [*network.parameters()])]
        )

    perturb, bce = LabelPerturbation(kind, alpha=0.3, n_classes=n_classes), LOSSES["bce"]()
    draws = [perturb(target, u=torch.full((2,), (i + 0.5) / 10)) for i in range(10)]
    mean = torch.stack([gradient(bce, labels) for labels in draws]).mean(0)
    classes = max(2, n_classes)
    strength = 0.3 * uniform_share(perturb.beta, classes)
    for loss, labels in (
        (bce, perturb.expected(target)),
        (LOSSES["sc_bce"](alpha=0.3, beta=perturb.beta), target),
        (LOSSES["ls"](alpha=strength), target),
    ):
        torch.testing.assert_close(gradient(loss, labels), mean, rtol=0, atol=1e-7)
    if n_classes == 1:
        assert strength == pytest.approx(0.3 * 2 * perturb.b)  # αβ = 2αb: in the code's scale, LS of b' = αb
        smoothed = (1 - 2 * 0.3 * perturb.b) * target + 0.3 * perturb.b
        torch.testing.assert_close(gradient(bce, smoothed), mean, rtol=0, atol=1e-12)


def test_the_mean_over_random_draws_is_sc_bce() -> None:
    z, y, valid = batch(1, soft=True)
    rng = torch.Generator().manual_seed(0)
    perturb, bce = LabelPerturbation("dm", alpha=0.4), LOSSES["bce"]()
    values = torch.stack([bce(z, perturb(y, generator=rng), valid) for _ in range(2000)])
    expected = LOSSES["sc_bce"](alpha=0.4, beta=1.0)(z, y, valid)
    assert abs(values.mean() - expected) < 4 * values.std() / np.sqrt(2000)


def test_sc_bce_is_cross_entropy_plus_that_with_a_uniform_target() -> None:
    z, y, valid = batch(1, soft=True)
    bce = LOSSES["bce"]()
    half = bce(z, torch.full_like(y, 0.5), valid)
    torch.testing.assert_close(
        LOSSES["sc_bce"](alpha=0.2, beta=1.5)(z, y, valid), (1 - 0.3) * bce(z, y, valid) + 0.3 * half
    )


def test_the_best_output_of_sc_bce_at_a_foreground_pixel() -> None:
    z = torch.logit(torch.tensor(1 - 0.1 * 1.5 / 2, dtype=torch.float64)).reshape(1, 1, 1, 1)
    assert slope(LOSSES["sc_bce"](alpha=0.1, beta=1.5), z, torch.ones_like(z)).abs() < 1e-15


@pytest.mark.parametrize("kind", ["hi", "si", "m"])
def test_the_slope_in_alpha_is_the_signed_mean_logit(kind: str) -> None:
    z, y, valid = batch(1, soft=True)
    perturb, bce = LabelPerturbation(kind), LOSSES["bce"]()
    gradient = perturb.gradient(z, y, valid)
    for i in range(2):
        one = (z[i : i + 1], y[i : i + 1], valid[i : i + 1])
        difference = bce(one[0], perturb.perturbed(one[1]), one[2]) - bce(*one)
        torch.testing.assert_close(gradient[i], difference)
        signed = ((2 * one[1] - 1) * one[0])[one[2][:, None]].mean()
        torch.testing.assert_close(gradient[i], perturb.b * signed)


def test_the_slope_in_alpha_of_several_classes() -> None:
    z, labels, valid = batch(4, soft=False)
    perturb, bce = LabelPerturbation("si", n_classes=4), LOSSES["bce"]()
    for i, value in enumerate(perturb.gradient(z, labels, valid)):
        one = (z[i : i + 1], labels[i : i + 1], valid[i : i + 1])
        difference = bce(one[0], perturb.perturbed(one[1]).double(), one[2]) - bce(*one)
        torch.testing.assert_close(value, difference, rtol=0, atol=1e-6)


def test_the_slope_in_alpha_of_an_image_that_is_void_is_zero_and_has_no_graph() -> None:
    z, y, valid = batch(1, soft=True)
    valid[1] = False
    gradient = LabelPerturbation("hi").gradient(z.requires_grad_(), y, valid)
    assert gradient[0] != 0 == gradient[1]
    assert not gradient.requires_grad


@pytest.mark.parametrize("beta", [2.0, 1.5, 1.0])
def test_values_of_the_official_update(beta: float) -> None:
    z = torch.tensor([[2, -1], [0.5, -3]]).reshape(1, 1, 2, 2)
    y = torch.tensor([[1.0, 0], [0, 0]]).reshape(1, 1, 2, 2)
    bce, perturb = LOSSES["bce"](), LabelPerturbation("hi", beta=beta)
    fitted, uniform = float(bce(z, y)), 2 * float(bce(z, torch.full_like(y, 0.5)))
    assert fitted == pytest.approx(0.365714, abs=1e-6)
    assert uniform == pytest.approx(2.106427, abs=1e-6)
    assert uniform - 2 * fitted == pytest.approx(1.375, abs=1e-6)
    assert float(perturb.gradient(z, y)) == pytest.approx(1.375 * perturb.b, abs=1e-6)


# Mixup


def test_mixup_mixes_images_targets_and_masks_with_one_partner() -> None:
    rng = torch.Generator().manual_seed(4)
    images = torch.arange(5.0).reshape(5, 1, 1, 1).expand(5, 3, 4, 6)
    target = torch.eye(5).reshape(5, 5, 1, 1).expand(5, 5, 4, 6)
    valid = torch.rand(5, 4, 6, generator=rng) > 0.3
    mixed = mixup(images, target, 1.0, rng, valid)
    partner = (mixed.target[:, :, 0, 0] - mixed.share * torch.eye(5)).argmax(1)
    assert sorted(partner.tolist()) == list(range(5)) != partner.tolist()
    assert 0.05 < mixed.share < 0.95
    torch.testing.assert_close(mixed.images[:, 0, 0, 0], mixed.share * torch.arange(5.0) + (1 - mixed.share) * partner)
    assert mixed.valid is not None
    assert mixed.valid.equal(valid & valid[partner])


def test_the_share_of_mixup_has_the_beta_distribution() -> None:
    rng = torch.Generator().manual_seed(0)
    images, target = torch.zeros(2, 3, 1, 2), torch.zeros(2, 1, 1, 2)
    shares = [mixup(images, target, 0.4, rng).share for _ in range(1000)]
    assert stats.kstest(shares, stats.beta(0.4, 0.4).cdf).pvalue > 0.01
    assert mixup(images, target, 0.4, rng).valid is None


def test_the_loss_of_a_mixed_target_is_the_mixed_loss() -> None:
    z, target, valid = batch(3, soft=True)
    mixed = 0.3 * target + 0.7 * target.flip(0)
    for name in ("bce", "ls", "sc_bce", "focal", "flsd", "brier"):
        loss = LOSSES[name]()
        parts = 0.3 * loss(z, target, valid) + 0.7 * loss(z, target.flip(0), valid)
        assert bool(torch.isclose(loss(z, mixed, valid), parts, rtol=1e-10)) == (name != "brier")


@pytest.mark.parametrize(
    ("target", "alpha", "error"),
    [
        (torch.zeros(2, 4, 5, dtype=torch.int64), 0.2, ShapeError),
        (torch.zeros(2, 1, 4, 5, dtype=torch.int64), 0.2, ShapeError),
        (torch.zeros(2, 1, 4, 5), 0.0, OptionError),
    ],
)
def test_mixup_refuses_labels_and_a_zero_alpha(target: Tensor, alpha: float, error: type[CalbenchError]) -> None:
    with pytest.raises(error):
        mixup(torch.zeros(2, 3, 4, 5), target, alpha, torch.Generator())
