"""Calibrators of one probability, made into calibrators of several: one class against the rest, then normalised."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp, softmax

from calbench.calibrators.affine import absent_note
from calbench.calibrators.calibrator import BLOCK, Calibrator, Pixels
from calbench.statistics.rows import Array

if TYPE_CHECKING:
    from torch import Tensor


class OneVsRest(Calibrator):
    """Base of calibrators that map one probability to another: of foreground, or of each class against the rest.

    Several classes: q_k = f_k(p_k) with p = softmax(z), then p'_k = q_k / Σ_j q_j. Where all q_k are 0, p stays. A class
    that is absent from the fitting data has f_k(p) = p. Each f_k is fitted on its own, so the NLL of the normalised
    probabilities may rise, and pixels can change their class.
    """

    def _fit(self, pixels: Pixels) -> None:
        logits = against_rest(pixels.logits)
        self._start(logits.shape[1])
        if self.n_classes_ == 1:
            self._fit_one(0, logits[:, 0], pixels.target, pixels.weight)
            return
        present = np.bincount(pixels.target, minlength=self.n_classes_) > 0
        self.notes_ += absent_note(present)
        for k in np.flatnonzero(present):
            self._fit_one(k, logits[:, k], (pixels.target == k).astype(np.intp), pixels.weight)

    def _transform(self, logits: Array) -> Array:
        return normalised(self._mapped(against_rest(logits)), logits)

    def _start(self, n_maps: int) -> None:
        """Set what is learned to f(p) = p, `n_maps` times."""
        raise NotImplementedError

    def _fit_one(self, k: int, logit: Array, outcome: Array, weight: Array) -> None:
        """Learn f_k from logit p_k, `(n,)`, outcomes 0 and 1, and weights."""
        raise NotImplementedError

    def _of(self, k: int) -> str:
        """Which map it is, for notes."""
        return "" if self.n_classes_ == 1 else f" of class {k}"

    def _mapped(self, logit: Array) -> Array:
        """q, `(n, C)` or `(n, 1)`, for logit p of that shape."""
        raise NotImplementedError


def against_rest(logits: Array) -> Array:
    """logit p_k of each class, float64 `(n, C)`, from the logits of a softmax; those of binary maps as `(n, 1)`.

    logit p_k = z_k − ln Σ_{j≠k} exp(z_j), exact also where p_k rounds to 0 or 1.

    >>> against_rest(np.array([[800.0, 0.0, 0.0]])).round(4).tolist()
    [[799.3069, -800.0, -800.0]]
    """
    if logits.ndim == 1:
        return np.asarray(logits, np.float64)[:, None]
    out = np.empty(logits.shape)
    for start in range(0, len(logits), BLOCK):
        z = np.array(logits[start : start + BLOCK], np.float64)
        rows, winner = np.arange(len(z)), z.argmax(1)
        log_p = z - logsumexp(z, axis=1, keepdims=True)
        best = z[rows, winner]
        z[rows, winner] = -np.inf
        block = out[start : start + BLOCK]
        with np.errstate(divide="ignore"):  # ln(1 − p) of a winner with p = 1 is replaced
            np.subtract(log_p, np.log1p(-np.exp(log_p)), out=block)
        block[rows, winner] = best - logsumexp(z, axis=1)
    return out


def normalised(q: Array, logits: Array) -> Array:
    """q / Σ q of each row `(n, C)`, softmax(logits) where all are 0; of binary maps, q `(n, 1)` as `(n,)`.

    >>> normalised(np.array([[0.0, 0.5], [0.0, 0.0]]), np.zeros((2, 2))).tolist()
    [[0.0, 1.0], [0.5, 0.5]]
    """
    if logits.ndim == 1:
        return q[:, 0]
    total = q.sum(1, keepdims=True)
    if (total == 0).any():
        q = np.where(total == 0, softmax(logits, axis=1), q)
        total = q.sum(1, keepdims=True)
    return q / total


def torch_against_rest(logits: Tensor) -> Tensor:
    """`against_rest` on tensors."""
    import torch

    if logits.ndim == 1:
        return logits[:, None]
    winner = torch.nn.functional.one_hot(logits.argmax(1), logits.shape[1]).bool()
    log_p = torch.log_softmax(logits, dim=1).masked_fill(winner, -1.0)  # any: replaced below
    rest = torch.logsumexp(logits.masked_fill(winner, -torch.inf), dim=1, keepdim=True)
    return torch.where(winner, logits - rest, log_p - torch.log1p(-torch.exp(log_p)))


def torch_normalised(q: Tensor, logits: Tensor) -> Tensor:
    """`normalised` on tensors."""
    import torch

    if logits.ndim == 1:
        return q[:, 0]
    q = torch.where(q.sum(1, keepdim=True) == 0, torch.softmax(logits, dim=1), q)
    return q / q.sum(1, keepdim=True)
