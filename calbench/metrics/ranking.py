"""Ranking: how well a score separates positives from negatives, whatever its calibration.

The core works on counts by cell of a ranking, `positives` and `negatives` of shape `(..., cells)`, ascending in the score.
Pixels of one cell are tied: they share a threshold, so no value depends on the order of pixels. Where the pixels of a cell
do not all have one score (cells of a grid), their order is unknown here; each `*_bound` says by how much the orders inside
such cells, marked by `unknown`, could change its value.

>>> import numpy as np
>>> float(area_under_roc(np.array([0, 1, 3]), np.array([4, 1, 0])))
0.975
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import digamma, xlog1py

from calbench.statistics.reliability import ReliabilityCells, divide
from calbench.statistics.rows import Array

TPR = 0.95


def area_under_roc(positives: Array, negatives: Array) -> Array:
    """Area under the ROC curve: P(score of a positive > score of a negative) + ½ P(equal). Shape `(...,)`.

    NaN where positives or negatives are missing.

    Reference: Hanley & McNeil, 1982 (doi:10.1148/radiology.143.1.7063747).
    """
    positives, negatives = np.asarray(positives, np.float64), np.asarray(negatives, np.float64)
    below = negatives.cumsum(-1) - negatives / 2
    return divide((positives * below).sum(-1), positives.sum(-1) * negatives.sum(-1))


def roc_points(positives: Array, negatives: Array) -> tuple[Array, Array]:
    """The ROC curve: false and true positive rate at each threshold, from the highest down, after the point (0, 0).

    Straight lines between the points have the area `area_under_roc`: the points of a cell come in random order.

    Args:
        positives, negatives: `(..., cells)`, ascending in the score.
    Returns:
        FPR and TPR, each `(..., cells + 1)`, in [0, 1]; NaN where positives or negatives are missing.

    Reference: Fawcett, 2006 (doi:10.1016/j.patrec.2005.10.010).

    >>> fpr, tpr = roc_points(np.array([0, 1, 3]), np.array([4, 1, 0]))
    >>> fpr.tolist(), tpr.tolist()
    ([0.0, 0.0, 0.2, 1.0], [0.0, 0.75, 1.0, 1.0])
    """
    missed, found = (_selected_shares(counts) for counts in (negatives, positives))
    defined = np.isfinite(missed + found)
    return np.where(defined, missed, np.nan), np.where(defined, found, np.nan)


def auroc_bound(positives: Array, negatives: Array, unknown: Array | bool = True) -> Array:
    """Most by which unknown orders can change `area_under_roc`: half a point for each pair in one cell.

    ½ Σ positives · negatives / (P N) over the cells that `unknown`, bool `(cells,)`, marks. Shape `(...,)`.
    """
    positives, negatives = np.asarray(positives, np.float64), np.asarray(negatives, np.float64)
    tied = np.where(unknown, positives * negatives, 0)
    return divide(tied.sum(-1) / 2, positives.sum(-1) * negatives.sum(-1))


def average_precision_of(positives: Array, negatives: Array) -> Array:
    """AP = Σ_t (R_t − R_{t−1}) P_t over falling thresholds, ties together; no interpolation. Shape `(...,)`.

    NaN without positives.

    Reference: scikit-learn's `average_precision_score`; Davis & Goadrich, ICML 2006 (doi:10.1145/1143844.1143874).
    """
    positives, negatives = (np.asarray(counts[..., ::-1], np.float64) for counts in (positives, negatives))
    found, selected = positives.cumsum(-1), (positives + negatives).cumsum(-1)
    return divide((positives * _share(found, selected)).sum(-1), positives.sum(-1))


def precision_recall_points(positives: Array, negatives: Array) -> tuple[Array, Array]:
    """The precision-recall curve: recall and precision at each threshold, from the highest down, after recall 0.

    Steps that hold P_t from R_{t−1} to R_t have the area `average_precision_of`. Where nothing is selected yet, the
    precision is that of the first threshold that selects anything.

    Args:
        positives, negatives: `(..., cells)`, ascending in the score.
    Returns:
        Recall and precision, each `(..., cells + 1)`, in [0, 1]; NaN without positives.

    Reference: Davis & Goadrich, ICML 2006 (doi:10.1145/1143844.1143874).

    >>> recall, precision = precision_recall_points(np.array([0, 1, 3]), np.array([4, 1, 0]))
    >>> recall.tolist(), precision.tolist()
    ([0.0, 0.75, 1.0, 1.0], [1.0, 1.0, 0.8, 0.4444444444444444])
    """
    recall = _selected_shares(positives)
    positives, negatives = (np.asarray(counts[..., ::-1], np.float64) for counts in (positives, negatives))
    found, selected = positives.cumsum(-1), (positives + negatives).cumsum(-1)
    return recall, np.where(np.isfinite(recall), _steps(found, selected), np.nan)


def average_precision_bound(positives: Array, negatives: Array, unknown: Array | bool = True) -> Array:
    """Most by which unknown orders can change `average_precision_of`, `(...,)`.

    The best order finds the positives of a cell first, all at once; the worst finds them last, one by one.
    """
    unknown = np.broadcast_to(unknown, positives.shape[-1:])[::-1]
    positives, negatives = (np.asarray(counts[..., ::-1], np.float64) for counts in (positives, negatives))
    found, missed = positives.cumsum(-1), negatives.cumsum(-1)
    tied = positives * _share(found, found + missed)
    best = positives * _share(found, found + missed - negatives)
    worst = positives - missed * _harmonic(found - positives + missed, positives)
    up, down = (np.where(unknown, change, 0).sum(-1) for change in (best - tied, tied - worst))
    return divide(np.maximum(up, down), positives.sum(-1))


def fpr_at_tpr(positives: Array, negatives: Array, rate: float = TPR) -> Array:
    """False positive rate at the highest threshold that finds at least `rate` of the positives. Shape `(...,)`, in [0, 1].

    Going from the highest score down, whole tie groups at a time, the first threshold with TPR >= `rate` is taken; other
    tools interpolate, or take the nearest. NaN where positives or negatives are missing.

    Reference: Liang et al., ICLR 2018 (arXiv:1706.02690), FPR at 95 % TPR; the rule of pytorch-ood.
    """
    positives, negatives = (np.asarray(counts[..., ::-1], np.float64) for counts in (positives, negatives))
    flagged = np.take_along_axis(negatives.cumsum(-1), _first_reaching(positives, rate), -1)[..., 0]
    return np.where(positives.sum(-1) > 0, divide(flagged, negatives.sum(-1)), np.nan)


def fpr_bound(positives: Array, negatives: Array, unknown: Array | bool = True, rate: float = TPR) -> Array:
    """Most by which unknown orders can change `fpr_at_tpr`: the negatives of the threshold's cell, `(...,)`."""
    unknown = np.broadcast_to(unknown, positives.shape[-1:])[::-1]
    positives, negatives = (np.asarray(counts[..., ::-1], np.float64) for counts in (positives, negatives))
    unsure = np.take_along_axis(np.where(unknown, negatives, 0), _first_reaching(positives, rate), -1)[..., 0]
    return np.where(positives.sum(-1) > 0, divide(unsure, negatives.sum(-1)), np.nan)


def _first_reaching(positives: Array, rate: float) -> Array:
    """Where the cumulative share of positives `(..., cells)` first reaches `rate`, `(..., 1)`."""
    found = positives.cumsum(-1)
    return (found >= rate * found[..., -1:]).argmax(-1)[..., None]


def _share(part: Array, whole: Array) -> Array:
    return part / np.where(whole > 0, whole, 1)


def _selected_shares(counts: Array) -> Array:
    """Share of the counts above each threshold, from the highest down, after 0: `(..., cells + 1)`; NaN of none."""
    selected = np.asarray(counts[..., ::-1], np.float64).cumsum(-1)
    zero = np.zeros_like(selected[..., :1])
    return divide(np.concatenate([zero, selected], -1), selected[..., -1:])


def _steps(part: Array, whole: Array) -> Array:
    """part / whole of cumulative sums, `(..., cells + 1)`; up to the first of `whole` that is not 0, the ratio there."""
    first = (whole > 0).argmax(-1)[..., None]
    ratio = np.take_along_axis(divide(part, whole), np.maximum(np.arange(whole.shape[-1]), first), -1)
    return np.concatenate([ratio[..., :1], ratio], -1)


def _harmonic(start: Array, n: Array) -> Array:
    """Σ_{j = 1 … n} 1 / (start + j)."""
    return digamma(start + n + 1) - digamma(start + 1)


# --- foreground against background ------------------------------------------------------------------------------------


def loose(cells: ReliabilityCells) -> Array:
    """Whether the pixels of a cell may differ in score, `(..., cells)`: in cells of a grid, unless all lie at 0 or 1.

    Saturated probabilities hold many exact zeros and ones: true ties, whose order is not unknown but does not exist. Those
    that soft-max rounded have an order, that of their logits.
    """
    position = cells.position
    return (cells.width > 0) & (cells.rounded | ((position > 0) & (position < 1)))


def _foreground(cells: ReliabilityCells) -> tuple[Array, Array]:
    return cells.correct, cells.count - cells.correct


def auroc(cells: ReliabilityCells) -> Array:
    """Area under the ROC curve of p: P(p of foreground > p of background) + ½ P(equal). Shape `(...,)`.

    `cells` are those of the foreground event. NaN where one outcome is missing.

    Reference: Hanley & McNeil, 1982 (doi:10.1148/radiology.143.1.7063747).
    """
    return area_under_roc(*_foreground(cells))


def auroc_details(cells: ReliabilityCells) -> Mapping[str, Any]:
    """What ties that only the grid makes can have changed."""
    return _bounded(cells, auroc_bound(*_foreground(cells), loose(cells)))


def average_precision(cells: ReliabilityCells) -> Array:
    """Average precision of p, foreground positive: Σ_t (R_t − R_{t−1}) P_t, ties together. Shape `(...,)`.

    `cells` are those of the foreground event. NaN without foreground.

    Reference: scikit-learn's `average_precision_score`; Davis & Goadrich, ICML 2006 (doi:10.1145/1143844.1143874).
    """
    return average_precision_of(*_foreground(cells))


def average_precision_details(cells: ReliabilityCells) -> Mapping[str, Any]:
    """What ties that only the grid makes can have changed."""
    return _bounded(cells, average_precision_bound(*_foreground(cells), loose(cells)))


def _bounded(cells: ReliabilityCells, bound: Array) -> Mapping[str, Any]:
    """The bound, where there are cells that it is about."""
    return {"error_bound": float(bound)} if cells.width.any() else {}


# --- right decisions against errors -----------------------------------------------------------------------------------


def _success(cells: ReliabilityCells) -> tuple[Array, Array]:
    """Right and wrong decisions by cell, ascending in confidence."""
    return cells.correct, cells.count - cells.correct


def _error(cells: ReliabilityCells) -> tuple[Array, Array]:
    """Wrong and right decisions by cell, ascending in −confidence."""
    right, wrong = _success(cells)
    return wrong[..., ::-1], right[..., ::-1]


def auroc_error(cells: ReliabilityCells) -> Array:
    """How well confidence tells errors: P(confidence of a right decision > of a wrong one) + ½ P(equal). Shape `(...,)`.

    `cells` are those of the top label. NaN without an error, or without a right decision.

    Reference: Hendrycks & Gimpel, ICLR 2017 (arXiv:1610.02136).
    """
    return area_under_roc(*_success(cells))


def auroc_error_details(cells: ReliabilityCells) -> Mapping[str, Any]:
    """What ties that only the grid makes can have changed."""
    return _bounded(cells, auroc_bound(*_success(cells), loose(cells)))


def aupr_error(cells: ReliabilityCells) -> Array:
    """Average precision of finding errors by low confidence: errors positive, score −confidence. Shape `(...,)`.

    Its chance level is the error rate. NaN without an error.

    Reference: Hendrycks & Gimpel, ICLR 2017 (arXiv:1610.02136).
    """
    return average_precision_of(*_error(cells))


def aupr_error_details(cells: ReliabilityCells) -> Mapping[str, Any]:
    """What ties that only the grid makes can have changed."""
    return _bounded(cells, average_precision_bound(*_error(cells), loose(cells)[::-1]))


def aupr_success(cells: ReliabilityCells) -> Array:
    """Average precision of finding right decisions by high confidence: right ones positive. Shape `(...,)`.

    Its chance level is the accuracy. NaN without a right decision.

    Reference: Hendrycks & Gimpel, ICLR 2017 (arXiv:1610.02136).
    """
    return average_precision_of(*_success(cells))


def aupr_success_details(cells: ReliabilityCells) -> Mapping[str, Any]:
    """What ties that only the grid makes can have changed."""
    return _bounded(cells, average_precision_bound(*_success(cells), loose(cells)))


def fpr95_error(cells: ReliabilityCells) -> Array:
    """Share of the right decisions that are flagged once at least 95 % of the errors are. Shape `(...,)`, in [0, 1].

    Errors are positive, score −confidence; decisions of one confidence are flagged together. NaN without an error, or
    without a right decision.

    Reference: Corbière et al., NeurIPS 2019 (arXiv:1910.04851), with errors positive.
    """
    return fpr_at_tpr(*_error(cells))


def fpr95_error_details(cells: ReliabilityCells) -> Mapping[str, Any]:
    """What ties that only the grid makes can have changed."""
    return _bounded(cells, fpr_bound(*_error(cells), loose(cells)[::-1]))


# --- selective prediction: which share is accepted, at which risk -----------------------------------------------------


def _accepted(cells: ReliabilityCells) -> tuple[Array, Array]:
    """Decisions and errors at least as confident as each cell, `(..., cells)`, cells in falling confidence."""
    wrong = np.asarray((cells.count - cells.correct)[..., ::-1], np.float64)
    return np.asarray(cells.count[..., ::-1], np.float64).cumsum(-1), wrong.cumsum(-1)


def _error_rate(cells: ReliabilityCells) -> Array:
    return divide((cells.count - cells.correct).sum(-1), cells.count.sum(-1))


def aurc(cells: ReliabilityCells) -> Array:
    """Area under the risk-coverage curve: mean over pixels of the error rate among pixels at least as confident.

    AURC = Σ_c (n_c / N) · risk_c, where risk_c is the error rate of all pixels accepted at the threshold of cell c; ties
    are accepted together. Shape `(...,)`, in [0, 1].

    Reference: Geifman & El-Yaniv, NeurIPS 2017 (arXiv:1705.08500).
    """
    accepted, errors = _accepted(cells)
    return divide((cells.count[..., ::-1] * _share(errors, accepted)).sum(-1), cells.count.sum(-1))


def risk_coverage_points(cells: ReliabilityCells) -> tuple[Array, Array]:
    """The risk-coverage curve: share of the decisions accepted, and their error rate, as the threshold falls.

    Steps that hold the risk of a threshold from the coverage before it to its own have the area `aurc`. Where nothing is
    accepted yet, the risk is that of the first threshold that accepts anything; at full coverage it is the error rate.

    Args:
        cells: those of the top label, `(..., cells)`.
    Returns:
        Coverage and risk, each `(..., cells + 1)`, in [0, 1]; NaN without pixels.

    Reference: Geifman & El-Yaniv, NeurIPS 2017 (arXiv:1705.08500).

    >>> right = ReliabilityCells.exact(("a",), np.array([[3, 1]]), np.array([[2, 1]]), np.array([0.6, 0.9]))
    >>> coverage, risk = risk_coverage_points(right)
    >>> coverage.tolist(), risk.tolist()
    ([[0.0, 0.25, 1.0]], [[0.0, 0.0, 0.25]])
    """
    accepted, errors = _accepted(cells)
    return _selected_shares(cells.count), _steps(errors, accepted)


def excess_aurc(cells: ReliabilityCells) -> Array:
    """AURC less that of the best ranking at the same error rate e: E-AURC = AURC − (e + (1 − e) ln(1 − e)).

    Shape `(...,)`, in [0, 1]; 0 is a ranking that rejects every error first.

    Reference: Geifman, Uziel & El-Yaniv, ICLR 2019 (arXiv:1805.08206).
    """
    rate = _error_rate(cells)
    return aurc(cells) - (rate + xlog1py(1 - rate, -rate))


def aurc_details(cells: ReliabilityCells) -> Mapping[str, Any]:
    """What ties that only the grid makes can have changed: errors of a cell first and all at once, or last, one by one."""
    wrong = np.asarray((cells.count - cells.correct)[..., ::-1], np.float64)
    right = np.asarray(cells.correct[..., ::-1], np.float64)
    accepted, errors = _accepted(cells)
    before, errors_before = accepted - right - wrong, errors - wrong
    tied = (right + wrong) * _share(errors, accepted)
    worst = wrong * _share(errors, before + wrong) + errors * _harmonic(before + wrong, right)
    best = right * _share(errors_before, before + right) + (
        wrong - (before + right - errors_before) * _harmonic(before + right, wrong)
    )
    unknown = loose(cells)[::-1]
    up, down = (np.where(unknown, change, 0).sum(-1) for change in (worst - tied, tied - best))
    return _bounded(cells, divide(np.maximum(up, down), cells.count.sum(-1)))


def augrc(cells: ReliabilityCells) -> Array:
    """Area under the generalised risk-coverage curve: accepted errors / N over coverage, by trapezoids.

    AUGRC = Σ_c (n_c / N) · (errors above c + ½ errors in c) / N = (1 − AUROC) · acc · (1 − acc) + ½ (1 − acc)², AUROC that
    of `auroc_error`. Unlike AURC it does not rest on the few most confident pixels. Shape `(...,)`, in [0, ½].

    Reference: Traub et al., NeurIPS 2024 (arXiv:2407.01032).
    """
    wrong = np.asarray((cells.count - cells.correct)[..., ::-1], np.float64)
    total = np.asarray(cells.count.sum(-1), np.float64)
    return divide((cells.count[..., ::-1] * (wrong.cumsum(-1) - wrong / 2)).sum(-1), total**2)


def augrc_details(cells: ReliabilityCells) -> Mapping[str, Any]:
    """What ties that only the grid makes can have changed: the bound of `auroc_error` times acc (1 − acc)."""
    rate = _error_rate(cells)
    bound = np.nan_to_num(auroc_bound(*_success(cells), loose(cells)))
    return _bounded(cells, bound * rate * (1 - rate))


# --- out-of-distribution against in-distribution ----------------------------------------------------------------------


def aupr_in(positives: Array, negatives: Array) -> Array:
    """Average precision of finding in-distribution pixels: `negatives` count as positive, the ranking is reversed.

    Shape `(...,)`; NaN without in-distribution pixels. A step sum, as `average_precision_of`; trapezoids would flatter.

    Reference: Hendrycks & Gimpel, ICLR 2017 (arXiv:1610.02136).
    """
    return average_precision_of(negatives[..., ::-1], positives[..., ::-1])


def ood_auroc_details(positives: Array, negatives: Array) -> Mapping[str, Any]:
    """What ties that only the grid makes can have changed."""
    return {"error_bound": float(auroc_bound(positives, negatives))}


def ood_aupr_in_details(positives: Array, negatives: Array) -> Mapping[str, Any]:
    """What ties that only the grid makes can have changed."""
    return {"error_bound": float(average_precision_bound(negatives[..., ::-1], positives[..., ::-1]))}


def ood_aupr_out_details(positives: Array, negatives: Array) -> Mapping[str, Any]:
    """What ties that only the grid makes can have changed."""
    return {"error_bound": float(average_precision_bound(positives, negatives))}


def ood_fpr95_details(positives: Array, negatives: Array) -> Mapping[str, Any]:
    """What ties that only the grid makes can have changed."""
    return {"error_bound": float(fpr_bound(positives, negatives))}
