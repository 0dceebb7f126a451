"""Adaptive perturbation, and what a training run is made of: methods, order, draws, images, processes, checkpoints, sets."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import math
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_models import Harmful, assert_same, blank, executed, numbered, official_shapes, torchvision_weights
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from calbench.errors import FormatError, InputError, OptionError, UnknownName
from calbench.losses import LOSSES, LabelPerturbation, one_hot
from calbench.losses.perturbation import KINDS
from calbench.training.adaptive import AdaptiveRule
from calbench.training.checkpoint import (
    KIND,
    SCHEMA,
    Checkpoint,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    trained_network,
)
from calbench.training.config import RECIPES, TrainingConfig
from calbench.training.distributed import ALONE, device_named, in_first_process, joined
from calbench.training.draws import generator, key, rng
from calbench.training.images_table import COLUMNS, ImageTable
from calbench.training.methods import METHODS, Recipe, method_named
from calbench.training.models import build_model
from calbench.training.order import At, Order
from calbench.training.sets import SetOptions, Sets, find_sets

CPU = torch.device("cpu")


def perturbation(b: float, classes: int = 1) -> LabelPerturbation:
    """Hard inversion with the strength of the official code."""
    return LabelPerturbation("hi", beta=2 * b, n_classes=classes, unbounded=b > 1)


def batch(seed: int, scale: float = 3.0, shape: tuple[int, ...] = (5, 1, 7, 9)) -> tuple[Tensor, Tensor]:
    """Random logits, and labels of which some are soft."""
    draws = torch.Generator().manual_seed(seed)
    z = scale * torch.randn(shape, generator=draws)
    y = torch.rand(shape, generator=draws)
    return z, torch.where(y > 0.3, y.round(), y)


# --- the official rule --------------------------------------------------------------------------------------------------

F2_Z = torch.tensor([[[[2.0, -1.0], [0.5, -3.0]]]])
F2_Y = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])


@pytest.mark.parametrize(
    ("before", "accuracy", "b", "after"),
    [(0.01, 0.95, 1, 0.01275), (0.06, 0.95, 1, 0.02275), (0.2, 0.95, 0.5, 0.0055), (0.249, 0.5, 2, 0.24),
     (0.495, 0.1, 1, 0.49775)],
)  # fmt: skip
def test_the_update_of_the_official_functions(before: float, accuracy: float, b: float, after: float) -> None:
    rule = AdaptiveRule("mc", b, official=True)
    assert (rule.eta, rule.lam, rule.start) == (0.002, 2000, 5)
    g = rule.slope(perturbation(b), F2_Z, F2_Y) * b
    cross_entropy = LOSSES["bce"]()(F2_Z, F2_Y)
    assert float(g) == pytest.approx(1.375, abs=1e-5)
    assert float(cross_entropy) == pytest.approx(0.365714, abs=1e-6)
    assert float(g + 2 * cross_entropy) == pytest.approx(2.106427, abs=1e-5)
    assert float(rule.updated(torch.tensor([before]), g / b, accuracy=accuracy)) == pytest.approx(after, abs=1e-5)


def transcribed(alphas: list[Tensor], z: Tensor, y: Tensor, b: float, cur_acc: float) -> list[Tensor]:
    """The formulas of the official code, an image at a time, in float32."""
    s = torch.clamp(torch.sigmoid(z), 1e-7, 1 - 1e-7)
    cost = torch.mean(-y * torch.log(s) - (1 - y) * torch.log(1 - s), dim=(1, 2, 3))
    spread = torch.mean(-torch.log(s * (1 - s)), dim=(1, 2, 3))
    stored = []
    for alpha, cost_i, spread_i in zip(alphas, cost, spread, strict=True):
        g = spread_i - 2 * cost_i
        moved = alpha + 0.002 * (g / b + 2000 * torch.clamp((1 - cur_acc) - b * alpha, max=0))
        if moved < 0:
            moved = torch.tensor(0.0)
        elif moved >= 1 / (2 * b):
            moved = torch.tensor(1 / (2 * b) - 0.01)
        stored.append(moved)
    return stored


@pytest.mark.parametrize("b", [0.5, 0.75, 1.0, 2.0])
def test_every_bit_is_that_of_the_official_formulas(b: float) -> None:
    rule = AdaptiveRule("mc", b, official=True)
    alpha = torch.tensor([0.0, 0.02, 0.1, 0.24, 1 / (2 * b) - 1e-3])
    by_hand = list(alpha)
    met = set()
    for step in range(12):
        z, y = batch(step, scale=3.0 + 2 * step)  # from step 8 on, logits beyond the cut of sigmoids
        z = torch.where(y > 0.5, z.abs(), -z.abs()) if step % 3 != 1 else z
        accuracy = (0.4, 0.96, 0.9)[step % 3] + 1e-4 * step
        alpha = rule.updated(alpha, rule.slope(perturbation(b), z, y), accuracy=accuracy)
        by_hand = transcribed(by_hand, z, y, b, accuracy)
        assert alpha.dtype == torch.float32
        assert torch.equal(alpha, torch.stack(by_hand)), step
        met |= {("zero", "free", "reset")[int(value > 0) + int(value == rule.bound - 0.01)] for value in by_hand}
    assert met == {"zero", "free", "reset"}


def test_the_official_slope_divides_where_the_gradient_multiplies() -> None:
    z, y = batch(0)
    for b in (0.5, 1.0, 2.0):
        official = AdaptiveRule("mc", b, official=True).slope(perturbation(b), z, y)
        gradient = AdaptiveRule("mc", b).slope(perturbation(b), z, y)
        signed = ((2 * y - 1) * z).mean((1, 2, 3))
        torch.testing.assert_close(official, signed / b, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(gradient, b * signed, rtol=1e-5, atol=1e-5)


def test_official_sigmoids_are_cut_off() -> None:
    y = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1)
    z = 30 * (2 * y - 1)
    assert AdaptiveRule("mc", 1.0).slope(perturbation(1.0), z, y).tolist() == [30, 30]
    cut = AdaptiveRule("mc", 1.0, official=True).slope(perturbation(1.0), z, y)
    # float32 has 1 - 2^-23 for 1 - 1e-7, hence two numbers
    assert cut.tolist() == pytest.approx([23 * math.log(2), -math.log(1e-7)], abs=1e-5)


@pytest.mark.parametrize("official", [False, True])
def test_void_pixels_do_not_move_alpha(official: bool) -> None:
    z, y = batch(1)
    valid = torch.zeros(5, 7, 9, dtype=torch.bool)
    valid[:, 2:6, 1:8] = True
    rule = AdaptiveRule("mc", 0.75, official=official)
    inside = rule.slope(perturbation(0.75), z[:, :, 2:6, 1:8], y[:, :, 2:6, 1:8])
    torch.testing.assert_close(rule.slope(perturbation(0.75), z, y, valid), inside)
    assert not torch.allclose(rule.slope(perturbation(0.75), z, y), inside, atol=1e-3)


# --- the rule by default ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [1, 2, 4])
@pytest.mark.parametrize("b", [0.25, 0.75, 1.0])
def test_alpha_climbs_the_slope_of_the_mean_perturbed_loss(classes: int, b: float) -> None:
    draws = torch.Generator().manual_seed(classes)
    z = 2 * torch.randn(3, classes, 4, 5, dtype=torch.float64, generator=draws)
    y = torch.randint(max(2, classes), (3, 4, 5), generator=draws)
    target = y[:, None].double() if classes == 1 else one_hot(y, classes).double()
    perturb, loss, step = perturbation(b, classes), LOSSES["bce"](), 1e-3
    slope = AdaptiveRule("mc", b).slope(perturb, z, target)
    for i in range(3):
        image, label = z[i : i + 1], target[i : i + 1]
        up, down = (
            loss(image, perturb.expected(label, torch.tensor([at], dtype=torch.float64)))
            for at in (0.2 + step, 0.2 - step)
        )
        assert float(slope[i]) == pytest.approx(float(up - down) / (2 * step), rel=1e-9)


@pytest.mark.parametrize(
    ("b", "default", "official"), [(0.25, 1, 2), (0.5, 1, 1), (0.75, 2 / 3, 2 / 3), (1.0, 0.5, 0.5)]
)
def test_alpha_stays_within_its_bounds(b: float, default: float, official: float) -> None:
    ours, theirs = AdaptiveRule("mei", b), AdaptiveRule("mei", b, official=True)
    assert (ours.bound, theirs.bound) == pytest.approx((default, official))
    alpha = torch.tensor([0.01, default - 0.01, default - 0.01], dtype=torch.float64)
    slope = torch.tensor([-100.0, 100.0, 1.0], dtype=torch.float64)
    assert ours.updated(alpha, slope, accuracy=0.9).tolist() == pytest.approx([0, default, default - 0.008])
    reset = theirs.updated(torch.tensor([0.01, official - 0.01]), slope[:2].float(), accuracy=0.9)
    assert reset.tolist() == pytest.approx([0, official - 0.01])
    at_bound = theirs.updated(torch.tensor([official]), torch.zeros(1), accuracy=0.9)
    assert at_bound.tolist() == pytest.approx([official - 0.01])


def simulated(rule: AdaptiveRule, g: float, accuracy: float, steps: int, start: float = 0.0) -> np.ndarray:
    """bα of one image after each of some visits, its mean signed logit and accuracy constant."""
    slope = torch.tensor([g / rule.b if rule.official else rule.b * g], dtype=torch.float64)
    alpha, visits = torch.tensor([start], dtype=torch.float64), []
    for _ in range(steps):
        alpha = rule.updated(alpha, slope, accuracy=accuracy)
        visits.append(rule.b * float(alpha))
    return np.array(visits)


@pytest.mark.parametrize("b", [0.5, 0.75, 1.0])
@pytest.mark.parametrize("step", [0.25, 0.5, 1.0, 1.5])
def test_an_excess_shrinks_by_its_factor(b: float, step: float) -> None:
    g, accuracy, eta = 1.375, 0.9, 0.002
    rule = AdaptiveRule("mc", b, eta, step / (eta * b))
    found = simulated(rule, g, accuracy, 12, start=0.2 / b) - (1 - accuracy)
    factor, gain = 1 - step, eta * b**2 * g
    expected = [0.1]
    for _ in range(12):  # an excess below 0 has no regulariser
        expected.append(factor * expected[-1] + gain if expected[-1] > 0 else expected[-1] + gain)
    assert found == pytest.approx(expected[1:], abs=1e-12)
    assert (found.min() < 0) == (step > 1)


@pytest.mark.parametrize("b", [0.5, 0.75, 1.0])
@pytest.mark.parametrize("g", [0.5, 1.375, 6.0])
def test_alpha_settles_by_default(b: float, g: float) -> None:
    rule, accuracy = AdaptiveRule("mc", b), 0.96
    assert rule.eta * rule.lam * b == pytest.approx(1)
    assert not rule.oscillates
    gain = rule.eta * b**2 * g
    visits = simulated(rule, g, accuracy, 400)
    settled = visits[-200:]
    assert settled.mean() <= 1 - accuracy + gain + 1e-12
    assert settled.mean() >= 1 - accuracy
    assert np.ptp(settled) < 1e-12
    assert settled[0] == pytest.approx(1 - accuracy + gain)
    climb = visits[: int((1 - accuracy) / gain)]
    assert climb == pytest.approx(gain * np.arange(1, len(climb) + 1))


@pytest.mark.parametrize(("b", "low", "high"), [(1.0, 0.037, 0.040), (0.75, 0.040, 0.043), (0.5, 0.040, 0.048)])
@pytest.mark.parametrize("g", [0.5, 1.375, 3.0, 6.0])
def test_the_official_alpha_saw_tooths(b: float, low: float, high: float, g: float) -> None:
    rule = AdaptiveRule("mc", b, official=True)
    assert rule.oscillates
    visits = simulated(rule, g, 0.96, 3000)[1000:]
    assert low <= visits.mean() <= high
    excess, gain = visits[:-1] - 0.04, rule.eta * g
    following = np.where(excess > 0, (1 - 4 * b) * excess, excess) + gain
    assert visits[1:] == pytest.approx(np.maximum(0.04 + following, 0), abs=1e-12)
    assert np.ptp(visits[-200:]) > 1e-4, "it never settles"


def test_accuracy_below_its_reference_takes_alpha_back_for_all_images() -> None:
    alpha, slope = torch.tensor([0.1, 0.3], dtype=torch.float64), torch.tensor([1.0, -2.0], dtype=torch.float64)
    rule = AdaptiveRule("mei", 0.5, eta=0.01)
    assert rule.lam == pytest.approx(200)
    for accuracy in (0.9, 0.95):
        assert rule.updated(alpha, slope, accuracy=accuracy, reference=0.9).tolist() == pytest.approx([0.11, 0.28])
    # R / b in addition
    assert rule.updated(alpha, slope, accuracy=0.88, reference=0.9).tolist() == pytest.approx([0.07, 0.24])
    best, path = 0.0, []
    for accuracy in (0.90, 0.92, 0.91, 0.92, 0.915):  # the running best, before the validation in question
        alpha = rule.updated(alpha, slope, accuracy=accuracy, reference=best)
        best = max(best, accuracy)
        path.append(float(alpha[0]))
    assert np.diff([0.1, *path]) == pytest.approx([0.01, 0.01, 0.01 - 0.02, 0.01, 0.01 - 0.01])


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_the_target_keeps_a_confidence_of_the_accuracy(classes: int) -> None:
    b, accuracy, draws = 0.75, 0.9, torch.Generator().manual_seed(classes)
    rule, perturb = AdaptiveRule("mc", b), perturbation(b, classes)
    z = torch.randn(4, classes, 3, 5, generator=draws, dtype=torch.float64)
    y = torch.randint(classes, (4, 3, 5), generator=draws)
    z.scatter_add_(1, y[:, None], torch.full_like(z[:, :1], 4.0))
    slope = rule.slope(perturb, z, y)
    w, q = b * classes / (classes - 1), one_hot(y, classes)
    torch.testing.assert_close(slope, w * ((q - 1 / classes) * z).sum(1).mean((1, 2)))
    alpha = torch.zeros(4, dtype=torch.float64)
    for _ in range(200):
        alpha = rule.updated(alpha, slope, accuracy=accuracy)
    confidence = perturb.expected(y, alpha).gather(1, y[:, None])[:, 0, 0, 0]
    torch.testing.assert_close(confidence, (1 - b * alpha).float())
    torch.testing.assert_close(confidence.double(), accuracy - rule.eta * b * slope, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"kind": "max"}, UnknownName, "no adaptive rule 'max'"),
        ({"eta": 0.0}, OptionError, "eta is 0.0; expected a number above 0"),
        ({"eta": math.inf}, OptionError, "eta is inf"),
        ({"eta": math.nan}, OptionError, "eta is nan"),
        ({"lam": -1.0}, OptionError, "lambda is -1.0; expected a number of 0 or more"),
        ({"lam": math.inf}, OptionError, "lambda is inf"),
        ({"start": 0}, OptionError, "start is 0; alpha moves after 1 epoch at least"),
        ({"start": math.nan}, OptionError, "start is nan"),
    ],
)
def test_numbers_of_a_rule_are_checked(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        AdaptiveRule(**{"kind": "mc", "b": 1.0, **given})


# --- methods ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_builds_and_has_a_loss(name: str, classes: int) -> None:
    if name == "logit-norm" and classes == 1:
        with pytest.raises(OptionError, match=r"logit-norm needs several classes: .* say --num-classes 2"):
            method_named(name).build({}, classes=classes)
        return
    recipe = method_named(name).build({}, classes=classes)
    z = torch.randn(2, classes, 4, 5, generator=torch.Generator().manual_seed(0))
    target = torch.ones(2, 1, 4, 5) if classes == 1 else torch.ones(2, 4, 5, dtype=torch.int64)
    loss = recipe.loss(z, target, generator=torch.Generator().manual_seed(0))
    assert loss.ndim == 0
    assert math.isfinite(float(loss))
    assert recipe.notes == ()
    assert recipe.perturbation is None or recipe.perturbation.n_classes == classes


def test_each_method_has_the_parts_it_is_named_for() -> None:
    recipes = {name: method.build({}, classes=3) for name, method in METHODS.items()}
    assert {name for name, recipe in recipes.items() if recipe.perturbation} == {"slp", "aslp-mc", "aslp-mei"}
    assert {name: recipe.rule.kind for name, recipe in recipes.items() if recipe.rule} == {
        "aslp-mc": "mc", "aslp-mei": "mei",
    }  # fmt: skip
    assert {name for name, recipe in recipes.items() if recipe.mixup is not None} == {"mixup"}
    plain = {"bce", "slp", "aslp-mc", "aslp-mei", "mixup"}
    assert {name for name, recipe in recipes.items() if recipe.loss.name == "bce"} == plain
    others = {recipe.loss.name for recipe in recipes.values()} - {"bce"}
    assert others == LOSSES.keys() - {"bce"}, "every loss can be trained with"


def values_of(module: torch.nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if not name.startswith("_")}


@pytest.mark.parametrize("name", METHODS)
def test_defaults_are_those_of_the_constructors(name: str) -> None:
    method = method_named(name)
    recipe = method.build({}, classes=3)
    assert values_of(recipe.loss) == values_of(LOSSES[method.loss]())
    said = method.build({key: value for key, value in method.parameters.items() if value is not None}, classes=3)
    assert values_of(said.loss) == values_of(recipe.loss)
    if recipe.perturbation is not None:
        expected = LabelPerturbation(n_classes=3, alpha=None if recipe.rule is None else 0.0)
        assert values_of(recipe.perturbation) == values_of(expected)
        assert recipe.perturbation.beta == KINDS["hi"].beta == 2
    if recipe.rule is not None:
        assert recipe.rule == said.rule == AdaptiveRule(recipe.rule.kind, 1.0)
        assert (recipe.rule.start, recipe.reference) == (5, "best")


def test_parameters_reach_what_they_are_for() -> None:
    assert method_named("focal").build({"gamma": 1.5}).loss.gamma == 1.5
    assert method_named("mixup").build({"mixup": 0.4}).mixup == 0.4
    assert method_named("aslp-mei").build({"reference": 0.93}).reference == 0.93
    rule = rule_of(method_named("aslp-mc").build({"eta": 0.01, "lambda": 50, "start": 2, "kind": "m"}))
    assert rule == AdaptiveRule("mc", 0.5, 0.01, 50, 2)


def rule_of(recipe: Recipe) -> AdaptiveRule:
    assert recipe.rule is not None
    return recipe.rule


def strength(name: str, options: Mapping[str, Any], *, official: bool = False) -> tuple[float, float]:
    """β and the probability of a recipe."""
    found = method_named(name).build(options, official=official).perturbation
    assert found is not None
    return found.beta, found.alpha


def test_beta_is_on_the_scale_of_the_paper() -> None:
    recipe = method_named("aslp-mc").build({"beta": 1.5})
    assert recipe.perturbation is not None
    assert recipe.perturbation.b == rule_of(recipe).b == 0.75
    assert rule_of(recipe).lam == pytest.approx(1 / (0.002 * 0.75))
    foreground = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    assert recipe.perturbation.perturbed(foreground).flatten().tolist() == [0.75, 0.25]
    with pytest.raises(OptionError, match="beta of 'hi' is 4; expected above 0 to 2"):
        method_named("aslp-mc").build({"beta": 4})


@pytest.mark.parametrize("name", ["slp", "aslp-mc", "aslp-mei"])
def test_a_kind_has_its_own_strength(name: str) -> None:
    constant = {"hi": 0.05, "si": 0.05, "m": 0.05, "dm": 0.05, "ls": 1.0}
    for kind, beta in {"hi": 2, "si": 1.5, "m": 1, "dm": 1, "ls": 0.05}.items():
        assert strength(name, {"kind": kind}) == (beta, constant[kind] if name == "slp" else 0)
        assert strength(name, {"kind": kind}, official=True)[0] == beta
        assert strength(name, {"kind": kind, "beta": 1.2}, official=True)[0] == 1.2


def test_the_official_setting() -> None:
    for name in ("slp", "aslp-mc", "aslp-mei"):
        assert strength(name, {}, official=True)[0] == 4
        assert strength(name, {"beta": 2}, official=True)[0] == 2
    recipe = method_named("aslp-mc").build({}, official=True)
    assert recipe.rule == AdaptiveRule("mc", 2.0, 0.002, 2000, 5, official=True)
    assert recipe.perturbation is not None
    foreground = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    assert recipe.perturbation.perturbed(foreground).flatten().tolist() == [2, -1]
    with pytest.raises(OptionError, match="the official rule of aslp-mc is for binary maps, but there are 3 classes"):
        method_named("aslp-mc").build({}, classes=3, official=True)


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("product", [0.5, 1.0, 1.99, 2.0, 4.0])
def test_a_step_that_does_not_settle_is_noted(beta: float, product: float) -> None:
    b = beta / 2
    for name in ("aslp-mc", "aslp-mei"):
        recipe = method_named(name).build({"beta": beta, "eta": 0.01, "lambda": product / (0.01 * b)})
        assert rule_of(recipe).oscillates == (product >= 2) == bool(recipe.notes)
        for note in recipe.notes:
            assert f"{name}: eta x lambda x b is {product:g}" in note
            assert f"lambda = {1 / (0.01 * b):g} makes it 1" in note


def test_unknown_names_have_a_hint() -> None:
    with pytest.raises(UnknownName, match="no method 'aslp-mg'; did you mean 'aslp-m"):
        method_named("aslp-mg")
    with pytest.raises(UnknownName, match="no parameter of 'focal' 'gama'; did you mean 'gamma'"):
        method_named("focal").build({"gama": 2})
    with pytest.raises(UnknownName, match="no parameter of 'bce' 'alpha'; known: none"):
        method_named("bce").build({"alpha": 2})
    with pytest.raises(UnknownName, match="no label perturbation 'him'; did you mean 'hi'"):
        method_named("slp").build({"kind": "him"})


NUMBERS = [
    (name, parameter)
    for name, method in METHODS.items()
    for parameter, value in method.parameters.items()
    if not isinstance(value, str)
]


@pytest.mark.parametrize(("name", "parameter"), NUMBERS)
@pytest.mark.parametrize("value", ["1.0", [1.0]], ids=["text", "list"])
def test_values_of_the_wrong_type_are_refused(name: str, parameter: str, value: object) -> None:
    with pytest.raises(OptionError, match=f"parameter {parameter} of '{name}' is .*; expected a (finite|whole) number"):
        method_named(name).build({parameter: value}, classes=3)


@pytest.mark.parametrize("value", [0, -0.1])
def test_mixup_is_above_zero(value: float) -> None:
    with pytest.raises(OptionError, match=f"mixup is {value}; expected a number above 0"):
        method_named("mixup").build({"mixup": value})


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_parameters_are_finite(value: float) -> None:
    for name, parameter in NUMBERS:
        with pytest.raises(OptionError, match=f"parameter {parameter} of '{name}' is {value}; expected a"):
            method_named(name).build({parameter: value}, classes=3)


# --- configuration ------------------------------------------------------------------------------------------------------


def test_recipes_are_those_of_the_network() -> None:
    assert TrainingConfig.of("small", {}) == TrainingConfig()
    assert TrainingConfig.of("own.module:network", {}) == TrainingConfig(model="own.module:network")
    assert RECIPES["aslp-resnet50"] == {"size": 384, "batch": 10, "epochs": 30, "lr": 2.5e-5}
    study = TrainingConfig.of("aslp-resnet50", {"batch": 4, "lr": None})
    assert (study.size, study.batch, study.epochs, study.lr, study.schedule) == (384, 4, 30, 2.5e-5, "step")
    official = TrainingConfig.of("small", {"profile": "aslp", "epochs": 2, "schedule": None})
    assert (official.size, official.epochs, official.lr, official.schedule) == (384, 2, 2.5e-5, "aslp")
    assert (official.decay, official.decay_epochs) == (0.95, 10)
    assert TrainingConfig.of("small", {"profile": "aslp", "schedule": "constant"}).schedule == "constant"


def test_the_rate_compounds_under_the_official_schedule() -> None:
    official = TrainingConfig.of("aslp-resnet50", {"profile": "aslp"})
    powers = {1: 0, 10: 0, 11: 1, 19: 9, 20: 10, 21: 12, 22: 14, 29: 28, 30: 30}
    assert {epoch: official.rate(epoch) for epoch in powers} == pytest.approx(
        {epoch: 2.5e-5 * 0.95**power for epoch, power in powers.items()}, rel=1e-12
    )
    assert official.rate(20) == pytest.approx(1.497e-5, abs=1e-8)
    assert official.rate(30) == pytest.approx(5.366e-6, abs=1e-9)
    rate = 2.5e-5
    for epoch in range(1, 61):
        assert official.rate(epoch) == pytest.approx(rate, rel=1e-12)
        rate *= 0.95 ** (epoch // 10)


def test_the_rate_of_the_other_schedules() -> None:
    step = TrainingConfig(lr=1e-3, decay=0.5, decay_epochs=3)
    assert [step.rate(epoch) for epoch in range(1, 8)] == [1e-3] * 3 + [5e-4] * 3 + [2.5e-4]
    constant = TrainingConfig(lr=1e-3, schedule="constant", decay=0.5, decay_epochs=1)
    assert {constant.rate(epoch) for epoch in (1, 2, 50)} == {1e-3}


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        *(({name: 0}, OptionError, f"{name} is 0; expected 1 or more")
          for name in ("classes", "size", "epochs", "batch", "accumulate", "decay_epochs")),
        *(({name: value}, OptionError, f"{name} is {value}; expected a number above 0")
          for name in ("lr", "decay") for value in (0, -1e-3, math.nan, math.inf)),
        ({"profile": "alsp"}, UnknownName, "no profile 'alsp'; did you mean 'aslp'"),
        ({"schedule": "cosine"}, UnknownName, "no schedule 'cosine'; known: aslp, constant, step"),
        ({"precision": "fp16"}, UnknownName, "no precision 'fp16'"),
        ({"best_by": "acuracy"}, UnknownName, "no best by 'acuracy'; did you mean 'accuracy'"),
    ],
)  # fmt: skip
def test_a_configuration_is_checked(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TrainingConfig(**given)


def test_a_configuration_survives_json() -> None:
    config = TrainingConfig(
        "aslp-mc", {"beta": 1.5, "kind": "si"}, 3, "aslp", "aslp-resnet50", {"official_layout": True}, "imagenet", 1, 352, 7,
        12, 3, 1e-4, "aslp", 0.9, 4, False, "bf16", True, True, "ece", True,
    )  # fmt: skip
    assert all(
        getattr(config, name) != value for name, value in TrainingConfig().as_dict().items() if name != "classes"
    )
    stored = json.loads(json.dumps(config.as_dict()))
    assert TrainingConfig.from_dict(stored, "last.pt") == config
    with pytest.raises(FormatError, match=r"last.pt was written by another version: it sets 'warmup'; update calbench"):
        TrainingConfig.from_dict({**stored, "warmup": 3}, "last.pt")


# --- order --------------------------------------------------------------------------------------------------------------


def shared_out(n_images: int, batch: int, accumulate: int, size: int, epoch: int = 1) -> list[list[list[list[At]]]]:
    """The parts of each step, of each process."""
    steps = []
    orders = [Order(n_images, batch, accumulate, 7, rank, size, epoch) for rank in range(size)]
    for step in range(orders[0].steps):
        steps.append([[order.part(step, number) for number in range(order.parts(step))] for order in orders])
    for rank, order in enumerate(orders):
        assert list(order) == [part for processes in steps for part in processes[rank]]
    return steps


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("accumulate", [1, 2, 3])
@pytest.mark.parametrize(("n_images", "batch"), [(23, 7), (24, 8), (5, 4), (3, 10), (1, 1), (9, 2)])
def test_a_step_is_the_same_for_any_number_of_processes(n_images: int, batch: int, accumulate: int, size: int) -> None:
    alone = [processes[0][0] for processes in shared_out(n_images, batch, 1, 1)]
    steps = shared_out(n_images, batch, accumulate, size)
    assert len(steps) == len(alone) == math.ceil(n_images / batch)
    for whole, processes in zip(alone, steps, strict=True):
        together = [at for parts in processes for part in parts for at in part]
        assert sorted(together) == sorted(whole)
        assert len(whole) == batch or whole is alone[-1]
        counts = [sum(map(len, parts)) for parts in processes]
        assert max(counts) - min(counts) <= 1
        for parts, count in zip(processes, counts, strict=True):
            assert len(parts) == min(accumulate, count), "no part without an image"
            assert max(map(len, parts), default=0) - min(map(len, parts), default=0) <= 1
    assert sorted(index for whole in alone for _, index in whole) == list(range(n_images)), "each image once an epoch"


def test_an_epoch_has_an_order_of_its_own() -> None:
    order = Order(50, 8, 1, seed=0, epoch=1)
    first = [at for part in order for at in part]
    assert [index for _, index in first] == list(rng(0, 1, "order").permutation(50))
    assert [index for _, index in first] != sorted(index for _, index in first)
    order.epoch = 2
    second = [at for part in order for at in part]
    assert {epoch for epoch, _ in first} == {1}
    assert {epoch for epoch, _ in second} == {2}
    assert [index for _, index in first] != [index for _, index in second]
    other = [at for part in Order(50, 8, 1, seed=1) for at in part]
    assert first != other
    assert first == [at for part in Order(50, 11, 3, seed=0) for at in part], "of the batch size it is independent"


@pytest.mark.parametrize("rank", [0, 1])
def test_iteration_may_begin_at_a_step(rank: int) -> None:
    whole = Order(23, 6, 2, 0, rank, 2, epoch=3)
    assert whole.steps == 4
    for first in range(5):
        rest = [whole.part(step, number) for step in range(first, 4) for number in range(whole.parts(step))]
        assert list(Order(23, 6, 2, 0, rank, 2, epoch=3, first=first)) == rest


class Asked(Dataset[At]):
    """Returns what it is asked for."""

    def __getitem__(self, at: At) -> At:
        return at


def test_a_loader_takes_an_order() -> None:
    order = Order(11, 4, 2, 0, epoch=5)
    loader = DataLoader(Asked(), batch_sampler=order, collate_fn=list)
    assert list(loader) == list(order)
    order.epoch, order.first = 6, 2
    assert list(loader) == [order.part(2, 0), order.part(2, 1)]


# --- draws --------------------------------------------------------------------------------------------------------------


def test_draws_never_change() -> None:
    assert key(0) == 4246866556266386882
    assert key(0, 3, "cat") == 2133355896183026908
    assert key(7, 12, "Ärmel/猫", "perturbation") == 4608591923717481736
    digest = hashlib.blake2b("7\x1f12\x1fÄrmel/猫\x1fperturbation".encode(), digest_size=8).digest()
    assert key(7, 12, "Ärmel/猫", "perturbation") == int.from_bytes(digest, "little") // 2
    uniform = torch.rand(3, generator=generator(0, 3, "cat", "perturbation"), dtype=torch.float64)
    assert uniform.tolist() == [0.38540220877584574, 0.5613618467019242, 0.9353526316638872]
    single = torch.rand(3, generator=generator(0, 3, "cat", "perturbation"))
    assert single.tolist() == [0.42317527532577515, 0.31230270862579346, 0.44517022371292114]
    assert rng(0, 3, "cat", "augmentation").random(3).tolist() == [
        0.03849983389224598, 0.8706600896965947, 0.7398402840416013,
    ]  # fmt: skip
    assert rng(0, 3, "cat", "augmentation").integers(0, 1000, 4).tolist() == [468, 38, 179, 870]
    assert rng(0, 1, "order").permutation(8).tolist() == [7, 1, 5, 3, 4, 2, 0, 6]


def test_keys_tell_their_parts_apart() -> None:
    whats = [(seed, epoch, name, use) for seed in range(4) for epoch in range(30) for name in ("a", "b", "1")
             for use in ("perturbation", "augmentation")]  # fmt: skip
    keys = {key(*what) for what in whats}
    assert len(keys) == len(whats)
    assert all(0 <= each < 2**63 for each in keys)
    assert key(1, 23) != key(12, 3)
    uniform = np.array([float(torch.rand((), generator=generator(*what))) for what in whats])
    assert uniform.mean() == pytest.approx(0.5, abs=4 / math.sqrt(12 * len(whats)))


# --- images -------------------------------------------------------------------------------------------------------------


def visited(names: tuple[str, ...] = ("b", "a", "c", "d")) -> ImageTable:
    table = ImageTable.empty(names, CPU, 0.05)
    table.record(torch.tensor([2, 0]), torch.tensor([0.1, 0.2]), torch.tensor([0.7, 0.3]), torch.tensor([0.8, 0.9]))
    table.record(torch.tensor([0]), torch.tensor([0.25]), torch.tensor([0.25]), torch.tensor([0.95]))
    return table


def test_visits_are_taken_down() -> None:
    table = visited()
    assert table.values[[0, 2]].tolist() == pytest.approx(np.array([[0.25, 2, 0.25, 0.95], [0.1, 1, 0.7, 0.8]]))
    assert table.values[1, :2].tolist() == pytest.approx([0.05, 0])
    assert table.values[1, 2:].isnan().all()
    assert table.alpha.tolist() == pytest.approx([0.25, 0.05, 0.1, 0.05])
    assert table.seen.tolist() == [True, False, True, False]
    before = table.values.clone()
    table.share(ALONE)
    assert torch.equal(table.values.nan_to_num(-1), before.nan_to_num(-1))
    assert not table.seen.any()


def test_rows_are_restored_by_name() -> None:
    held, table = visited().state(), ImageTable.empty(("d", "c", "b", "a"), CPU)
    table.restore(held)
    assert table.alpha.tolist() == pytest.approx([0.05, 0.1, 0.25, 0.05])
    assert table.values[:, 1].tolist() == [0, 1, 2, 0]
    for names in (("a", "b", "c"), ("a", "b", "c", "e"), ("a", "b", "c", "d", "e")):
        with pytest.raises(FormatError, match="holds other training images than these; start afresh with --force"):
            ImageTable.empty(names, CPU).restore(held)


def test_alphas_are_written_in_full(tmp_path: Path) -> None:
    names = ('comma, "quoted"', "Ärmel", "c", "猫/d")
    table = visited(names)
    table.values[2] = torch.tensor([1 / 3, 40, 1e-7, 0.1])
    table.write(tmp_path / "run/alphas.csv")
    with (tmp_path / "run/alphas.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["name", *COLUMNS]
    assert tuple(row["name"] for row in rows) == names
    assert [row["visits"] for row in rows] == ["2", "0", "40", "0"]
    assert (rows[1]["loss"], rows[1]["accuracy"]) == ("", "")
    values = [[float(row[column] or "nan") for column in COLUMNS] for row in rows]
    torch.testing.assert_close(torch.tensor(values), table.values, rtol=0, atol=0, equal_nan=True)


# --- processes ----------------------------------------------------------------------------------------------------------


def test_one_process_is_a_world(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    values = torch.tensor([1.0, 2.0])
    assert ALONE.sum(values).tolist() == [1, 2]
    ALONE.wait()
    assert ALONE.is_main
    assert in_first_process()
    with joined("cpu") as world:
        assert world == ALONE
    monkeypatch.setenv("RANK", "1")
    assert not in_first_process()


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_named("auto") == device_named("cpu") == CPU
    with pytest.raises(OptionError, match="the device is cuda, and torch finds no GPU; say --device cpu"):
        device_named("cuda")


TWO = """
import sys
import torch
from calbench.training.distributed import in_first_process, joined
from calbench.training.images_table import ImageTable

with joined("cpu") as world:
    assert in_first_process() == world.is_main == (world.rank == 0)
    table = ImageTable.empty(("a", "b", "c", "d"), world.device, 0.05)
    for visit in range(2):
        mine = torch.tensor([world.rank])  # image 2 is seen by the second process and only once, image 3 by none
        table.record(mine, mine + 0.125, mine + 0.25, mine + 0.5)
        if world.rank == 1 and visit == 0:
            table.record(torch.tensor([2]), *(torch.tensor([value]) for value in (0.75, float("nan"), 0.0)))
        table.share(world)
    world.wait()
    total = world.sum(torch.tensor([1.0, world.rank]))
    print(table.values.tolist(), total.tolist(), table.seen.tolist())
"""


def test_processes_share_their_rows() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {
        "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO], env=shared | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    try:
        printed = [process.communicate(timeout=60)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0]
    rows = [[0.125, 2, 0.25, 0.5], [1.125, 2, 1.25, 1.5], [0.75, 0, math.nan, 0], [0.05, 0, math.nan, math.nan]]
    assert printed[0] == printed[1] == f"{torch.tensor(rows).tolist()} [2.0, 1.0] {[False] * 4}\n"


# --- checkpoints --------------------------------------------------------------------------------------------------------


def checkpoint(classes: int = 1, seed: int = 0) -> Checkpoint:
    network = build_model("small", seed=seed, classes=classes)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    network(torch.ones(1, 3, 32, 32)).mean().backward()
    optimizer.step()
    config = TrainingConfig("aslp-mc", {"beta": 1.5}, classes=classes, size=32)
    state = {
        "optimizer": optimizer.state_dict(), "epoch": 3, "history": [{"loss": 0.25, "accuracy": math.nan}],
        "reference": None, "images": visited().state(),
    }  # fmt: skip
    return Checkpoint(config, {"training": "digest"}, network.state_dict(), state)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "last.pt"
    save_checkpoint(checkpoint(), path)
    return path


def equal(a: Any, b: Any) -> bool:
    """Equality of nested plain values and tensors; NaN equals NaN."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[name], b[name]) for name in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


def test_a_checkpoint_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = checkpoint(classes=3)
    save_checkpoint(written, tmp_path / "new/folder/last.pt")
    read = load_checkpoint(tmp_path / "new/folder/last.pt")
    assert read.config == written.config
    assert equal(dict(read.data), dict(written.data))
    assert equal(dict(read.model), dict(written.model))
    assert equal(dict(read.state), dict(written.state))
    assert not equal(dict(read.model), dict(checkpoint(classes=3, seed=1).model))
    assert [path.name for path in (tmp_path / "new/folder").iterdir()] == ["last.pt"]
    assert_same(trained_network(read).state_dict(), dict(written.model))


@pytest.mark.parametrize("load", [load_checkpoint, lambda path: load_weights(build_model("small"), path)])
def test_a_checkpoint_that_runs_code_is_refused(tmp_path: Path, load: Callable[[Path], object]) -> None:
    harm, path = tmp_path / "harm", tmp_path / "last.pt"
    torch.save({"kind": KIND, "schema": SCHEMA, "state": Harmful(harm)}, path)
    with pytest.raises(FormatError, match=r"last.pt holds objects other than tensors and plain values"):
        load(path)
    assert not harm.exists()
    torch.load(path, weights_only=False)
    assert harm.exists(), "the file was harmless, so that its refusal shows nothing"


def flipped(data: bytes) -> bytes:
    """One bit of the weights differs."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("load", [load_checkpoint, lambda path: load_weights(build_model("small"), path)])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (flipped, r"is damaged: the checksum of \S+/data/\d+ is wrong; take another checkpoint"),
        (lambda data: data[: len(data) // 2], r"is damaged, or no torch file \(.*\); expected last.pt or best.pt"),
        (lambda data: data[:-1], "is damaged, or no torch file"),
        (lambda _: b"", "is damaged, or no torch file"),
        (lambda _: b"no weights", "is damaged, or no torch file"),
    ],
    ids=["bit", "half", "byte", "empty", "text"],
)
def test_damaged_checkpoints_are_refused(
    tmp_path: Path, saved: Path, load: Callable[[Path], object], change: Callable[[bytes], bytes], message: str
) -> None:
    load(saved)
    (tmp_path / "last.pt").write_bytes(change(saved.read_bytes()))
    with pytest.raises(FormatError, match=rf"last\.pt {message}"):
        load(tmp_path / "last.pt")


@pytest.mark.parametrize("load", [load_checkpoint, lambda path: load_weights(build_model("small"), path)])
def test_other_files_are_no_checkpoints(tmp_path: Path, load: Callable[[Path], object]) -> None:
    path, weights = tmp_path / "last.pt", {"a": torch.zeros(2)}
    content = {"kind": KIND, "schema": SCHEMA, "config": {}, "data": {}, "model": {}, "state": {}}
    for other in (weights, [1.0], {**content, "kind": "calbench statistics"}, {**content, "kind": torch.zeros(3)}):
        torch.save(other, path)
        with pytest.raises(FormatError, match=r"last.pt is no checkpoint of calbench; expected last.pt or best.pt"):
            load(path)
    torch.save({**content, "schema": SCHEMA + 1}, path)
    with pytest.raises(FormatError, match=rf"has schema {SCHEMA + 1}; this calbench reads up to {SCHEMA}; update it"):
        load(path)
    torch.save({**content, "config": {"warmup": 3}}, path)
    with pytest.raises(FormatError, match=r"last.pt was written by another version: it sets 'warmup'"):
        load(path)
    path.unlink()
    with pytest.raises(FormatError, match=r"cannot read .*last.pt: No such file or directory; expected last.pt"):
        load(path)
    path.mkdir()
    with pytest.raises(FormatError, match=r"cannot read .*last.pt: Is a directory"):
        load(path)


FULL = """
import resource
import sys
from pathlib import Path
import torch
from calbench.errors import CalbenchError
from calbench.training.checkpoint import Checkpoint, save_checkpoint
from calbench.training.config import TrainingConfig

def save(name, weight):
    checkpoint = Checkpoint(TrainingConfig(), {}, {"w": torch.full((100_000,), weight)}, {})
    save_checkpoint(checkpoint, Path(sys.argv[1], name))

save("last.pt", 1.0)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for name in ("last.pt", "best.pt"):
    try:
        save(name, 2.0)
    except CalbenchError as error:
        print(error)
"""


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == [
        f"cannot write {tmp_path / name}, 0.4 MB: {os.strerror(errno.EFBIG)}; {kept}; make room, and continue with --resume"
        for name, kept in (("last.pt", "the checkpoint before it is intact"), ("best.pt", "there is none before it"))
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    assert torch.equal(load_checkpoint(tmp_path / "last.pt").model["w"], torch.ones(100_000))


# --- weights to start from ----------------------------------------------------------------------------------------------


def test_weights_of_a_checkpoint(saved: Path) -> None:
    network = build_model("small", seed=5)
    load_weights(network, saved)
    assert_same(network.state_dict(), dict(load_checkpoint(saved).model))
    load_weights(network, str(saved))
    for other in (build_model("small", classes=3), torch.nn.Conv2d(3, 1, 1), blank()):
        with pytest.raises(OptionError, match=r"last.pt holds the weights of 'small', another network: "):
            load_weights(other, saved)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_of_the_study_and_of_imagenet_by_path(tmp_path: Path, prefix: str) -> None:
    network, path = blank(), tmp_path / "weights.pth"
    study, imagenet = numbered(official_shapes()), torchvision_weights()
    torch.save({prefix + name: weight for name, weight in study.items()}, path)
    load_weights(network, path)
    assert_same(network.state_dict(), {name: study[name] for name in executed(official_shapes())})
    torch.save({prefix + name: weight for name, weight in imagenet.items()}, path)
    load_weights(network, path)
    found = network.state_dict()
    assert torch.equal(found["resnet.layer3_1.5.conv2.weight"], imagenet["layer3.5.conv2.weight"])
    assert torch.equal(found["conv4.conv2d_list.0.weight"], study["conv4.conv2d_list.0.weight"]), "the decoder stays"
    with pytest.raises(FormatError, match=r"weights.pth is no checkpoint of calbench"):
        load_weights(build_model("small"), path)


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"cannot read .*nothing.pth"):
        load_weights(blank(), tmp_path / "nothing.pth")
    with pytest.raises(OptionError, match="SmallUNet; these weights are for aslp-resnet50"):
        load_weights(build_model("small"), "imagenet")
    torch.save({"kind": KIND, "schema": SCHEMA + 1}, tmp_path / "newer.pt")
    with pytest.raises(FormatError, match="update it"):
        load_weights(blank(), tmp_path / "newer.pt")


# --- sets ---------------------------------------------------------------------------------------------------------------

NAMES = tuple("abcdefgh")


def write_images(images: Path, masks: Path | None, names: tuple[str, ...], levels: tuple[int, ...] = (0, 255)) -> None:
    for number, name in enumerate(names):
        images.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 10), (number, 0, 0)).save(images / f"{name}.png")
        if masks is not None:
            masks.mkdir(parents=True, exist_ok=True)
            mask = np.full((10, 12), levels[0], np.uint8)
            mask[2 + number % 5 :, 3:9] = levels[-1]
            mask[0, : len(levels)] = levels
            Image.fromarray(mask).save(masks / f"{name}.png")


@pytest.fixture
def toy(tmp_path: Path) -> SetOptions:
    write_images(tmp_path / "toy/image", tmp_path / "toy/gt", NAMES)
    write_images(tmp_path / "further/image", tmp_path / "further/gt", ("a", "y"))
    write_images(tmp_path / "texture", None, ("t", "u"))
    return SetOptions(str(tmp_path / "toy/image"), str(tmp_path / "toy/gt"))


@pytest.fixture
def named(tmp_path: Path) -> Callable[[str], str]:
    """A file with a list of names."""

    def write(names: str) -> str:
        path = tmp_path / f"{names}.txt"
        path.write_text("\n".join(names))
        return str(path)

    return write


def uses(sets: Sets) -> tuple[str, str, dict[str, str], dict[str, str]]:
    tests, ood = ({each.name: "".join(each.names) for each in kind} for kind in (sets.tests, sets.ood))
    return "".join(sets.training.names), "".join(sets.validation.names), tests, ood


def test_lists_say_what_each_image_is_for(toy: SetOptions, named: Callable[[str], str]) -> None:
    lists = {"train_list": named("fa"), "validation_list": named("cb"), "test_list": named("hg")}
    assert uses(find_sets(replace(toy, **lists))) == ("af", "bc", {"toy": "gh"}, {})
    del lists["train_list"]
    assert uses(find_sets(replace(toy, **lists))) == ("adef", "bc", {"toy": "gh"}, {})
    del lists["test_list"]
    assert uses(find_sets(replace(toy, **lists))) == ("adefgh", "bc", {}, {})


def test_validation_images_are_drawn_from_those_to_train_on(toy: SetOptions, named: Callable[[str], str]) -> None:
    training, validation, tests, _ = uses(find_sets(toy))
    assert (len(training), len(validation), tests) == (7, 1, {})
    assert sorted(training + validation) == list(NAMES)
    listed = replace(toy, train_list=named("abcdef"), test_list=named("gh"), validation_share=1 / 3)
    drawn = {uses(find_sets(replace(listed, split_seed=seed)))[:2] for seed in range(8)}
    assert len(drawn) > 1
    for training, validation in drawn:
        assert (len(training), len(validation)) == (4, 2)
        assert sorted(training + validation) == list("abcdef")
    assert find_sets(listed) == find_sets(listed)
    for share in (0.0, 1.0, math.nan):
        with pytest.raises(OptionError, match="the share of validation images is"):
            find_sets(replace(toy, validation_share=share))
    with pytest.raises(InputError, match="what no list names holds no name"):
        find_sets(replace(toy, test_list=named("abcdefgh")))


def test_further_test_sets(toy: SetOptions, tmp_path: Path, named: Callable[[str], str]) -> None:
    further, texture = tmp_path / "further", tmp_path / "texture"
    shutil.copytree(further / "gt", further / "other")
    options = replace(
        toy, train_list=named("ab"), validation_list=named("c"), test_list=named("d"), ood=(f"DTD={texture}",),
        tests=(f"X={further / 'image'}", f"Y={further / 'image'}"),
        test_masks=(f"Y={further / 'other'}", f"X={further / 'gt'}"),
    )  # fmt: skip
    sets = find_sets(options)
    assert uses(sets) == ("ab", "c", {"toy": "d", "X": "ay", "Y": "ay"}, {"DTD": "tu"})
    assert sets.ood[0].coding is None
    assert sets.ood[0].examples[0].mask is None
    assert [each.examples[1].mask for each in sets.tests[1:]] == [further / "gt/y.png", further / "other/y.png"]
    assert sets.training.coding == sets.tests[1].coding


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tests": ("X=further/image",)}, "the test set 'X' needs both --test X=IMAGES and --test-masks X=MASKS"),
        ({"test_masks": ("X=further/gt",)}, "the test set 'X' needs both"),
        ({"tests": ("X=a", "Z=b"), "test_masks": ("X=a", "Y=b")}, "the test set 'Y' needs both"),
        ({"tests": ("further/image",)}, "--test 'further/image' is not NAME=FOLDER"),
        ({"test_masks": ("=further",)}, "--test-masks '=further' is not NAME=FOLDER"),
        ({"ood": ("DTD=",)}, "--ood 'DTD=' is not NAME=FOLDER"),
        ({"ood": ("a/b=texture",)}, "--ood 'a/b=texture' is not NAME=FOLDER"),
        ({"ood": ("D=texture", "D=elsewhere")}, "--ood names the set 'D' twice"),
        ({"tests": ("D=further/image",), "test_masks": ("D=further/gt",), "ood": ("D=texture",)},
         "two test sets are called 'D'; give each its own name"),
        ({"images": None}, "say where the images and masks are: --images DIR --masks DIR, or --official DIR"),
        ({"masks": None}, "say where the images and masks are"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together(
    toy: SetOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match=message):
        find_sets(replace(toy, **given))


def test_a_picture_has_one_use(toy: SetOptions, tmp_path: Path, named: Callable[[str], str]) -> None:
    lists = {"train_list": named("abc"), "validation_list": named("cd"), "test_list": named("da")}
    message = (
        r"1 picture would be trained on and validated with, which flatters the numbers:\n  .*image/c.png\ngive each"
    )
    with pytest.raises(InputError, match=message):
        find_sets(replace(toy, **lists))
    lists["train_list"] = named("ab")
    with pytest.raises(InputError, match=r"1 picture would be trained on and tested with, in toy, .*\n  .*a.png"):
        find_sets(replace(toy, **lists))
    lists["test_list"] = named("dcf")
    with pytest.raises(
        InputError, match=r"2 pictures would be validated with and tested with, in toy, .*\n.*c.png\n.*d.png"
    ):
        find_sets(replace(toy, **lists))
    lists["test_list"] = named("f")
    (tmp_path / "link").symlink_to(tmp_path / "toy")
    elsewhere = {"tests": (f"X={tmp_path / 'link/image'}",), "test_masks": (f"X={tmp_path / 'link/gt'}",)}
    with pytest.raises(InputError, match=r"2 pictures would be trained on and tested with, in X, "):
        find_sets(replace(toy, **lists, **elsewhere))
    with pytest.raises(InputError, match=r"would be trained on and tested with, in DTD, "):
        find_sets(replace(toy, **lists, ood=(f"DTD={tmp_path / 'toy/image'}",)))


@pytest.fixture
def official(tmp_path: Path) -> SetOptions:
    root = tmp_path / "Dataset"
    write_images(root / "Train/DUTS-TR/Image", root / "Train/DUTS-TR/GT", ("p", "q", "r"), (0, 100, 255))
    write_images(root / "Test/ECSSD/Image", root / "Test/ECSSD/GT", ("s",))
    write_images(root / "Test/DTD_Texture_500/Image", None, ("v",))
    (root / "DUTS-TR-Train.txt").write_text("r\np\n")
    (root / "DUTS-TR-Validation.txt").write_text("q\n")
    return SetOptions(official=str(root), raw=True)


def test_the_official_layout_with_further_sets(official: SetOptions, toy: SetOptions, tmp_path: Path) -> None:
    further = tmp_path / "further"
    sets = find_sets(
        replace(
            official, tests=(f"X={further / 'image'}",), test_masks=(f"X={further / 'gt'}",),
            ood=(f"more={tmp_path / 'texture'}",),
        )
    )  # fmt: skip
    assert uses(sets) == ("pr", "q", {"ECSSD": "s", "X": "ay"}, {"DTD_Texture_500": "v", "more": "tu"})
    assert [each.raw for each in (sets.training, sets.validation, *sets.tests)] == [True] * 4
    assert not find_sets(replace(official, raw=False)).training.raw


@pytest.mark.parametrize(
    ("given", "option"),
    [
        ({"images": "a"}, "--images"),
        ({"masks": "a"}, "--masks"),
        ({"train_list": "a"}, "--train-list"),
        ({"validation_list": "a"}, "--val-list"),
        ({"test_list": "a"}, "--test-list"),
        ({"classes": 2, "raw": False}, "--num-classes"),
        ({"coding": {"gt_threshold": 0}}, "--gt-threshold"),
        ({"coding": {"void_values": (0,)}}, "--void-value"),
        ({"coding": {"ignore_index": (0,)}}, "--ignore-index"),
        ({"coding": {"reduce_zero_label": True}}, "--reduce-zero-label"),
    ],
)
def test_the_official_layout_leaves_no_choice(official: SetOptions, given: dict[str, Any], option: str) -> None:
    empty = {"gt_threshold": None, "void_values": (), "ignore_index": (), "reduce_zero_label": False, "label_map": None}
    assert len(find_sets(replace(official, coding=empty)).training) == 2
    with pytest.raises(OptionError, match=f"--official says which .* it does not go with {option}$"):
        find_sets(replace(official, **given))


def test_copies_of_training_pictures_among_test_pictures_are_named(toy: SetOptions, tmp_path: Path) -> None:
    further, given = tmp_path / "further", {"tests": (f"X={tmp_path / 'further/image'}",)}
    options = replace(toy, **given, test_masks=(f"X={further / 'gt'}",))
    shutil.copyfile(tmp_path / "toy/image/c.png", further / "image" / "y.png")
    Image.new("RGB", (12, 10), "blue").save(further / "image" / "a.png")
    [line] = find_sets(options).copies()
    assert line.startswith("1 of 2 pictures of X are copies of pictures that are trained on or validated with")
    assert f"{further / 'image/y.png'} is {tmp_path / 'toy/image/c.png'}" in line
    (further / "image" / "y.png").write_bytes(b"of another size")
    assert find_sets(replace(toy)).copies() == []


def test_what_draws_validation_images_goes_with_no_list_of_them(
    toy: SetOptions, official: SetOptions, named: Callable[[str], str]
) -> None:
    for given in ({"validation_share": 0.5}, {"split_seed": 1}):
        with pytest.raises(OptionError, match="--val-list names the validation images"):
            find_sets(replace(toy, validation_list=named("cb"), **given))
        with pytest.raises(OptionError, match="--official says"):
            find_sets(replace(official, **given))
    assert len(find_sets(replace(toy, validation_share=0.5)).validation) == 4


def test_a_label_map_is_read_from_its_file(tmp_path: Path) -> None:
    write_images(tmp_path / "image", tmp_path / "gt", NAMES, (7, 200, 9))
    (tmp_path / "map.json").write_text(json.dumps({"7": 0, "9": 1, "200": "ignore"}))
    options = SetOptions(
        str(tmp_path / "image"), str(tmp_path / "gt"), classes=2, coding={"label_map": str(tmp_path / "map.json")}
    )
    coding = find_sets(options).training.coding
    assert coding is not None
    target, valid = coding.apply(np.array([[7, 200, 9]], np.uint8), Path("a.png"))
    assert (target.tolist(), valid.tolist()) == ([[0, 0, 1]], [[True, False, True]])
    with pytest.raises(FormatError, match=r"none.json"):
        find_sets(replace(options, coding={"label_map": str(tmp_path / "none.json")}))
