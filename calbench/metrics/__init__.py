"""All metrics, one entry each. A new metric is a function in its family's file and one entry here.

The command `calbench metrics`, the generated reference and the law tests read this table.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from calbench.metrics import aslp as official
from calbench.metrics import calibration_error as error
from calbench.metrics import quantisation, ranking, saliency, structure
from calbench.metrics import scoring_rules as rules
from calbench.metrics.metric import Better, Metric, aslp, foreground, levels, score_column, scoring, top_label
from calbench.statistics import Statistics
from calbench.statistics.rows import Array

GUO = "Guo et al., ICML 2017 (arXiv:1706.04599)"
MUKHOTI = "Nguyen & O'Connor, EMNLP 2015 (arXiv:1508.05154); Mukhoti et al., NeurIPS 2020 (arXiv:2002.09437)"
KUMAR = "Bröcker, 2012 (doi:10.1007/s00382-011-1191-1); Kumar et al., NeurIPS 2019 (arXiv:1909.10155)"
CLUSTER = "U-statistic over images; derived in docs/concepts.md"
MURPHY = "Murphy, 1973 (doi:10.1175/1520-0450(1973)012<0595:ANVPOT>2.0.CO;2)"
CORP = "Dimitriadis, Gneiting & Jordan, PNAS 2021 (doi:10.1073/pnas.2016191118)"
ACHANTA = "Achanta et al., CVPR 2009 (doi:10.1109/CVPR.2009.5206596)"
PERAZZI = "Perazzi et al., CVPR 2012 (doi:10.1109/CVPR.2012.6247743)"
FAN_E = "Fan et al., IJCAI 2018 (arXiv:1805.10421)"
FAN_S = "Fan et al., ICCV 2017 (arXiv:1708.00786)"
MARGOLIN = "Margolin et al., CVPR 2014 (doi:10.1109/CVPR.2014.39)"
JACCARD = "Jaccard, 1912 (doi:10.1111/j.1469-8137.1912.tb05611.x)"
DICE = "Dice, 1945 (doi:10.2307/1932409)"
ASLP = "official ASLP scripts; Liu et al., ICCV 2023 (arXiv:2307.13539)"

BINS = ("bins",)
BINS_TIES = ("bins", "ties")


def _calibration(
    name: str,
    function: Callable[..., Array],
    better: Better,
    definition: str,
    source: str,
    options: tuple[str, ...] = (),
    reads: Callable[[Statistics], Any] = top_label,
    **more: Any,
) -> Metric:
    """A metric of pooled pixels, reported as mean over images, too."""
    return Metric(name, function, reads, "pixels", better, definition, source, options, **more)


def _saliency(
    name: str,
    function: Callable[..., Array],
    better: Better,
    definition: str,
    source: str,
    reads: Callable[[Statistics], Any] = levels,
    **more: Any,
) -> Metric:
    """A metric that is a mean over images."""
    return Metric(name, function, reads, "images", better, definition, source, **more)


_REGISTRY: tuple[Metric, ...] = (
    _calibration("ece", error.expected_calibration_error, "lower",
                 "Σ_b (n_b/N) |conf_b − acc_b|, equal-width bins (l, r] of max(p, 1 − p)", GUO,
                 BINS, norm=error.ece_norm),
    _calibration("ece_fg", error.expected_calibration_error, "lower",
                 "Σ_b (n_b/N) |mean p − share of foreground|, equal-width bins (l, r] of p", GUO,
                 BINS, foreground, norm=error.ece_norm),
    _calibration("aece", error.adaptive_calibration_error, "lower",
                 "ECE over bins of equal mass; tied pixels by option ties (split: in proportion; whole: mid-rank)", MUKHOTI,
                 BINS_TIES, norm=error.aece_norm, details=error.aece_details),
    _calibration("aece_fg", error.adaptive_calibration_error, "lower",
                 "ece_fg over bins of equal mass; tied pixels by option ties (split: in proportion; whole: mid-rank)", MUKHOTI,
                 BINS_TIES, foreground, norm=error.aece_norm, details=error.aece_details),
    _calibration("ece_sweep", error.ece_sweep, "lower",
                 "equal-mass ECE with the most bins whose accuracies rise, at this and every smaller number; L1 norm",
                 "Roelofs et al., AISTATS 2022 (arXiv:2012.08668)",
                 ("ties",), norm=error.ece_sweep_norm, details=error.ece_sweep_details),
    _calibration("ce2_debiased", error.squared_error_debiased, "lower",
                 "Σ_b (n_b/N) [(conf_b − acc_b)² − acc_b (1 − acc_b)/(n_b − 1)]; pixels taken as independent, signed",
                 KUMAR, BINS, norm=error.ce2_norm, bounds=(-1.0, 1.0)),
    _calibration("ce2_debiased_cluster", error.squared_error_debiased_cluster, "lower",
                 "Σ_b (n_b/N) (D_b² − Σ_i d_ib²)/(n_b² − Σ_i n_ib²): products of different images only, signed",
                 CLUSTER, BINS, norm=error.ce2_norm, per_image=False, details=error.cluster_details),
    _calibration("rmsce_debiased", error.rmsce_debiased, "lower",
                 "√max(ce2_debiased, 0)", KUMAR, BINS, norm=error.rmsce_norm),
    _calibration("rmsce_debiased_cluster", error.rmsce_debiased_cluster, "lower",
                 "√max(ce2_debiased_cluster, 0)", CLUSTER, BINS, norm=error.rmsce_norm, per_image=False,
                 details=error.cluster_details),
    _calibration("mce", error.maximum_calibration_error, "lower",
                 "max_b |conf_b − acc_b| over bins that hold at least 1e-4 of the pixels",
                 "Naeini et al., AAAI 2015 (doi:10.1609/aaai.v29i1.9602)",
                 BINS, interval=False, details=error.mce_details),
    _calibration("rmsce", error.root_mean_squared_calibration_error, "lower",
                 "√(Σ_b (n_b/N) (conf_b − acc_b)²)",
                 "Hendrycks et al., ICLR 2019 (arXiv:1812.04606); Kumar et al., NeurIPS 2019 (arXiv:1909.10155)",
                 BINS, norm=error.rmsce_norm),
    _calibration("oe", error.overconfidence_error, "lower",
                 "Σ_b (n_b/N) conf_b max(conf_b − acc_b, 0)", "Thulasidasan et al., NeurIPS 2019 (arXiv:1905.11001)",
                 BINS, norm=error.oe_norm),
    _calibration("over", error.over_part, "lower",
                 "overconfident part of ECE, Σ_b (n_b/N) max(conf_b − acc_b, 0); over + under = ece", GUO,
                 BINS, norm=error.over_norm),
    _calibration("under", error.under_part, "lower",
                 "underconfident part of ECE, Σ_b (n_b/N) max(acc_b − conf_b, 0); over + under = ece", GUO,
                 BINS, norm=error.under_norm),
    _calibration("gap", error.signed_gap, "zero", "mean confidence − accuracy; positive is overconfident", GUO,
                 bounds=(-1.0, 1.0)),
    _calibration("ks", error.kolmogorov_smirnov, "lower",
                 "max_s |Σ_{conf ≤ s} (correct − conf)| / N", "Gupta et al., ICLR 2021 (arXiv:2006.12800)",
                 norm=error.ks_norm),
    _calibration("smece", error.smooth_calibration_error, "lower",
                 "∫ |E[K_σ(t, conf) (correct − conf)]| dt, reflected Gaussian K_σ, σ = the error itself",
                 "Błasiok & Nakkiran, ICLR 2024 (arXiv:2309.12236)",
                 norm=error.smece_norm, details=error.smece_details),
    _calibration("quantisation_bound", quantisation.quantisation_bound, "none",
                 "most by which rounding the map to 8 bits can have changed ece", "derived in docs/concepts.md",
                 BINS, levels, interval=False),
    _calibration("brier", rules.brier_score, "lower", "Σ (p − y)² / N (binary form, in [0, 1])",
                 "Brier, 1950 (doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2)", reads=scoring),
    _calibration("brier_reliability", rules.brier_reliability, "lower",
                 "Σ_k (n_k/N) (p_k − ȳ_k)² over levels; brier = reliability − resolution + uncertainty", MURPHY,
                 reads=foreground, norm=error.level_reliability_norm),
    _calibration("brier_resolution", rules.brier_resolution, "higher", "Σ_k (n_k/N) (ȳ_k − ȳ)² over levels", MURPHY,
                 reads=foreground),
    _calibration("brier_uncertainty", rules.brier_uncertainty, "none", "ȳ (1 − ȳ)", MURPHY, reads=foreground),
    _calibration("corp_miscalibration", rules.corp_miscalibration, "lower",
                 "MCB: brier less brier after isotonic recalibration; brier = MCB − DSC + brier_uncertainty", CORP,
                 reads=foreground, interval=False),
    _calibration("corp_discrimination", rules.corp_discrimination, "higher",
                 "DSC: brier_uncertainty less brier after isotonic recalibration", CORP, reads=foreground),
    _calibration("nll", rules.negative_log_likelihood, "lower",
                 "mean −ln P(outcome), nats, P clipped to [1/510, 509/510]",
                 "Good, 1952 (doi:10.1111/j.2517-6161.1952.tb00104.x)", reads=scoring, bounds=(0.0, math.inf)),
    _calibration("entropy", rules.mean_entropy, "none", "mean −p ln p − (1 − p) ln(1 − p), nats",
                 "Shannon, 1948 (doi:10.1002/j.1538-7305.1948.tb01338.x)", reads=scoring, bounds=(0.0, math.log(2))),
    _calibration("accuracy", error.accuracy, "higher", "share of pixels where (p ≥ 0.5) equals the ground truth", GUO),
    _calibration("auroc", ranking.auroc, "higher", "P(p of foreground > p of background) + ½ P(equal)",
                 "Hanley & McNeil, 1982 (doi:10.1148/radiology.143.1.7063747)", reads=levels),
    _calibration("ap", ranking.average_precision, "higher",
                 "Σ_t (R_t − R_{t−1}) P_t over falling levels, ties together",
                 "Davis & Goadrich, ICML 2006 (doi:10.1145/1143844.1143874)", reads=levels),
    _saliency("mae", saliency.mean_absolute_error, "lower",
              "mean |x̂ − y|, x̂ min-max stretched per image, as PySODMetrics", PERAZZI),
    _saliency("mae_raw", saliency.mean_absolute_error_raw, "lower", "mean |p − y|, no rescaling", PERAZZI),
    _saliency("max_f", saliency.f_curve, "higher", "max_t of the mean F(t) curve, β² = 0.3", ACHANTA,
              summary=saliency.curve_maximum),
    _saliency("mean_f", saliency.f_curve, "higher", "mean_t of the mean F(t) curve, β² = 0.3", ACHANTA,
              summary=saliency.curve_mean),
    _saliency("adp_f", saliency.adaptive_f, "higher", "mean F at threshold min(2 · mean(x̂), 1), β² = 0.3", ACHANTA),
    _saliency("weighted_f", structure.weighted_f, "higher",
              "F of distance-weighted, blurred errors, β² = 1; 0 without foreground", MARGOLIN,
              score_column("weighted_f")),
    _saliency("max_e", saliency.e_curve, "higher", "max_t of the mean E(t) curve, divided by N − 1", FAN_E,
              summary=saliency.curve_maximum, bounds=(0.0, math.inf)),
    _saliency("mean_e", saliency.e_curve, "higher", "mean_t of the mean E(t) curve, divided by N − 1", FAN_E,
              summary=saliency.curve_mean, bounds=(0.0, math.inf)),
    _saliency("adp_e", saliency.adaptive_e, "higher", "mean E at threshold min(2 · mean(x̂), 1)", FAN_E,
              bounds=(0.0, math.inf)),
    _saliency("s_measure", structure.s_measure, "higher", "½ S_object + ½ S_region, clipped at 0", FAN_S,
              score_column("s_measure")),
    _saliency("max_iou", saliency.iou_curve, "higher", "max_t of the mean TP/(TP + FP + FN) curve", JACCARD,
              summary=saliency.curve_maximum),
    _saliency("mean_iou", saliency.iou_curve, "higher", "mean_t of the mean TP/(TP + FP + FN) curve", JACCARD,
              summary=saliency.curve_mean),
    _saliency("adp_iou", saliency.adaptive_iou, "higher", "mean IoU at threshold min(2 · mean(x̂), 1)", JACCARD),
    _saliency("max_dice", saliency.dice_curve, "higher", "max_t of the mean 2TP/(2TP + FP + FN) curve", DICE,
              summary=saliency.curve_maximum),
    _saliency("mean_dice", saliency.dice_curve, "higher", "mean_t of the mean 2TP/(2TP + FP + FN) curve", DICE,
              summary=saliency.curve_mean),
    _saliency("adp_dice", saliency.adaptive_dice, "higher", "mean Dice at threshold min(2 · mean(x̂), 1)", DICE),
    _calibration("aslp_ece", official.aslp_ece, "lower",
                 "ECE_EW: byte confidences, correct where the thresholded byte equals the raw mask byte", ASLP,
                 BINS, official.aslp_cells, norm=error.ece_norm),
    _calibration("aslp_oe", official.aslp_oe, "lower", "OE of ECE_EW: Σ_k w_k C_k (C_k − A_k) where C_k > A_k", ASLP,
                 BINS, official.aslp_cells, norm=error.oe_norm),
    _calibration("aslp_debias", official.aslp_debias, "lower",
                 "ECE_DEBIAS: Σ_k w_k [(C_k − A_k)² − C_k (1 − C_k)/(n_k − 1)], signed", ASLP,
                 ("debias_bins",), official.aslp_cells, interval=False),
    _calibration("aslp_debias_oe", official.aslp_debias_oe, "lower", "ECE_DEBIAS over cells with C_k > A_k", ASLP,
                 ("debias_bins",), official.aslp_cells, interval=False),
    _calibration("aslp_accuracy", error.accuracy, "higher", "share of pixels whose thresholded byte equals the mask's",
                 ASLP, reads=official.aslp_cells),
    _saliency("aslp_mae", official.aslp_mae, "lower", "mean |x − y|, y = byte/255, no rescaling", ASLP, aslp),
    _saliency("aslp_max_f", official.aslp_f_curve, "higher", "max_t of the mean F(t) curve, 255 thresholds, soft y",
              ASLP, aslp, summary=saliency.curve_maximum),
    _saliency("aslp_mean_f", official.aslp_f_curve, "higher", "mean_t of the mean F(t) curve, 255 thresholds, soft y",
              ASLP, aslp, summary=saliency.curve_mean),
    _saliency("aslp_ap", official.precision_recall, "higher", "VOC-style area under the mean precision-recall curve",
              ASLP, aslp, summary=official.area_under_pr),
    _saliency("aslp_auc", official.roc, "higher", "trapezoid under the mean ROC curve", ASLP, aslp,
              summary=official.area_under_roc),
    _saliency("aslp_max_e", official.aslp_e_curve, "higher", "max_t of the mean E(t) curve, soft y, no empty-mask case",
              ASLP, aslp, summary=saliency.curve_maximum, bounds=(0.0, math.inf)),
    _saliency("aslp_mean_e", official.aslp_e_curve, "higher",
              "mean_t of the mean E(t) curve, soft y, no empty-mask case", ASLP, aslp, summary=saliency.curve_mean,
              bounds=(0.0, math.inf)),
    _saliency("aslp_s_measure", official.aslp_s_measure, "higher",
              "½ S_object + ½ S_region around the zero-based centroid; the scripts' mean is NaN if one image is", ASLP,
              aslp),
)  # fmt: skip

METRICS: dict[str, Metric] = {metric.name: metric for metric in _REGISTRY}

__all__ = ["METRICS", "Metric"]
