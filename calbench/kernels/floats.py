"""The per-image kernel of binary maps that are finer than 8 bits: float probabilities or logits, integers of 16 bits."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Literal

import numpy as np
from scipy.special import expit

from calbench.errors import RangeError
from calbench.kernels.regions import Block, Sums, accumulate, blocks
from calbench.statistics.bundle import Statistics
from calbench.statistics.class_counts import ClassCounts
from calbench.statistics.histogram import LEVELS, JointHistogram, binary_entropy
from calbench.statistics.reliability import SCORE_GRID, ReliabilityCells, edge_tolerance
from calbench.statistics.rows import Array
from calbench.statistics.scoring import ScoreSums
from calbench.statistics.uncertainty import Uncertainty

Kind = Literal["levels", "probabilities", "logits"]

BLOCK = 1 << 15
"""Most pixels of a block."""
LEFT_EDGES = (np.arange(601) / 600).astype(np.float32)
"""Lower edges of the left-closed cells of torchmetrics, float32; the last cell holds scores of 1."""
LEFT_CELLS = len(LEFT_EDGES)


def measure_float_map(
    name: str,
    scores: Array,
    kind: Kind,
    target: Array | None,
    valid: Array | None = None,
    *,
    top: int = 255,
    region: Array | None = None,
    n_regions: int = 1,
    extras: Collection[str] = (),
    clip: float | None = None,
    where: str = "",
) -> list[Statistics]:
    """Reduce one binary map to its statistics: for each region, a bundle of one row.

    p is the score as stored, level / top in float64, or the sigmoid of the logit in float32 (float64 of float64 logits);
    what follows from p is computed in float64. Top-label: score max(p, 1 − p), correct where the decision p >= 0.5 equals
    the outcome; foreground: score p, correct where the pixel is foreground.

    Args:
        name: of the row.
        scores: `(H, W)` floats, or integers of kind "levels".
        kind: "levels", "probabilities" or "logits".
        target: `(H, W)` bool, True where the ground truth is foreground; None: background everywhere.
        valid: `(H, W)` bool, False at void pixels, which enter nothing, not even checks; None when all count.
        top: the level that stands for probability 1: 255 or 65535.
        region: `(H, W)` code of each pixel, 0 ... n_regions − 1; None for one region.
        extras: "torchmetrics" adds what that profile reads beyond the rest.
        clip: of P(outcome) in the log loss of probabilities and levels; None for half a level, or for the unit of the type
            that probabilities are stored in. The log loss of logits is not clipped.
        where: what the scores were read from, for messages.
    Raises:
        RangeError: scores that are NaN or infinite, or no probabilities.

    >>> [whole] = measure_float_map("a", np.array([[0.1, 0.8], [0.4, 0.9]]), "probabilities", np.array([[0, 1], [1, 1]]) > 0)
    >>> whole.sums.squared_error.round(2).tolist(), whole.counts.hit.tolist()
    ([0.42], [[1, 2]])
    """
    flat = np.asarray(scores).reshape(-1)
    stored = flat.dtype.newbyteorder("=")
    if kind == "logits":
        clip = 0.0
    elif clip is None:
        clip = 1 / (2 * top) if kind == "levels" else float(np.finfo(stored).eps)
    tolerance = edge_tolerance(np.dtype(np.float32) if kind == "logits" and stored != np.float64 else stored)
    outcome = np.zeros(flat.size, bool) if target is None else target.ravel()

    def pieces() -> Iterator[tuple[Block, Sums]]:
        for block in blocks(flat.size, BLOCK, valid, region):
            chosen = flat[block.at]
            _check(chosen, kind, top, where or name)
            yield block, _sums(block, chosen, kind, top, outcome[block.at], tolerance, clip, "torchmetrics" in extras)

    names = (name,) * n_regions
    # 1 and the float64 numbers next to it share the last cell, unless those came of fewer levels, as the clip tells
    rounded = kind == "logits" or (stored == np.float64 and clip < 1e-12)
    totals = accumulate(n_regions, pieces())
    parts: dict[str, Any] = {
        "histogram": JointHistogram(names, **totals["histogram"]),
        "top_label": ReliabilityCells.on_grid(names, **totals["top_label"], grid=SCORE_GRID, rounded=rounded),
        "foreground": ReliabilityCells.on_grid(names, **totals["foreground"], grid=SCORE_GRID, rounded=rounded),
        "sums": ScoreSums(names, **totals["sums"], clip=clip, classes=2, binary=True),
        "counts": ClassCounts(names, **totals["counts"]),
        "unsure": Uncertainty.on_grid(names, **totals["unsure"], classes=2),
    }
    if "left_closed" in totals:
        parts["left_closed"] = left_closed(names, **totals["left_closed"])
    rows = Statistics(**parts)
    return [rows.select([code]) for code in range(n_regions)]


def probabilities(scores: Array, kind: Kind, top: int = 255) -> Array:
    """The probability of foreground that each score stands for, float64.

    >>> probabilities(np.array([0, 51, 255], np.uint8), "levels").tolist()
    [0.0, 0.2, 1.0]
    """
    if kind == "levels":
        return scores / np.float64(top)
    p = expit(scores) if kind == "logits" else scores
    # a map that was stored in few bits may exceed 1 by a rounding error, and then has no entropy
    return np.minimum(p, 1, dtype=np.float64)


def saliency_levels(scores: Array, kind: Kind, top: int = 255) -> Array:
    """The map rounded to 8 bits, uint8, as the saliency metrics read it; NaN, which only void pixels may hold, as 0.

    >>> saliency_levels(np.array([[0.0, 0.499, 1.0]]), "probabilities").tolist()
    [[0, 127, 255]]
    """
    return np.rint(255 * np.nan_to_num(probabilities(scores, kind, top), neginf=0)).clip(0, 255).astype(np.uint8)


def left_closed_cell(scores: Array) -> Array:
    """The left-closed cell of each score, compared in float32 as torchmetrics does: [i / 600, (i + 1) / 600), and exactly 1.

    >>> left_closed_cell(np.array([0.0, 0.5, 1.0])).tolist()
    [0, 300, 600]
    """
    return np.searchsorted(LEFT_EDGES, scores.astype(np.float32, copy=False), side="right") - 1


def left_closed(names: tuple[str, ...], count: Array, confidence: Array, correct: Array) -> ReliabilityCells:
    """Cells that reach from their score up to the next one, and leave that out."""
    return ReliabilityCells(names, count, confidence, correct, np.arange(LEFT_CELLS) / 600, np.zeros(LEFT_CELLS))


def _check(scores: Array, kind: Kind, top: int, where: str) -> None:
    if not scores.size:
        return
    low, high = scores.min(), scores.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise RangeError(
            f"{where} holds NaN or infinite values; expected finite {kind}; repair it or declare those pixels void"
        )
    if kind == "levels" and not (low >= 0 and high <= top):
        raise RangeError(
            f"{where} holds levels from {low} to {high}; expected 0 to {top}; save integers of 8 or 16 bits"
        )
    if kind == "probabilities" and not (low >= 0 and high <= 1 + (1e-3 if scores.dtype.itemsize == 2 else 1e-6)):
        raise RangeError(
            f"{where} holds values from {low:.6g} to {high:.6g}; expected probabilities in [0, 1]; say --input logits if "
            "these are logits"
        )


def _sums(
    block: Block, scores: Array, kind: Kind, top: int, y: Array, tolerance: float, clip: float, with_left_closed: bool
) -> Sums:
    """What a block adds to each part."""
    p = probabilities(scores, kind, top)
    decided = p >= 0.5
    confidence, right = np.maximum(p, 1 - p), decided == y
    entropy = binary_entropy(p)
    if kind == "logits":
        log_loss = np.logaddexp(0, np.where(y, -1.0, 1.0) * scores)
    else:
        log_loss = -np.log(np.clip(np.where(y, p, 1 - p), clip, 1 - clip))
    n_cells = SCORE_GRID.size
    n_pixels = block.n_pixels
    complement = None
    least = None
    if kind == "logits":  # next to 1 p rounds to it, but what is left of it does not
        complement = expit(-scores)
        least = np.minimum(complement, p)
    top_label = block.reliability(SCORE_GRID.index(confidence, tolerance, least), n_cells, confidence, right)
    entropy_sum = block.total(entropy)
    sums: dict[str, dict[str, Array]] = {
        "histogram": {
            "counts": block.count(np.rint(255 * p).astype(np.intp) + LEVELS * y, 2 * LEVELS).reshape(-1, 2, LEVELS)
        },
        "top_label": top_label,
        "foreground": block.reliability(SCORE_GRID.index(p, tolerance, complement), n_cells, p, y),
        "sums": {
            "count": n_pixels,
            "log_loss": block.total(log_loss),
            "squared_error": block.total((p - y) ** 2),
            "squared_score": block.total(p**2),
            "entropy": entropy_sum,
        },
        "counts": {
            "target": block.count(y.astype(np.intp), 2),
            "predicted": block.count(decided.astype(np.intp), 2),
            "hit": block.count(y[right].astype(np.intp), 2, pixel=np.flatnonzero(right)),
        },
        "unsure": {
            "entropy_sum": entropy_sum,
            "confidence_sum": block.total(confidence),
            "entropy": block.count(SCORE_GRID.index(entropy / np.log(2), tolerance), n_cells),
            "confidence": top_label["count"],
        },
    }
    if with_left_closed:
        sums["left_closed"] = block.reliability(left_closed_cell(p), LEFT_CELLS, p, y)
    return sums
