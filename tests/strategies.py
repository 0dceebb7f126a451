"""Small predictions of every kind with masks and void, drawn by hypothesis or by code, and the statistics of such images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import gaussian_filter

from calbench.calibrators.vector import Vector
from calbench.evaluate import Evaluator, Settings, Value
from calbench.io.sample import Sample
from calbench.kernels import measure_aslp
from calbench.measure import Request, measure_calibrated, measure_sample
from calbench.metrics import METRICS
from calbench.statistics import JointHistogram, Statistics

KINDS = ("8-bit", "float", "classes", "calibrated")
"""Levels of binary maps, probabilities of binary maps, logits of several classes, and probabilities to be calibrated."""
CLASSES = 4
EXTRAS = ("mbls", "selectivecal", "torchmetrics")
OPTIONS = {"bins": 10, "ties": "split", "debias_bins": 10, "batch": 1}


class Image(NamedTuple):
    """One prediction, its mask, and the valid pixels (None: all).

    Attributes:
        scores: `(H, W)` uint8 levels, `(H, W)` float32 probabilities, or `(C, H, W)` float32 logits.
        mask: `(H, W)` uint8: bytes of a binary mask, or classes; None out of distribution.
        valid: `(H, W)` bool.
        calibrated: whether `row` passes it through `shifted`.
    """

    scores: np.ndarray
    mask: np.ndarray | None
    valid: np.ndarray | None = None
    calibrated: bool = False

    @property
    def foreground(self) -> np.ndarray:
        return self.mask > 128

    @property
    def pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """Levels and foreground of the valid pixels, flat."""
        inside = np.ones(self.scores.shape, bool) if self.valid is None else self.valid
        return self.scores[inside], self.foreground[inside]

    def sample(self, name: str) -> Sample:
        if self.scores.ndim == 3:
            return Sample(name, self.scores, self.mask, self.valid, "logits")
        target = None if self.mask is None else self.foreground
        return Sample(name, self.scores, target, self.valid, None if self.scores.dtype == np.uint8 else "probabilities")


SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 9)).filter(lambda shape: shape[0] != shape[1])
SATURATED = st.sampled_from([0, 255])
LEVELS = st.one_of(SATURATED, st.integers(0, 255))
GREY = st.sampled_from([0, 1, 100, 127, 128, 129, 254, 255])
FEW = {
    "float": st.sampled_from([0, 1]) | st.floats(0, 1, width=32),
    "classes": st.sampled_from([-90, 90]) | st.floats(-9, 9, width=32),
}
FEW["calibrated"] = FEW["float"]


@st.composite
def images(draw, kind: str = "8-bit", *, void: bool = True, min_pixels: int = 1) -> Image:
    """Any small map: saturated, constant, few-levelled or free; any mask, the empty and full ones too."""
    shape = draw(SHAPES.filter(lambda s: s[0] * s[1] >= min_pixels))
    if kind == "8-bit":
        few = draw(st.lists(st.integers(0, 255), min_size=1, max_size=3))
        cells = draw(st.sampled_from([SATURATED, LEVELS, st.integers(0, 255), st.sampled_from(few)]))
        scores = draw(arrays(np.uint8, shape, elements=cells))
    else:
        few = draw(st.lists(FEW[kind], min_size=1, max_size=5))
        size = (CLASSES, *shape) if kind == "classes" else shape
        scores = draw(arrays(np.float32, size, elements=st.sampled_from(few)))
    bytes_ = draw(st.sampled_from([SATURATED, SATURATED, GREY, st.just(0), st.just(255)]))
    mask = draw(arrays(np.uint8, shape, elements=st.integers(0, CLASSES - 1) if kind == "classes" else bytes_))
    valid = draw(st.none() | arrays(np.bool_, shape)) if void else None
    return Image(scores, mask, valid, kind == "calibrated")


def scene(seed: int, shape: tuple[int, int] = (37, 53), *, void: bool = False) -> Image:
    """A map as networks draw them: smooth, mostly saturated, wrong here and there around a blob of foreground."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    centre = np.array(shape) * generator.uniform(0.4, 0.6, 2)
    distance = np.hypot((rows - centre[0]) / shape[0], (columns - centre[1]) / shape[1])
    terrain = 0.27 - distance + 1.5 * gaussian_filter(generator.normal(size=shape), 3)
    logit = 40 * (terrain + 0.5 * gaussian_filter(generator.normal(size=shape), 2))
    levels = np.round(255 / (1 + np.exp(-logit))).astype(np.uint8)
    valid = generator.random(shape) > 0.1 if void else None
    return Image(levels, np.where(terrain > 0, 255, 0).astype(np.uint8), valid)


def float_scene(seed: int, shape: tuple[int, int] = (37, 53), *, void: bool = False) -> Image:
    """The probabilities of the scene of this seed, between the levels; most of the saturated ones stay 0 and 1."""
    image = scene(seed, shape, void=void)
    noise = np.random.default_rng([seed, 1]).normal(0, 0.02, shape)
    return image._replace(scores=np.clip(image.scores / 255 + noise, 0, 1).astype(np.float32))


def calibrated_scene(seed: int, shape: tuple[int, int] = (37, 53), *, void: bool = False) -> Image:
    """The probabilities of the scene of this seed, to be calibrated."""
    return float_scene(seed, shape, void=void)._replace(calibrated=True)


def class_scene(seed: int, shape: tuple[int, int] = (37, 53), *, void: bool = False) -> Image:
    """Logits of smooth fields, the mask that of the same fields without noise; not every image has the last class."""
    generator = np.random.default_rng([seed, 2])
    terrain, noise = gaussian_filter(generator.normal(size=(2, CLASSES, *shape)), (0, 0, 3, 3))
    terrain[-1] -= 0.15
    valid = generator.random(shape) > 0.1 if void else None
    return Image((40 * terrain + 30 * noise).astype(np.float32), terrain.argmax(0).astype(np.uint8), valid)


def scenes(n: int, *, kind: str = "8-bit", first: int = 0, void: bool = False) -> list[Image]:
    """Scenes of different shapes."""
    draw = {"8-bit": scene, "float": float_scene, "classes": class_scene, "calibrated": calibrated_scene}[kind]
    return [draw(seed, (31 + seed % 7, 43 + seed % 5), void=void) for seed in range(first, first + n)]


def without_masks(pictures: Sequence[Image]) -> list[Image]:
    """The same predictions as if nothing was to be found."""
    return [image._replace(mask=None) for image in pictures]


@cache
def shifted() -> Vector:
    """A calibrator of binary maps, p = σ((3 z − 1) / 2): pixels of z in [0, 1/3) change their class."""
    calibrator = Vector()
    calibrator.n_classes_, calibrator.origin_ = 1, {}
    calibrator.restore({"scale_": np.array([1.5]), "offset_": np.array([-0.5]), "present_": np.array([True])})
    return calibrator


def row(name: str, image: Image) -> Statistics:
    """The statistics of one image, with everything that any metric reads."""
    if image.calibrated:
        return measure_calibrated(image.sample(name), shifted(), request=Request(extras=EXTRAS))
    measured = measure_sample(image.sample(name), Request(extras=EXTRAS))
    if image.scores.dtype != np.uint8 or image.mask is None:
        return measured
    return replace(measured, aslp=measure_aslp(name, image.scores, image.mask, image.valid))


def statistics_of(images: Sequence[Image], names: Sequence[str] | None = None) -> Statistics:
    """The statistics of many images, named in order."""
    names = names or [f"image{number:03d}" for number in range(len(images))]
    return Statistics.concat([row(name, image) for name, image in zip(names, images, strict=True)])


def histogram_of(levels: np.ndarray, foreground: np.ndarray, name: str = "a") -> Statistics:
    """The statistics of flat pixels, for metrics that need no positions."""
    counts = np.bincount(levels.astype(np.intp) + 256 * foreground, minlength=512).reshape(1, 2, 256)
    return Statistics(JointHistogram((name,), counts))


def metrics_of(kind: str, scope: str = "id") -> list[str]:
    """The metrics of a data set ("id"), or of an out-of-distribution set ("ood"), that a kind of predictions gives."""
    pictures = scenes(1, kind=kind)
    rows = statistics_of(pictures if scope == "id" else without_masks(pictures))
    return [name for name, metric in METRICS.items() if metric.scope == scope and metric.reads.available(rows)]


def evaluator(statistics: Statistics, metric: str, **settings) -> Evaluator:
    """An evaluator of one metric, without intervals unless they are asked for."""
    options = OPTIONS | settings.pop("options", {})
    chosen = Settings(metrics=(metric,), options=options, **{"n_boot": 0} | settings)
    return Evaluator(statistics, chosen, METRICS[metric].scope)


def values(statistics: Statistics, metric: str, **settings) -> dict[str, Value]:
    """What `evaluate` says of one metric, by kind of average; of single classes, by "pixels of class 2" and the like."""
    found = evaluator(statistics, metric, **settings).values()
    return {v.average + (f" of class {v.details['class']}" if "class" in v.details else ""): v for v in found}


def number(statistics: Statistics, metric: str, **options) -> float:
    """The metric's first number: pooled where it pools, else the mean over images."""
    return next(iter(values(statistics, metric, options=options).values())).value
