"""Scores that are affine in features of the logits: their log-loss, its minimum, and the base of calibrators made of them.

Vector, matrix and Dirichlet scaling, Platt's and the beta method all minimise the same convex loss of other features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, softmax

from calbench.calibrators.calibrator import Calibrator, Pixels
from calbench.statistics.rows import Array

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 1 << 13
"""Pixels whose scores are computed at a time: they fit the processor's cache."""
SUBSAMPLE = 1 << 15
"""Pixels that the curvature is taken from, at least, where there are as many."""
ROUNDS = 60
STEPS = 30
"""L-BFGS steps between two looks at the curvature."""
CLOSE = 1e-10
"""Gradient at which a fit ends, in units in which the curvature of the loss is about 1: about the root mean square, with
weights p (1 − p), of what the scores are still off."""
NEAR = 1e-4
"""Gradient below which the loss counts as quadratic."""
CONVERGED = 1e-7
"""Gradient at which a fit that cannot come closer for rounding still counts as converged."""
FLOOR = 1e-3
"""Smallest curvature of a pixel, relative to the mean: pixels that are sure now may not stay so."""
FIRMER = 1e3
"""Factor of that floor after steps that led nowhere."""
TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Solution:
    """Where a fit ended.

    Attributes:
        theta: `(K, m)` slopes and, last, offset of each score.
        loss: there.
        converged: whether the gradient was small enough.
        steps: evaluations of the loss.
    """

    theta: Array
    loss: float
    converged: bool
    steps: int

    def notes(self, of: str = "") -> list[str]:
        """What to tell people of a fit that did not converge; `of` names what was fitted."""
        if self.converged:
            return []
        return [
            f"the fit{of} stopped after {self.steps} evaluations of the loss without converging: the pixels do not determine "
            "all parameters; fit on more images, or choose a calibrator with fewer parameters"
        ]


@dataclass(frozen=True, eq=False)
class LogLoss:
    """Weighted mean of −ln P(outcome), nats, of affine scores, plus a sum of squares.

    One score: P(1) = σ(s). K >= 2 scores: P = softmax(s). Features are turned to float64 block by block.

    Attributes:
        features: `(n, D)`.
        target: `(n,)` integers, 0 ... max(K, 2) − 1.
        weight: `(n,)`, positive.
        diagonal: whether score k reads feature k only: s_k = θ_k0 x_k + θ_k1; else s = θ (x, 1).
        ridge: `(K, m)` coefficients of squares of θ, at least 0. Adding the same row to all scores changes no
            probability: the squares are those of the row that makes them least. None: no squares.
    """

    features: Array
    target: Array
    weight: Array
    diagonal: bool = False
    ridge: Array | None = None

    def __call__(self, theta: Array) -> tuple[float, Array]:
        """Loss and its gradient, `(K, m)`, at slopes and offsets `(K, m)`."""
        loss, gradient = 0.0, np.zeros_like(theta)
        for x, y, w in self._blocks():
            s = self._scores(x, theta)
            rows = np.arange(len(y))
            if s.shape[1] == 1:
                s = s[:, 0]
                loss += float(w @ (np.logaddexp(0, s) - y * s))
                residual = (w * (expit(s) - y))[:, None]
            else:
                s -= s.max(1, keepdims=True)
                chosen = s[rows, y]
                np.exp(s, out=s)
                total = s.sum(1)
                loss += float(w @ (np.log(total) - chosen))
                s *= (w / total)[:, None]
                s[rows, y] -= w
                residual = s
            if self.diagonal:
                gradient += np.stack([np.einsum("nk,nk->k", residual, x), residual.sum(0)], axis=1)
            else:
                gradient += np.column_stack([residual.T @ x, residual.sum(0)])
        loss, gradient = loss / self.weight.sum(), gradient / self.weight.sum()
        if self.ridge is not None:
            centred = self.centred(theta)
            loss += float((self.ridge * centred**2).sum())
            gradient += 2 * self.ridge * centred
        return loss, gradient

    def centred(self, theta: Array) -> Array:
        """The slopes and offsets of the same probabilities whose squares are least."""
        if self.ridge is None or len(theta) == 1:
            return theta
        total = self.ridge.sum(0)
        mean = np.divide((self.ridge * theta).sum(0), total, out=np.zeros_like(total), where=total > 0)
        return theta - mean

    def thinned(self) -> LogLoss:
        """The loss of a subsample, where there are many pixels."""
        at = slice(None, None, max(1, len(self.target) // SUBSAMPLE))
        return replace(self, features=self.features[at], target=self.target[at], weight=self.weight[at])

    def curvature(self, theta: Array, floor: float) -> Array:
        """Second derivatives by the slopes and the offset of each score, `(K, m, m)`: positive definite.

        Args:
            theta: where, `(K, m)`.
            floor: what is added to p (1 − p) of each pixel, relative to its mean; it stays below 1/4, which bounds p (1 − p).
        """
        seen, spread = 0.0, np.zeros(len(theta))
        out, plain = np.zeros((2, *theta.shape, theta.shape[1]))
        for x, _, w in self._blocks():
            s = self._scores(x, theta)
            p = expit(s) if s.shape[1] == 1 else softmax(s, axis=1)
            q = w[:, None] * p * (1 - p)
            out += self._gram(x, q)
            plain += self._gram(x, np.broadcast_to(w[:, None], q.shape if self.diagonal else (len(w), 1)))
            spread += q.sum(0)
            seen += w.sum()
        added = np.minimum(floor * (spread / seen + TINY), 1 / 4)
        out = (out + added[:, None, None] * plain) / seen
        diagonal = np.einsum("kii->ki", out)
        if self.ridge is not None:
            diagonal += 2 * self.ridge
        diagonal += TINY * diagonal.max(1, keepdims=True)  # features that are constant or linear in others
        return out

    def _blocks(self) -> Iterator[tuple[Array, Array, Array]]:
        for start in range(0, len(self.target), BLOCK):
            at = slice(start, start + BLOCK)
            yield np.asarray(self.features[at], np.float64), self.target[at], self.weight[at]

    def _scores(self, x: Array, theta: Array) -> Array:
        return x * theta[:, 0] + theta[:, 1] if self.diagonal else x @ theta[:, :-1].T + theta[:, -1]

    def _gram(self, x: Array, q: Array) -> Array:
        """Σ q x xᵀ with a 1 behind each x, `(K, m, m)`, for weights `(n, K)`."""
        if self.diagonal:
            qx = q * x
            cross, square = qx.sum(0), np.einsum("nk,nk->k", qx, x)
            return np.stack([square, cross, cross, q.sum(0)], axis=1).reshape(-1, 2, 2)
        x = np.column_stack([x, np.ones(len(x))])
        return np.stack([(x * q_k[:, None]).T @ x for q_k in q.T])


def minimise(loss: LogLoss, start: Array) -> Solution:
    """Minimise the loss by L-BFGS, in units in which the curvature of each score is about 1.

    >>> loss = LogLoss(np.zeros((4, 1)), np.array([0, 1, 1, 1]), np.ones(4))
    >>> bool(np.isclose(minimise(loss, np.array([[1.0, 0.0]])).theta[0, 1], np.log(3)))  # logit 3/4
    True
    """
    few = loss.thinned()
    scaled = _best_multiple(few, start)
    theta = min(start, scaled, key=lambda candidate: loss(candidate)[0])
    steps, floor = 2, FLOOR
    for _ in range(ROUNDS):
        units = [cholesky(block, lower=True) for block in few.curvature(theta, floor)]
        value, gradient = _in_units(loss, theta, units)
        size = np.abs(gradient).max()
        steps += 1
        if size <= CLOSE:
            return Solution(theta, value, True, steps)
        near = size < NEAR

        def rise(u: Array) -> tuple[float, Array]:
            there, slope = _in_units(loss, theta + _step(u, units), units)  # noqa: B023 - called within the round
            # near the minimum the loss changes by less than its rounding: the trapezoid rule tells by how much
            return (float((gradient + slope) @ u / 2) if near else there - value), slope  # noqa: B023

        end = minimize(
            rise, np.zeros(theta.size), jac=True, method="L-BFGS-B",
            options={"maxiter": STEPS, "maxcor": STEPS, "ftol": 0, "gtol": CLOSE},
        )  # fmt: skip
        steps += end.nfev
        if near and np.abs(end.jac).max() > size / 2:  # rounding of the gradient
            return Solution(theta, value, bool(size <= CONVERGED), steps)
        floor = FLOOR if end.fun < 0 else floor * FIRMER
        theta = theta + _step(end.x, units)
    return Solution(theta, loss(theta)[0], False, steps + 1)


def _best_multiple(loss: LogLoss, start: Array) -> Array:
    """The start times the number that makes the loss least, about: one over the temperature.

    Sure logits have no curvature to go by, and logits far from the truth one that misleads.
    """
    found = minimize_scalar(
        lambda log_beta: loss(start * np.exp(log_beta))[0],
        bounds=(-12.0, 6.0), method="bounded", options={"xatol": 0.05},
    )  # fmt: skip
    return start * np.exp(found.x)


def _in_units(loss: LogLoss, theta: Array, units: list[Array]) -> tuple[float, Array]:
    """The loss, and its gradient in the units that the Cholesky factors of the curvature define, flat."""
    value, gradient = loss(theta)
    rows = zip(units, gradient, strict=True)
    return value, np.concatenate([solve_triangular(unit, row, lower=True) for unit, row in rows])


def _step(u: Array, units: list[Array]) -> Array:
    """A step `(K m,)` in those units as one of slopes and offsets, `(K, m)`."""
    rows = zip(units, u.reshape(len(units), -1), strict=True)
    return np.stack([solve_triangular(unit, row, lower=True, trans=1) for unit, row in rows])


class Affine(Calibrator):
    """Base of calibrators whose scores are affine in features of the logits: P = softmax(s), or σ(s).

    They are fitted by maximum likelihood from a start at the identity. A class that is absent from the fitting data keeps
    its uncalibrated probability, and the others share what it leaves: without any example, the likelihood would only push
    its score down for ever. NLLs in `summary_` are those of the likelihood: no probability is clipped.

    Attributes:
        present_: `(C,)` whether each class is in the fitting data; `(1,)` True of binary maps.
    """

    parametric = True

    present_: Array

    def _fit_scores(
        self, pixels: Pixels, features: Array, start: Array, *, diagonal: bool = False, ridge: Array | None = None
    ) -> Array:
        """Slopes and offsets `(C, m)` of the present classes, `(1, m)` of binary maps; of absent ones, the start."""
        logits = pixels.logits[:, None] if self.n_classes_ == 1 else pixels.logits
        self.present_ = np.ones(len(start), bool)
        target, among = pixels.target, np.arange(len(start))
        if self.n_classes_ > 1:
            self.present_ = np.bincount(target, minlength=self.n_classes_) > 0
            self.notes_ += absent_note(self.present_)
        before = _identity_loss(logits, target, pixels.weight)
        if not self.present_.all():
            among = np.flatnonzero(self.present_)
            target = np.searchsorted(among, target)
            features = features[:, among] if diagonal else features
            ridge = None if ridge is None else ridge[among]
        loss = LogLoss(features, target, pixels.weight, diagonal, ridge)
        end = minimise(loss, start[among])
        theta = start.copy()
        theta[among] = loss.centred(end.theta)
        gain = _identity_loss(logits[:, among], target, pixels.weight) - replace(loss, ridge=None)(end.theta)[0]
        self.summary_ |= {
            "nll_before": before, "nll_after": float(before - gain), "converged": end.converged, "steps": end.steps,
        }  # fmt: skip
        self.notes_ += end.notes()
        return theta

    def _summarise(self, pixels: Pixels) -> None:
        """The fit said it."""


def _identity_loss(logits: Array, target: Array, weight: Array) -> float:
    return float(LogLoss(logits, target, weight, diagonal=True)(np.tile([1.0, 0.0], (logits.shape[1], 1)))[0])


def absent_note(present: Array) -> list[str]:
    """What to tell people of classes without any pixel, if there are such.

    >>> absent_note(np.array([True, False]))
    ['class 1 is absent from the fitting data; it keeps its uncalibrated scores']
    """
    absent = ", ".join(map(str, np.flatnonzero(~present)))
    if not absent:
        return []
    one = present.size - present.sum() == 1
    return [
        f"class{'' if one else 'es'} {absent} {'is' if one else 'are'} absent from the fitting data; "
        f"{'it keeps its' if one else 'they keep their'} uncalibrated scores"
    ]


def probabilities(scores: Array, logits: Array, present: Array) -> Array:
    """Sigmoid of scores `(n,)`; of `(n, C)`, a softmax among the present classes, the absent ones keeping softmax(logits).

    >>> z = np.log([[0.2, 0.3, 0.5]])
    >>> probabilities(np.zeros((1, 3)), z, np.array([True, True, False])).round(6).tolist()
    [[0.25, 0.25, 0.5]]
    """
    if scores.ndim == 1:
        return np.asarray(expit(scores))
    if present.all():
        return np.asarray(softmax(scores, axis=1))
    p = softmax(logits, axis=1)
    shares = softmax(np.where(present, scores, -np.inf), axis=1)
    left = np.minimum(p[:, present].sum(1, keepdims=True), 1)  # rounding may leave more than all
    return np.where(present, left * shares, p)


def torch_probabilities(scores: Tensor, logits: Tensor, present: Tensor) -> Tensor:
    """`probabilities` on tensors."""
    import torch

    if scores.ndim == 1:
        return torch.sigmoid(scores)
    p = torch.softmax(logits, dim=1)
    left = torch.where(present, p, 0).sum(1, keepdim=True).clamp(max=1)
    return torch.where(present, left * torch.softmax(scores.masked_fill(~present, -torch.inf), dim=1), p)
