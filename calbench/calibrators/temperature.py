"""Temperature scaling: one number for all pixels, by an exact search on the convex problem, in memory or out of core."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Literal

import numpy as np
from joblib import cpu_count

from calbench.calibrators.calibrator import Calibrator, Pixels, nll, uncalibrated
from calbench.errors import OptionError
from calbench.statistics.reliability import bin_index
from calbench.statistics.rows import Array

if TYPE_CHECKING:
    from torch import Tensor

BOUNDS = (1e-3, 1e3)
"""Temperatures searched: beyond, probabilities are constant or decisions."""
CLOSE = 1e-5
"""A Newton step this small, relative to 1 / T, is the last: it squares the error."""
MOST_STEPS = 100
PATIENCE = 8
"""Newton steps after which the bracket is cut: where all pixels are right, the loss has no minimum, and steps stay small."""
BLOCK_SCORES = 1 << 15
"""Scores of a block: what is computed of them fits the processor's cache."""
RUN = 16
"""Blocks that a thread works through at a time."""
SUBSAMPLE = 1 << 17
"""Pixels that the start of the search is found on: so near that one step more is mostly the last but one."""
GRID = np.cumsum(np.full(100, 0.1))
"""The temperatures of the MbLS code, 0.1 to 10, added up in floating point as there."""
GRID_BINS = 15

Evaluate = Callable[[Array], Array]
"""β = 1 / T of each problem, `(problems,)` -> Σ NLL, its first and its second derivative, `(3, problems)`."""
Part = Literal["loss", "derivatives", "all"]
"""The rows of these that are computed."""


class Temperature(Calibrator):
    """One temperature for all logits: p = softmax(z / T), or σ(z / T).

    T minimises the NLL of the fitting pixels. In β = 1 / T the problem is convex: Newton's method, kept inside a bracket
    that bisects in log T where a step would leave it, in float64. What it costs is a few passes over the pixels; the start
    comes from a subsample. T at a bound (all pixels right, say) is reported, not hidden.

    Args:
        grid: None for the minimum itself; "nll" or "ece" for the search of the MbLS code on T = 0.1, 0.2, ..., 10, by NLL
            or by its ECE of 15 bins, first minimum. ECE is no proper score: its grid can move T the wrong way.
        bounds: smallest and largest temperature.

    Attributes:
        temperature_: T.

    Reference: Guo et al., ICML 2017 (arXiv:1706.04599); Platt's method without the offset.

    >>> z = np.array([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    >>> fitted = Temperature().fit(z, np.array([0, 0, 1, 1]))  # sure, but right in 3 of 4 only: p = 3/4 = σ(4 / T)
    >>> bool(np.isclose(fitted.temperature_, 4 / np.log(3)))
    True
    """

    name = "temperature"
    definition = "p = softmax(z / T) or σ(z / T), T > 0 by maximum likelihood"
    source = "Guo et al., ICML 2017, arXiv:1706.04599"
    keeps_class = True
    keeps_order = True
    parametric = True
    learned = ("temperature_",)

    temperature_: float

    def __init__(self, *, grid: Literal["nll", "ece"] | None = None, bounds: tuple[float, float] = BOUNDS) -> None:
        self.grid = grid
        self.bounds = bounds

    def n_parameters(self, n_classes: int) -> int:
        """One."""
        del n_classes
        return 1

    def _fit(self, pixels: Pixels) -> None:
        if self.grid is not None:
            self.temperature_ = _grid_search(pixels, self.grid)
            return
        start, few = 1.0, _strided(pixels)
        if few is not None:
            start = float(minimise(_evaluator(few, "derivatives"), np.ones(1), self.bounds).beta[0])
        solution = minimise(_evaluator(pixels, "derivatives"), np.array([start]), self.bounds)
        self.accept(solution, 0)

    def accept(self, solution: Solution, problem: int) -> None:
        """Take up one of the temperatures that `minimise` found, and say how the search ended."""
        self.temperature_ = float(1 / solution.beta[problem])
        self.summary_ |= {
            "converged": bool(solution.converged[problem]),
            "at_bound": bool(solution.at_bound[problem]),
            "steps": solution.steps,
        }
        if solution.at_bound[problem]:
            self.notes_.append(
                f"the temperature is at its bound {self.temperature_:g}: "
                + ("every pixel is right" if self.temperature_ < 1 else "the logits tell nothing about the class")
                + " as far as the likelihood can tell; fit on more images"
            )
        elif not solution.converged[problem]:
            self.notes_.append(
                f"the search for the temperature stopped after {solution.steps} steps without converging"
            )

    def adopt(
        self, solution: Solution, problem: int, losses: Array, n_pixels: int, logits: Array, target: Array
    ) -> None:
        """Become the calibrator of a problem that was solved out of core.

        Args:
            solution, problem: see `accept`.
            losses: Σ NLL of its pixels before and after, `(2,)` nats.
            n_pixels: how many it was solved on.
            logits, target: some of its pixels, to be checked as those of any fit.
        """
        pixels = self._checked(logits, target, None, None, lambda: None)
        self.n_classes_ = 1 if logits.ndim == 1 else logits.shape[1]
        self.notes_, self.origin_ = [], {}
        self._refuse_too_little(pixels)
        before, after = (losses / n_pixels).tolist()
        self.summary_ = {"pixels": n_pixels, "weight": float(n_pixels), "nll_before": before, "nll_after": after}
        self.accept(solution, problem)

    def _transform(self, logits: Array) -> Array:
        return uncalibrated(logits / self.temperature_)

    def _summarise(self, pixels: Pixels) -> None:
        identity, fitted = _evaluator(pixels, "loss")(np.array([1.0, 1 / self.temperature_]))[0]
        total = self.summary_["weight"]
        self.summary_ |= {"nll_before": float(identity) / total, "nll_after": float(fitted) / total}

    @staticmethod
    def torch_forward(logits: Tensor, state: dict[str, Tensor]) -> Tensor:
        """See `Calibrator.torch_forward`."""
        from calbench.calibrators import modules

        return modules.uncalibrated(logits / state["temperature_"])


@dataclass(frozen=True, eq=False)
class Solution:
    """Minima of several problems, `(problems,)` each.

    Attributes:
        beta: 1 / T.
        converged: whether the last step was small enough.
        at_bound: whether the minimum lies outside the bounds.
        steps: evaluations of all problems.
    """

    beta: Array
    converged: Array
    at_bound: Array
    steps: int


def minimise(evaluate: Evaluate, start: Array, bounds: tuple[float, float] = BOUNDS) -> Solution:
    """Minimise convex functions of β = 1 / T, several at a time, each by Newton's method within its bracket.

    A step that would leave the bracket goes to its end if that was not tried yet, else to the geometric middle; so does every
    eighth step, and those of the second half of all that are allowed.

    Args:
        evaluate: see `Evaluate`.
        start: first β of each problem, `(problems,)`.
        bounds: smallest and largest T.
    Raises:
        OptionError: bounds that are not 0 < low < high.

    >>> quadratic = lambda beta: np.stack([(beta - 0.5) ** 2, 2 * (beta - 0.5), 2 + 0 * beta])
    >>> minimise(quadratic, np.ones(1)).beta.tolist()
    [0.5]
    """
    if not 0 < bounds[0] < bounds[1]:
        raise OptionError(f"the bounds of the temperature are {bounds}; expected 0 < low < high")
    least, most = 1 / bounds[1], 1 / bounds[0]
    beta = np.clip(start, least, most)
    low, high = np.full(len(beta), least), np.full(len(beta), most)
    tried_low, tried_high = (np.zeros(len(beta), bool) for _ in range(2))
    converged, at_bound = (np.zeros(len(beta), bool) for _ in range(2))
    steps = 0
    while steps < MOST_STEPS and not converged.all():
        steps += 1
        _, slope, curvature = evaluate(beta)
        rising = slope >= 0
        low, tried_low = np.where(rising, low, beta), tried_low | ~rising
        high, tried_high = np.where(rising, beta, high), tried_high | rising
        outside = ((beta == most) & (slope < 0)) | ((beta == least) & (slope > 0))
        flat = np.where(slope == 0, 0.0, -np.copysign(np.inf, slope))
        with np.errstate(over="ignore"):  # as far as infinity, where the curvature is next to nothing
            step = np.divide(-slope, curvature, out=flat, where=curvature > 0)
        after, middle = beta + step, np.sqrt(low * high)
        small = np.abs(step) <= CLOSE * beta
        slow = ~small & (steps % PATIENCE == 0 or steps > MOST_STEPS // 2)
        up, down = (slow | (after >= high)) & (slope < 0), (slow | (after <= low)) & (slope > 0)
        after = np.where(up, np.where(tried_high, middle, high), after)
        after = np.where(down, np.where(tried_low, middle, low), after)
        at_bound |= outside & ~converged
        small |= np.abs(after - beta) <= CLOSE * beta
        beta = np.where(converged | outside, beta, after)
        converged |= outside | small
    return Solution(beta, converged, at_bound, steps)


def map_derivatives(logits: Array, target: Array, weight: Array | None, beta: Array) -> Array:
    """What one image adds to `Evaluate`, at each of several β: `(3, len(beta))`.

    Args:
        logits: `(H, W)` of a binary map, `(C, H, W)` of several classes; finite where the weight is positive.
        target: `(H, W)` integers.
        weight: `(H, W)`; None: 1 everywhere.
        beta: `(k,)`.
    """
    n_classes = 1 if logits.ndim == 2 else len(logits)
    flat = logits.reshape(n_classes, -1)
    y, w = target.ravel(), None if weight is None else weight.ravel()
    if w is not None and not w.all():
        at = np.flatnonzero(w)
        flat, y, w = flat[:, at], y[at], w[at]
    return _added(_block(flat[:, b], y[b], None if w is None else w[b], beta, "all") for b in _blocks(flat))


def _evaluator(pixels: Pixels, part: Part) -> Evaluate:
    """Sums over pixels in memory, by threads over runs of blocks: added in order, whatever thread is first."""
    flat = pixels.logits[None] if pixels.logits.ndim == 1 else pixels.logits.T
    equal = pixels.weight.strides == (0,) or bool((pixels.weight == pixels.weight[0]).all())
    scale = pixels.weight[0] if equal else 1.0
    blocks = _blocks(flat)
    runs = [blocks[start : start + RUN] for start in range(0, len(blocks), RUN)]

    def evaluate(beta: Array) -> Array:
        def over(run: list[slice]) -> list[Array]:
            return [_block(flat[:, b], pixels.target[b], None if equal else pixels.weight[b], beta, part) for b in run]

        if len(runs) == 1:
            return scale * _added(over(blocks))
        with ThreadPoolExecutor(cpu_count()) as pool:
            return scale * _added(chain.from_iterable(pool.map(over, runs)))

    return evaluate


def _blocks(flat: Array) -> list[slice]:
    """Blocks of the pixels of `(C, n)`."""
    size = max(1, BLOCK_SCORES // len(flat))
    return [slice(start, start + size) for start in range(0, flat.shape[1], size)]


def _added(parts: Iterable[Array]) -> Array:
    total = None
    for part in parts:
        total = part if total is None else total + part
    assert total is not None, "no pixel to evaluate"
    return total


def _block(z: Array, y: Array, weight: Array | None, beta: Array, part: Part) -> Array:
    """Σ of NLL and its derivatives over the pixels of a block `(C, n)`, at each β: `(3, k)`; C = 1 of a binary map.

    Rows that are not asked for are 0.
    """
    if len(z) == 1:
        return _binary_block(z[0], y, weight, beta, part)
    z = np.array(z, np.float64, order="C")
    z -= z.max(0)
    z_y = np.take_along_axis(z, y[None], axis=0)[0]
    out = np.zeros((3, len(beta)))
    e = np.empty_like(z)
    for k, b in enumerate(beta):
        np.multiply(z, b, out=e)
        np.exp(e, out=e)
        normaliser = e.sum(0)
        if part != "derivatives":
            out[0, k] = _sum(np.log(normaliser) - b * z_y, weight)
        if part != "loss":
            np.multiply(e, z, out=e)
            mean = e.sum(0) / normaliser
            square = np.einsum("cn,cn->n", e, z) / normaliser
            out[1, k] = _sum(mean - z_y, weight)
            out[2, k] = _sum(square - mean**2, weight)
    return out


def _binary_block(z: Array, y: Array, weight: Array | None, beta: Array, part: Part) -> Array:
    """The same for the logits `(n,)` of a binary map: NLL = ln(1 + exp(−β m)) of the margin m = ±z."""
    half = y - 0.5
    half *= z  # m / 2, float64 whatever the logits are; faster than a choice between z and −z
    out = np.zeros((3, len(beta)))
    for k, b in enumerate(beta):
        if part != "derivatives":
            scaled = half * (2 * b)
            loss = np.abs(scaled)
            np.log1p(np.exp(np.negative(loss, out=loss), out=loss), out=loss)
            loss -= np.minimum(scaled, 0, out=scaled)
            out[0, k] = _sum(loss, weight)
        if part != "loss":
            wrong = half * (2 * b)
            with np.errstate(over="ignore"):  # σ(−β m) is 0 then
                np.exp(wrong, out=wrong)
            wrong += 1
            np.divide(half, wrong, out=wrong)  # m/2 · σ(−β m)
            out[1, k] = -2 * _sum(wrong, weight)
            wrong *= half - wrong  # (m/2)² · σ(−β m) σ(β m)
            out[2, k] = 4 * _sum(wrong, weight)
    return out


def _sum(values: Array, weight: Array | None) -> float:
    return float(values.sum() if weight is None else values @ weight)


def _strided(pixels: Pixels) -> Pixels | None:
    """Every so manieth pixel, where there are many."""
    step = len(pixels.target) // SUBSAMPLE
    if step < 8:
        return None
    return Pixels(pixels.logits[::step], pixels.target[::step], pixels.weight[::step])


def _grid_search(pixels: Pixels, by: str) -> float:
    """The first strict minimum on the grid of the MbLS code."""
    if by not in ("nll", "ece"):
        raise OptionError(f"grid is {by!r}; expected nll or ece, or none for the minimum itself")
    losses = [_grid_loss(pixels, t, by) for t in GRID]
    return float(GRID[int(np.argmin(losses))])


def _grid_loss(pixels: Pixels, temperature: float, by: str) -> float:
    p = uncalibrated(pixels.logits / temperature)
    if by == "nll":
        return nll(p, pixels.target, pixels.weight)
    decided = (p >= 0.5).astype(np.intp) if p.ndim == 1 else p.argmax(1)
    confidence = np.maximum(p, 1 - p) if p.ndim == 1 else p.max(1)
    residual = pixels.weight * ((decided == pixels.target) - confidence)
    sums = np.bincount(bin_index(confidence, GRID_BINS), residual, GRID_BINS)
    return float(np.abs(sums).sum() / pixels.weight.sum())
