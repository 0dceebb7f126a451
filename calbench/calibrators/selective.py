"""Selective scaling: a large temperature where a classifier takes the prediction for wrong."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import numpy as np

from calbench.calibrators.calibrator import BLOCK, Calibrator, Pixels, two_class
from calbench.calibrators.temperature import Temperature
from calbench.errors import InputError, OptionError
from calbench.statistics.rows import Array

if TYPE_CHECKING:
    from torch import nn

    from calbench.calibrators.training import Batch

WEIGHT_DECAY = 1e-6
STUDY_IMAGE = 56 * 56
"""Pixels of an image of the study."""
FEW_STEPS = 200
"""With fewer steps the classifier is hardly trained."""
FEWEST_RUNS = 10
"""Pixels without groups are cut into at least so many runs."""


class SelectiveScaling(Calibrator):
    """A misprediction classifier tells wrong pixels from right ones; each kind has its temperature.

    p = softmax(z / T), T = t_wrong where the classifier says "wrong", else t_correct. The classifier is a perceptron on
    the pixel's log-probabilities (`selective_network.MispredictionNetwork`), trained by AdamW (weight decay 1e-6) to
    tell whether the largest logit is the truth; the epoch with the smallest loss on the validation images is kept. Binary
    maps go through it as two classes. Both temperatures serve all classes, those absent from the fitting data included.

    `t_wrong="validation"` minimises the NLL of the validation pixels that are taken for wrong: a convex problem, solved
    exactly. The study takes large values (1e10) where the classifier is accurate, and about 2 where it is only
    moderately so.

    When it cannot help: with the class kept, a pixel taken for wrong by mistake is right, but unsure. If a share π of the
    pixels taken for wrong is wrong (the precision), their accuracy is 1 − π: a confidence far below that is as wrong as
    one far above. With t_wrong → ∞ the ECE falls only if their mean confidence c was above 2(1 − π), that is
    π > 1 − c / 2; at a precision near 0.6 the gain is small. `keep_class=False` gains more by changing the class of all
    these pixels to the first one, right pixels too: accuracy pays for it. And where the log-probabilities do not tell
    wrong from right, nothing is learned, and it is temperature scaling at best. `notes_` say which case applies.

    Args:
        t_correct: temperature of pixels taken for right.
        t_wrong: temperature of pixels taken for wrong, or "validation".
        keep_class: whether the class of the largest logit stays. False: the class is taken from the scaled logits, in
            float32 as in the study's code, where t_wrong = 1e10 ties all classes and the first one wins.
        wrong_weight: weight of a wrong pixel in the classifier's loss; 2, as in the study, counts them twice.
        epochs, lr: of AdamW.
        batch: images a batch. Without `groups`, 3136 consecutive pixels stand for an image of the study's 56 x 56 grid, or
            a tenth of the pixels where that is less.
        validation: share of the images that choose the epoch and t_wrong.
        seed: of the split, the first weights and the order of batches.
        device: "cpu" or "cuda", for the training.

    Attributes:
        t_wrong_: the temperature of pixels taken for wrong.
        network_: the classifier.
        summary_: also the accuracy of the predictions and, on the validation images, the classifier's recall and precision
            (of wrong pixels, None where undefined), the best epoch (0: training improved nothing), and of the pixels taken
            for wrong their share, their accuracy, and their confidence before and after.

    Reference: Wang et al., CVPR 2023 (arXiv:2212.12053).

    >>> rng = np.random.default_rng(0)
    >>> z = rng.normal(size=(2000, 3)) * 3
    >>> wrong = rng.random(2000) < 0.3
    >>> z[~wrong, rng.integers(3)] += 20  # a wrong pixel shows by its small margin
    >>> y = np.where(wrong, z.argmin(1), z.argmax(1))
    >>> fitted = SelectiveScaling(epochs=20, batch=1).fit(z, y)
    >>> fitted.t_wrong_ > 2, fitted.summary_["precision"] > 0.9
    (True, True)
    """

    name = "selective"
    definition = "p = softmax(z / T), T = t_wrong where a classifier takes argmax z for wrong, else t_correct"
    source = "Wang et al., CVPR 2023, arXiv:2212.12053"
    keeps_class = True  # unless keep_class=False asks for another one
    network = True
    by_image = True
    learned = ("t_wrong_",)

    t_wrong_: float
    network_: nn.Module

    def __init__(
        self,
        *,
        t_correct: float = 1.0,
        t_wrong: float | Literal["validation"] = "validation",
        keep_class: bool = True,
        wrong_weight: float = 2.0,
        epochs: int = 40,
        lr: float = 1e-3,
        batch: int = 20,
        validation: float = 0.2,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.t_correct = t_correct
        self.t_wrong = t_wrong
        self.keep_class = keep_class
        self.wrong_weight = wrong_weight
        self.epochs = epochs
        self.lr = lr
        self.batch = batch
        self.validation = validation
        self.seed = seed
        self.device = device

    @classmethod
    def load_checkpoint(
        cls, path: str | Path, *, t_wrong: float, t_correct: float = 1.0, keep_class: bool = True
    ) -> Self:
        """Selective scaling with a released misprediction classifier, ready to `transform`.

        Args:
            path: a torch file, see `selective_network.read_checkpoint`.
            t_wrong, t_correct, keep_class: see the class; a checkpoint does not hold them.
        Raises:
            FormatError: another file.
            OptionError: a temperature that is not positive.
        """
        from calbench.calibrators.selective_network import read_checkpoint

        loaded = cls(t_wrong=t_wrong, t_correct=t_correct, keep_class=keep_class)
        loaded.t_wrong_ = _temperature("t_wrong", t_wrong)
        _temperature("t_correct", t_correct)
        loaded.network_, epoch = read_checkpoint(path)
        loaded.n_classes_ = loaded.network_.binary_linear.in_features
        loaded.summary_ = {"checkpoint": Path(path).name, "epoch": epoch}
        loaded.notes_ = ["the misprediction classifier was not trained here, but read from a checkpoint"]
        loaded.origin_ = {}
        return loaded

    def n_parameters(self, n_classes: int) -> int:
        """Those of the classifier, and t_wrong."""
        c = max(2, n_classes)
        return 5 * c * c + 14 * c + 2 + (self.t_wrong == "validation")

    def to_torch(self) -> nn.Module:
        """See `Calibrator.to_torch`; the classifier, too, computes in the type of the input."""
        from calbench.calibrators.selective_network import SelectiveModule

        self._refuse_unfitted()
        return SelectiveModule(
            deepcopy(self.network_),
            self.n_classes_,
            t_wrong=self.t_wrong_,
            t_correct=self.t_correct,
            keep_class=self.keep_class,
        ).eval()

    def state(self) -> dict[str, Array]:
        """The temperature, and the weights of the classifier by the names of the released checkpoints."""
        from calbench.calibrators.training import network_state

        return super().state() | network_state(self.network_)

    def restore(self, state: dict[str, Array]) -> None:
        """Take up the temperature and the weights."""
        from calbench.calibrators.selective_network import MispredictionNetwork
        from calbench.calibrators.training import load_network

        super().restore(state)
        weights = {name: array for name, array in state.items() if name not in self.learned}
        self.network_ = load_network(MispredictionNetwork(max(2, self.n_classes_)), weights)

    def _fit(self, pixels: Pixels) -> None:
        z, right = two_class(pixels.logits), _decided(pixels.logits) == pixels.target
        accuracy = float(np.average(right, weights=pixels.weight))
        if right.all() or not right.any():
            raise InputError(
                f"{self.name}: all {len(right):,} predictions are {'right' if right.all() else 'wrong'}; there is nothing "
                "to learn for a misprediction classifier; fit on images that show both"
            )
        _temperature("t_correct", self.t_correct)
        if self.t_wrong != "validation":
            self.t_wrong_ = _temperature("t_wrong", self.t_wrong)
        if self.batch < 1 or not self.wrong_weight > 0:
            raise OptionError(
                f"batch is {self.batch}, wrong_weight {self.wrong_weight}; expected at least 1 image a batch and a "
                "weight above 0"
            )
        held = self._train(pixels, z, right)
        self.summary_["accuracy"] = accuracy
        self._validate(z[held], pixels.target[held], pixels.weight[held], right[held])

    def _train(self, pixels: Pixels, z: Array, right: Array) -> Array:
        """Train the classifier; the pixels that validated, `(n,)`."""
        import torch

        from calbench.calibrators.selective_network import MispredictionNetwork
        from calbench.calibrators.training import Recipe, shuffled, split_groups, train

        groups = _runs(len(right)) if pixels.groups is None else np.asarray(pixels.groups)
        held = split_groups(groups, self.validation, self.seed)
        weight = pixels.weight * np.where(right, 1, self.wrong_weight)
        images = _by_group(groups, ~held)
        validating = np.flatnonzero(held)

        def taken(at: Array) -> Batch:
            parts = z[at].astype(np.float32), right[at].astype(np.int64), weight[at].astype(np.float32)
            return tuple(map(torch.from_numpy, parts))

        def batches(generator: np.random.Generator) -> Iterable[Batch]:
            for chunk in shuffled(images, self.batch, generator):
                at = np.concatenate(chunk)
                if len(at) > 1:  # one pixel has no variance to normalise by
                    yield taken(at)

        def validation() -> Iterable[Batch]:
            return (taken(validating[start : start + BLOCK]) for start in range(0, len(validating), BLOCK))

        def loss_sum(module: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
            logits, outcome, weights = batch
            losses = torch.nn.functional.cross_entropy(module(logits), outcome, reduction="none")
            return (weights * losses).sum(), weights.sum()

        recipe = Recipe(self.epochs, self.lr, WEIGHT_DECAY, self.device, self.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.network_ = MispredictionNetwork(z.shape[1])
        steps = self.epochs * -(-len(images) // self.batch)
        if steps < FEW_STEPS:
            self.notes_.append(
                f"{steps} steps of training ({len(images)} images, batches of {self.batch}) are few; a smaller batch may help"
            )
        outcome = train(self.network_, batches, validation, loss_sum, recipe, pixels.advance)
        self.summary_ |= {"best_epoch": outcome.best_epoch, "validation_loss": outcome.losses[outcome.best_epoch]}
        if outcome.best_epoch == 0:
            self.notes_.append(
                "no epoch improved the misprediction classifier on the validation images: it knows nothing about "
                "mispredictions"
            )
        return held

    def _validate(self, z: Array, target: Array, weight: Array, right: Array) -> None:
        """Choose t_wrong, and say how good the classifier is, on the validation pixels."""
        flagged = self._flagged(z)
        found = weight[flagged & ~right].sum()
        self.summary_ |= {
            "recall": _ratio(found, weight[~right].sum()),
            "precision": _ratio(found, weight[flagged].sum()),
            "flagged": _ratio(weight[flagged].sum(), weight.sum()),
        }
        if self.t_wrong == "validation":
            self.t_wrong_ = self._chosen(z[flagged], target[flagged], weight[flagged])
        self.summary_["t_wrong"] = self.t_wrong_
        if not flagged.any():
            self.notes_.append("the misprediction classifier takes no validation pixel for wrong")
            return
        accuracy = float(np.average(right[flagged], weights=weight[flagged]))
        before, after = (
            float(np.average(_confidence(z[flagged] / t), weights=weight[flagged])) for t in (1.0, self.t_wrong_)
        )
        self.summary_ |= {"flagged_accuracy": accuracy, "flagged_before": before, "flagged_after": after}
        if self.keep_class and abs(after - accuracy) >= abs(before - accuracy):
            self.notes_.append(
                f"selective scaling does not help here with the class kept: {accuracy:.1%} of the validation pixels taken for "
                f"wrong are right (precision {1 - accuracy:.1%}); their confidence was {before:.1%} and becomes {after:.1%}; "
                "choose t_wrong on the validation images, or plain temperature scaling"
            )

    def _chosen(self, z: Array, target: Array, weight: Array) -> float:
        """The temperature of the smallest NLL for pixels taken for wrong."""
        if not len(target):
            return float(self.t_correct)
        try:
            fitted = Temperature().fit(z, target, weight)
        except InputError as error:
            self.notes_.append(f"t_wrong cannot be chosen, and is t_correct = {self.t_correct:g}: {error}")
            return float(self.t_correct)
        if fitted.summary_["at_bound"]:
            self.notes_.append(
                f"t_wrong is at its bound {fitted.temperature_:g}: the more extreme, the likelier the validation "
                "pixels taken for wrong"
            )
        return fitted.temperature_

    def _flagged(self, z: Array) -> Array:
        """Whether the classifier takes a pixel for wrong, `(n,)`."""
        import torch

        from calbench.calibrators.selective_network import judged_right

        flagged = np.empty(len(z), bool)
        with torch.no_grad():
            for start in range(0, len(z), BLOCK):
                block = torch.from_numpy(z[start : start + BLOCK].astype(np.float64))
                flagged[start : start + BLOCK] = ~judged_right(self.network_, block).numpy()
        return flagged

    def _transform(self, logits: Array) -> Array:
        import torch

        with torch.no_grad():
            return np.asarray(self.to_torch()(torch.from_numpy(logits)))

    def _kept(self, p: Array, logits: Array) -> Array:
        """As they are: the module has seen to the class."""
        del logits
        return p


def _runs(n: int) -> Array:
    """Consecutive pixels in the place of images, `(n,)`.

    >>> _runs(20).tolist() == np.repeat(range(10), 2).tolist(), int(_runs(100 * 3136).max())
    (True, 99)
    """
    return np.arange(n) // max(1, min(STUDY_IMAGE, n // FEWEST_RUNS))


def _by_group(groups: Array, chosen: Array) -> list[Array]:
    """The positions of the chosen pixels of each group."""
    at = np.flatnonzero(chosen)
    at = at[np.argsort(groups[at], kind="stable")]
    return np.split(at, np.flatnonzero(np.diff(groups[at])) + 1)


def _decided(logits: Array) -> Array:
    return logits >= 0 if logits.ndim == 1 else logits.argmax(1)


def _confidence(z: Array) -> Array:
    """The largest probability of each pixel, `(n,)`."""
    z = np.asarray(z, np.float64)
    return np.asarray(1 / np.exp(z - z.max(1, keepdims=True)).sum(1))


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def _temperature(name: str, value: float | str) -> float:
    if isinstance(value, str) or not 0 < value < np.inf:
        raise OptionError(f"{name} is {value!r}; expected a temperature: a finite number above 0")
    return float(value)
