"""Calibration errors: how far confidence is from accuracy, as functions of reliability cells.

Each function keeps the leading axes of its cells, so one body gives the number, the per-image values and replicates. The
`*_norm` functions describe the same error as a gauge of residual sums, from which `intervals.norm_interval` takes its
limits; a law test holds the two equal. Where the cells of a grid hold more than one score, the `*_details` functions bound
what the unknown order inside cells can have changed; cells of one score need no bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.fft import dct, idct

from calbench.intervals import Norm
from calbench.metrics.averages import defined_mean
from calbench.metrics.ranking import loose
from calbench.statistics.reliability import (
    EDGE_TOLERANCE,
    THRESHOLD,
    BinSums,
    ReliabilityCells,
    Ties,
    bin_index,
    divide,
    equal_mass,
    equal_mass_sums,
    equal_width,
)
from calbench.statistics.rows import Array

MCE_MIN_SHARE = 1e-4
_GRID = 2000


def expected_calibration_error(cells: ReliabilityCells, *, bins: int = 15) -> Array:
    """Mean gap between confidence and accuracy over equal-width bins, weighted by pixels.

    ECE = Σ_b (n_b / N) |conf_b − acc_b|, bins (l, r] with 0 in the first; conf_b is the mean score in the bin, and empty
    bins weigh nothing.

    Args:
        cells: leading axes are kept: none, images, or bootstrap replicates.
        bins: number of bins on [0, 1].
    Returns:
        ECE in [0, 1], shape `(...,)`; NaN where there is no valid pixel.
    Reference: Guo et al., ICML 2017, eq. 3 (arXiv:1706.04599).

    >>> import numpy as np
    >>> from calbench.statistics import ReliabilityCells
    >>> cells = ReliabilityCells.exact((), np.array([10]), np.array([6]), np.array([0.8]))
    >>> round(float(expected_calibration_error(cells)), 6)
    0.2
    """
    return _mean_gap(cells.binned(bins))


def ece_norm(cells: ReliabilityCells, *, bins: int) -> Norm:
    """ECE as the L1 norm of binned residuals."""
    return Norm(equal_width(cells.score, bins), _l1)


def ece_details(cells: ReliabilityCells, *, bins: int) -> Mapping[str, Any]:
    """Most by which pixels of grid cells that an edge cuts can have changed ECE; nothing where no edge cuts a cell.

    Moving pixels of residual r to the next bin changes two gaps by at most |r|: the bound is 2 / N times the largest
    residual that any part of such a cell can have.
    """
    inside = _edges_inside(cells, bins)
    return {"error_bound": 2 * float(_movable(cells, inside))} if inside.any() else {}


def part_details(cells: ReliabilityCells, *, bins: int) -> Mapping[str, Any]:
    """The same for `over` and `under`: of the two gaps that pixels moved, one part grows while it shrinks in the other bin."""
    inside = _edges_inside(cells, bins)
    return {"error_bound": float(_movable(cells, inside))} if inside.any() else {}


def cut_details(cells: ReliabilityCells, *, bins: int) -> Mapping[str, Any]:
    """Share of the pixels in grid cells that an edge cuts, which may lie in the next bin; nothing where none is cut."""
    inside = _edges_inside(cells, bins)
    return {"pixel_share_cut": float(_per_pixel(cells, cells.count * (inside > 0)))} if inside.any() else {}


def _ends(cells: ReliabilityCells) -> tuple[Array, Array]:
    """Lower and upper edge of each cell, `(cells,)`."""
    return cells.score - cells.width / 2, cells.score + cells.width / 2


def _edges_inside(cells: ReliabilityCells, bins: int) -> Array:
    """How many edges of equal-width bins lie strictly inside each cell, `(cells,)`."""
    low, high = _ends(cells)
    first = np.minimum(np.floor((low + EDGE_TOLERANCE) * bins), bins - 1)
    return np.where(cells.width > 0, bin_index(high, bins) - first, 0)


def _movable(cells: ReliabilityCells, inside: Array) -> Array:
    """Largest Σ |residual| per pixel that may lie beyond the edges inside cells, `(...,)`; `inside` counts them.

    A part of a cell has a residual between −wrong · high and correct · (1 − low); with several edges its parts may have
    both signs.
    """
    low, high = _ends(cells)
    up, down = cells.correct * (1 - low), (cells.count - cells.correct) * high
    most = np.where(inside > 1, up + down, np.maximum(up, down))
    return _per_pixel(cells, np.where(inside > 0, most, 0))


def _per_pixel(cells: ReliabilityCells, sums: Array) -> Array:
    return divide(sums.sum(-1), cells.count.sum(-1))


def average_calibration_error(cells: ReliabilityCells, *, bins: int = 15) -> Array:
    """Mean gap over the occupied equal-width bins, each weighing the same: (1 / B⁺) Σ_b |conf_b − acc_b|.

    B⁺ is the number of occupied bins. Called ACE by some, as adaptive errors are by others; here neither is. Shape
    `(...,)`, NaN without a valid pixel.

    Reference: Neumann, Zisserman & Vedaldi, NeurIPS workshop MLITS 2018 (openreview.net/forum?id=S1lG7aTnqQ).
    """
    binned = cells.binned(bins)
    return defined_mean(np.abs(divide(binned.residual, binned.count)))


def average_ce_norm(cells: ReliabilityCells, *, bins: int) -> Norm:
    """The average error as an L1 norm, with the bins' pixel shares of the full sample."""
    weights = equal_width(cells.score, bins)
    share = cells.count @ weights / cells.count.sum()
    return Norm(weights / (np.where(share > 0, share, 1) * np.count_nonzero(share)), _l1)


def average_ce_details(cells: ReliabilityCells, *, bins: int) -> Mapping[str, Any]:
    """The number of occupied bins."""
    occupied = int(np.count_nonzero(cells.binned(bins).count))
    return {"n_bins_occupied": occupied, **cut_details(cells, bins=bins)}


def class_wise_errors(cells: ReliabilityCells, *, bins: int = 15) -> Array:
    """ECE of each class k: Σ_b (n_bk / N) |mean p_k − share of class k|, equal-width bins of p_k. Shape `(..., classes)`."""
    return expected_calibration_error(cells, bins=bins)


def class_wise_calibration_error(cells: ReliabilityCells, *, bins: int = 15) -> Array:
    """Mean over all K classes of the ECE of each: (1 / K) Σ_k Σ_b (n_bk / N) |mean p_k − share of class k|.

    Also called static calibration error. Every class counts every pixel, so the many probabilities near 0 make it small:
    compare it only between models of the same classes. Absent classes count, as any other.

    Args:
        cells: class-wise cells, `(..., classes, cells)`.
        bins: number of bins on [0, 1].
    Returns:
        Shape `(...,)`, in [0, 1]; NaN without a valid pixel.
    Reference: Kull et al., NeurIPS 2019 (arXiv:1910.12656); Nixon et al., 2019 (arXiv:1904.01685).
    """
    return class_wise_errors(cells, bins=bins).mean(-1)


def class_wise_norm(cells: ReliabilityCells, *, bins: int) -> Norm:
    """The class-wise error as an L1 norm over classes and bins."""
    n_classes = cells.count.shape[-2]
    return Norm(np.tile(equal_width(cells.score, bins) / n_classes, (n_classes, 1, 1)), _l1)


def class_norm(cells: ReliabilityCells, index: int, *, bins: int) -> Norm:  # noqa: ARG001  the bins of all classes are one
    """The ECE of one class as an L1 norm."""
    return Norm(equal_width(cells.score, bins), _l1)


def class_wise_details(cells: ReliabilityCells, *, bins: int) -> Mapping[str, Any]:
    """Classes with a pixel in the ground truth, and the mean over classes of the bound of `ece_details`."""
    inside = _edges_inside(cells, bins)
    bound = {"error_bound": 2 * float(_movable(cells, inside).mean())} if inside.any() else {}
    return {"classes_seen": _classes_seen(cells), **bound}


def _classes_seen(cells: ReliabilityCells) -> int:
    return int(np.count_nonzero(cells.correct.sum(-1)))


def thresholded_errors(cells: ReliabilityCells, *, bins: int = 15) -> Array:
    """Equal-mass ECE of each class over its probabilities above ε = 0.01. Shape `(..., classes)`, NaN without any."""
    above = _above_threshold(cells)
    shape = above.count.shape
    count, confidence, correct = (
        np.asarray(getattr(above, name), np.float64).reshape(-1, shape[-1]) for name in BinSums.row_fields()
    )
    n, conf, right = equal_mass_sums([count, confidence, correct], bins)
    return divide(np.abs(right - conf).sum(-1), n.sum(-1)).reshape(shape[:-1])


def thresholded_adaptive_error(cells: ReliabilityCells, *, bins: int = 15) -> Array:
    """TACE: mean over classes of the equal-mass ECE of their probabilities above ε = 0.01.

    TACE = (1 / K⁺) Σ_k Σ_b (n_bk / n_k) |mean p_k − share of class k|, over the n_k pixels with p_k > ε, bins of n_k / B
    pixels, and the K⁺ classes with n_k > 0. ε moves the value a lot, so it is stated with it; cells that straddle a
    boundary are shared in proportion.

    Args:
        cells: class-wise cells, `(..., classes, cells)`, the first of which holds the probabilities up to ε.
        bins: number of bins.
    Returns:
        Shape `(...,)`, in [0, 1]; NaN where no probability exceeds ε.
    Reference: Nixon et al., 2019, sec. 3 (arXiv:1904.01685).
    """
    return defined_mean(thresholded_errors(cells, bins=bins))


def tace_conventions(cells: ReliabilityCells) -> Mapping[str, Any]:  # noqa: ARG001  one threshold for all data
    """The threshold ε."""
    return {"epsilon": THRESHOLD}


def tace_norm(cells: ReliabilityCells, *, bins: int) -> Norm:
    """TACE as an L1 norm over classes and bins, with the edges and pixel counts of the full sample."""
    weights = _thresholded_weights(cells, bins)
    return Norm(weights / max(np.count_nonzero(weights.any((-2, -1))), 1), _l1)


def tace_class_norm(cells: ReliabilityCells, index: int, *, bins: int) -> Norm:
    """The equal-mass ECE of one class above ε as an L1 norm."""
    return Norm(_thresholded_weights(cells, bins)[index], _l1)


def _thresholded_weights(cells: ReliabilityCells, bins: int) -> Array:
    """Shares `(classes, cells, bins)` times N / n_k, as a norm divides by all N pixels; 0 up to ε."""
    above = _above_threshold(cells)
    n = above.count.sum(-1)
    scale = cells.count.sum(-1) / np.where(n > 0, n, 1)
    weights = equal_mass(above.count, bins) * scale[:, None, None]
    return np.pad(weights, ((0, 0), (1, 0), (0, 0)))


def tace_details(cells: ReliabilityCells, *, bins: int) -> Mapping[str, Any]:
    """Classes in the ground truth, classes with a probability above ε, and the means over these of the facts of `aece`."""
    above = _above_threshold(cells)
    return {
        "classes_seen": _classes_seen(cells),
        "classes_averaged": int(np.count_nonzero(above.count.sum(-1))),
        **_equal_mass_facts(above, bins, "split"),
    }


def _above_threshold(cells: ReliabilityCells) -> ReliabilityCells:
    """The cells of probabilities above ε: all but the first."""
    kept = {name: getattr(cells, name)[..., 1:] for name in (*BinSums.row_fields(), "score", "width")}
    return replace(cells, **kept)


def adaptive_calibration_error(cells: ReliabilityCells, *, bins: int = 15, ties: Ties = "split") -> Array:
    """ECE over bins of equal pixel mass; tied pixels are shared in proportion (`split`) or by mid-rank (`whole`).

    AECE = Σ_b (n_b / N) |conf_b − acc_b|, n_b = N / B. Shape `(...,)`, NaN without a valid pixel. Not called ACE, which
    names two different errors in the literature.

    Reference: Nguyen & O'Connor, EMNLP 2015 (arXiv:1508.05154); Mukhoti et al., NeurIPS 2020 (arXiv:2002.09437).
    """
    return _mean_gap(cells.equal_mass(bins, ties))


def aece_norm(cells: ReliabilityCells, *, bins: int, ties: Ties) -> Norm:
    """AECE as an L1 norm, with the edges of the full sample."""
    return Norm(equal_mass(cells.count, bins, ties), _l1)


def aece_details(cells: ReliabilityCells, *, bins: int, ties: Ties) -> Mapping[str, Any]:
    """Effective bins: those that differ in what they hold; a level wider than a bin fills several alike.

    On cells of a grid also `error_bound`, the most by which the unknown order inside cells that a boundary splits can have
    changed the value; and `split_width`, the mass of these cells times their width: the part that confidences have in it,
    and about all of it where outcomes do not depend on the score inside a cell.
    """
    shares = equal_mass(cells.count, bins, ties)
    used = shares[:, shares.sum(0) > 0]
    return {"bins_effective": len(np.unique((used > 0).T, axis=0)), **_equal_mass_facts(cells, bins, ties)}


def _equal_mass_facts(cells: ReliabilityCells, bins: int, ties: Ties) -> Mapping[str, Any]:
    if not cells.width.any():
        return {}
    split_width = _per_pixel(cells, np.where(_boundaries_inside(cells, bins) > 0, cells.count * cells.width, 0))
    facts = {"error_bound": _split_bound(cells, bins, ties), "split_width": split_width}
    return {name: float(defined_mean(np.atleast_1d(fact))) for name, fact in facts.items()}


def _boundaries_inside(cells: ReliabilityCells, bins: int) -> Array:
    """How many boundaries of bins of equal mass lie strictly inside each loose cell, `(..., cells)`."""
    upper = np.asarray(cells.count, np.float64).cumsum(-1)
    size = np.where(upper[..., -1:] > 0, upper[..., -1:], 1) / bins
    inside = np.ceil(upper / size - 1e-9) - 1 - np.floor((upper - cells.count) / size + 1e-9)
    return np.where(loose(cells), np.maximum(inside, 0), 0)


def _split_bound(cells: ReliabilityCells, bins: int, ties: Ties) -> Array:
    """Most by which the order inside grid cells can change an equal-mass error, `(...,)`.

    Cells that go whole to one bin: any part of them may belong to the next. Cells shared in proportion: let a boundary leave
    the share α of a cell below it. That part holds α of the cell's correct pixels; by its own scores it can hold up to
    min(α · wrong, (1 − α) · correct) more or min(α · correct, (1 − α) · wrong) fewer, and its confidence sum can be up to
    α (1 − α) · count · width smaller. Each boundary moves residuals between two bins, but all boundaries of a cell together
    no more than its correct (or its wrong) pixels, and half of count · width.
    """
    if ties == "whole":
        return 2 * _movable(cells, _boundaries_inside(cells, bins))
    count, correct = (np.asarray(a, np.float64) for a in (cells.count, cells.correct))
    below = np.clip(equal_mass(count, bins, ties).cumsum(-1)[..., :-1], 0, 1)
    wrong = count - correct
    more = np.minimum(below * wrong[..., None], (1 - below) * correct[..., None])
    fewer = np.minimum(below * correct[..., None], (1 - below) * wrong[..., None])
    right = np.minimum(np.maximum(more, fewer).sum(-1), np.minimum(correct, wrong))
    confidence = count * cells.width * np.minimum((below * (1 - below)).sum(-1), 0.5)
    return 2 * _per_pixel(cells, np.where(loose(cells), right + confidence, 0))


def ece_sweep(cells: ReliabilityCells, *, ties: Ties = "split") -> Array:
    """Equal-mass ECE with the most bins for which accuracy still rises with confidence, at this and every smaller number.

    The number of bins ends at the number of occupied scores. L1 norm. Shape `(...,)`, NaN without a valid pixel.

    Reference: Roelofs et al., AISTATS 2022 (arXiv:2012.08668), algorithm 1.
    """
    return _sweep(cells, ties)[0]


def ece_sweep_norm(cells: ReliabilityCells, *, ties: Ties) -> Norm:
    """ECE-sweep as an L1 norm, with the bins chosen on the full sample."""
    return Norm(equal_mass(cells.count, int(_sweep(cells, ties)[1]), ties), _l1)


def ece_sweep_details(cells: ReliabilityCells, *, ties: Ties) -> Mapping[str, Any]:
    """The number of bins that the sweep ended with, and the facts of `aece_details` with as many."""
    bins = int(_sweep(cells, ties)[1])
    return {"bins_chosen": bins, **_equal_mass_facts(cells, bins, ties)}


def _sweep(cells: ReliabilityCells, ties: Ties) -> tuple[Array, Array]:
    """Value and number of bins of the sweep, `(...,)` each."""
    leading, n_cells = cells.count.shape[:-1], cells.count.shape[-1]
    count, confidence, correct = (
        np.asarray(a, np.float64).reshape(-1, n_cells) for a in (cells.count, cells.confidence, cells.correct)
    )
    most = (count > 0).sum(-1)
    value = np.full(len(count), np.nan)
    chosen = np.ones(len(count), np.intp)
    active = np.flatnonzero(most > 0)
    n_bins = 1
    while len(active):
        n, conf, right = equal_mass_sums([a[active] for a in (count, confidence, correct)], n_bins, ties)
        # an empty bin (possible with whole ties) takes its left neighbour's accuracy: it cannot break the order
        accuracy = np.where(n > 0, right / np.where(n > 0, n, 1), -np.inf)
        monotone = (accuracy >= np.maximum.accumulate(accuracy, -1) - 1e-12) | (n == 0)
        good = monotone.all(-1)
        active, n, conf, right = active[good], n[good], conf[good], right[good]
        value[active] = np.abs(conf - right).sum(-1) / n.sum(-1)
        chosen[active] = n_bins
        n_bins += 1
        active = active[most[active] >= n_bins]
    return value.reshape(leading), chosen.reshape(leading)


def squared_error_debiased(cells: ReliabilityCells, *, bins: int = 15) -> Array:
    """Squared calibration error less the sampling noise of independent pixels; may be negative.

    CE² = Σ_b (n_b / N) [(conf_b − acc_b)² − acc_b (1 − acc_b) / (n_b − 1)] over bins of at least two pixels. Pixels of an
    image are not independent, so on dense maps this removes almost none of the bias: `ce2_debiased_cluster` does.

    Reference: Bröcker, 2012 (doi:10.1007/s00382-011-1191-1); Kumar et al., NeurIPS 2019 (arXiv:1909.10155).
    """
    binned = cells.binned(bins)
    usable = binned.count >= 2
    n = np.where(usable, binned.count, 2)
    accuracy = np.where(usable, binned.correct / n, 0)
    gap = np.where(usable, binned.residual / n, 0)
    terms = np.where(usable, binned.count * (gap**2 - accuracy * (1 - accuracy) / (n - 1)), 0)
    return divide(terms.sum(-1), binned.count.sum(-1))


def squared_error_debiased_cluster(cells: ReliabilityCells, *, bins: int = 15) -> Array:
    """Squared calibration error from products of different images only: unbiased although pixels are not independent.

    g_b = (D_b² − Σ_i d_ib²) / (n_b² − Σ_i n_ib²), d_ib = Σ (correct − score) and n_ib pixels of image i;
    CE² = Σ_b (n_b / N) g_b over bins that at least two images hit. May be negative. The rows of `cells` are images.

    Returns:
        A scalar; NaN where no bin is hit by two images.
    Reference: the U-statistic of the squared bin residual; see docs/concepts.md.
    """
    binned = cells.binned(bins)
    usable = (binned.count > 0).sum(0) >= 2
    n, d = binned.count[:, usable], binned.residual[:, usable]
    if not usable.any():
        return np.array(np.nan)
    products = (d.sum(0) ** 2 - (d**2).sum(0)) / (n.sum(0) ** 2 - (n**2).sum(0))
    return np.asarray((n.sum(0) * products).sum() / binned.count.sum())


def cluster_details(cells: ReliabilityCells, *, bins: int) -> Mapping[str, Any]:
    """Share of the pixels that lie in bins which only one image hits, and which therefore contribute nothing."""
    binned = cells.binned(bins)
    single = (binned.count > 0).sum(0) < 2
    dropped = float(binned.count[:, single].sum() / binned.count.sum())
    return {"pixel_share_dropped": dropped, **cut_details(cells.total(), bins=bins)}


def rmsce_debiased(cells: ReliabilityCells, *, bins: int = 15) -> Array:
    """The root √max(CE², 0) of `squared_error_debiased`, shape `(...,)`.

    Reference: Kumar et al., NeurIPS 2019 (arXiv:1909.10155).
    """
    return np.sqrt(np.maximum(squared_error_debiased(cells, bins=bins), 0))


def rmsce_debiased_cluster(cells: ReliabilityCells, *, bins: int = 15) -> Array:
    """The root √max(CE², 0) of `squared_error_debiased_cluster`, a scalar.

    Reference: the U-statistic of the squared bin residual; see docs/concepts.md.
    """
    return np.sqrt(np.maximum(squared_error_debiased_cluster(cells, bins=bins), 0))


def maximum_calibration_error(cells: ReliabilityCells, *, bins: int = 15) -> Array:
    """Largest gap of any bin that holds at least 1e-4 of the pixels; noise decides smaller ones.

    MCE = max_b |conf_b − acc_b|. No interval: a maximum over bins is not a norm of fixed weights.

    Reference: Naeini et al., AAAI 2015.
    """
    gap = _considered_gaps(cells, bins)
    return np.where(np.isnan(gap).all(-1), np.nan, np.nanmax(np.nan_to_num(gap, nan=-np.inf), -1))


def mce_details(cells: ReliabilityCells, *, bins: int) -> Mapping[str, Any]:
    """The bin of the largest gap."""
    gap = _considered_gaps(cells, bins)
    if np.isnan(gap).all():
        return {}
    index = int(np.nanargmax(gap))
    return {"bin": f"({index / bins:.4g}, {(index + 1) / bins:.4g}]", **cut_details(cells, bins=bins)}


def _considered_gaps(cells: ReliabilityCells, bins: int) -> Array:
    binned = cells.binned(bins)
    enough = binned.count >= MCE_MIN_SHARE * binned.count.sum(-1, keepdims=True)
    return np.where(enough, np.abs(divide(binned.residual, binned.count)), np.nan)


def root_mean_squared_calibration_error(cells: ReliabilityCells, *, bins: int = 15) -> Array:
    """RMSCE = √(Σ_b (n_b / N) (conf_b − acc_b)²) over equal-width bins, shape `(...,)`.

    Reference: Hendrycks et al., ICLR 2019 (arXiv:1812.04606); Kumar et al., NeurIPS 2019 (arXiv:1909.10155).
    """
    binned = cells.binned(bins)
    squares = np.where(binned.count > 0, binned.residual**2 / np.where(binned.count > 0, binned.count, 1), 0)
    return np.sqrt(divide(squares.sum(-1), binned.count.sum(-1)))


def rmsce_norm(cells: ReliabilityCells, *, bins: int) -> Norm:
    """RMSCE as an L2 norm, with the bins' pixel shares of the full sample."""
    return Norm(_root_share_weights(cells, equal_width(cells.score, bins)), _l2)


def ce2_norm(cells: ReliabilityCells, *, bins: int) -> Norm:
    """The square of RMSCE."""
    return Norm(_root_share_weights(cells, equal_width(cells.score, bins)), _l2, power=2)


def cell_reliability_norm(cells: ReliabilityCells) -> Norm:
    """Σ over groups and cells of (n / N) (conf − ȳ)², for cells `(groups, cells)`."""
    share = divide(cells.count, cells.count.sum(-1, keepdims=True))
    return Norm(np.eye(len(cells.score)) / np.sqrt(np.where(share > 0, share, 1))[:, None, :], _l2, power=2)


def _root_share_weights(cells: ReliabilityCells, weights: Array) -> Array:
    """Bin weights divided by √(n_b / N), so that the L2 norm of residuals per pixel weighs gaps by pixels."""
    share = cells.count @ weights / cells.count.sum()
    return weights / np.sqrt(np.where(share > 0, share, 1))


def overconfidence_error(cells: ReliabilityCells, *, bins: int = 15) -> Array:
    """OE = Σ_b (n_b / N) conf_b max(conf_b − acc_b, 0): overconfidence, weighted by confidence. Shape `(...,)`.

    Reference: Thulasidasan et al., NeurIPS 2019, sec. 3 (arXiv:1905.11001).
    """
    binned = cells.binned(bins)
    confidence = np.nan_to_num(divide(binned.confidence, binned.count))
    return divide((confidence * np.maximum(-binned.residual, 0)).sum(-1), binned.count.sum(-1))


def oe_norm(cells: ReliabilityCells, *, bins: int) -> Norm:
    """OE as a one-sided gauge, with the bins' confidences of the full sample."""
    binned = cells.binned(bins)
    confidence = np.nan_to_num(divide(binned.confidence, binned.count))
    return Norm(equal_width(cells.score, bins) * confidence, _over, direction=lambda vector: np.minimum(vector, 0))


def over_part(cells: ReliabilityCells, *, bins: int = 15) -> Array:
    """The overconfident part of ECE: Σ_b (n_b / N) max(conf_b − acc_b, 0); over + under = ECE. Shape `(...,)`."""
    binned = cells.binned(bins)
    return divide(np.maximum(-binned.residual, 0).sum(-1), binned.count.sum(-1))


def over_norm(cells: ReliabilityCells, *, bins: int) -> Norm:
    """The overconfident part as a one-sided gauge."""
    return Norm(equal_width(cells.score, bins), _over, direction=lambda vector: np.minimum(vector, 0))


def under_part(cells: ReliabilityCells, *, bins: int = 15) -> Array:
    """The underconfident part of ECE: Σ_b (n_b / N) max(acc_b − conf_b, 0); over + under = ECE. Shape `(...,)`."""
    binned = cells.binned(bins)
    return divide(np.maximum(binned.residual, 0).sum(-1), binned.count.sum(-1))


def under_norm(cells: ReliabilityCells, *, bins: int) -> Norm:
    """The underconfident part as a one-sided gauge."""
    return Norm(equal_width(cells.score, bins), _under, direction=lambda vector: np.maximum(vector, 0))


def signed_gap(cells: ReliabilityCells) -> Array:
    """Mean confidence − accuracy; positive when overconfident on the whole. Shape `(...,)`, in [−1, 1]."""
    return divide(cells.confidence.sum(-1) - cells.correct.sum(-1), cells.count.sum(-1))


def accuracy(cells: ReliabilityCells) -> Array:
    """Share of pixels whose decision (the most probable class; p >= 0.5 on binary maps) is right. Shape `(...,)`."""
    return divide(cells.correct.sum(-1), cells.count.sum(-1))


def mean_confidence(cells: ReliabilityCells) -> Array:
    """Mean probability of the decision. Shape `(...,)`."""
    return divide(cells.confidence.sum(-1), cells.count.sum(-1))


def kolmogorov_smirnov(cells: ReliabilityCells) -> Array:
    """KS = max_s |Σ_{score <= s} (correct − score)| / N, at distinct scores only; no bins. Shape `(...,)`.

    Reference: Gupta et al., ICLR 2021 (arXiv:2006.12800).
    """
    return divide(_maximum(cells.residual.cumsum(-1)), cells.count.sum(-1))


def ks_details(cells: ReliabilityCells) -> Mapping[str, Any]:
    """Most that the sum can rise inside a cell of a grid, where it is not looked at."""
    low, high = _ends(cells)
    most = np.maximum(cells.correct * (1 - low), (cells.count - cells.correct) * high)
    bound = np.where(loose(cells), most, 0).max() / cells.count.sum()
    return {"error_bound": float(bound)} if cells.width.any() else {}


def ks_norm(cells: ReliabilityCells) -> Norm:
    """KS as the maximum norm of cumulative residuals."""
    return Norm(np.triu(np.ones((len(cells.score),) * 2)), _maximum)


def smooth_calibration_error(cells: ReliabilityCells) -> Array:
    """Residuals smoothed by a reflected Gaussian whose bandwidth equals the error it finds; no bins. Shape `(...,)`.

    smECE = ∫ |E[K_σ(t, score) (correct − score)]| dt at the σ with smECE_σ = σ, found by ten bisections (to 0.001) on a
    grid of 2000 cells. Reflection keeps all mass at the ends, where the reference implementation (relplot) loses half of
    the mass that lies exactly at 0 or 1.

    Reference: Błasiok & Nakkiran, ICLR 2024 (arXiv:2309.12236).
    """
    residual, total = _on_grid(cells), np.asarray(cells.count.sum(-1), np.float64)
    return divide(_smoothed(residual, _bandwidth(residual, total)), total)


def smece_norm(cells: ReliabilityCells) -> Norm:
    """Smooth ECE as an L1 norm, at the bandwidth of the full sample."""
    sigma = _bandwidth(_on_grid(cells), np.asarray(cells.count.sum(-1), np.float64))
    to_grid = _grid_shares(cells.position)
    return Norm(idct(dct(to_grid, axis=-1) * _damping(sigma), axis=-1), _l1)


def smece_details(cells: ReliabilityCells) -> Mapping[str, Any]:
    """The bandwidth σ at the fixed point."""
    return {"bandwidth": float(_bandwidth(_on_grid(cells), np.asarray(cells.count.sum(-1), np.float64)))}


def _neighbours(score: Array) -> tuple[Array, Array]:
    """The midpoint of the grid to the left of each score, and how far the score is on its way to the next one, in [0, 1]."""
    place = np.clip(score * _GRID - 0.5, 0, _GRID - 1)
    left = np.minimum(place.astype(np.intp), _GRID - 2)
    return left, place - left


def _grid_shares(score: Array) -> Array:
    """Shares `(cells, grid)` of each score on the two nearest midpoints of the grid."""
    left, way = _neighbours(score)
    shares = np.zeros((len(score), _GRID))
    cell = np.arange(len(score))
    shares[cell, left] = 1 - way
    shares[cell, left + 1] = way
    return shares


def _on_grid(cells: ReliabilityCells) -> Array:
    """Residuals on the grid, `(..., grid)`, each cell's at the mean score of its pixels."""
    residual = np.asarray(cells.residual, np.float64)
    if not cells.width.any():
        return residual @ _grid_shares(cells.score)
    leading = residual.shape[:-1]
    left, way = _neighbours(cells.position.reshape(-1, residual.shape[-1]))
    rows = len(left)
    left = left + _GRID * np.arange(rows)[:, None]
    flat = residual.reshape(left.shape)
    summed = np.zeros(rows * _GRID)
    for at, share in ((left, 1 - way), (left + 1, way)):
        summed += np.bincount(at.ravel(), weights=(flat * share).ravel(), minlength=rows * _GRID)
    return summed.reshape(*leading, _GRID)


def _damping(sigma: Array) -> Array:
    """The reflected Gaussian in the cosine basis: exp(−(π k σ)² / 2), `(..., grid)`; rows of one σ share it."""
    distinct, which = np.unique(sigma, return_inverse=True)
    return np.exp(-((np.pi * np.arange(_GRID) * distinct[:, None]) ** 2) / 2)[which.reshape(np.shape(sigma))]


def _smoothed(residual: Array, sigma: Array) -> Array:
    """Σ |smoothed residual| over the grid, in pixels, `(...,)`."""
    return np.abs(idct(dct(residual, axis=-1) * _damping(sigma), axis=-1)).sum(-1)


def _bandwidth(residual: Array, total: Array) -> Array:
    """The largest σ of ten bisections on [0, 1] that is not known to lie below its own error, `(...,)`."""
    spectrum = dct(residual, axis=-1)
    high, low = np.ones(total.shape), np.zeros(total.shape)
    for _ in range(10):
        middle = (high + low) / 2
        error = np.abs(idct(spectrum * _damping(middle), axis=-1)).sum(-1) / np.where(total > 0, total, 1)
        below = (middle < 0.001) | (middle < error)
        high, low = np.where(below, high, middle), np.where(below, middle, low)
    return high


def _mean_gap(binned: BinSums) -> Array:
    return divide(np.abs(binned.residual).sum(-1), binned.count.sum(-1))


def _l1(vector: Array) -> Array:
    return np.abs(vector).sum(-1)


def _l2(vector: Array) -> Array:
    return np.sqrt((vector**2).sum(-1))


def _maximum(vector: Array) -> Array:
    return np.abs(vector).max(-1)


def _over(vector: Array) -> Array:
    return np.maximum(-vector, 0).sum(-1)


def _under(vector: Array) -> Array:
    return np.maximum(vector, 0).sum(-1)
