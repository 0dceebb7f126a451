"""How the perturbation probability α of each training image adapts: ASLP_MC and ASLP_MEI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from calbench.errors import OptionError, UnknownName
from calbench.losses.loss import Pixels
from calbench.losses.perturbation import LabelPerturbation

Kind = Literal["mc", "mei"]

KINDS = {"mc": "maximum calibration", "mei": "maximum entropy increase"}
CLAMP = 1e-7
"""Where the official code cuts sigmoids off."""
MARGIN = 0.01
"""How far below its bound the official code resets an α that reached it."""
OFFICIAL_LAMBDA = 2000.0
UNSTABLE = 2.0
"""ηλb from which on an α that exceeds its target is thrown further below it than it was above."""


@dataclass(frozen=True)
class AdaptiveRule:
    """Moves α of an image once a visit: up its gradient, and back where the accuracy constraint is broken.

    With b = β/2, g the mean signed logit of the image and acc the last validation accuracy,

        α ← clip(α + η·(b·g + λ·R), 0, min(1, 1/(2b)))

        mc:  R = min((1 − acc) − b·α, 0): the target's confidence 1 − αβ/2 stays above accuracy, image by image
        mei: R = min(acc − reference, 0), the same for all images: accuracy does not fall below a reference's

    b·g = BCE(P_β(y)) − BCE(y) is the slope of the mean loss in α: images that are fitted best are perturbed most.

    *Step.* An excess d = bα − (1 − acc) of mc becomes (1 − ηλb) d + ηb²g: by default λ = 1/(ηb), which removes it at once;
    from ηλb = 2 on α oscillates instead of settling. bα settles at 1 − acc, or up to ηb²g above it.

    *Official code.* It divides by b where the slope is b times as large; the two agree at b = 1 only. It has η = 0.002 and
    λ = 2000, ηλ = 4, so that α saw-tooths; its sigmoids are cut off at 1e-7; an α at or above 1/(2b) is set to
    1/(2b) − 0.01. Only mc is published, and of the reference accuracy of mei no definition is: the running best and a
    frozen model are the readings offered here.

    Args:
        kind: "mc" or "mei".
        b: strength of the perturbation, β/2.
        eta: η, step of the update.
        lam: λ, weight of the constraint; NaN: 1/(ηb), or 2000 of the official code.
        start: epochs before α moves, at least 1, as accuracy is not known before.
        official: follow the official code, bit for bit.
    Raises:
        UnknownName: another kind.
        OptionError: a number out of its range.

    Reference: Liu et al., ICCV 2023 (arXiv:2307.13539).

    >>> rule = AdaptiveRule("mc", b=1.0)
    >>> round(rule.lam, 6), rule.oscillates
    (500.0, False)
    >>> rule.updated(torch.tensor([0.01, 0.2]), torch.tensor([1.375, 1.375]), accuracy=0.95)
    tensor([0.0127, 0.0527])
    """

    kind: Kind
    b: float
    eta: float = 0.002
    lam: float = float("nan")
    start: int = 5
    official: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UnknownName("adaptive rule", self.kind, KINDS)
        if not 0 < self.eta < float("inf"):
            raise OptionError(f"eta is {self.eta}; expected a number above 0")
        if not self.start >= 1:
            raise OptionError(f"start is {self.start}; alpha moves after 1 epoch at least, when accuracy is known")
        if self.lam != self.lam:
            object.__setattr__(self, "lam", OFFICIAL_LAMBDA if self.official else 1 / (self.eta * self.b))
        if not 0 <= self.lam < float("inf"):
            raise OptionError(f"lambda is {self.lam}; expected a number of 0 or more")

    @property
    def oscillates(self) -> bool:
        """Whether ηλb is so large that α does not settle."""
        return self.eta * self.lam * self.b >= UNSTABLE

    @property
    def bound(self) -> float:
        """The largest α: that at which the target's confidence is one half, and no more than a probability can be."""
        return 1 / (2 * self.b) if self.official else min(1.0, 1 / (2 * self.b))

    def slope(
        self, perturbation: LabelPerturbation, logits: Tensor, target: Tensor, valid: Tensor | None = None
    ) -> Tensor:
        """What α climbs along, of each image, `(N,)`: b·g, or g/b of the official code.

        Args:
            perturbation: of the labels.
            logits, target, valid: of the batch, as in `Loss.forward`; the target is not perturbed.
        """
        if not self.official:
            return perturbation.gradient(logits, target, valid)
        with torch.no_grad():
            mean = Pixels.of(logits, target, valid).mean_by_image
            s = logits.float().sigmoid().clamp(CLAMP, 1 - CLAMP)
            cross_entropy = mean((-target * s.log() - (1 - target) * (1 - s).log())[:, 0])
            return (mean(-(s * (1 - s)).log()[:, 0]) - 2 * cross_entropy) / self.b

    def updated(self, alpha: Tensor, slope: Tensor, *, accuracy: float, reference: float = 0.0) -> Tensor:
        """α of the images after a visit, `(N,)`.

        Args:
            alpha: before, `(N,)`.
            slope: of `slope`, `(N,)`.
            accuracy: pixel accuracy of the last validation, in [0, 1].
            reference: accuracy that mei holds it against.
        """
        excess = ((1 - accuracy) - self.b * alpha).clamp(max=0) if self.kind == "mc" else min(accuracy - reference, 0.0)
        moved = alpha + self.eta * (slope + self.lam * excess)
        if self.official:
            return torch.where(moved >= self.bound, self.bound - MARGIN, moved.clamp(min=0))
        return moved.clamp(0, self.bound)
