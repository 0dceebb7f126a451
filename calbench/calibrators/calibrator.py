"""What a calibrator is: logits in, probabilities out, by the contract of scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from calbench.errors import CalbenchError, InputError, RangeError, ShapeError
from calbench.statistics.rows import Array

if TYPE_CHECKING:
    from torch import Tensor, nn

BLOCK = 1 << 15
"""Pixels that are transformed at a time."""
LOOK = 1 << 12
"""Pixels that are looked at first, where they may spare a look at all."""
CLIP = float(np.finfo(np.float64).eps)
"""Clip of P(outcome) in the negative log-likelihood of fits: the unit of float64 probabilities."""


class NotFitted(CalbenchError, NotFittedError):
    """A calibrator that was used before it was fitted."""


@dataclass(frozen=True, eq=False)
class Pixels:
    """What a calibrator is fitted on, checked: every weight is positive.

    Attributes:
        logits: `(n,)` or `(n, C)`, in the float type they came in.
        target: `(n,)` integers.
        weight: `(n,)` float64.
        groups: `(n,)` number of the image that each pixel is of, or None.
        advance: to be called after each epoch of a network.
    """

    logits: Array
    target: Array
    weight: Array
    groups: Array | None = None
    advance: Callable[[], None] = lambda: None

    @cached_property
    def total(self) -> float:
        """Σ weight."""
        alike = self.weight.strides == (0,)  # one number for all pixels
        return float(len(self.weight) * self.weight[0] if alike else self.weight.sum())


class Calibrator(BaseEstimator):
    """Base of all calibrators: `fit` learns from logits and the truth, `transform` turns logits into probabilities.

    A binary map has one logit a pixel, z = logit P(foreground): arrays `(n,)`; several classes have `(n, C)`, C >= 2.
    Constructors only store; what is learned ends in `_`. A pixelwise calibrator treats every pixel alike, wherever it is.

    Class attributes:
        name: in the registry, on the command line and in every table.
        definition: formula or sentence, one line.
        source: one reference.
        keeps_class: whether no pixel changes its class; `transform` sees to it where rounding ties classes.
        keeps_order: whether the foreground probability of binary maps increases strictly with the logit, so that AUROC
            stays.
        parametric: whether it is fitted by maximum likelihood from a start at (or through a bracket around) the identity,
            so that the fitting NLL cannot rise.
        needs_images: whether it reads the image next to the prediction.
        network: whether it is trained by minibatches, and fitted on one hold-out split by default.
        by_image: whether it needs single pixels, image by image, rather than weighted levels.
        learned: the attributes that hold what was learned: arrays or numbers, saved with the calibrator.

    Attributes:
        n_classes_: 1 of binary maps, else C.
        summary_: what the fit says: pixels, their weight, fitting NLL before and after, what else the method reports.
        notes_: what people should know: absent classes, a solution at its bound, fallbacks.
        origin_: where the fitting data came from (kind of scores, images); empty of arrays.
    """

    name: ClassVar[str]
    definition: ClassVar[str]
    source: ClassVar[str]
    keeps_class: ClassVar[bool] = False
    keeps_order: ClassVar[bool] = False
    parametric: ClassVar[bool] = False
    needs_images: ClassVar[bool] = False
    network: ClassVar[bool] = False
    by_image: ClassVar[bool] = False
    learned: ClassVar[tuple[str, ...]] = ()

    n_classes_: int
    summary_: dict[str, Any]
    notes_: list[str]
    origin_: dict[str, Any]

    def fit(
        self,
        logits: Array,
        target: Array,
        sample_weight: Array | None = None,
        *,
        groups: Array | None = None,
        advance: Callable[[], None] = lambda: None,
    ) -> Self:
        """Learn from pixels.

        Args:
            logits: `(n,)` of binary maps, `(n, C)` of several classes.
            target: `(n,)` integers, 0 and 1 or 0 ... C − 1.
            sample_weight: `(n,)` weights, at least 0; a pixel of weight 2 counts as two. None: 1 each.
            groups: `(n,)` number of the image that each pixel is of, for calibrators that split or batch by images.
            advance: called after each epoch of a network.
        Raises:
            RangeError: logits that are NaN or infinite, or probabilities.
            ShapeError: arrays that do not fit together.
            InputError: nothing to learn from: one class only, or fewer pixels than parameters.
        """
        pixels = self._checked(logits, target, sample_weight, groups, advance)
        self.n_classes_ = 1 if pixels.logits.ndim == 1 else pixels.logits.shape[1]
        self.notes_, self.origin_ = [], {}
        self.summary_ = {"pixels": len(pixels.target), "weight": pixels.total}
        self._refuse_too_little(pixels)
        self._fit(pixels)
        self._summarise(pixels)
        return self

    def transform(self, logits: Array) -> Array:
        """Calibrated probabilities, float64, of the shape of `logits`: of foreground, or of each class.

        Raises:
            NotFitted: it was not.
            ShapeError: another number of classes.
            RangeError: logits that are NaN or infinite.
        """
        logits = np.asarray(logits)
        self._refuse_unfitted()
        self._refuse_other_classes(logits)
        self._refuse_nonfinite(logits)
        out = np.empty(logits.shape)
        for start in range(0, len(logits), BLOCK):
            block = np.asarray(logits[start : start + BLOCK], np.float64)
            out[start : start + BLOCK] = self._kept(self._transform(block), block)
        return out

    def transform_map(self, logits: Array, image: Array | None = None) -> Array:
        """Calibrated probabilities, float64, of a whole image: `(H, W)` or `(C, H, W)`, as are the logits.

        Args:
            image: `(3, H, W)` in [0, 1], for calibrators that need it.
        Raises:
            NotFitted, ShapeError, RangeError: see `transform`.
        """
        del image  # of no use to a pixelwise calibrator
        if logits.ndim == 2:
            return self.transform(logits.ravel()).reshape(logits.shape)
        flat = logits.reshape(len(logits), -1)
        out = np.empty(flat.shape)
        for start in range(0, flat.shape[1], BLOCK):  # class-first in and out without a second copy of the image
            out[:, start : start + BLOCK] = self.transform(flat[:, start : start + BLOCK].T).T
        return out.reshape(logits.shape)

    def to_torch(self) -> nn.Module:
        """A module that maps logits to probabilities: of any shape for binary maps, `(N, C, ...)` for several classes.

        It computes in the type of its input; in float64 it agrees with `transform` to 1e-6.
        """
        from calbench.calibrators.modules import PixelModule

        self._refuse_unfitted()
        return PixelModule(type(self), self.state(), self.n_classes_)

    @staticmethod
    def torch_forward(logits: Tensor, state: dict[str, Tensor]) -> Tensor:
        """`transform` on tensors `(n,)` or `(n, C)`, given the learned arrays in the type of the logits; for `to_torch`."""
        raise NotImplementedError

    def state(self) -> dict[str, Array]:
        """The learned arrays by name."""
        return {name: np.asarray(getattr(self, name)) for name in self.learned}

    def restore(self, state: dict[str, Array]) -> None:
        """Take up learned arrays; numbers come back as floats.

        Raises:
            ValueError: a temperature that is not positive.
        """
        for name in self.learned:
            setattr(self, name, float(state[name]) if state[name].ndim == 0 else state[name])
            if name in ("temperature_", "t_wrong_") and not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; a temperature is positive")

    def n_parameters(self, n_classes: int) -> int:
        """Numbers to learn, for that many classes (1 of binary maps)."""
        raise NotImplementedError

    def _fit(self, pixels: Pixels) -> None:
        """Learn from checked pixels."""
        raise NotImplementedError

    def _transform(self, logits: Array) -> Array:
        """Probabilities of a block of float64 logits."""
        raise NotImplementedError

    def _kept(self, p: Array, logits: Array) -> Array:
        """The probabilities, with the class of the logits where the calibrator promises so."""
        return keep_class(p, logits) if self.keeps_class else p

    def _summarise(self, pixels: Pixels) -> None:
        """Fitting NLL before and after."""
        self.summary_["nll_before"] = nll(uncalibrated(pixels.logits), pixels.target, pixels.weight)
        self.summary_["nll_after"] = nll(self.transform(pixels.logits), pixels.target, pixels.weight)

    def _checked(
        self,
        logits: Array,
        target: Array,
        sample_weight: Array | None,
        groups: Array | None,
        advance: Callable[[], None],
    ) -> Pixels:
        logits, target = np.asarray(logits), np.asarray(target)
        if logits.ndim not in (1, 2) or (logits.ndim == 2 and logits.shape[1] < 2) or target.shape != logits.shape[:1]:
            raise ShapeError(
                f"{self.name}: logits {logits.shape} and target {target.shape}; expected (n,) or (n, C) with C >= 2, and (n,)"
            )
        if logits.dtype.kind != "f":
            raise RangeError(f"{self.name}: the logits are {logits.dtype}; expected floats")
        if groups is not None and np.shape(groups) != target.shape:
            raise ShapeError(f"{self.name}: groups {np.shape(groups)}, target {target.shape}; expected one a pixel")
        if sample_weight is None:
            weight = np.broadcast_to(1.0, target.shape)
        else:
            weight = np.asarray(sample_weight, np.float64)
            if weight.shape != target.shape or not np.isfinite(weight).all() or (weight < 0).any():
                raise ShapeError(
                    f"{self.name}: sample_weight {weight.shape}, target {target.shape}; expected one number >= 0 a pixel"
                )
            kept = weight > 0
            if not kept.all():
                logits, target, weight = logits[kept], target[kept], weight[kept]
                groups = None if groups is None else np.asarray(groups)[kept]
        if not len(target):
            raise InputError(f"{self.name}: there is no pixel to fit on; expected some of positive weight")
        self._refuse_nonfinite(logits)
        most = 1 if logits.ndim == 1 else logits.shape[1] - 1
        if target.dtype.kind not in "iub" or target.min() < 0 or target.max() > most:
            raise RangeError(f"{self.name}: target {target.dtype} {target.min()}..{target.max()}; expected 0..{most}")
        refuse_probabilities(logits, self.name)
        return Pixels(logits, target.astype(np.intp, copy=False), weight, groups, advance)

    def _refuse_too_little(self, pixels: Pixels) -> None:
        some = pixels.target[:LOOK]
        if some.min() == some.max() and pixels.target.min() == pixels.target.max():
            raise InputError(
                f"{self.name}: all {pixels.total:,.0f} pixels are of class {pixels.target[0]}; a calibrator is fitted "
                "on two at least; add images that show others"
            )
        self._refuse_too_few(pixels.total)

    def _refuse_too_few(self, found: float) -> None:
        """Hold the pixels against the parameters; a network, whose epoch others choose, may have more of these.

        Raises:
            InputError: fewer pixels than parameters.
        """
        needed = self.n_parameters(self.n_classes_)
        if found >= needed:
            return
        few = f"{needed:,} parameters for {described_classes(self.n_classes_)}, but there are {found:,.0f} pixels"
        if not self.network:
            raise InputError(f"{self.name} has {few}; fit on more images, or choose a calibrator with fewer parameters")
        self.notes_.append(f"the network has {few}; what it learned is only as good as the validation images say")

    def _refuse_unfitted(self) -> None:
        if not hasattr(self, "n_classes_"):
            raise NotFitted(f"{self.name} was not fitted; call fit, or load a saved calibrator")

    def _refuse_other_classes(self, logits: Array) -> None:
        found = 1 if logits.ndim == 1 else logits.shape[1]
        if logits.ndim > 2 or found != self.n_classes_:
            raise ShapeError(
                f"{self.name} was fitted on {described_classes(self.n_classes_)}; found logits of shape {logits.shape}"
            )

    def _refuse_nonfinite(self, logits: Array) -> None:
        if not np.isfinite(logits.sum(dtype=np.float64)) and not np.isfinite(logits).all():
            bad = int((~np.isfinite(logits)).reshape(len(logits), -1).any(1).sum())
            raise RangeError(
                f"{self.name}: {bad:,} of {len(logits):,} pixels have NaN or infinite logits; expected finite numbers; repair "
                "them, or give them weight 0"
            )


def described_classes(n_classes: int) -> str:
    """The kind of predictions with this many classes, for people.

    >>> described_classes(1), described_classes(19)
    ('binary maps', '19 classes')
    """
    return "binary maps" if n_classes == 1 else f"{n_classes} classes"


def uncalibrated(logits: Array) -> Array:
    """The probabilities that logits stand for, float64: sigmoid of `(n,)`, softmax of `(n, C)`.

    >>> uncalibrated(np.array([0.0])).tolist(), uncalibrated(np.zeros((1, 4))).tolist()
    ([0.5], [[0.25, 0.25, 0.25, 0.25]])
    """
    logits = np.asarray(logits, np.float64)
    return np.asarray(expit(logits) if logits.ndim == 1 else softmax(logits, axis=1))


def two_class(logits: Array) -> Array:
    """Binary logits `(n,)` as those of two classes `(n, 2)`, background first; of several classes, as they are.

    >>> two_class(np.array([3.0])).tolist()
    [[-1.5, 1.5]]
    """
    return logits if logits.ndim == 2 else np.stack([-logits / 2, logits / 2], axis=1)


def one_map(p: Array, binary: bool) -> Array:
    """The inverse of `two_class` for probabilities: `(n, 2)` -> `(n,)` of foreground where the map is binary."""
    return p[:, 1] if binary else p


def nll(p: Array, target: Array, weight: Array) -> float:
    """Weighted mean of −ln P(outcome), nats, P clipped to [2.2e-16, 1].

    >>> round(nll(np.array([0.5, 0.9]), np.array([1, 1]), np.ones(2)), 4)
    0.3993
    """
    chosen = np.where(target == 1, p, 1 - p) if p.ndim == 1 else p[np.arange(len(p)), target]
    return float(-(weight * np.log(np.clip(chosen, CLIP, 1))).sum() / weight.sum())


def keep_class(p: Array, logits: Array) -> Array:
    """The probabilities, each pixel's largest one at the class of its largest logit.

    Where rounding, or a calibrator that flattens, leaves that class tied with another, it is raised to the next float64
    above the largest; of a binary map, background is put below one half.

    >>> keep_class(np.array([[0.5, 0.5]]), np.array([[1.0, 2.0]])).argmax(1).tolist()
    [1]
    """
    if logits.ndim == 1:
        foreground = logits >= 0
        return np.where(foreground, np.maximum(p, 0.5), np.minimum(p, np.nextafter(0.5, 0)))
    winner = logits.argmax(1)
    tied = np.flatnonzero(p.argmax(1) != winner)
    if len(tied):
        p = p.copy()
        p[tied, winner[tied]] = np.nextafter(p[tied].max(1), 2)
    return p


def refuse_probabilities(logits: Array, where: str) -> None:
    """Refuse numbers that can hardly be logits: they fill [0, 1] and, of several classes, add up to 1.

    Raises:
        RangeError: so they are.
    """
    for seen in (logits[:LOOK], logits):
        low, high = seen.min(), seen.max()
        if low < 0 or high > 1:
            return
    if high - low > 0.9 if logits.ndim == 1 else np.abs(logits.sum(1, dtype=np.float64) - 1).max() < 1e-2:
        raise RangeError(
            f"{where}: the logits lie in [{low:.4g}, {high:.4g}]"
            + (" and add up to 1" if logits.ndim == 2 else "")
            + ": these are probabilities; give their logarithm (of binary maps, logit p), or say --input probabilities"
        )
