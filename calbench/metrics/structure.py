"""Saliency metrics that need pixel positions; the kernel computed them per image, here they are averaged."""

from __future__ import annotations

from calbench.statistics.rows import Array


def s_measure(scores: Array) -> Array:
    """Structure measure ½ S_object + ½ S_region of each image, `(rows,)`; see `kernels.binary.s_measure`.

    Reference: Fan et al., ICCV 2017 (arXiv:1708.00786).
    """
    return scores


def weighted_f(scores: Array) -> Array:
    """Weighted F-measure of each image, `(rows,)`; see `kernels.binary.weighted_f`.

    Reference: Margolin et al., CVPR 2014 (doi:10.1109/CVPR.2014.39).
    """
    return scores
