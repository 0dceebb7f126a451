"""What a loss is: logits, a target and a mask in, one number out; and the pixels that every loss is computed from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from calbench.errors import OptionError, RangeError, ShapeError, UnknownName

REDUCTIONS = ("sum", "mean")


@dataclass(frozen=True, eq=False)
class Pixels:
    """A batch, checked, in one form for binary maps and several classes; void pixels hold zeros.

    A binary map with logit z and target y has the two classes background and foreground, with the logits ∓z/2 and the
    probabilities (1 − y, y): their softmax is (1 − σ(z), σ(z)), so that one formula serves both.

    Attributes:
        logits: `(N, C, H, W)`, C >= 2; float64 if they came so, else float32.
        target: `(N, H, W)` int64 labels, or `(N, C, H, W)` probabilities.
        valid: `(N, H, W)` bool, or None: all pixels.
        binary: whether the logits came as `(N, 1, H, W)`.
        generator: where a sample of the pixels is drawn from, or None: the same sample every time.
    """

    logits: Tensor
    target: Tensor
    valid: Tensor | None
    binary: bool
    generator: Generator | None = None

    @classmethod
    def of(
        cls, logits: Tensor, target: Tensor, valid: Tensor | None = None, generator: Generator | None = None
    ) -> Pixels:
        """The pixels of a batch; the arguments are those of `Loss.forward`.

        Void pixels are replaced by zeros rather than multiplied by them, so that neither a NaN there nor a target of 255 or
        −1 reaches the loss or its gradient.

        Raises:
            ShapeError: shapes or kinds of numbers that do not go together.
            RangeError: a label outside 0 … C − 1 at a valid pixel.
        """
        if logits.ndim != 4 or logits.numel() == 0 or not logits.is_floating_point():
            raise ShapeError(
                f"the logits are {_described(logits)}; expected floats (N, 1, H, W) of binary maps, or (N, C, H, W) of C "
                "classes"
            )
        n_images, n_classes, height, width = logits.shape
        labels = (n_images, height, width)
        if target.shape != logits.shape and (n_classes == 1 or target.shape != labels):
            raise ShapeError(
                f"the target is {_described(target)}; logits {tuple(logits.shape)} go with float probabilities of the same "
                "shape" + ("" if n_classes == 1 else f", or int64 labels {labels}")
            )
        target = checked_target(target, n_classes, valid)
        z = logits if logits.dtype == torch.float64 else logits.float()
        if valid is not None:
            z = z.masked_fill(~valid[:, None], 0)
        if target.is_floating_point():
            target = target.to(z.dtype)
        if n_classes == 1:
            z, target = torch.cat([-z / 2, z / 2], dim=1), torch.cat([1 - target, target], dim=1)
        return cls(z, target, valid, n_classes == 1, generator)

    @property
    def n_classes(self) -> int:
        """Classes; 2 of binary maps."""
        return self.logits.shape[1]

    @cached_property
    def log_p(self) -> Tensor:
        """Log-probabilities, `(N, C, H, W)`, nats."""
        return self.logits.log_softmax(dim=1)

    @cached_property
    def p(self) -> Tensor:
        """Probabilities, `(N, C, H, W)`."""
        return self.log_p.exp()

    @cached_property
    def q(self) -> Tensor:
        """The target as probabilities, `(N, C, H, W)`."""
        return self.target if self.target.ndim == 4 else one_hot(self.target, self.n_classes).to(self.logits.dtype)

    def expect(self, of_class: Tensor) -> Tensor:
        """Σ_k q_k f_k: the value of `(N, C, H, W)` at the target class, or its mean under soft labels; `(N, H, W)`."""
        if self.target.ndim == 3:
            return of_class.gather(1, self.target[:, None]).squeeze(1)
        return (self.target * of_class).sum(1)

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the valid pixels of the batch: of `(N, H, W)` a scalar, of `(N, C, H, W)` one each class, `(C,)`.

        0 where all pixels are void.
        """
        if self.valid is None:
            return values.mean((0, -2, -1))
        void = ~self.valid if values.ndim == 3 else ~self.valid[:, None]
        return values.masked_fill(void, 0).sum((0, -2, -1)) / self.valid.sum().clamp(min=1)

    def sample(self, size: int) -> tuple[Tensor, Tensor]:
        """Probabilities and targets of valid pixels drawn without replacement, `(n, C)` each; all where `size` is enough."""
        n_images, _, height, width = self.logits.shape
        among = None if self.valid is None else self.valid.flatten().nonzero()[:, 0]
        n_pixels = n_images * height * width if among is None else len(among)
        chosen = torch.arange(n_pixels, device=self.logits.device)
        if n_pixels > size:
            draws = torch.Generator().manual_seed(0) if self.generator is None else self.generator
            chosen = torch.randperm(n_pixels, generator=draws, device=draws.device)[:size].to(self.logits.device)
        flat = chosen if among is None else among[chosen]
        image, row, column = torch.unravel_index(flat, (n_images, height, width))
        return self.p[image, :, row, column], self.q[image, :, row, column]

    def mean_by_image(self, values: Tensor) -> Tensor:
        """Mean over the valid pixels of each image, of `(N, H, W)`, `(N,)`; 0 of an image that is all void."""
        if self.valid is None:
            return values.mean((-2, -1))
        return values.masked_fill(~self.valid, 0).sum((-2, -1)) / self.valid.sum((-2, -1)).clamp(min=1)


class Loss(nn.Module, ABC):
    """Base of all losses: a mean over the valid pixels of a batch, in nats unless the definition says otherwise.

    Every loss takes soft labels: a pixel whose target is the distribution q counts as a fraction q_k of a pixel of class k.
    Constructors take keyword arguments, all with defaults. Half-precision logits are computed in float32.

    Class attributes:
        name: in the registry, on the command line and in every table.
        definition: formula, one line; p = softmax(z) or (1 − σ(z), σ(z)), q the target, CE = −Σ_k q_k ln p_k.
        source: one reference.
        binary: whether it is defined for binary maps of one logit a pixel.
    """

    name: ClassVar[str]
    definition: ClassVar[str]
    source: ClassVar[str]
    binary: ClassVar[bool] = True

    def forward(
        self, logits: Tensor, target: Tensor, valid: Tensor | None = None, *, generator: Generator | None = None
    ) -> Tensor:
        """The loss of a batch, a scalar; 0 with zero gradient where all pixels are void.

        Args:
            logits: `(N, 1, H, W)` of binary maps, or `(N, C, H, W)` of several classes; floats.
            target: binary: `(N, 1, H, W)` float, P(foreground). Several classes: `(N, H, W)` int64 labels in 0 … C − 1, or
                `(N, C, H, W)` float probabilities. Probabilities are taken as they are, since the released ASLP setting
                trains on labels outside [0, 1].
            valid: `(N, H, W)` bool; False is void, whatever the target holds there. None: all pixels count.
            generator: of losses that draw a sample of the pixels: where the draws come from. None: the same draws in every
                call. The others do not look at it.
        Raises:
            ShapeError: shapes or kinds of numbers that do not go together.
            RangeError: a label outside 0 … C − 1 at a valid pixel.
        """
        return self._compute(Pixels.of(logits, target, valid, generator))

    @abstractmethod
    def _compute(self, pixels: Pixels) -> Tensor:
        """The loss of checked pixels."""


def checked_target(target: Tensor, n_classes: int, valid: Tensor | None) -> Tensor:
    """A target with zeros at void pixels: float `(N, C, H, W)`, or int64 labels `(N, H, W)`.

    Raises:
        ShapeError: other kinds of numbers, or a mask of another shape.
        RangeError: a label outside 0 … C − 1 at a valid pixel.
    """
    labels = target.ndim == 3
    if not (target.dtype == torch.int64 if labels else target.is_floating_point()):
        raise ShapeError(
            f"the target is {_described(target)}; labels (N, H, W) are int64, probabilities (N, C, H, W) are floats"
        )
    if valid is not None:
        shape = (len(target), *target.shape[-2:])
        if valid.dtype != torch.bool or valid.shape != shape:
            raise ShapeError(
                f"the mask of valid pixels is {_described(valid)}; expected bool {shape}, False where a pixel is void"
            )
        target = target.masked_fill(~valid if labels else ~valid[:, None], 0)
    # Reading the extremes of a GPU tensor would make the CPU wait for it at every step; there, gather itself stops.
    if labels and not target.is_cuda:
        low, high = (int(value) for value in target.aminmax())
        if low < 0 or high >= n_classes:
            raise RangeError(
                f"the labels go from {low} to {high}; expected 0 to {n_classes - 1} of {n_classes} classes; "
                "mark void pixels as False in `valid`"
            )
    return target


def one_hot(labels: Tensor, n_classes: int) -> Tensor:
    """Labels `(N, H, W)` as float32 probabilities `(N, C, H, W)`.

    >>> one_hot(torch.tensor([[[2, 0]]]), 3)[0, :, 0].T
    tensor([[0., 0., 1.],
            [1., 0., 0.]])
    """
    n_images, height, width = labels.shape
    empty = torch.zeros(n_images, n_classes, height, width, device=labels.device)
    return empty.scatter_(1, labels[:, None], 1)


def reduce_classes(values: Tensor, reduction: str) -> Tensor:
    """Sum or mean over the classes, `(N, C, H, W)` to `(N, H, W)`."""
    return values.sum(1) if reduction == "sum" else values.mean(1)


def check_choice(option: str, value: str, known: Iterable[str]) -> None:
    """Raises UnknownName, with the nearest name, for a value that is no choice of this option."""
    if value not in known:
        raise UnknownName(option, value, known)


def check_range(option: str, value: float, low: float, high: float = float("inf")) -> None:
    """Raises OptionError for a value outside [low, high]."""
    if not low <= value <= high:
        expected = f"{low:g} or more" if high == float("inf") else f"{low:g} to {high:g}"
        raise OptionError(f"{option} is {value}; expected {expected}")


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
