"""The per-image kernel of multi-class predictions: blocks of pixels in, cells and sums out.

The work is done on `(classes, pixels)` blocks that fit the processor's cache, in float32 (float64 where the file is).
Sums over classes are taken class by class, so that a pixel's numbers do not depend on the block it is in; sums over pixels
are float64.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from calbench.errors import RangeError, ShapeError
from calbench.kernels.floats import LEFT_CELLS, left_closed, left_closed_cell
from calbench.kernels.regions import Block, Sums, accumulate, blocks
from calbench.statistics.bundle import Statistics
from calbench.statistics.class_counts import ClassCounts
from calbench.statistics.kept import KeptScores
from calbench.statistics.logits import LogitSums, UniformSums
from calbench.statistics.reliability import CLASS_GRID, SCORE_GRID, THRESHOLD, ReliabilityCells, edge_tolerance
from calbench.statistics.rows import Array
from calbench.statistics.scoring import ScoreSums
from calbench.statistics.uncertainty import Uncertainty

BLOCK = 1 << 15
"""Most pixels of a block."""
BLOCK_SCORES = 1 << 20
"""Most scores of a block, unless 1024 pixels have more."""
SUM_TOLERANCE = 1e-3
"""Probabilities of a pixel add up to 1 this closely where they were stored in float32 or float64."""
COARSE_SUM_TOLERANCE = 1e-2
"""The same for float16 and bfloat16."""
MBLS_EPS = 1e-10
"""What MbLS adds to probabilities before it takes their logarithm."""


def measure_classes(
    name: str,
    scores: Array,
    kind: Literal["probabilities", "logits"],
    target: Array | None,
    valid: Array | None = None,
    *,
    layout: Literal["CHW", "HWC"] = "CHW",
    region: Array | None = None,
    n_regions: int = 1,
    extras: Collection[str] = (),
    clip: float | None = None,
    where: str = "",
) -> list[Statistics]:
    """Reduce one multi-class prediction to its statistics: for each region, a bundle of one row.

    Args:
        name: of the row.
        region: `(H, W)` code of each pixel, 0 ... n_regions − 1; None for one region.
        scores, kind, target, valid, layout, extras, clip, where: see `measure_class_rows`.
    Raises:
        RangeError, ShapeError: see `measure_class_rows`.

    >>> logits = np.array([[[2.0, 0.0]], [[0.0, 3.0]], [[1.0, 3.0]]])
    >>> [whole] = measure_classes("a", logits, "logits", np.array([[0, 2]]))
    >>> whole.counts.hit.tolist()  # of equal logits the first counts
    [[1, 0, 0]]
    """
    rows = measure_class_rows(
        (name,) * n_regions, scores, kind, target, valid,
        layout=layout, region=region, extras=extras, clip=clip, where=where or name,
    )  # fmt: skip
    return [rows.select([code]) for code in range(n_regions)]


def measure_class_rows(
    names: tuple[str, ...],
    scores: Array,
    kind: Literal["probabilities", "logits"],
    target: Array | None,
    valid: Array | None = None,
    *,
    layout: Literal["CHW", "HWC"] = "CHW",
    region: Array | None = None,
    extras: Collection[str] = (),
    clip: float | None = None,
    where: str = "the prediction",
) -> Statistics:
    """Reduce multi-class predictions to statistics of one row for each region, or for each group of a table's samples.

    Softmax in float32 (float64 of float64 logits), the largest logit subtracted; probabilities count as stored, without
    renormalising. The predicted class is the first of the largest stored scores.

    Args:
        names: of the rows.
        scores: `(C, H, W)` or, with layout "HWC", `(H, W, C)`; float16, float32 or float64, in memory or mapped from disk.
            A table `(N, C)` is `(1, N, C)`.
        kind: "probabilities" or "logits".
        target: `(H, W)` integers 0 ... C − 1; None where nothing is known: then there is only what needs no truth.
        valid: `(H, W)` bool, False at void pixels, which enter nothing, not even checks; None when all count.
        region: `(H, W)` row of each pixel, 0 ... len(names) − 1; None for one row.
        extras: "mbls", "selectivecal", "torchmetrics": what their profiles read beyond the rest.
        clip: of P(outcome) in the log loss of probabilities; None for the unit of the type they are stored in, as in
            scikit-learn. The log loss of logits is not clipped.
        where: what the scores were read from, for messages.
    Raises:
        RangeError: scores that are NaN or infinite, or no probabilities.
        ShapeError: fewer than two classes, or a ground truth of another size.

    >>> scores = np.array([[[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]]])
    >>> rows = measure_class_rows(
    ...     ("a", "b"), scores, "probabilities", np.array([[1, 0, 1]]), layout="HWC", region=np.array([[1, 0, 0]])
    ... )
    >>> rows.sums.count.tolist(), rows.sums.squared_error.round(2).tolist()
    ([2, 1], [0.1, 0.5])
    """
    scores = np.asarray(scores)
    flat = scores.reshape(-1, scores.shape[-1]).T if layout == "HWC" else scores.reshape(len(scores), -1)
    classes, n_pixels = flat.shape
    if classes < 2 or (target is not None and target.size != n_pixels):
        truth = "" if target is None else f" and its ground truth {target.shape}"
        raise ShapeError(
            f"{where} has shape {scores.shape}{truth}; expected scores of two classes or more for each pixel in layout "
            f"{layout}; is it --layout {'HWC' if layout == 'CHW' else 'CHW'}?"
        )
    kernel = _Kernel(classes, kind == "logits", scores.dtype.newbyteorder("="), frozenset(extras), clip, where)
    outcome = None if target is None else target.ravel()
    size = min(BLOCK, max(BLOCK_SCORES // classes, 1024))
    # one allocation an image: the first touch of fresh memory costs as much as a pass over it
    memory = np.empty((2, classes * min(size, n_pixels)), kernel.work)
    kept: list[tuple[Array, Array]] = []

    def pieces() -> Iterator[tuple[Block, Sums]]:
        for block in blocks(n_pixels, size, valid, region):
            z, spare = memory[:, : classes * block.size].reshape(2, classes, block.size)
            _load(flat, block.at, z)
            pixels = kernel.softmax(z, spare) if kernel.logits else kernel.as_stored(z, spare)
            y = None if outcome is None else outcome[block.at].astype(np.intp)
            if y is not None and "mbls" in extras:
                kept.append((pixels.confidence, pixels.winner == y))
            yield block, kernel.sums(block, pixels, y)

    return kernel.statistics(names, accumulate(len(names), pieces()), kept)


def _load(flat: Array, at: slice | Array, out: Array) -> None:
    """The scores `(C, n)` at these pixels of `(C, pixels)`, as the type of `out`."""
    if isinstance(at, slice):
        chosen = flat[:, at]
    else:  # take copies what is not contiguous first, whole
        chosen = flat.take(at, axis=1) if flat.flags.c_contiguous else flat.T.take(at, axis=0).T
    if chosen.dtype != np.float16:
        np.copyto(out, chosen)
        return
    # NumPy widens float16 one by one. Shifted, its exponent and mantissa are those of a float32 that is 2**112 times too
    # small; infinity and NaN come out as 65536 and more.
    bits = out.view(np.int32)
    np.copyto(bits, chosen.view(np.int16))
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, ~np.int32(0x70000000), out=bits)  # the sign, widened, fills four bits: keep the highest
    np.multiply(out, np.float32(2.0**112), out=out)


def _sum(rows: Array) -> Array:
    """Σ_k of each pixel, class by class: a reduction adds in another order where there is a single pixel."""
    out = rows[0].copy()
    for row in rows[1:]:
        np.add(out, row, out=out)
    return out


def _sum_of_products(a: Array, b: Array) -> Array:
    """Σ_k a_k b_k of each pixel, class by class."""
    out, product = a[0] * b[0], np.empty_like(a[0])
    for x, y in zip(a[1:], b[1:], strict=True):
        np.multiply(x, y, out=product)
        np.add(out, product, out=out)
    return out


def _first_class(rows: Array, top: Array) -> Array:
    """The first class whose score is `top`, `(n,)`: argmax over the first axis, which NumPy does one by one."""
    classes = len(rows)
    rank = np.zeros(len(top), np.min_scalar_type(classes))  # C of the first class, 1 of the last
    for k, row in enumerate(rows):
        np.maximum(rank, (row == top).view(np.uint8) * rank.dtype.type(classes - k), out=rank)
    return classes - rank.astype(np.intp)


@dataclass(frozen=True, eq=False)
class _Pixels:
    """The pixels of a block before the truth is asked.

    Attributes:
        p: `(C, n)` probabilities.
        other: `(C, n)` logits less the largest of each pixel; of probabilities, memory to use.
        winner: `(n,)` predicted class.
        confidence: `(n,)` largest probability.
        entropy: `(n,)` nats.
        normaliser: `(n,)` ln Σ_k exp(logit_k − largest logit); None of probabilities.
        distances: what `LogitSums` adds up, `(n,)` each; empty of probabilities.
        complement: `(n,)` sum of the other probabilities, which tells confidences apart that round to 1; None of
            probabilities, which are what they are.
    """

    p: Array
    other: Array
    winner: Array
    confidence: Array
    entropy: Array
    normaliser: Array | None
    distances: Mapping[str, Array]
    complement: Array | None = None


@dataclass(frozen=True)
class _Kernel:
    """What all blocks of an image share, and what is done to a block."""

    classes: int
    logits: bool
    stored: np.dtype[Any]
    extras: frozenset[str]
    given_clip: float | None
    where: str

    @property
    def work(self) -> np.dtype[Any]:
        """The type to compute in."""
        return np.dtype(np.float32 if np.can_cast(self.stored, np.float32) else np.float64)

    @property
    def tolerance(self) -> float:
        """The bin tolerance of the probabilities: those computed here, or those stored."""
        return edge_tolerance(self.work if self.logits else self.stored)

    @property
    def clip(self) -> float:
        """The clip of the log loss."""
        if self.logits:
            return 0.0
        return float(np.finfo(self.stored).eps) if self.given_clip is None else self.given_clip

    def softmax(self, z: Array, spare: Array) -> _Pixels:
        """The pixels of a block of logits `z`; both arrays are overwritten."""
        top, low = z.max(0), z.min(0)
        if not self._finite(top, low):
            raise RangeError(
                f"{self.where} holds NaN or infinite logits; expected finite numbers; repair it, or declare those pixels void"
            )
        winner = _first_class(z, top)
        at_winner = winner * len(top) + np.arange(len(top))
        scores = z.reshape(-1)
        scores[at_winner] = -np.inf
        second = z.max(0)
        scores[at_winner] = top
        z -= top
        distances = {
            "mean_distance": _sum(z) / (1 - self.classes),
            "max_distance": top - low,
            "margin": top - second,
        }
        p = np.exp(z, out=spare)
        values = p.reshape(-1)
        values[at_winner] = 0
        others = _sum(p)
        values[at_winner] = 1
        total = 1 + others
        normaliser = np.log1p(others)
        entropy = normaliser - _sum_of_products(p, z) / total
        p /= total
        return _Pixels(p, z, winner, 1 / total, entropy, normaliser, distances, others / total)

    def as_stored(self, p: Array, spare: Array) -> _Pixels:
        """The pixels of a block of probabilities `p`; `spare` is overwritten."""
        top, low, total = p.max(0), p.min(0), _sum(p)
        self._check(p, top, low, total)
        winner = _first_class(p, top)
        # 0 ln 0 = 0: of numbers below the smallest normal one the logarithm may be anything finite
        np.log(np.clip(p, np.finfo(self.work).tiny, 1, out=spare), out=spare)
        return _Pixels(p, spare, winner, top, -_sum_of_products(p, spare), None, {})

    def _check(self, p: Array, top: Array, low: Array, total: Array) -> None:
        """Refuse what are no probabilities: `p` `(C, n)`, and its highest, lowest and sum of each pixel."""
        coarse = bool(
            self.stored.itemsize == 2 or self.clip > np.finfo(np.float32).eps
        )  # stored in 16 bits, then resized
        if not self._finite(top, low):
            raise RangeError(
                f"{self.where} holds NaN or infinite values; expected probabilities; repair it, or declare those pixels void"
            )
        if not ((low >= 0) & (top <= 1 + (1e-3 if coarse else 1e-6))).all():
            raise RangeError(
                f"{self.where} holds values from {low.min():.6g} to {top.max():.6g}; expected probabilities in [0, 1]; say "
                "--input logits if these are logits"
            )
        error = np.abs(total - 1)
        worst = error.max(initial=0)
        if worst > SUM_TOLERANCE:
            # float32 numbers without a lower half were bfloat16
            coarse = coarse or bool(self.work == np.float32 and not (p.view(np.uint32) & 0xFFFF).any())
            if worst > (COARSE_SUM_TOLERANCE if coarse else SUM_TOLERANCE):
                raise RangeError(
                    f"{self.where} holds a pixel whose probabilities add up to {total[error.argmax()]:.6g}; expected 1; say "
                    "--input logits if these are logits; else divide the probabilities of each pixel by their sum"
                )

    def _finite(self, top: Array, low: Array) -> bool:
        """Whether all scores are finite: infinity and NaN of float16 are widened to numbers beyond its range."""
        limit = float(np.finfo(self.stored).max)
        return bool(((low >= -limit) & (top <= limit)).all())

    def sums(self, block: Block, pixels: _Pixels, y: Array | None) -> Sums:
        """What a block adds to each part; `pixels` are used up."""
        p, confidence = pixels.p, pixels.confidence
        cell = SCORE_GRID.index(confidence, self.tolerance, pixels.complement)
        unsure = np.clip(pixels.entropy / math.log(self.classes), 0, 1)
        sums: dict[str, Mapping[str, Array]] = {
            "unsure": {
                "entropy_sum": block.total(pixels.entropy),
                "confidence_sum": block.total(confidence),
                "entropy": block.count(SCORE_GRID.index(unsure, edge_tolerance(self.work)), SCORE_GRID.size),
                "confidence": block.count(cell, SCORE_GRID.size),
            }
        }
        if self.logits:
            distances = {name: block.total(values) for name, values in pixels.distances.items()}
            sums["logits"] = {"count": block.n_pixels, **distances}
        if y is None:
            return sums

        winner, right = pixels.winner, pixels.winner == y
        at_y = y * block.size + np.arange(block.size)
        flat = p.reshape(-1)
        p_y = flat[at_y]
        if pixels.normaliser is None:
            log_loss = -np.log(np.clip(p_y.astype(np.float64), self.clip, 1 - self.clip))
        else:
            log_loss = pixels.normaliser - pixels.other.reshape(-1)[at_y]
        flat[at_y] = p_y - 1  # Σ (p − y)² itself: as Σ p² − 2 p_y + 1 it would lose what is left of it near 0
        squared_error = block.total(_sum_of_products(p, p))
        flat[at_y] = p_y
        sums["sums"] = {
            "count": block.n_pixels,
            "log_loss": block.total(log_loss),
            "squared_error": squared_error,
            "squared_score": squared_error + 2 * block.total(p_y) - block.n_pixels,
            "entropy": sums["unsure"]["entropy_sum"],
        }
        sums["counts"] = {
            "target": block.count(y, self.classes),
            "predicted": block.count(winner, self.classes),
            "hit": block.count(winner[right], self.classes, pixel=np.flatnonzero(right)),
        }
        sums["top_label"] = block.reliability(cell, SCORE_GRID.size, confidence, right)
        if "mbls" in self.extras:
            at = np.flatnonzero(y)
            sums["objects"] = block.reliability(cell[at], SCORE_GRID.size, confidence[at], right[at], pixel=at)
            sums["uniform"] = {"count": block.n_pixels, **self._from_uniform(block, p, pixels.other)}
        if "selectivecal" in self.extras:
            single = p.astype(np.float32, copy=False)
            rechosen = right if not self.logits else _first_class(single, single.max(0)) == y
            sums["rechosen"] = block.reliability(cell, SCORE_GRID.size, confidence, rechosen)
        if "torchmetrics" in self.extras:
            sums["left_closed"] = block.reliability(left_closed_cell(confidence), LEFT_CELLS, confidence, right)
        sums["classes"] = self._classwise(block, p, y, p_y)
        return sums

    def _from_uniform(self, block: Block, p: Array, spare: Array) -> dict[str, Array]:
        """Distances from the uniform distribution."""
        np.log(np.add(p, MBLS_EPS, out=spare), out=spare)
        divergence = -math.log(self.classes) - _sum(spare) / self.classes
        np.abs(np.subtract(1 / self.classes, p, out=spare), out=spare)
        return {
            "divergence": block.total(divergence),
            "absolute": block.total(_sum(spare) / self.classes),
        }

    def _classwise(self, block: Block, p: Array, y: Array, p_y: Array) -> dict[str, Array]:
        """Class-wise cells, `(regions, classes, cells)`; `p` is used up.

        Most probabilities are small: they share the first cell, and only the others are looked at one by one.
        """
        n_cells = self.classes * CLASS_GRID.size
        shape = (-1, self.classes, CLASS_GRID.size)
        small = p <= THRESHOLD
        at = np.flatnonzero(~small)
        owner = np.repeat(
            np.arange(self.classes), np.diff(np.searchsorted(at, block.size * np.arange(self.classes + 1)))
        )
        pixel = at - owner * block.size
        score = p.reshape(-1)[at]
        cell = owner * CLASS_GRID.size + CLASS_GRID.index(score, self.tolerance)
        count = block.count(cell, n_cells, pixel=pixel).reshape(shape)
        confidence = block.count(cell, n_cells, weights=score, pixel=pixel).reshape(shape)
        correct = block.count(y * CLASS_GRID.size + CLASS_GRID.index(p_y, self.tolerance), n_cells).reshape(shape)
        np.multiply(p, small, out=p)
        count[..., 0] = block.n_pixels[:, None] - count.sum(-1)
        confidence[..., 0] = block.total(p)
        return {"count": count, "confidence": confidence, "correct": correct}

    def statistics(
        self, names: tuple[str, ...], totals: Mapping[str, Mapping[str, Array]], kept: list[tuple[Array, Array]]
    ) -> Statistics:
        """The parts, from what all blocks added up to."""
        rounded = self.logits or self.work == np.float64  # 1 and the numbers next to it share the last cell
        parts: dict[str, Any] = {"unsure": Uncertainty.on_grid(names, **totals["unsure"], classes=self.classes)}
        if "logits" in totals:
            parts["logits"] = LogitSums(names, **totals["logits"])
        for part in ("top_label", "objects", "rechosen"):
            if part in totals:
                parts[part] = ReliabilityCells.on_grid(names, **totals[part], grid=SCORE_GRID, rounded=rounded)
        if "classes" in totals:
            parts["classes"] = ReliabilityCells.on_grid(names, **totals["classes"], grid=CLASS_GRID, rounded=rounded)
            parts["sums"] = ScoreSums(names, **totals["sums"], clip=self.clip, classes=self.classes, binary=False)
            parts["counts"] = ClassCounts(names, **totals["counts"])
        if "left_closed" in totals:
            parts["left_closed"] = left_closed(names, **totals["left_closed"])
        if "uniform" in totals:
            parts["uniform"] = UniformSums(names, **totals["uniform"])
            confidence, correct = (np.concatenate(values) for values in zip(*kept, strict=True))
            parts["kept"] = KeptScores(names, parts["sums"].count, confidence, correct)
        return Statistics(**parts)
