"""Maps whose true calibration is known: for a first run without data, for the documentation, and for tests.

Two smooth Gaussian fields lie on every image. The method sees one of them, g, the other, h, stays hidden; a pixel is
foreground where g + h > 0. What the method can know is therefore

    p = P(foreground | g) = Φ(g / hidden),

which is calibrated exactly at every pixel over the population of images, although the pixels within an image depend on
each other as strongly as they do in photographs (h is smooth, so whole regions come out as foreground or not together).
A method of sharpness s reports sigmoid(s · logit p), in 8 bits. As g is Gaussian, the share of pixels with each outcome
and level is an integral, and with it the true value of every metric that pools pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from scipy.optimize import brentq
from scipy.special import expit, logit, ndtr, ndtri_exp

from calbench.errors import InputError, listing
from calbench.io.sample import Sample
from calbench.kernels import measure
from calbench.metrics.calibration_error import expected_calibration_error
from calbench.statistics.histogram import LEVELS, JointHistogram
from calbench.statistics.rows import Array

DEMO_SHARPNESS = {"calibrated": 1.0, "overconfident": 2.5, "underconfident": 0.4}
"""Methods of the demo: 1 by definition; 2.5 and its inverse are far enough off to be seen at once in a diagram."""
DEMO_IMAGES = 60
"""Twice the 30 images below which intervals come with a warning."""

_MOST_SHARPNESS = 1e3
"""Stands for an infinite one: all but some 1e-3 of the pixels are at level 0 or 255."""
_TAIL = 12.0
"""Standard deviations at which a Gaussian is cut for integration; 4e-33 of its mass lies beyond."""
_NODES = 64
"""Gauss-Legendre nodes per level: the long intervals of levels 0 and 255 are then right to 1e-13."""


@dataclass(frozen=True)
class SyntheticScene:
    """The population that synthetic images are drawn from.

    Lengths are in image heights, so that smaller images of the same scene show the same dependence between pixels.

    Attributes:
        height, width: of an image, pixels.
        seen_length, hidden_length: standard deviations of the Gaussian blurs that make the fields; 0.12 gives a few
            soft objects an image, and the shorter hidden one makes their outlines irregular.
        mean: of the seen field. With the spreads below, −0.8 makes a quarter of the pixels foreground, as in common
            saliency sets.
        seen: standard deviation of the seen field.
        hidden: standard deviation of the hidden field; the smaller, the surer the best possible prediction. With 0.45
            it is right at 90 % of the pixels.
    Raises:
        InputError: a size below 1 pixel, or a length or standard deviation that is not positive.

    >>> round(SyntheticScene().foreground_share, 3)
    0.25
    """

    height: int = 96
    width: int = 128
    seen_length: float = 0.12
    hidden_length: float = 0.06
    mean: float = -0.8
    seen: float = 1.1
    hidden: float = 0.45

    def __post_init__(self) -> None:
        positive = ("height", "width", "seen_length", "hidden_length", "seen", "hidden")
        wrong = {name: getattr(self, name) for name in positive if not getattr(self, name) > 0}
        if wrong:
            raise InputError(f"the scene has {wrong}; sizes, lengths and standard deviations are positive")

    @property
    def foreground_share(self) -> float:
        """P(foreground) = Φ(mean / √(seen² + hidden²)), in [0, 1]."""
        return float(ndtr(self.mean / np.hypot(self.seen, self.hidden)))


SCENE = SyntheticScene()
"""The default population."""


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], blur: float) -> Array:
    """A stationary Gaussian field of mean 0 and variance 1 at every pixel.

    White noise, blurred around the edges (the image is a torus), divided by √Σ kernel². The kernel is measured as the
    response to an impulse, so the variance is exactly 1 whatever the blur's truncation and wrapping.

    Args:
        rng: source of randomness.
        shape: (H, W), pixels.
        blur: standard deviation of the blur, pixels.
    Returns:
        `(H, W)` float64.
    Reference: derived here.

    >>> smooth_field(np.random.default_rng(0), (4, 6), 1.5).shape
    (4, 6)
    """
    energy = _kernel_energy(shape[0], blur) * _kernel_energy(shape[1], blur)
    return np.asarray(gaussian_filter(rng.standard_normal(shape), blur, mode="wrap") / np.sqrt(energy))


@lru_cache(maxsize=64)
def _kernel_energy(length: int, blur: float) -> float:
    """Σ kernel² of the blur along an axis of this many pixels."""
    impulse = np.zeros(length)
    impulse[0] = 1
    return float((gaussian_filter1d(impulse, blur, mode="wrap") ** 2).sum())


def draw_image(rng: np.random.Generator, scene: SyntheticScene = SCENE) -> tuple[Array, Array]:
    """One image: the calibrated probability of foreground, and the mask.

    p = Φ(g / hidden), mask = g + h > 0; over images P(mask | p) = p at every pixel.

    Args:
        rng: source of randomness.
        scene: the population.
    Returns:
        Probability `(H, W)` float64 in [0, 1], and mask `(H, W)` bool.
    Reference: derived here; the threshold model of probit regression.

    >>> probability, mask = draw_image(np.random.default_rng(0))
    >>> probability.shape, mask.dtype
    ((96, 128), dtype('bool'))
    """
    shape = (scene.height, scene.width)
    seen = scene.mean + scene.seen * smooth_field(rng, shape, scene.seen_length * scene.height)
    hidden = scene.hidden * smooth_field(rng, shape, scene.hidden_length * scene.height)
    return np.asarray(ndtr(seen / scene.hidden)), seen + hidden > 0


def sharpen(probability: Array, sharpness: float) -> Array:
    """What a method of this sharpness reports: p' = sigmoid(s · logit p).

    s = 1 leaves p, s > 1 is over-confident, s < 1 under-confident; decisions at 0.5 stay. A temperature of 1 / s.

    Args:
        probability: any shape, in [0, 1]; 0 and 1 stay. float64 ends at 1 − 1e-16, which shows once s < 0.2.
        sharpness: s > 0.
    Raises:
        InputError: a sharpness that is not positive.
    Reference: temperature scaling, Guo et al., ICML 2017 (arXiv:1706.04599), in its binary form.

    >>> sharpen(np.array([0.2, 0.5]), 2.0).round(4).tolist()
    [0.0588, 0.5]
    """
    check_sharpness(sharpness)
    return np.asarray(expit(sharpness * logit(probability)))


def quantise(probability: Array) -> Array:
    """The 8-bit level round(255 p) of each probability, uint8.

    >>> quantise(np.array([0.0, 0.5, 0.7, 1.0])).tolist()
    [0, 128, 178, 255]
    """
    return np.round(255 * probability).astype(np.uint8)


def samples(n_images: int, sharpness: float = 1.0, *, seed: int = 0, scene: SyntheticScene = SCENE) -> Iterator[Sample]:
    """Images of a method, one at a time, for `calbench.collect`.

    Image i is drawn from `default_rng([seed, i])` alone: methods of different sharpness share masks, and the first
    images of a larger set are those of a smaller one.

    Args:
        n_images: how many.
        sharpness: s > 0 of `sharpen`.
        seed: of the set.
        scene: the population.
    Raises:
        InputError: a sharpness that is not positive.
    Reference: derived here.

    >>> [sample.name for sample in samples(2)]
    ['000000', '000001']
    """
    check_sharpness(sharpness)
    for index in range(n_images):
        probability, mask = draw_image(np.random.default_rng([seed, index]), scene)
        yield Sample(f"{index:06d}", quantise(sharpen(probability, sharpness)), mask)


def histograms(
    n_images: int, sharpnesses: Sequence[float], *, seed: int = 0, scene: SyntheticScene = SCENE
) -> tuple[JointHistogram, ...]:
    """The rows that `samples` lead to, of several methods at once, drawing each image once: for simulations.

    Args:
        n_images: how many.
        sharpnesses: s > 0 of each method.
        seed: of the set.
        scene: the population.
    Returns:
        One histogram a method, `n_images` rows each.
    Raises:
        InputError: a sharpness that is not positive.
    Reference: derived here.

    >>> [len(rows) for rows in histograms(3, [1.0, 2.0])]
    [3, 3]
    """
    counts = np.zeros((len(sharpnesses), n_images, 2, LEVELS), np.int64)
    for index in range(n_images):
        probability, mask = draw_image(np.random.default_rng([seed, index]), scene)
        for method, sharpness in enumerate(sharpnesses):
            counts[method, index] = measure(quantise(sharpen(probability, sharpness)), mask, scores=()).counts
    names = tuple(f"{index:06d}" for index in range(n_images))
    return tuple(JointHistogram(names, rows) for rows in counts)


def expected_histogram(sharpness: float = 1.0, *, scene: SyntheticScene = SCENE) -> JointHistogram:
    """The exact share of pixels with each outcome and level: the truth behind every metric that pools pixels.

    With the level edges t_v = (v − ½) / 255 carried back to the seen field, g_v = hidden Φ⁻¹(sigmoid(logit(t_v) / s)):

        share(1, v) = ∫ Φ(g / hidden) φ(g) dg,   share(0, v) = ∫ Φ(−g / hidden) φ(g) dg   over (g_v, g_{v+1}),

    φ the density of g. The shares add up to 1: metrics that need a number of pixels (`ce2_debiased`) have no truth here.

    Args:
        sharpness: s > 0 of `sharpen`.
        scene: the population; sizes and lengths do not matter.
    Returns:
        Pooled: no names, counts `(2, 256)` float64.
    Raises:
        InputError: a sharpness that is not positive.
    Reference: derived here.

    >>> truth = expected_histogram(2.0)
    >>> round(float(expected_calibration_error(truth.reliability("top-label"))), 4)
    0.045
    """
    check_sharpness(sharpness)
    logits = logit((np.arange(1, LEVELS) - 0.5) / 255) / sharpness
    # Φ⁻¹ of the smaller tail, from its logarithm: p itself rounds to 0 or 1 at a small sharpness
    inner = -np.sign(logits) * ndtri_exp(-np.logaddexp(0, np.abs(logits))) * scene.hidden
    edges = np.clip((inner - scene.mean) / scene.seen, -_TAIL, _TAIL)
    edges = np.concatenate([[-_TAIL], edges, [_TAIL]])[:, None]
    nodes, node_weights = np.polynomial.legendre.leggauss(_NODES)
    half = np.diff(edges, axis=0) / 2
    standard = edges[:-1] + half * (1 + nodes)
    mass = node_weights * half * np.exp(-(standard**2) / 2) / np.sqrt(2 * np.pi)
    ratio = (scene.mean + scene.seen * standard) / scene.hidden
    return JointHistogram((), np.stack([(mass * ndtr(-ratio)).sum(-1), (mass * ndtr(ratio)).sum(-1)]))


def sharpness_for_ece(target: float, *, bins: int = 15, scene: SyntheticScene = SCENE) -> float:
    """The over-confident sharpness whose true top-label ECE, on 8-bit maps, is `target`.

    A target of 0 gives exactly 1. What remains there is the rounding to 8 bits, an ECE of 6.2e-5 in the default scene
    with 15 bins, most of it from level 0, which claims certainty for probabilities up to half a level.

    Args:
        target: true ECE, in [0, 1].
        bins: equal-width bins of the ECE.
        scene: the population.
    Returns:
        s >= 1.
    Raises:
        InputError: a target that rounding alone exceeds, or that no sharpness reaches.
    Reference: derived here; root by Brent's method.

    >>> round(sharpness_for_ece(0.05), 2)
    2.22
    """
    if target == 0:
        return 1.0

    def excess(sharpness: float) -> float:
        return _true_ece(sharpness, bins, scene) - target

    floor, ceiling = (_true_ece(sharpness, bins, scene) for sharpness in (1.0, _MOST_SHARPNESS))
    if not floor < target < ceiling:
        raise InputError(
            f"the target ECE is {target}; in this scene over-confidence gives {floor:.2g} (rounding to 8 bits) to "
            f"{ceiling:.2g}; 0 stands for a sharpness of 1"
        )
    return float(brentq(excess, 1.0, _MOST_SHARPNESS, xtol=1e-12))


def write_demo(
    folder: str | Path, *, n_images: int = DEMO_IMAGES, seed: int = 0, scene: SyntheticScene = SCENE
) -> Path:
    """Write a small data set and three methods as 8-bit PNG, the same files for the same arguments.

        data/synthetic/gt/*.png                 masks, 0 and 255
        preds/calibrated/synthetic/*.png        sharpness 1
        preds/overconfident/synthetic/*.png     sharpness 2.5
        preds/underconfident/synthetic/*.png    sharpness 0.4

    Args:
        folder: created where missing; files of the same names are replaced.
        n_images: how many.
        seed: of the set.
        scene: the population; (H, W) is the size of the maps.
    Returns:
        The folder.
    Raises:
        InputError: the sub-folders hold other files, which would end up in the data set.
    Reference: derived here.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sorted(path.name for path in write_demo(folder, n_images=2).glob("data/synthetic/gt/*"))
    ['000000.png', '000001.png']
    """
    folder = Path(folder)
    gt = folder / "data" / "synthetic" / "gt"
    preds = {method: folder / "preds" / method / "synthetic" for method in DEMO_SHARPNESS}
    for target in (gt, *preds.values()):
        make_demo_folder(target, n_images, ".png")
    methods = [samples(n_images, sharpness, seed=seed, scene=scene) for sharpness in DEMO_SHARPNESS.values()]
    for drawn in zip(*methods, strict=True):
        name = f"{drawn[0].name}.png"
        Image.fromarray(np.where(drawn[0].target, 255, 0).astype(np.uint8)).save(gt / name)
        for target, sample in zip(preds.values(), drawn, strict=True):
            Image.fromarray(sample.scores).save(target / name)
    return folder


def make_demo_folder(target: Path, n_images: int, extension: str) -> None:
    """Create a folder for the numbered files of a demo.

    Raises:
        InputError: it holds other files, which would end up in the data set.
    """
    target.mkdir(parents=True, exist_ok=True)
    names = {f"{index:06d}{extension}" for index in range(n_images)}
    foreign = sorted(str(path) for path in target.iterdir() if path.name not in names)
    if foreign:
        raise InputError(
            f"{target} holds {len(foreign)} files that the demo of {n_images} images does not write:\n"
            f"{listing(foreign)}\nchoose an empty folder"
        )


def _true_ece(sharpness: float, bins: int, scene: SyntheticScene) -> float:
    cells = expected_histogram(sharpness, scene=scene).reliability("top-label")
    return float(expected_calibration_error(cells, bins=bins))


def check_sharpness(sharpness: float) -> None:
    """Refuse what is no sharpness.

    Raises:
        InputError: a number that is not positive, or infinite.
    """
    if not 0 < sharpness < np.inf:
        raise InputError(f"sharpness is {sharpness}; expected a positive number, 1 for calibrated")
