"""Meta-Cal for dense maps: temperature for pixels of low entropy, a flat confidence for the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import entr, softmax

from calbench.calibrators.calibrator import BLOCK, Calibrator, Pixels, keep_class, one_map, two_class
from calbench.calibrators.temperature import Temperature
from calbench.errors import InputError, OptionError
from calbench.statistics.rows import Array

if TYPE_CHECKING:
    from torch import Tensor, nn

DECIMALS = 9
"""Entropies this close, in nats, are one: rounding must not part the pixels of one 8-bit level."""


class MetaCal(Calibrator):
    """Temperature where the entropy is small; where it is not, every class gets the probability 1 / C.

    H = −Σ p ln p of p = softmax(z), in nats, 0 ln 0 = 0. H < θ: softmax(z / T); H >= θ: 1 / C. Binary maps go through it
    as two classes: 1 / 2.

    θ is chosen on the fitting data by Meta-Cal's own constraint, the miscoverage: the smallest θ that flattens at most
    that share of the rightly predicted pixels, midway between two entropies that occur. (The rule of the segmentation
    study is not known; a proper score would hardly ever flatten a pixel.) T is then fitted as in the study by maximum
    likelihood to pixels of H < θ: all wrong ones, and of the right ones, in the order given, a run of one half that
    starts at random within the first third.

    When it cannot help: with the class kept, a flat confidence is calibrated only if pixels of high entropy are right once in
    C times. They are right more often, mostly, and the ECE rises; `notes_` say so. θ and T serve all classes, those
    absent from the fitting data included.

    Args:
        threshold: θ in nats; None: chosen by `miscoverage`.
        miscoverage: largest share of right pixels to flatten, in [0, 1).
        keep_class: whether a flattened pixel keeps its class, by the smallest possible lead. False: as in the study, whose
            flat logits are all one, the class becomes the first one (of binary maps, background).
        seed: of the run of right pixels.

    Attributes:
        temperature_: T.
        threshold_: θ, nats.
        summary_: also how θ was chosen (`threshold_rule`), the shares of all pixels and of the right ones that are flattened,
            and the pixels that T was fitted to.

    Reference: Ma & Blaschko, ICML 2021 (arXiv:2105.04290); Wang et al., CVPR 2023 (arXiv:2212.12053).

    >>> z = np.random.default_rng(0).normal(size=(1000, 3)) * 4
    >>> y = (z + np.random.default_rng(1).gumbel(size=z.shape) * 2).argmax(1)  # T = 2
    >>> fitted = MetaCal(miscoverage=0.1).fit(z, y)
    >>> fitted.summary_["miscoverage"] <= 0.1, fitted.transform(np.zeros((1, 3))).round(4).tolist()
    (True, [[0.3333, 0.3333, 0.3333]])
    """

    name = "meta_cal"
    definition = "p = softmax(z / T) where the entropy of softmax(z) is below θ, else 1 / C"
    source = "Ma & Blaschko, ICML 2021, arXiv:2105.04290; as in Wang et al., CVPR 2023, arXiv:2212.12053"
    keeps_class = True  # unless keep_class=False asks for another one
    by_image = True  # the run of right pixels is one of pixels, not of levels
    learned = ("temperature_", "threshold_")

    temperature_: float
    threshold_: float

    def __init__(
        self, *, threshold: float | None = None, miscoverage: float = 0.05, keep_class: bool = True, seed: int = 0
    ) -> None:
        self.threshold = threshold
        self.miscoverage = miscoverage
        self.keep_class = keep_class
        self.seed = seed

    def n_parameters(self, n_classes: int) -> int:
        """T, and θ if it is chosen."""
        del n_classes
        return 2 if self.threshold is None else 1

    def to_torch(self) -> nn.Module:
        """See `Calibrator.to_torch`."""
        from calbench.calibrators.modules import PixelModule

        self._refuse_unfitted()
        return PixelModule(type(self), self.state() | {"keep_class": np.array(self.keep_class)}, self.n_classes_)

    def _fit(self, pixels: Pixels) -> None:
        if not 0 <= self.miscoverage < 1:
            raise OptionError(
                f"miscoverage is {self.miscoverage}; expected the share of right pixels to flatten, in [0, 1)"
            )
        binary = pixels.logits.ndim == 1
        right = (pixels.logits >= 0 if binary else pixels.logits.argmax(1)) == pixels.target
        if not right.any():
            raise InputError(
                f"{self.name}: all {len(right):,} predictions are wrong; expected some right ones; do logits and truth number "
                "the classes alike?"
            )
        entropy = _entropies(pixels.logits)
        if self.threshold is None:
            self.threshold_ = _threshold(entropy, pixels.weight * right, self.miscoverage)
            rule = f"at most {self.miscoverage:.4g} of the right pixels flattened"
        else:
            self.threshold_, rule = float(self.threshold), "given"
        flat = entropy >= self.threshold_
        chosen = np.where(right, _run(pixels.weight * right, self.seed), pixels.weight) * ~flat
        at = np.flatnonzero(chosen)
        if len(np.unique(pixels.target[at])) < 2:
            raise InputError(
                f"{self.name}: the {len(at):,} fitting pixels with an entropy below {self.threshold_:.4g} nats show fewer "
                "than two classes; give a larger threshold, or fit on more images"
            )
        fitted = Temperature().fit(pixels.logits[at], pixels.target[at], chosen[at])
        self.temperature_ = fitted.temperature_
        self.notes_ += fitted.notes_
        self.summary_ |= {
            "threshold": self.threshold_,
            "threshold_rule": rule,
            "flattened": float(np.average(flat, weights=pixels.weight)),
            "miscoverage": float(np.average(flat[right], weights=pixels.weight[right])),
            "temperature_pixels": len(at),
        }
        if self.keep_class and flat.any():
            self._judge(two_class(pixels.logits[flat]), right[flat], pixels.weight[flat])

    def _judge(self, z: Array, right: Array, weight: Array) -> None:
        """Say so where flattening takes the confidence away from the accuracy."""
        accuracy = np.average(right, weights=weight)
        before, after = np.average(softmax(np.asarray(z, np.float64), axis=1).max(1), weights=weight), 1 / z.shape[1]
        if abs(after - accuracy) >= abs(before - accuracy):
            self.notes_.append(
                f"flattening does not help here with the class kept: {accuracy:.1%} of the flattened fitting pixels are "
                f"right; their confidence was {before:.1%} and becomes {after:.1%}"
            )

    def _transform(self, logits: Array) -> Array:
        z = two_class(logits)
        p = softmax(z / self.temperature_, axis=1)
        p[_entropies(logits) >= self.threshold_] = 1 / z.shape[1]
        return one_map(p, logits.ndim == 1)

    def _kept(self, p: Array, logits: Array) -> Array:
        """With the class of the logits; else of equal classes the first, as argmax has it: background, below one half."""
        if self.keep_class:
            return keep_class(p, logits)
        return np.where(p == 0.5, np.nextafter(0.5, 0), p) if p.ndim == 1 else p

    @staticmethod
    def torch_forward(logits: Tensor, state: dict[str, Tensor]) -> Tensor:
        """See `Calibrator.torch_forward`."""
        import torch

        from calbench.calibrators import modules

        z = modules.two_class(logits)
        flat = torch.special.entr(torch.softmax(z, dim=1)).sum(1) >= state["threshold_"]
        p, keep = modules.uncalibrated(logits / state["temperature_"]), bool(state["keep_class"])
        if logits.ndim == 1:
            half = torch.full_like(p, 0.5)
            below = torch.nextafter(half, torch.zeros_like(half))
            return torch.where(flat, torch.where((logits >= 0) & keep, half, below), p)
        even = torch.full_like(p, 1 / p.shape[1])
        if keep:
            lead = torch.nextafter(even[:, :1], torch.ones_like(even[:, :1]))
            even = even.scatter(1, logits.argmax(1, keepdim=True), lead)
        return torch.where(flat[:, None], even, p)


def _entropies(logits: Array) -> Array:
    """Entropy of each pixel's probabilities in nats, `(n,)`.

    >>> _entropies(np.array([[0.0, 0.0], [1000.0, 0.0]])).round(4).tolist()
    [0.6931, 0.0]
    """
    out = np.empty(len(logits))
    for start in range(0, len(logits), BLOCK):
        z = two_class(np.asarray(logits[start : start + BLOCK], np.float64))
        out[start : start + BLOCK] = entr(softmax(z, axis=1)).sum(1)
    return out


def _threshold(entropy: Array, weight: Array, share: float) -> float:
    """The smallest threshold at or above which at most that share of the weight lies, midway between entropies.

    >>> _threshold(np.array([0.1, 0.2, 0.3, 0.4]), np.ones(4), 0.25)
    0.35
    """
    values, at = np.unique(np.round(entropy, DECIMALS), return_inverse=True)
    above = np.bincount(at, weight)[::-1].cumsum()[::-1]
    k = int(np.count_nonzero(above > share * above[0]))
    if k == len(values):  # even the largest entropy is that of too many
        return float(values[-1] + 10.0**-DECIMALS)
    return float(values[k - 1] + values[k]) / 2


def _run(weight: Array, seed: int) -> Array:
    """What lies of each weight within one half of their sum, from a random start in the first third, `(n,)`.

    >>> run = _run(np.ones(6), seed=0)
    >>> float(run.sum()), bool(run[0] < 1), float(run[5])
    (3.0, True, 0.0)
    """
    end = weight.cumsum()
    start = np.random.default_rng(seed).uniform(0, 1 / 3) * end[-1]
    return np.clip(np.minimum(end, start + end[-1] / 2) - np.maximum(end - weight, start), 0, None)
