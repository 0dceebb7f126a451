"""Multi-class logits whose true calibration is known, and binary maps of images with nothing to find.

Two races between the classes are run at every pixel. In each, class k scores ln w_k + G_k, with G_k independent over the
classes and Gumbel distributed, so that k wins with probability w_k / Σ_j w_j. Within an image G_k = −ln(−ln Φ(h_k)) of a
smooth Gaussian field h_k: winners come in regions.

The method sees the first race, run with the class shares π. Its winner c, the favourite, leads the runner-up by m > 0:

    z_k = ln π_k  for k ≠ c,   z_c = max_{j≠c} ln π_j + spread · m.

The label is the winner of the second, hidden race, run with weights exp z_k. So P(label = k | z) = softmax(z)_k: z is
calibrated exactly at every pixel over the population of images. A method of sharpness s reports s · z.

Lead and favourite have the joint distribution P(c, m > t) = sigmoid(logit π_c − t). Hence u = sigmoid(logit π_c − m) is
uniform on (0, π_c), and what is expected at a pixel is a sum over c of integrals over u.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.optimize import brentq
from scipy.special import entr, expit, log_expit, log_ndtr, logit, logsumexp

from calbench.errors import InputError
from calbench.statistics.reliability import CLASS_GRID, SCORE_GRID, Grid, ReliabilityCells
from calbench.statistics.rows import Array
from calbench.statistics.scoring import ScoreSums
from calbench.synthetic import (
    DEMO_IMAGES,
    DEMO_SHARPNESS,
    SyntheticScene,
    check_sharpness,
    draw_image,
    make_demo_folder,
    quantise,
    sharpen,
    smooth_field,
)

CLASS_DEMO_SHARPNESS = {method: DEMO_SHARPNESS[method] for method in ("calibrated", "overconfident")}
"""Methods of the multi-class demo."""
VOID = 255
"""Label of the void pixels of the demo."""
OOD_SCENE = SyntheticScene(mean=-0.235, seen=0.05)
"""Images with nothing to find, on which a method of sharpness 1 says p = 0.30 ± 0.04 everywhere."""

_MOST_SHARPNESS = 1e3
"""Stands for an infinite one: ECE is within 2e-4 of one less the accuracy."""
_STEPS = np.arange(-6.0, 41.0)
"""Log-odds and leads at which panels of an integral end: integrands are smooth within each, whatever the sharpness.

255 classes at equal logits have log-odds of −5.5, and beyond 40 lie 4e-18 of the probability and of the pixels.
"""
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)


@dataclass(frozen=True)
class ClassScene:
    """The population that synthetic multi-class images are drawn from.

    Lengths are in image heights, so that smaller images of the same scene show the same dependence between pixels.

    Attributes:
        height, width: of an image, pixels.
        classes: number of classes, 2 to 255: labels fit 8 bits beside the void label.
        seen_length, hidden_length: standard deviations of the Gaussian blurs that make the fields; 0.12 gives some
            twenty regions an image, and errors in patches along their borders.
        spread: logits per unit of lead; the larger, the surer the best possible prediction. With 8 it is right at 85 %
            of the pixels.
    Raises:
        InputError: a size below 1 pixel, a number of classes out of range, or a length or spread that is not positive.

    >>> ClassScene(classes=4).shares.round(2).tolist()
    [0.48, 0.24, 0.16, 0.12]
    """

    height: int = 64
    width: int = 96
    classes: int = 19
    seen_length: float = 0.12
    hidden_length: float = 0.12
    spread: float = 8.0

    def __post_init__(self) -> None:
        positive = ("height", "width", "seen_length", "hidden_length", "spread")
        wrong = {name: getattr(self, name) for name in positive if not getattr(self, name) > 0}
        if wrong:
            raise InputError(f"the scene has {wrong}; sizes, lengths and the spread are positive")
        if not 2 <= self.classes <= VOID:
            raise InputError(f"the scene has {self.classes} classes; expected 2 to {VOID}, as labels have 8 bits")

    @cached_property
    def shares(self) -> Array:
        """Share of pixels whose favourite is k, `(classes,)`: π_k ∝ 1 / (k + 1), from common classes to rare ones."""
        weights = 1 / np.arange(1, self.classes + 1)
        return weights / weights.sum()


CLASS_SCENE = ClassScene()
"""The default population."""


def draw_classes(rng: np.random.Generator, scene: ClassScene = CLASS_SCENE) -> tuple[Array, Array]:
    """One image: calibrated logits and the labels.

    z_k = ln π_k, but z_c = max_{j≠c} ln π_j + spread · m for the favourite c, which leads by m; label = argmax_k
    (z_k + G_k); over images P(label = k | z) = softmax(z)_k at every pixel.

    Args:
        rng: source of randomness.
        scene: the population.
    Returns:
        Logits `(classes, H, W)` float64, and labels `(H, W)` uint8.
    Reference: the Gumbel-max trick, Maddison et al., NeurIPS 2014 (arXiv:1411.0030); its use on fields derived here.

    >>> logits, labels = draw_classes(np.random.default_rng(0))
    >>> logits.shape, labels.shape, labels.dtype
    ((19, 64, 96), (64, 96), dtype('uint8'))
    """
    log_shares = np.log(scene.shares)[:, None, None]
    race = log_shares + _gumbel_fields(rng, scene, scene.seen_length)
    favourite = race.argmax(0)[None]
    runner_up, winner = np.partition(race, -2, axis=0)[-2:]
    best_rival = np.where(favourite == 0, log_shares[1], log_shares[0])  # shares descend
    logits = np.broadcast_to(log_shares, race.shape).copy()
    np.put_along_axis(logits, favourite, best_rival + scene.spread * (winner - runner_up), axis=0)
    labels = (logits + _gumbel_fields(rng, scene, scene.hidden_length)).argmax(0)
    return logits, labels.astype(np.uint8)


def class_samples(
    n_images: int, sharpness: float = 1.0, *, seed: int = 0, scene: ClassScene = CLASS_SCENE
) -> Iterator[tuple[str, Array, Array]]:
    """Images of a method, one at a time: name, logits `(classes, H, W)` float64, labels `(H, W)` uint8.

    Image i is drawn from `default_rng([seed, i])` alone: methods of different sharpness share labels, and the first
    images of a larger set are those of a smaller one.

    Args:
        n_images: how many.
        sharpness: s > 0; the logits are s · z. s > 1 is over-confident, s < 1 under-confident; a temperature of 1 / s.
        seed: of the set.
        scene: the population.
    Raises:
        InputError: a sharpness that is not positive.
    Reference: derived here.

    >>> [name for name, logits, labels in class_samples(2)]
    ['000000', '000001']
    """
    check_sharpness(sharpness)
    for index in range(n_images):
        logits, labels = draw_classes(np.random.default_rng([seed, index]), scene)
        yield f"{index:06d}", sharpness * logits, labels


def top_label_rows(
    n_images: int, sharpnesses: Sequence[float], *, seed: int = 0, scene: ClassScene = CLASS_SCENE
) -> tuple[ReliabilityCells, ...]:
    """The top-label cells that `class_samples` lead to, of several methods, drawing each image once: for simulations.

    Args:
        n_images: how many.
        sharpnesses: s > 0 of each method.
        seed: of the set.
        scene: the population.
    Returns:
        Cells of `SCORE_GRID` for each method, `(n_images, 682)`.
    Raises:
        InputError: a sharpness that is not positive.
    Reference: derived here.

    >>> [len(rows) for rows in top_label_rows(3, [1.0, 2.0])]
    [3, 3]
    """
    shape = (len(sharpnesses), n_images, SCORE_GRID.size)
    count, confidence, correct = np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape, np.int64)
    names = []
    for index, (name, logits, labels) in enumerate(class_samples(n_images, seed=seed, scene=scene)):
        names.append(name)
        below = logits - logits.max(0)
        right = (logits.argmax(0) == labels).ravel()
        for method, sharpness in enumerate(sharpnesses):
            check_sharpness(sharpness)
            score = 1 / np.exp(sharpness * below).sum(0).ravel()
            cell = SCORE_GRID.index(score)
            count[method, index] = np.bincount(cell, minlength=SCORE_GRID.size)
            confidence[method, index] = np.bincount(cell, score, SCORE_GRID.size)
            correct[method, index] = np.bincount(cell[right], minlength=SCORE_GRID.size)
    return tuple(
        ReliabilityCells.on_grid(tuple(names), *sums, SCORE_GRID)
        for sums in zip(count, confidence, correct, strict=True)
    )


def expected_reliability(sharpness: float = 1.0, *, scene: ClassScene = CLASS_SCENE) -> ReliabilityCells:
    """The truth behind every top-label metric that pools pixels: exact shares of pixels by confidence.

    With t = spread · m and R_c(s) = Σ_{k≠c} (π_k / max_{j≠c} π_j)^s the confidence is sigmoid(s t − ln R_c(s)), and it is
    right with probability sigmoid(t − ln R_c(1)). Per cell:

        count = Σ_c ∫ du,   confidence = Σ_c ∫ sigmoid(s t − ln R_c(s)) du,   correct = Σ_c ∫ sigmoid(t − ln R_c(1)) du

    over the u in (0, π_c) whose confidence lies in the cell, m = logit π_c − logit u; by Gauss-Legendre quadrature.

    Args:
        sharpness: s > 0.
        scene: the population; sizes and lengths do not matter.
    Returns:
        Pooled: no names, cells of `SCORE_GRID` `(682,)` float64, counts that add up to 1.
    Raises:
        InputError: a sharpness that is not positive.
    Reference: derived here.

    >>> from calbench.metrics.calibration_error import expected_calibration_error
    >>> round(float(expected_calibration_error(expected_reliability(2.5))), 4)
    0.1106
    """
    check_sharpness(sharpness)
    by_favourite = [_cell_sums(c, c, sharpness, scene, SCORE_GRID) for c in range(scene.classes)]
    count, confidence, correct = np.sum(by_favourite, axis=0)
    return ReliabilityCells.on_grid((), count, confidence, correct, SCORE_GRID)


def expected_classwise(sharpness: float = 1.0, *, scene: ClassScene = CLASS_SCENE) -> ReliabilityCells:
    """The truth behind every class-wise metric: exact shares of pixels by the probability p_k of each class k.

    As `expected_reliability`, with p_c the confidence and p_k = (1 − p_c) (π_k / max_{j≠c} π_j)^s / R_c(s) of the others.

    Args:
        sharpness: s > 0.
        scene: the population; sizes and lengths do not matter.
    Returns:
        Pooled: no names, cells of `CLASS_GRID` `(classes, 69)` float64, counts of each class that add up to 1.
    Raises:
        InputError: a sharpness that is not positive.
    Reference: derived here.

    >>> expected_classwise(2.0).count.shape
    (19, 69)
    """
    check_sharpness(sharpness)
    classes = range(scene.classes)
    sums = [[_cell_sums(c, k, sharpness, scene, CLASS_GRID) for k in classes] for c in classes]
    count, confidence, correct = np.moveaxis(np.sum(sums, axis=0), 1, 0)
    return ReliabilityCells.on_grid((), count, confidence, correct, CLASS_GRID)


def expected_score_sums(sharpness: float = 1.0, *, scene: ClassScene = CLASS_SCENE) -> ScoreSums:
    """The truth behind log loss, Brier score and entropy: their expectations at one pixel.

    With q = softmax(z) and p = softmax(s z): log loss −Σ_k q_k ln p_k, squared error Σ_k p_k² − 2 Σ_k q_k p_k + 1, entropy
    −Σ_k p_k ln p_k, integrated as in `expected_reliability`.

    Args:
        sharpness: s > 0.
        scene: the population; sizes and lengths do not matter.
    Returns:
        Pooled: no names, a count of 1, no clip.
    Raises:
        InputError: a sharpness that is not positive.
    Reference: derived here.

    >>> calibrated = expected_score_sums()
    >>> bool(np.isclose(calibrated.log_loss, calibrated.entropy))
    True
    """
    check_sharpness(sharpness)
    by_favourite = []
    for favourite in range(scene.classes):
        u, mass = _nodes(favourite, sharpness, scene)
        odds, true_odds = (_log_odds(u, favourite, s, scene) for s in (sharpness, 1.0))
        p, q = expit(odds), expit(true_odds)
        wrong, truly_wrong = expit(-odds), expit(-true_odds)
        rivals = np.arange(scene.classes) != favourite
        log_rest, log_true_rest = (_rivals(favourite, s, scene)[1][rivals] for s in (sharpness, 1.0))
        rest, true_rest = np.exp(log_rest), np.exp(log_true_rest)
        squared_score = p**2 + wrong**2 * (rest @ rest)
        integrands = (
            -q * log_expit(odds) - truly_wrong * (log_expit(-odds) + true_rest @ log_rest),
            squared_score - 2 * (q * p + truly_wrong * wrong * (true_rest @ rest)) + 1,
            squared_score,
            entr(p) - wrong * (log_expit(-odds) + rest @ log_rest),
        )
        by_favourite.append([(mass * integrand).sum() for integrand in integrands])
    log_loss, squared_error, squared_score, entropy = np.sum(by_favourite, axis=0)
    return ScoreSums(
        (),
        np.array(1.0),
        log_loss,
        squared_error,
        squared_score,
        entropy,
        clip=0.0,
        classes=scene.classes,
        binary=False,
    )


def sharpness_for_class_ece(target: float, *, scene: ClassScene = CLASS_SCENE) -> float:
    """The over-confident sharpness whose true top-label ECE is `target`, with any number of bins.

    At s > 1 every confidence is too high, so the gaps of all bins have one sign and ECE = E[confidence] − accuracy.

    Args:
        target: true ECE, in [0, 1]; 0 gives exactly 1.
        scene: the population.
    Returns:
        s >= 1.
    Raises:
        InputError: a target that no sharpness reaches.
    Reference: derived here; root by Brent's method.

    >>> round(sharpness_for_class_ece(0.05), 2)
    1.32
    """
    ceiling = _gap(_MOST_SHARPNESS, scene)
    if not 0 <= target < ceiling:
        raise InputError(f"the target ECE is {target}; in this scene over-confidence gives 0 to {ceiling:.2g}")
    if target == 0:
        return 1.0
    return float(brentq(lambda sharpness: _gap(sharpness, scene) - target, 1.0, _MOST_SHARPNESS, xtol=1e-12))


def write_class_demo(
    folder: str | Path, *, n_images: int = DEMO_IMAGES, seed: int = 0, scene: ClassScene = CLASS_SCENE
) -> Path:
    """Write a small data set of several classes and two methods, the same files for the same arguments.

        data/synthetic-classes/gt/*.png                 labels, 8 bits; the bottom line of pixels is void, 255
        preds/calibrated/synthetic-classes/*.npy        logits (classes, H, W) of sharpness 1
        preds/overconfident/synthetic-classes/*.npy     logits of sharpness 2.5

    The logits are float16, as networks in mixed precision save them. Rounding moves a calibrated probability by up to 2e-4.

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
    ...     sorted(path.name for path in write_class_demo(folder, n_images=2).glob("preds/calibrated/*/*"))
    ['000000.npy', '000001.npy']
    """
    folder = Path(folder)
    gt = folder / "data" / "synthetic-classes" / "gt"
    preds = {folder / "preds" / method / "synthetic-classes": s for method, s in CLASS_DEMO_SHARPNESS.items()}
    for target in (gt, *preds):
        make_demo_folder(target, n_images, ".png" if target == gt else ".npy")
    for name, logits, labels in class_samples(n_images, seed=seed, scene=scene):
        labels[-1] = VOID
        Image.fromarray(labels).save(gt / f"{name}.png")
        for target, sharpness in preds.items():
            np.save(target / f"{name}.npy", (sharpness * logits).astype(np.float16))
    return folder


def ood_maps(
    n_images: int, sharpness: float = 1.0, *, seed: int = 0, scene: SyntheticScene = OOD_SCENE
) -> Iterator[tuple[str, Array]]:
    """Binary maps of images with nothing to find, where any foreground is an error: name, levels `(H, W)` uint8.

    A method of sharpness s reports sigmoid(s · logit p) of the scene's p, in 8 bits: it is unsure at s = 1, where p is
    about 0.3, and sure that there is nothing at s = 6, where it is about 0.01. The mask is background everywhere. Levels
    have the distribution `expected_histogram(s, scene=scene).counts.sum(0)`.

    Args:
        n_images: how many; image i is drawn from `default_rng([seed, i])` alone.
        sharpness: s > 0.
        seed: of the set.
        scene: the population of the method's probabilities.
    Raises:
        InputError: a sharpness that is not positive.
    Reference: derived here.

    >>> name, levels = next(ood_maps(1, 6.0))
    >>> name, levels.shape, levels.dtype
    ('000000', (96, 128), dtype('uint8'))
    """
    check_sharpness(sharpness)
    for index in range(n_images):
        probability, _ = draw_image(np.random.default_rng([seed, index]), scene)
        yield f"{index:06d}", quantise(sharpen(probability, sharpness))


def _gumbel_fields(rng: np.random.Generator, scene: ClassScene, length: float) -> Array:
    """Smooth fields `(classes, H, W)`, independent over the classes and Gumbel distributed at every pixel."""
    shape = (scene.height, scene.width)
    fields = np.stack([smooth_field(rng, shape, length * scene.height) for _ in range(scene.classes)])
    return np.asarray(-np.log(-log_ndtr(fields)))


def _rivals(favourite: int, sharpness: float, scene: ClassScene) -> tuple[float, Array]:
    """ln R_c(s), and ln of the share of 1 − p_c that goes to each class, `(classes,)`, −inf at the favourite."""
    log_shares = np.log(scene.shares)
    log_shares[favourite] = -np.inf
    log_weights = sharpness * (log_shares - log_shares.max())
    log_sum = float(logsumexp(log_weights))
    return log_sum, log_weights - log_sum


def _log_odds(u: Array, favourite: int, sharpness: float, scene: ClassScene) -> Array:
    """Logit of the confidence at u: s · spread · m − ln R_c(s)."""
    lead = logit(scene.shares[favourite]) - logit(u)
    return sharpness * scene.spread * lead - _rivals(favourite, sharpness, scene)[0]


def _reached(log_odds: Array, favourite: int, sharpness: float, scene: ClassScene) -> Array:
    """The u below which the confidence exceeds these log-odds: the inverse of `_log_odds`, π_c where all do."""
    lead = (log_odds + _rivals(favourite, sharpness, scene)[0]) / (sharpness * scene.spread)
    return np.asarray(expit(logit(scene.shares[favourite]) - np.maximum(lead, 0)))


def _nodes(
    favourite: int, sharpness: float, scene: ClassScene, edges: Sequence[float] | Array = ()
) -> tuple[Array, Array]:
    """Nodes and weights `(panels, 16)` on (0, π_c), in panels that end at `edges` and wherever `_STEPS` are reached."""
    share = scene.shares[favourite]
    leads = expit(logit(share) - np.maximum(_STEPS, 0))
    odds = [_reached(_STEPS, favourite, s, scene) for s in (sharpness, 1.0)]
    bounds = np.unique(np.concatenate([[0.0, share], leads, *odds, edges]))
    half = np.diff(bounds)[:, None] / 2
    return bounds[:-1, None] + half * (1 + _NODES), half * _WEIGHTS


def _cell_sums(favourite: int, event: int, sharpness: float, scene: ClassScene, grid: Grid) -> Array:
    """Share, Σ p_k and Σ q_k by cell of p_k, `(3, cells)`, over the pixels of one favourite; k is the event."""
    scores = grid.edges[1:-1]
    if event == favourite:
        edges = _reached(logit(scores), favourite, sharpness, scene)
    else:
        log_part = np.minimum(np.log(scores) - _rivals(favourite, sharpness, scene)[1][event], 0)
        edges = _reached(-logit(np.exp(log_part)), favourite, sharpness, scene)
    u, mass = _nodes(favourite, sharpness, scene, edges)

    def probability(s: float) -> Array:
        log_odds = _log_odds(u, favourite, s, scene)
        if event == favourite:
            return np.asarray(expit(log_odds))
        return expit(-log_odds) * np.exp(_rivals(favourite, s, scene)[1][event])

    middle = u.mean(-1)
    # the favourite's probability falls with u, that of the others rises
    exceeded = middle[:, None] < edges if event == favourite else middle[:, None] > edges
    sums = [(mass * integrand).sum(-1) for integrand in (np.ones(u.shape), probability(sharpness), probability(1.0))]
    return np.stack([np.bincount(exceeded.sum(-1), panel, grid.size) for panel in sums])


def _gap(sharpness: float, scene: ClassScene) -> float:
    """E[confidence] − accuracy."""
    return float(-expected_reliability(sharpness, scene=scene).residual.sum())
