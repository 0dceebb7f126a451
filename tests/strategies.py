"""Small 8-bit maps with masks and void, drawn by hypothesis or by code, and the statistics of such images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import gaussian_filter

from calbench.evaluate import Evaluator, Settings, Value
from calbench.kernels import measure, measure_aslp
from calbench.statistics import ImageScores, JointHistogram, Statistics

OPTIONS = {"bins": 10, "ties": "split", "debias_bins": 10}


class Image(NamedTuple):
    """One prediction `(H, W)` uint8, its mask bytes `(H, W)` uint8, and the valid pixels (None: all)."""

    levels: np.ndarray
    mask: np.ndarray
    valid: np.ndarray | None = None

    @property
    def foreground(self) -> np.ndarray:
        return self.mask > 128

    @property
    def pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """Levels and foreground of the valid pixels, flat."""
        inside = np.ones(self.levels.shape, bool) if self.valid is None else self.valid
        return self.levels[inside], self.foreground[inside]


SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 9)).filter(lambda shape: shape[0] != shape[1])
SATURATED = st.sampled_from([0, 255])
LEVELS = st.one_of(SATURATED, st.integers(0, 255))
GREY = st.sampled_from([0, 1, 100, 127, 128, 129, 254, 255])


@st.composite
def images(draw, *, void: bool = True, min_pixels: int = 1) -> Image:
    """Any small map: saturated, constant, few-levelled or free; any mask, the empty and full ones too."""
    shape = draw(SHAPES.filter(lambda s: s[0] * s[1] >= min_pixels))
    few = draw(st.lists(st.integers(0, 255), min_size=1, max_size=3))
    cells = draw(st.sampled_from([SATURATED, LEVELS, st.integers(0, 255), st.sampled_from(few)]))
    levels = draw(arrays(np.uint8, shape, elements=cells))
    bytes_ = draw(st.sampled_from([SATURATED, SATURATED, GREY, st.just(0), st.just(255)]))
    mask = draw(arrays(np.uint8, shape, elements=bytes_))
    valid = draw(st.none() | arrays(np.bool_, shape)) if void else None
    return Image(levels, mask, valid)


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


def scenes(n: int, *, first: int = 0, void: bool = False) -> list[Image]:
    """Scenes of different shapes."""
    return [scene(seed, (31 + seed % 7, 43 + seed % 5), void=void) for seed in range(first, first + n)]


def row(name: str, image: Image) -> Statistics:
    """The statistics of one image, with everything that any metric reads."""
    measured = measure(image.levels, image.foreground, image.valid)
    return Statistics(
        JointHistogram((name,), measured.counts[None]),
        ImageScores.from_records((name,), [measured.scores], np.float64),
        aslp=measure_aslp(name, image.levels, image.mask, image.valid),
    )


def statistics_of(images: Sequence[Image], names: Sequence[str] | None = None) -> Statistics:
    """The statistics of many images, named in order."""
    names = names or [f"image{number:03d}" for number in range(len(images))]
    return Statistics.concat([row(name, image) for name, image in zip(names, images, strict=True)])


def histogram_of(levels: np.ndarray, foreground: np.ndarray, name: str = "a") -> Statistics:
    """The statistics of flat pixels, for metrics that need no positions."""
    counts = np.bincount(levels.astype(np.intp) + 256 * foreground, minlength=512).reshape(1, 2, 256)
    return Statistics(JointHistogram((name,), counts))


def values(statistics: Statistics, metric: str, **settings) -> dict[str, Value]:
    """What `evaluate` says of one metric, by kind of average."""
    options = OPTIONS | settings.pop("options", {})
    evaluator = Evaluator(statistics, Settings(metrics=(metric,), options=options, **{"n_boot": 0} | settings))
    return {value.average: value for value in evaluator.values()}


def number(statistics: Statistics, metric: str, **options) -> float:
    """The metric's first number: pooled where it pools, else the mean over images."""
    return next(iter(values(statistics, metric, options=options).values())).value
