"""Calibrators that look at whole images, and what they are fitted on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from scipy.special import logsumexp

from calbench.calibrators.calibrator import BLOCK, Calibrator, refuse_probabilities, two_class
from calbench.errors import InputError, OptionError, RangeError, ShapeError
from calbench.statistics.rows import Array

if TYPE_CHECKING:
    from torch import nn

    from calbench.calibrators.image_networks import ImageNetwork

TILE = 512
"""Longest side, in pixels, of what a network is applied to at once, so that memory does not grow with the image."""
GLANCE = 100
"""Pixels of each image that are looked at to tell logits from probabilities."""
Window = tuple[slice, slice]
"""Rows and columns."""


ROUNDING = 1e-6
"""Difference of two NLLs, nats, that float32 networks make of nothing."""


@dataclass(frozen=True, eq=False)
class Scene:
    """One image to fit on.

    Attributes:
        logits: `(H, W)` of a binary map, `(C, H, W)` of several classes; anything, NaN too, at void pixels.
        target: `(H, W)` integers; anything at void pixels.
        weight: `(H, W)` weights of the pixels, 0 where void.
        image: `(3, H, W)` float32 in [0, 1].
    """

    logits: Array
    target: Array
    weight: Array
    image: Array

    def __post_init__(self) -> None:
        size = self.logits.shape[-2:]
        shapes = {"target": self.target.shape, "weight": self.weight.shape, "image": self.image.shape[1:]}
        wrong = [f"{what} {shape}" for what, shape in shapes.items() if shape != size]
        if wrong or self.logits.ndim not in (2, 3) or self.image.ndim != 3 or self.image.shape[0] != 3:
            raise ShapeError(
                f"logits {self.logits.shape}, target {self.target.shape}, weight {self.weight.shape}, image "
                f"{self.image.shape}; expected (H, W) or (C, H, W), (H, W), (H, W) and (3, H, W)"
            )


@dataclass(frozen=True, eq=False)
class Survey:
    """What images hold, before a network sees them.

    Attributes:
        pixels: number of weight > 0 of each image, `(images,)`.
        weight: of each class in each image, `(images, C)`; binary maps have two.
        loss: Σ weight · −ln p of the uncalibrated probabilities of each image, nats, `(images,)`.
    """

    pixels: Array
    weight: Array
    loss: Array


class MapCalibrator(Calibrator):
    """Base of the calibrators that read the image next to the prediction.

    They are networks. Each epoch sees one random crop of each image, of `crop` pixels a side, or the whole side where
    that is shorter; crops of one size are batched. The epoch with the lowest NLL of the validation images, which are
    seen whole, is kept. Logits at void pixels (weight 0) are set to 0 before the network sees them, so that nothing
    under them, NaN included, reaches a neighbour; the image is read everywhere. `transform_map` knows of no void pixels
    and needs finite logits. Networks compute in float32; the last softmax is in the type of the logits. They are
    trained on `device` and applied on the CPU; `to_torch` gives a module for any device.

    A class that no image trained on shows keeps its uncalibrated score where the network has an output of its own for
    each class.

    Subclasses name their network in `_network`.

    Class attributes:
        reach: distance, in pixels, up to which others have a say in a pixel's result; sides of images must be longer.
        scores_classes: whether the network has an output of its own for each class.

    Attributes:
        network_: the trained network.
        summary_: `nll_before` and `nll_after` are those of the validation images, nats a pixel; `best_epoch` is 0 where
            no epoch was better than the start.
    """

    needs_images = True
    network = True
    reach: ClassVar[int]
    scores_classes: ClassVar[bool] = True

    epochs: int
    lr: float
    weight_decay: float
    batch: int
    crop: int
    validation: float
    seed: int
    device: str
    network_: ImageNetwork

    def fit_scenes(
        self,
        scenes: Sequence[Scene],
        validation: Sequence[Scene] = (),
        advance: Callable[[], None] = lambda: None,
        groups: Array | None = None,
    ) -> Self:
        """Learn from images.

        Args:
            scenes: images to train on; items may be read from disk whenever they are asked for.
            validation: images that choose the best epoch; none: a share of `scenes`.
            advance: called after each epoch.
            groups: `(images,)` number of the patient or video that each of `scenes` is of; a group is never split.
        Raises:
            ShapeError, RangeError, InputError: see `Calibrator.fit`.
            OptionError: a parameter out of its range.
        """
        from calbench.calibrators import image_networks, training

        if self.batch < 1 or self.crop <= self.reach:
            raise OptionError(
                f"{self.name}: batch is {self.batch} and crop {self.crop}; expected at least 1 image and {self.reach + 1} "
                "pixels"
            )
        recipe = training.Recipe(self.epochs, self.lr, self.weight_decay, self.device, self.seed)
        readers = [partial(part.__getitem__, i) for part in (scenes, validation) for i in range(len(part))]
        held = np.arange(len(readers)) >= len(scenes)
        if not held.any():
            together = np.arange(len(readers)) if groups is None else np.asarray(groups)
            held = training.split_groups(together, self.validation, self.seed)
        survey = self._surveyed(readers)
        seen, judged = survey.weight[~held].sum(0), survey.weight[held].sum(0)
        self.notes_, self.origin_ = [], {}
        self._refuse_one_sided(seen, judged)

        network = self._built()
        absent = np.flatnonzero(seen == 0)
        if self.scores_classes and len(absent):
            network.absent[absent] = True
            self.notes_.append(
                f"classes {', '.join(map(str, absent))} are absent from the fitting data; they keep their uncalibrated scores"
            )
        chosen, rest = ([readers[i] for i in np.flatnonzero(part)] for part in (held, ~held))
        outcome = training.train(
            network,
            lambda generator: image_networks.crops(rest, self.crop, self.batch, generator),
            lambda: image_networks.whole(chosen, self.reach),
            image_networks.loss_sum,
            recipe,
            advance,
        )
        self.network_ = network
        self.summary_ = {
            "pixels": int(survey.pixels.sum()),
            "weight": float(survey.weight.sum()),
            "images": len(readers),
            "validation_images": int(held.sum()),
            "best_epoch": outcome.best_epoch,
            "nll_before": float(survey.loss[held].sum() / judged.sum()),
            "nll_after": outcome.losses[outcome.best_epoch],
        }
        self._judge()
        return self

    def fit(  # type: ignore[override]
        self, logits: Sequence[Array], target: Sequence[Array], sample_weight: Sequence[Array] | None = None, *,
        images: Sequence[Array] | None = None,
    ) -> Self:  # fmt: skip
        """Learn from arrays in memory: one item an image.

        Args:
            logits: `(C, H, W)` or, of binary maps, `(H, W)` each.
            target: `(H, W)` each.
            sample_weight: `(H, W)` weights each, 0 at void pixels; None: 1 everywhere.
            images: `(3, H, W)` in [0, 1] each.
        Raises:
            InputError: no images.
        """
        if images is None:
            raise InputError(needs_images(self.name))
        weights = [np.ones(np.shape(y)) for y in target] if sample_weight is None else sample_weight
        return self.fit_scenes([Scene(*parts) for parts in zip(logits, target, weights, images, strict=True)])

    def transform(self, logits: Array) -> Array:
        """Not possible without images: see `transform_map`.

        Raises:
            InputError: always.
        """
        del logits
        raise InputError(needs_images(self.name) + "; from Python: transform_map(logits, image)")

    def transform_map(self, logits: Array, image: Array | None = None) -> Array:
        """Calibrated probabilities, float64, of a whole image: `(H, W)` or `(C, H, W)`, as are the logits.

        Large images are worked through in overlapping tiles, which changes nothing.

        Args:
            image: `(3, H, W)` in [0, 1].
        Raises:
            NotFitted, ShapeError, RangeError: see `Calibrator.transform`.
            InputError: no image.
        """
        import torch

        self._refuse_unfitted()
        if image is None:
            raise InputError(needs_images(self.name))
        pixels = as_pixels(logits)
        self._refuse_other_classes(pixels)
        self._refuse_nonfinite(pixels)
        self._refuse_image(image, logits.shape[-2:])
        out = np.empty(logits.shape)
        for window, core, inner in tiles(logits.shape[-2:], self.reach):
            z = np.array(logits[(..., *window)], np.float64)  # a copy: torch warns of what is mapped from a file
            channels = torch.as_tensor(z.reshape(1, -1, *z.shape[-2:]))
            with torch.no_grad():
                p = self.network_(channels, torch.as_tensor(image[(..., *window)])[None])
            kept = self._kept(as_pixels(p.numpy().reshape(z.shape)), as_pixels(z))
            out[(..., *core)] = kept.T.reshape(z.shape)[(..., *inner)]
        return out

    def to_torch(self) -> nn.Module:
        """A module that maps logits `(N, C, H, W)` and images `(N, 3, H, W)` to probabilities `(N, C, H, W)`.

        Binary maps have C = 1. The network computes in float32, the last softmax in the type of the logits.
        """
        self._refuse_unfitted()
        module = self._built()
        module.load_state_dict(self.network_.state_dict())
        return module.eval()

    def state(self) -> dict[str, Array]:
        """The weights and buffers of the network by name."""
        from calbench.calibrators import training

        return training.network_state(self.network_)

    def restore(self, state: dict[str, Array]) -> None:
        """Take up the weights of a network."""
        from calbench.calibrators import training

        self.network_ = self._built()
        training.load_network(self.network_, state)

    def _network(self, n_classes: int) -> ImageNetwork:
        """The network before training, for that many classes (1 of binary maps)."""
        raise NotImplementedError

    def _built(self) -> ImageNetwork:
        """The network before training, its random weights drawn from `seed`."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return self._network(self.n_classes_)

    def _surveyed(self, readers: Sequence[Callable[[], Scene]]) -> Survey:
        """Check every image, and count what it holds."""
        pixels, weights, losses, glances = [], [], [], []
        for number, read in enumerate(readers):
            scene = read()
            if number == 0:
                self.n_classes_ = 1 if scene.logits.ndim == 2 else len(scene.logits)
            z = self._refuse_scene(scene)
            valid = scene.weight > 0
            y, w = scene.target[valid], scene.weight[valid]
            pixels.append(len(y))
            weights.append(np.bincount(y, w, max(2, self.n_classes_)))
            losses.append(uncalibrated_loss(z, y, w))
            glances.append(z[:: max(1, len(z) // GLANCE)])
        glance = np.concatenate(glances)
        if len(glance):
            refuse_probabilities(glance, self.name)
        return Survey(np.array(pixels), np.array(weights), np.array(losses))

    def _refuse_scene(self, scene: Scene) -> Array:
        """Refuse what nothing can be learned from; the logits of weight > 0, `(n,)` or `(n, C)`."""
        weight, target = scene.weight, scene.target
        if scene.logits.dtype.kind != "f":
            raise RangeError(f"{self.name}: the logits are {scene.logits.dtype}; expected floats")
        if not np.isfinite(weight).all() or (weight < 0).any():
            raise RangeError(
                f"{self.name}: there are weights below 0, or not finite; expected 0 where void, else above"
            )
        pixels = as_pixels(scene.logits)
        self._refuse_other_classes(pixels)
        self._refuse_image(scene.image, target.shape)
        valid = weight > 0
        pixels = pixels[valid.ravel()]
        self._refuse_nonfinite(pixels)
        y, most = target[valid], max(1, self.n_classes_ - 1)
        if target.dtype.kind not in "iub" or y.min(initial=0) < 0 or y.max(initial=0) > most:
            raise RangeError(
                f"{self.name}: target {target.dtype} {y.min(initial=0)}..{y.max(initial=0)}; expected 0..{most}"
            )
        return pixels

    def _refuse_image(self, image: Array, size: tuple[int, ...]) -> None:
        if image.shape != (3, *size):
            raise ShapeError(
                f"{self.name}: the image has shape {image.shape}, its logits {size}; expected {(3, *size)}"
            )
        if min(size) <= self.reach:
            raise ShapeError(
                f"{self.name}: the image has {size[0]} x {size[1]} pixels; expected more than {self.reach} a side, as far as "
                "the network looks; leave it out, or enlarge it with its prediction"
            )
        if not (image.min() >= 0 and image.max() <= 1):  # of NaN, too
            raise RangeError(
                f"{self.name}: the image lies in [{image.min():.4g}, {image.max():.4g}]; expected [0, 1]: divide 8-bit levels "
                "by 255"
            )

    def _refuse_one_sided(self, seen: Array, judged: Array) -> None:
        """`seen` and `judged`: weight of each class in the images that train, and in those that choose the epoch."""
        if not judged.any():
            raise InputError(f"{self.name}: the validation images have no pixel of positive weight; choose others")
        if np.count_nonzero(seen) < 2:
            raise InputError(
                f"{self.name}: the images trained on show {np.count_nonzero(seen)} class only; a calibrator is fitted on two "
                "at least; add images that show others"
            )
        self._refuse_too_few(float(seen.sum()))

    def _judge(self) -> None:
        """Say what the validation images say."""
        if self.summary_["nll_after"] > self.summary_["nll_before"] + ROUNDING:
            self.notes_.append("the NLL of the validation images is higher than without calibration; do not use it")
        elif self.summary_["best_epoch"] == 0:
            self.notes_.append(
                "no epoch was better than the start on the validation images, so nothing was learned; a lower learning rate "
                "may help"
            )
        elif self.summary_["best_epoch"] == self.epochs:
            self.notes_.append(f"the last of {self.epochs} epochs is the best; more epochs may help")


def as_pixels(values: Array) -> Array:
    """A map `(H, W)` as `(n,)`, or `(C, H, W)` as `(n, C)`, without a copy.

    >>> as_pixels(np.zeros((3, 4, 5))).shape
    (20, 3)
    """
    return values.ravel() if values.ndim == 2 else values.reshape(len(values), -1).T


def tiles(size: tuple[int, ...], halo: int) -> Iterator[tuple[Window, Window, Window]]:
    """Cut an image into tiles of at most `TILE` pixels a side that overlap by `halo` on each side.

    Yields:
        window: the tile with its halo, in the image; core: without it; inner: the core within the window.

    >>> [(w[1], c[1], i[1]) for w, c, i in tiles((9, 600), 4)]
    [(slice(0, 304, None), slice(0, 300, None), slice(0, 300, None)),
     (slice(296, 600, None), slice(300, 600, None), slice(4, 304, None))]
    """
    rows, columns = (list(_pieces(length, halo)) for length in size)
    for row in rows:
        for column in columns:
            window, core, inner = zip(row, column, strict=True)
            yield window, core, inner


def _pieces(length: int, halo: int) -> Iterator[tuple[slice, slice, slice]]:
    cuts = np.linspace(0, length, -(-length // TILE) + 1).astype(int).tolist()
    for start, stop in pairwise(cuts):
        first = max(start - halo, 0)
        window = slice(first, min(stop + halo, length))
        yield window, slice(start, stop), slice(start - first, stop - first)


def uncalibrated_loss(logits: Array, target: Array, weight: Array) -> float:
    """Σ weight · −ln p(target) of the uncalibrated probabilities, nats.

    >>> round(uncalibrated_loss(np.zeros(2), np.array([0, 1]), np.ones(2)), 4)
    1.3863
    """
    total = 0.0
    for start in range(0, len(target), BLOCK):
        part = slice(start, start + BLOCK)
        z, y = two_class(np.asarray(logits[part], np.float64)), target[part]
        total += float(weight[part] @ (logsumexp(z, axis=1) - z[np.arange(len(y)), y]))
    return total


def needs_images(name: str) -> str:
    """What to do where images are missing."""
    return f"{name} looks at the images next to the predictions; say where they are: --images DIR"
