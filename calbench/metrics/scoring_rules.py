"""Proper scoring rules and their decompositions into calibration, discrimination and uncertainty.

A decomposition looks at forecasts and outcomes of one event at a time: the foreground of binary maps, or each class in
turn, whose terms are added up. `forecasts` are the cells of these events, `(..., groups, cells)`, one group on binary maps,
beside the sums of the scoring rules, which know every single probability.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression

from calbench.metrics.metric import Reader
from calbench.statistics import Statistics, Uncertainty
from calbench.statistics.histogram import HALF_LEVEL
from calbench.statistics.reliability import BinSums, ReliabilityCells, divide
from calbench.statistics.rows import Array
from calbench.statistics.scoring import ScoreSums

Forecasts = tuple[ReliabilityCells, ScoreSums]

CLIPS = {HALF_LEVEL: "1/510", 1 / (2 * 65535): "1/131070"}
"""Half a level of 8 and of 16 bits."""


def brier_score(sums: ScoreSums) -> Array:
    """Mean squared error of the probabilities, shape `(...,)`.

    Binary maps: Σ (p − y)² / N of the foreground probability, in [0, 1]. Several classes: Σ Σ_k (p_k − y_k)² / N over all
    classes, in [0, 2]; with two classes this form is twice the binary one.

    Reference: Brier, 1950 (doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2).
    """
    return divide(sums.squared_error, sums.count)


def brier_conventions(sums: ScoreSums) -> Mapping[str, Any]:
    """Which of the two forms the value has."""
    return {"form": "binary" if sums.binary else "multiclass"}


def negative_log_likelihood(sums: ScoreSums) -> Array:
    """Mean −ln P(outcome), nats, shape `(...,)`.

    P is clipped where the file can hold exact 0 and 1: half a level from the ends for integer levels, the epsilon of the
    float type for float probabilities; P of logits is never 0 and not clipped.

    Reference: Good, 1952 (doi:10.1111/j.2517-6161.1952.tb00104.x).
    """
    return divide(sums.log_loss, sums.count)


def nll_conventions(sums: ScoreSums) -> Mapping[str, Any]:
    """How far from 0 and 1 the probabilities were clipped."""
    return {"clip": CLIPS.get(sums.clip, f"{sums.clip:.3g}") if sums.clip else "none"}


def mean_entropy(sums: ScoreSums) -> Array:
    """Mean predictive entropy −Σ_k p_k ln p_k, nats, in [0, ln(classes)], shape `(...,)`.

    Reference: Shannon, 1948 (doi:10.1002/j.1538-7305.1948.tb01338.x).
    """
    return divide(sums.entropy, sums.count)


def normalised_entropy(sums: ScoreSums) -> Array:
    """Mean predictive entropy divided by ln(classes), that of the uniform distribution; in [0, 1], shape `(...,)`.

    Reference: Shannon, 1948 (doi:10.1002/j.1538-7305.1948.tb01338.x).
    """
    return mean_entropy(sums) / np.log(sums.classes)


def ood_entropy(unsure: Uncertainty) -> Array:
    """Mean predictive entropy of out-of-distribution pixels, nats, in [0, ln(classes)], shape `(...,)`; needs no truth.

    Reference: Shannon, 1948 (doi:10.1002/j.1538-7305.1948.tb01338.x).
    """
    return divide(unsure.entropy_sum, unsure.count)


def _forecast_cells(statistics: Statistics) -> ReliabilityCells | None:
    single = None if statistics.classes is not None else statistics.reliability("foreground")
    if single is None:
        return statistics.classes
    return replace(single, **{name: getattr(single, name)[..., None, :] for name in BinSums.row_fields()})


def _forecasts(statistics: Statistics) -> Forecasts | None:
    cells, sums = _forecast_cells(statistics), statistics.score_sums()
    return None if cells is None or sums is None else (cells, sums)


forecast_cells = Reader(_forecast_cells, "probabilities or logits")
"""Cells of p of the foreground, or of each class: `(..., groups, cells)`."""

forecasts = Reader(_forecasts, "probabilities or logits")
"""These cells and the sums of the scoring rules."""


def brier_reliability(cells: ReliabilityCells) -> Array:
    """Σ_k (n_k / N) (p_k − ȳ_k)² over levels or cells k, added up over classes. Shape `(...,)`.

    brier = reliability − resolution + uncertainty + within-variance − within-covariance, exactly. The last two are 0 where
    all pixels of a cell share one forecast, as on 8-bit maps.

    Reference: Murphy, 1973 (doi:10.1175/1520-0450(1973)012<0595:ANVPOT>2.0.CO;2).
    """
    squares = cells.residual**2 / np.where(cells.count > 0, cells.count, 1)
    return divide(squares.sum(-1), cells.count.sum(-1)).sum(-1)


def brier_resolution(cells: ReliabilityCells) -> Array:
    """Σ_k (n_k / N) (ȳ_k − ȳ)² over levels or cells k, added up over classes: how far outcomes differ between forecasts.

    Shape `(...,)`.

    Reference: Murphy, 1973 (doi:10.1175/1520-0450(1973)012<0595:ANVPOT>2.0.CO;2).
    """
    count, total = np.asarray(cells.count, np.float64), cells.count.sum(-1)
    base = divide(cells.correct.sum(-1), total)
    rate = cells.correct / np.where(count > 0, count, 1)
    return divide((count * (rate - base[..., None]) ** 2).sum(-1), total).sum(-1)


def brier_uncertainty(cells: ReliabilityCells) -> Array:
    """ȳ (1 − ȳ), added up over classes: the Brier score of the constant base rate. Shape `(...,)`.

    Reference: Murphy, 1973 (doi:10.1175/1520-0450(1973)012<0595:ANVPOT>2.0.CO;2).
    """
    base = divide(cells.correct.sum(-1), cells.count.sum(-1))
    return (base * (1 - base)).sum(-1)


def brier_within_variance(forecasts: Forecasts) -> Array:
    """WBV = (Σ p² − Σ_k conf_k² / n_k) / N: variance of the forecasts within cells k, over all classes. Shape `(...,)`.

    conf_k is the sum of the forecasts in the cell. 0 where all pixels of a cell share one forecast.

    Reference: Stephenson, Coelho & Jolliffe, 2008 (doi:10.1175/2007WAF2006116.1).
    """
    cells, sums = forecasts
    return _within(forecasts, sums.squared_score - _from_means(cells, cells.confidence))


def brier_within_covariance(forecasts: Forecasts) -> Array:
    """WBC = 2 (Σ p y − Σ_k conf_k · correct_k / n_k) / N: twice the covariance of forecast and outcome within cells k.

    Over all classes; conf_k and correct_k are sums over the cell. Σ p y follows from Σ (p − y)². Shape `(...,)`; 0 where all
    pixels of a cell share one forecast.

    Reference: Stephenson, Coelho & Jolliffe, 2008 (doi:10.1175/2007WAF2006116.1).
    """
    cells, sums = forecasts
    twice_product = sums.squared_score + cells.correct.sum((-2, -1)) - sums.squared_error
    return _within(forecasts, twice_product - 2 * _from_means(cells, cells.correct))


def _from_means(cells: ReliabilityCells, sums: Array) -> Array:
    """Σ of the cell sums times the mean forecast of the cell, `(...,)`."""
    return (sums * (cells.confidence / np.where(cells.count > 0, cells.count, 1))).sum((-2, -1))


def _within(forecasts: Forecasts, total: Array) -> Array:
    """A within-cell term per pixel: exactly 0, not a rounding error, where cells hold one forecast each."""
    cells, sums = forecasts
    return divide(total if cells.width.any() else np.zeros_like(sums.squared_error), sums.count)


def corp_miscalibration(cells: ReliabilityCells) -> Array:
    """MCB = BS − BS of the isotonic recalibration: what a monotone calibrator of each class could gain. No bins.

    Both of the mean forecasts of levels or cells, so that brier = MCB − DSC + UNC + within-variance − within-covariance,
    with UNC = `brier_uncertainty`; added up over classes. Never negative; where cells are wide (several classes: up to 1/60)
    it sees less than a recalibration of every single forecast, signal and noise alike. Shape `(...,)`.

    Reference: Dimitriadis, Gneiting & Jordan, PNAS 2021 (doi:10.1073/pnas.2016191118).
    """
    of_means = brier_reliability(cells) - brier_resolution(cells) + brier_uncertainty(cells)
    return of_means - _brier_recalibrated(cells)


def corp_discrimination(cells: ReliabilityCells) -> Array:
    """DSC = UNC − BS of the isotonic recalibration of levels or cells: what ranking alone is worth. Shape `(...,)`.

    Reference: Dimitriadis, Gneiting & Jordan, PNAS 2021 (doi:10.1073/pnas.2016191118).
    """
    return brier_uncertainty(cells) - _brier_recalibrated(cells)


def _brier_recalibrated(cells: ReliabilityCells) -> Array:
    """Brier score had each cell forecast its isotonic outcome rate, added up over classes, `(...,)`."""
    forecast, wrong = _isotonic(cells), cells.count - cells.correct
    squares = cells.correct * (1 - forecast) ** 2 + wrong * forecast**2
    return divide(squares.sum(-1), cells.count.sum(-1)).sum(-1)


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
