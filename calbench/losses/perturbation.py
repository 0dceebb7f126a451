"""Label perturbation: whole label maps moved towards their opposite, at random or in the mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from calbench.errors import OptionError, ShapeError
from calbench.losses.loss import Pixels, check_choice, check_range, checked_target, one_hot

MAX_BETA = 2.0
"""β beyond which perturbed labels leave [0, 1]."""
NOISE = 0.25
"""Largest noise of dynamic moderation, in the units of b = β/2."""


class Kind(NamedTuple):
    """A named perturbation.

    Attributes:
        meaning: one line.
        beta, alpha: defaults.
        random: whether images are drawn; else every label is replaced by its mean over the draws.
        noisy: whether the strength varies from pixel to pixel.
    """

    meaning: str
    beta: float
    alpha: float = 0.05
    random: bool = True
    noisy: bool = False


KINDS = {
    "hi": Kind("hard inversion: the opposite label", 2.0),
    "si": Kind("soft inversion: the opposite label, softened", 1.5),
    "m": Kind("moderation: half and half", 1.0),
    "dm": Kind("dynamic moderation: half and half with noise", 1.0, noisy=True),
    "ls": Kind("label smoothing: every image, a little", 0.05, alpha=1.0, random=False),
}
"""The perturbations of the paper, by name."""


def uniform_share(beta: float, n_classes: int) -> float:
    """w = βC / (2(C − 1)): the share of a perturbed label that is uniform; β of two classes, C / (C − 1) at β = 2.

    >>> uniform_share(1.5, 2), uniform_share(2.0, 4)
    (1.5, 1.3333333333333333)
    """
    return beta * n_classes / (2 * (n_classes - 1))


class LabelPerturbation(nn.Module):
    """Replaces the label maps of random images by perturbed ones.

    Of an image with u < α, u ~ U(0, 1), the whole map y becomes P_β(y) = (1 − β) y + β/2; else it stays.

    | kind | β   | y = 0 becomes | y = 1 becomes |
    |------|-----|---------------|---------------|
    | hi   | 2   | 1             | 0             |
    | si   | 1.5 | 0.75          | 0.25          |
    | m    | 1   | 0.5           | 0.5           |
    | dm   | 1   | 0.5 ± 0.25    | 0.5 ± 0.25    |
    | ls   | any | β/2           | 1 − β/2       |

    *Strength.* β is the paper's. The official code has b = β/2, P(y) = (1 − 2b) y + b, but takes its own default of 2 for b:
    the released setting is β = 4 here, with labels 2 and −1 and a loss without a lower bound; it needs `unbounded`.

    *Several classes.* With the distributions (1 − y, y) and u = (1/2, 1/2) the binary rule is P(q) = (1 − β) q + βu: it takes
    β/2 from the true class and gives it to the other. Of C classes it takes β/2 from the true class, too, and shares it
    equally among the others: P(q) = (1 − w) q + w/C with w = βC / (2(C − 1)), since the true class then keeps
    1 − w(C − 1)/C = 1 − β/2 and each other one gets w/C = β / (2(C − 1)). C = 2 gives the binary rule, w = β. β = 2 leaves
    nothing to the true class; the uniform distribution is β = 2(C − 1)/C, so that `m` (β = 1) leaves one half to the true
    class whatever C is. The official code has binary maps only; the form of several classes is derived here.

    *Mean.* E[P] = (1 − αβ) y + αβ/2, of C classes (1 − αw) q + αw/C: the mean gradient depends on αβ only. Kind `ls` uses this
    in place of draws; with α = 1 it is label smoothing of strength β.

    *Noise.* Kind `dm` has β + 2ε in place of β at every pixel, ε normal with standard deviation 1, cut to ±0.25. The official
    code adds ε to the perturbed map, which is the same in distribution for labels 0 and 1, since ε is symmetric.

    Args:
        kind: "hi", "si", "m", "dm" or "ls".
        beta: strength in (0, 2]; None: that of the kind. Kind `dm`: 0.5 to 1.5, which the noise keeps within 0 to 2.
        alpha: probability that an image is perturbed, in [0, 1]; None: 0.05, and 1 of kind `ls`. No value is published.
        n_classes: 1 of binary maps, else C.
        unbounded: allow any beta above 0.

    Raises:
        UnknownName: another kind.
        OptionError: an option outside its range.

    Reference: Liu et al., ICCV 2023 (arXiv:2307.13539).

    >>> y = torch.tensor([0.0, 1.0]).reshape(1, 1, 1, 2)
    >>> perturb = LabelPerturbation("si", alpha=0.1)
    >>> perturb(y, u=torch.tensor([0.05])).flatten(), perturb(y, u=torch.tensor([0.5])).flatten()
    (tensor([0.7500, 0.2500]), tensor([0., 1.]))
    >>> perturb.expected(y).flatten()
    tensor([0.0750, 0.9250])
    """

    def __init__(
        self,
        kind: str = "hi",
        *,
        beta: float | None = None,
        alpha: float | None = None,
        n_classes: int = 1,
        unbounded: bool = False,
    ) -> None:
        super().__init__()
        check_choice("label perturbation", kind, KINDS)
        default = KINDS[kind]
        self.kind = kind
        self.beta = default.beta if beta is None else beta
        self.alpha = default.alpha if alpha is None else alpha
        self.n_classes = n_classes
        noise = 2 * NOISE if default.noisy else 0.0
        if not self.beta > 0 or not (unbounded or noise <= self.beta <= MAX_BETA - noise):
            raise OptionError(
                f"beta of {kind!r} is {self.beta:g}; expected {f'{noise:g}' if noise else 'above 0'} to {MAX_BETA - noise:g}, "
                "so that labels stay in [0, 1] (beta is twice the b of the official code)"
            )
        check_range("alpha", self.alpha, 0, 1)
        check_range("n_classes", n_classes, 1)

    @property
    def b(self) -> float:
        """The strength in the scale of the official code, β/2."""
        return self.beta / 2

    def forward(
        self,
        target: Tensor,
        alpha: Tensor | None = None,
        *,
        valid: Tensor | None = None,
        u: Tensor | None = None,
        generator: Generator | Sequence[Generator] | None = None,
    ) -> Tensor:
        """The labels to train on.

        Args:
            target: binary: `(N, 1, H, W)` float. Several classes: `(N, H, W)` int64 labels, or `(N, C, H, W)` float.
            alpha: `(N,)`, of each image; None: that of the module.
            valid: `(N, H, W)` bool; labels of void pixels may be out of range. None: all are valid.
            u: `(N,)` numbers in [0, 1) that decide; None: from `generator`.
            generator: where u, if not given, and then the noise of `dm` come from: one for the batch, or one for each image,
                so that an image's draws do not depend on the batch it is in.
        Returns:
            Float labels, `(N, 1, H, W)` or `(N, C, H, W)`.
        Raises:
            ShapeError: a target, alpha or u of another shape.
            OptionError: draws are needed and there is no generator.
        """
        if not KINDS[self.kind].random:
            return self.expected(target, alpha, valid=valid)
        labels = self._probabilities(target, valid)
        alphas = self._alphas(labels, alpha)
        generators = _of_images(generator, len(labels))
        if u is None:
            u = torch.cat([torch.rand(1, generator=one, device=one.device) for one in _needed(generators)])
        chosen = _column(u, len(labels), "u").to(alphas.device) < alphas
        if not KINDS[self.kind].noisy:
            return torch.where(chosen, self.perturbed(labels), labels)
        noise = labels.new_zeros(len(labels), 1, *labels.shape[2:])
        for i in chosen.flatten().nonzero().flatten().tolist():
            noise[i] = truncated_normal(noise[i].shape, _needed(generators)[i]).to(noise)
        return torch.where(chosen, self._moved(labels, noise), labels)

    def perturbed(self, target: Tensor, *, valid: Tensor | None = None) -> Tensor:
        """P_β of every image, without noise."""
        return self._moved(self._probabilities(target, valid), 0.0)

    def expected(self, target: Tensor, alpha: Tensor | None = None, *, valid: Tensor | None = None) -> Tensor:
        """The mean over the draws: (1 − αβ) y + αβ/2 of binary maps, (1 − αw) q + αw/C of several classes."""
        labels = self._probabilities(target, valid)
        alphas = self._alphas(labels, alpha)
        return (1 - alphas) * labels + alphas * self._moved(labels, 0.0)

    def gradient(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Slope of the mean loss of each image in its α, `(N,)`: CE(z, P_β(y)) − CE(z, y).

        It is b·mean[(2y − 1) z] over the valid pixels, the signed mean logit: positive of an image that is fitted. Of several
        classes w·mean[Σ_k (q_k − 1/C) z_k]. The official code computes mean[(2y − 1) z] from sigmoids that are clipped to
        [1e-7, 1 − 1e-7], which caps |z| at 16.1, and divides by b where the slope is b times as large.

        Args:
            logits, target, valid: as in `Loss.forward`; the target is not perturbed.
        """
        with torch.no_grad():
            pixels = Pixels.of(logits, target, valid)
            margin = pixels.expect(pixels.logits) - pixels.logits.mean(1)
            return uniform_share(self.beta, pixels.n_classes) * pixels.mean_by_image(margin)

    def _moved(self, labels: Tensor, noise: Tensor | float) -> Tensor:
        """(1 − w) q + w/C with the strength β + 2ε."""
        n_classes = max(2, self.n_classes)
        share = uniform_share(1.0, n_classes) * (self.beta + 2 * noise)
        return (1 - share) * labels + share / n_classes

    def _probabilities(self, target: Tensor, valid: Tensor | None) -> Tensor:
        labels = target.ndim == 3 and self.n_classes > 1
        if not labels and (target.ndim != 4 or target.shape[1] != self.n_classes):
            raise ShapeError(
                f"the target has shape {tuple(target.shape)}; expected float (N, {self.n_classes}, H, W), or labels (N, H, W) "
                "of two classes or more; is n_classes right?"
            )
        target = checked_target(target, self.n_classes, valid)
        if labels:
            return one_hot(target, self.n_classes)
        return target if target.dtype == torch.float64 else target.float()

    def _alphas(self, labels: Tensor, alpha: Tensor | None) -> Tensor:
        """α of each image, `(N, 1, 1, 1)`."""
        if alpha is None:
            return labels.new_full((len(labels), 1, 1, 1), self.alpha)
        return _column(alpha, len(labels), "alpha").to(labels)


def truncated_normal(shape: Sequence[int], generator: Generator) -> Tensor:
    """Normal noise with standard deviation 1, cut to ±0.25, which is almost uniform; by inverting the distribution function.

    >>> noise = truncated_normal((100, 100), torch.Generator().manual_seed(0))
    >>> bool(noise.abs().max() <= 0.25), round(float(noise.std()), 2)
    (True, 0.14)
    """
    uniform = torch.rand(tuple(shape), dtype=torch.float64, generator=generator, device=generator.device)
    low, high = torch.special.ndtr(torch.tensor([-NOISE, NOISE], dtype=torch.float64)).tolist()
    return torch.special.ndtri(low + (high - low) * uniform)


def _column(values: Tensor, n_images: int, what: str) -> Tensor:
    if values.shape != (n_images,):
        raise ShapeError(
            f"{what} has shape {tuple(values.shape)}; expected one number for each of the {n_images} images"
        )
    return values.reshape(-1, 1, 1, 1)


def _of_images(generator: Generator | Sequence[Generator] | None, n_images: int) -> Sequence[Generator] | None:
    if generator is None:
        return None
    generators = [generator] * n_images if isinstance(generator, Generator) else generator
    if len(generators) != n_images:
        raise ShapeError(f"there are {len(generators)} generators for {n_images} images; expected one, or one for each")
    return generators


def _needed(generators: Sequence[Generator] | None) -> Sequence[Generator]:
    if generators is None:
        raise OptionError("label perturbation draws at random; hand in a generator")
    return generators
