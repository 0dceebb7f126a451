"""What a training run can be trained with: a loss, and what is done to labels, images and α on the way; one line each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from calbench.errors import OptionError, UnknownName
from calbench.losses import LOSSES, LabelPerturbation, Loss
from calbench.training.adaptive import AdaptiveRule

ASLP = "Liu et al., ICCV 2023 (arXiv:2307.13539)"
OFFICIAL_BETA = 4.0
"""β of the released setting, whose b of 2 is in half the paper's scale; labels become 2 and −1."""
BEST = "best"


@dataclass(frozen=True)
class Recipe:
    """A method with its parameters, ready to train.

    Attributes:
        loss: of logits and labels.
        perturbation: of the labels, or None.
        rule: by which α adapts, or None: it is constant.
        reference: of mei: "best" for the running best, an accuracy, or the checkpoint of a frozen model.
        mixup: α of the Beta distribution that images are mixed by, or None.
        notes: what the user should know about these parameters.
    """

    loss: Loss
    perturbation: LabelPerturbation | None = None
    rule: AdaptiveRule | None = None
    reference: str | float = BEST
    mixup: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Method:
    """A way to train.

    Attributes:
        name: on the command line and in every table.
        summary: what sets it apart, one line.
        source: one reference.
        loss: of `LOSSES`.
        own: parameters beside those of the loss, with their defaults; None: chosen from the others.
    """

    name: str
    summary: str
    source: str
    loss: str = "bce"
    own: tuple[tuple[str, Any], ...] = ()

    @property
    def parameters(self) -> dict[str, Any]:
        """Every parameter with its default."""
        known = {
            name: item.default
            for name, item in signature(LOSSES[self.loss]).parameters.items()
            if item.kind is Parameter.KEYWORD_ONLY
        }
        return {**known, **dict(self.own)}

    def build(self, options: Mapping[str, Any], *, classes: int = 1, official: bool = False) -> Recipe:
        """The method with these parameters.

        Args:
            options: those that differ from the defaults.
            classes: of the logits; 1 of binary maps.
            official: follow the official ASLP code where it differs: λ = 2000, g/b, and β = 4 unless kind or beta is given.
        Raises:
            UnknownName: a parameter the method does not have.
            OptionError: a value of the wrong type or out of its range, or a loss or rule that these classes do not have.
        """
        for name in options:
            if name not in self.parameters:
                raise UnknownName(f"parameter of {self.name!r}", name, self.parameters or ["none"])
            _check_type(self.name, name, options[name], self.parameters[name])
        values = {**self.parameters, **options}
        own = {name: values.pop(name) for name, _ in self.own}
        kind = LOSSES[self.loss]
        if classes == 1 and not kind.binary:
            raise OptionError(
                f"{self.name} needs several classes: a binary map has one logit a pixel; say --num-classes 2"
            )
        try:
            loss = kind(**values)
            if "kind" in own:
                beta = OFFICIAL_BETA if official and not options.keys() & {"kind", "beta"} else own["beta"]
                perturbation = LabelPerturbation(
                    own["kind"], beta=beta, alpha=own.get("alpha", 0.0), n_classes=classes, unbounded=official
                )
                if "eta" in own:
                    return _adaptive(self.name, loss, perturbation, own, official)
                return Recipe(loss, perturbation)
            if "mixup" in own and not own["mixup"] > 0:
                raise OptionError(f"mixup is {own['mixup']}; expected a number above 0, alpha of a Beta distribution")
        except TypeError as error:
            raise OptionError(f"a parameter of {self.name!r} is of the wrong type: {error}") from error
        return Recipe(loss, mixup=own.get("mixup"))


def _adaptive(name: str, loss: Loss, perturbation: LabelPerturbation, own: Mapping[str, Any], official: bool) -> Recipe:
    if official and perturbation.n_classes > 1:
        raise OptionError(
            f"the official rule of {name} is for binary maps, but there are {perturbation.n_classes} classes; leave out "
            "--profile aslp or --num-classes"
        )
    reference = own.get("reference", BEST)
    if reference != BEST and not (
        _is_accuracy(reference) or (isinstance(reference, str) and Path(reference).is_file())
    ):
        raise OptionError(f"reference is {reference!r}; expected {BEST!r}, an accuracy in [0, 1], or a checkpoint file")
    lam = float("nan") if own["lambda"] is None else own["lambda"]
    rule = AdaptiveRule(
        "mei" if name == "aslp-mei" else "mc", perturbation.b, own["eta"], lam, own["start"], official=official
    )
    notes = []
    if rule.oscillates:
        effect = (
            "alpha does not settle, but swings around its target"
            if rule.kind == "mc"
            else "a small loss of accuracy takes all alpha away"
        )
        notes.append(
            f"{name}: eta x lambda x b is {rule.eta * rule.lam * rule.b:g}; from 2 on {effect}; "
            f"lambda = {1 / (rule.eta * rule.b):g} makes it 1"
        )
    return Recipe(loss, perturbation, rule, reference, notes=tuple(notes))


def _check_type(method: str, name: str, value: Any, default: Any) -> None:
    """Raises OptionError for a value that is not of the kind of its default; None stands for a number."""
    if isinstance(default, str):
        return  # names are looked up where they are used
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if value is None and default is None:
        return
    if not number or (isinstance(default, int) and not float(value).is_integer()):
        kind = "a whole number" if isinstance(default, int) else "a finite number"
        raise OptionError(f"parameter {name} of {method!r} is {value!r}; expected {kind}")


def _is_accuracy(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


_PERTURBED = (("kind", "hi"), ("beta", None))
_ADAPTED = (*_PERTURBED, ("eta", 0.002), ("lambda", None), ("start", 5))

METHODS = {
    method.name: method
    for method in (
        Method("bce", "cross-entropy: the uncalibrated baseline", LOSSES["bce"].source),
        Method("ls", "label smoothing of every image", LOSSES["ls"].source, "ls"),
        Method("slp", "whole label maps perturbed at random, with one alpha", ASLP, own=(*_PERTURBED, ("alpha", None))),
        Method("aslp-mc", "alpha of each image adapts: as much as keeps confidence above accuracy", ASLP, own=_ADAPTED),
        Method("aslp-mei", "alpha of each image adapts: as much entropy as accuracy allows", ASLP,
               own=(*_ADAPTED, ("reference", BEST))),
        Method("sc-bce", "self-calibrating cross-entropy: slp in the mean over its draws", ASLP, "sc_bce"),
        Method("brier", "squared error of the probabilities", LOSSES["brier"].source, "brier"),
        Method("focal", "focal loss", LOSSES["focal"].source, "focal"),
        Method("flsd", "focal loss whose gamma depends on the probability", LOSSES["flsd"].source, "flsd"),
        Method("mmce", "cross-entropy with a kernel calibration error", LOSSES["mmce"].source, "mmce"),
        Method("mmce-weighted", "the same, right and wrong pixels weighted", LOSSES["mmce_weighted"].source,
               "mmce_weighted"),
        Method("entropy", "cross-entropy with a reward for entropy", LOSSES["entropy"].source, "entropy"),
        Method("l1", "cross-entropy with an L1 penalty towards the uniform", LOSSES["l1"].source, "l1"),
        Method("margin", "margin-based label smoothing (MbLS)", LOSSES["margin"].source, "margin"),
        Method("mdca", "cross-entropy with the calibration error of a batch", LOSSES["mdca"].source, "mdca"),
        Method("logit-norm", "cross-entropy of normalised logits", LOSSES["logit_norm"].source, "logit_norm"),
        Method("mixup", "averages of two images and their labels", "Thulasidasan et al., NeurIPS 2019 (arXiv:1905.11001)",
               own=(("mixup", 0.2),)),
    )
}  # fmt: skip
"""Every method by name, in the order of the documentation."""


def method_named(name: str) -> Method:
    """The method of this name.

    Raises:
        UnknownName: there is none.
    """
    if name not in METHODS:
        raise UnknownName("method", name, METHODS)
    return METHODS[name]
