"""Histogram binning: the share of positives in the bin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.special import expit

from calbench.calibrators.one_vs_rest import OneVsRest, torch_against_rest, torch_normalised
from calbench.errors import OptionError
from calbench.statistics.reliability import FLOAT32_TOLERANCE
from calbench.statistics.rows import Array

if TYPE_CHECKING:
    from torch import Tensor


class HistogramBinning(OneVsRest):
    """Each probability becomes the share of positives among the fitting pixels of its bin.

    f(p) = Σ_{i in bin of p} w_i y_i / Σ_{i in bin of p} w_i; in a bin without fitting pixels f(p) = p. So p' can be exactly
    0 or 1, and tells pixels of one bin not apart. Bins of equal width are right-closed by the one rule of calbench, with the
    tolerance of float32 whatever the type of the logits, so that float32 and float64 maps fall in the same bins. Bins of
    equal mass hold about the same weight each; a tied level stays whole and goes to the bin of its mid-rank; between two
    levels the edge is midway. Several classes: each against the rest, then normalised; a class that is absent from the
    fitting data keeps p_k before normalising, and a pixel whose classes are all 0 keeps its uncalibrated probabilities.

    Args:
        bins: number of bins a class.
        binning: "width" for bins of equal width, "mass" for bins of equal weight, as in the paper.

    Attributes:
        edges_: `(C, bins − 1)` inner edges, `(1, bins − 1)` of binary maps: p is in the bin numbered by how many are below.
        values_: `(C, bins)` shares of positives, 0 in empty bins.
        masses_: `(C, bins)` weight of the fitting pixels in each bin; that of a class that is absent is 0.

    Raises:
        InputError: fewer pixels than bins.
        OptionError: no bin, or another binning.

    Reference: Zadrozny and Elkan, ICML 2001; 15 bins of equal width: Guo et al., ICML 2017 (arXiv:1706.04599).

    >>> fitted = HistogramBinning(bins=2).fit(np.array([-2.0, -1.0, 1.0, 2.0]), np.array([0, 1, 1, 1]))
    >>> fitted.transform(np.array([-3.0, 3.0])).tolist()
    [0.5, 1.0]
    """

    name = "histogram_binning"
    definition = "p' = share of positives in the bin of p; several classes: each against the rest, normalised"
    source = "Zadrozny and Elkan, ICML 2001"
    learned = ("edges_", "values_", "masses_")

    edges_: Array
    values_: Array
    masses_: Array

    def __init__(self, *, bins: int = 15, binning: Literal["width", "mass"] = "width") -> None:
        self.bins = bins
        self.binning = binning

    def n_parameters(self, n_classes: int) -> int:
        """One a bin."""
        return n_classes * self.bins

    def _start(self, n_maps: int) -> None:
        if self.bins < 1:
            raise OptionError(f"{self.name}: bins is {self.bins}; expected at least 1")
        if self.binning not in ("width", "mass"):
            raise OptionError(f"{self.name}: binning is {self.binning!r}; expected width or mass")
        self.edges_ = np.tile(np.arange(1, self.bins) / self.bins + FLOAT32_TOLERANCE, (n_maps, 1))
        self.values_, self.masses_ = np.zeros((2, n_maps, self.bins))

    def _fit_one(self, k: int, logit: Array, outcome: Array, weight: Array) -> None:
        p = expit(logit)
        if self.binning == "mass":
            self.edges_[k] = equal_mass_edges(p, weight, self.bins)
        bins = np.searchsorted(self.edges_[k], p)
        self.masses_[k] = np.bincount(bins, weight, self.bins)
        positive = np.bincount(bins, weight * outcome, self.bins)
        np.divide(positive, self.masses_[k], out=self.values_[k], where=self.masses_[k] > 0)

    def _mapped(self, logit: Array) -> Array:
        p = np.asarray(expit(logit))
        bins = np.column_stack([np.searchsorted(edges, column) for edges, column in zip(self.edges_, p.T, strict=True)])
        at = np.arange(len(self.edges_)), bins
        return np.where(self.masses_[at] > 0, self.values_[at], p)

    @staticmethod
    def torch_forward(logits: Tensor, state: dict[str, Tensor]) -> Tensor:
        """See `Calibrator.torch_forward`."""
        import torch

        p = torch.sigmoid(torch_against_rest(logits)).T.contiguous()
        bins = torch.searchsorted(state["edges_"], p)
        q = torch.where(state["masses_"].gather(1, bins) > 0, state["values_"].gather(1, bins), p)
        return torch_normalised(q.T, logits)


def equal_mass_edges(p: Array, weight: Array, n_bins: int) -> Array:
    """Inner edges `(n_bins − 1,)` of bins of about equal weight; no level is split.

    A level goes to the bin of its mid-rank, ⌊n_bins (weight below + half of its own) / total⌋, as in
    `calbench.statistics.reliability.equal_mass`. Bins that get no level lie outside [0, 1], or between equal edges.

    >>> equal_mass_edges(np.array([0.1, 0.1, 0.2, 0.9]), np.ones(4), 2).round(4).tolist()
    [0.15]
    """
    level, of_pixel = np.unique(p, return_inverse=True)
    mass = np.bincount(of_pixel, weight)
    upper = mass.cumsum()
    bins = np.floor((upper - mass / 2) / upper[-1] * n_bins)
    first = np.searchsorted(bins, np.arange(1, n_bins))  # the first level at or above each edge
    bounded = np.concatenate([[-1 - level[0]], level, [3 - level[-1]]])  # no level below: edge −1/2; none above: 3/2
    return (bounded[first] + bounded[first + 1]) / 2
