"""Proper scoring rules and their decompositions into calibration, discrimination and uncertainty."""

from __future__ import annotations

import numpy as np
from scipy.optimize import isotonic_regression

from calbench.statistics.reliability import ReliabilityCells, divide
from calbench.statistics.rows import Array
from calbench.statistics.scoring import ScoreSums


def brier_score(sums: ScoreSums) -> Array:
    """Mean squared error of the foreground probability: Σ (p − y)² / N, in [0, 1], shape `(...,)`.

    The binary form; the two-class form, which sums over both classes, is twice this.

    Reference: Brier, 1950 (doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2).
    """
    return divide(sums.squared_error, sums.count)


def negative_log_likelihood(sums: ScoreSums) -> Array:
    """Mean −ln P(outcome), nats, shape `(...,)`; P is clipped half a level away from 0 and 1, as 8-bit maps hold both.

    Reference: Good, 1952 (doi:10.1111/j.2517-6161.1952.tb00104.x).
    """
    return divide(sums.log_loss, sums.count)


def mean_entropy(sums: ScoreSums) -> Array:
    """Mean predictive entropy −p ln p − (1 − p) ln(1 − p), nats, in [0, ln 2], shape `(...,)`.

    Reference: Shannon, 1948 (doi:10.1002/j.1538-7305.1948.tb01338.x).
    """
    return divide(sums.entropy, sums.count)


def brier_reliability(cells: ReliabilityCells) -> Array:
    """Σ_k (n_k / N) (p_k − ȳ_k)² over levels; BS = reliability − resolution + uncertainty exactly. Shape `(...,)`.

    Exact because all pixels of a level share one forecast; with wider bins two within-bin terms would be missing.

    Reference: Murphy, 1973 (doi:10.1175/1520-0450(1973)012<0595:ANVPOT>2.0.CO;2).
    """
    squares = cells.residual**2 / np.where(cells.count > 0, cells.count, 1)
    return divide(squares.sum(-1), cells.count.sum(-1))


def brier_resolution(cells: ReliabilityCells) -> Array:
    """Σ_k (n_k / N) (ȳ_k − ȳ)² over levels: how far outcomes differ between forecasts. Shape `(...,)`.

    Reference: Murphy, 1973 (doi:10.1175/1520-0450(1973)012<0595:ANVPOT>2.0.CO;2).
    """
    count, total = np.asarray(cells.count, np.float64), cells.count.sum(-1)
    base = divide(cells.correct.sum(-1), total)
    rate = cells.correct / np.where(count > 0, count, 1)
    return divide((count * (rate - base[..., None]) ** 2).sum(-1), total)


def brier_uncertainty(cells: ReliabilityCells) -> Array:
    """ȳ (1 − ȳ): the Brier score of the constant base rate. Shape `(...,)`.

    Reference: Murphy, 1973 (doi:10.1175/1520-0450(1973)012<0595:ANVPOT>2.0.CO;2).
    """
    base = divide(cells.correct.sum(-1), cells.count.sum(-1))
    return base * (1 - base)


def corp_miscalibration(cells: ReliabilityCells) -> Array:
    """MCB = BS − BS of the isotonic recalibration: what a monotone calibrator could gain. No bins. Shape `(...,)`.

    BS = MCB − DSC + UNC, with UNC = `brier_uncertainty`.

    Reference: Dimitriadis, Gneiting & Jordan, PNAS 2021 (doi:10.1073/pnas.2016191118).
    """
    score = np.broadcast_to(cells.score, cells.count.shape)
    return _brier_of(cells, score) - _brier_of(cells, _isotonic(cells))


def corp_discrimination(cells: ReliabilityCells) -> Array:
    """DSC = UNC − BS of the isotonic recalibration: what ranking alone is worth. No bins. Shape `(...,)`.

    Reference: Dimitriadis, Gneiting & Jordan, PNAS 2021 (doi:10.1073/pnas.2016191118).
    """
    return brier_uncertainty(cells) - _brier_of(cells, _isotonic(cells))


def _brier_of(cells: ReliabilityCells, forecast: Array) -> Array:
    """Brier score had each cell forecast this, `(...,)`."""
    wrong = cells.count - cells.correct
    return divide((cells.correct * (1 - forecast) ** 2 + wrong * forecast**2).sum(-1), cells.count.sum(-1))


def _isotonic(cells: ReliabilityCells) -> Array:
    """Outcome rates made non-decreasing in the score by pool-adjacent-violators, `(..., cells)`; 0 in empty cells."""
    n_cells = cells.count.shape[-1]
    count = np.asarray(cells.count, np.float64).reshape(-1, n_cells)
    correct = np.asarray(cells.correct, np.float64).reshape(-1, n_cells)
    fitted = np.zeros_like(count)
    for row, (n, right) in enumerate(zip(count, correct, strict=True)):
        occupied = n > 0
        if occupied.any():
            fitted[row, occupied] = isotonic_regression(right[occupied] / n[occupied], weights=n[occupied]).x
    return fitted.reshape(cells.count.shape)
