"""All metrics, one entry each. A new metric is a function in its family's file and one entry here.

The command `calbench metrics`, the generated reference and the law tests read this table.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from calbench.metrics import aslp as official
from calbench.metrics import calibration_error as error
from calbench.metrics import left_closed, logits, mbls, quantisation, ranking, saliency, segmentation, structure
from calbench.metrics import scoring_rules as rules
from calbench.metrics.metric import (
    Better,
    Metric,
    Reader,
    aslp,
    binary_top_label,
    changes,
    class_counts,
    classes,
    exact_levels,
    foreground,
    levels,
    logit_sums,
    overlaps,
    rechosen,
    score_column,
    scoring,
    top_label,
    uncertainty,
)
from calbench.statistics.rows import Array

GUO = "Guo et al., ICML 2017 (arXiv:1706.04599)"
MUKHOTI = "Nguyen & O'Connor, EMNLP 2015 (arXiv:1508.05154); Mukhoti et al., NeurIPS 2020 (arXiv:2002.09437)"
NEUMANN = "Neumann, Zisserman & Vedaldi, NeurIPS workshop 2018 (openreview.net/forum?id=S1lG7aTnqQ)"
KULL = "Kull et al., NeurIPS 2019 (arXiv:1910.12656); Nixon et al., 2019 (arXiv:1904.01685)"
KUMAR = "Bröcker, 2012 (doi:10.1007/s00382-011-1191-1); Kumar et al., NeurIPS 2019 (arXiv:1909.10155)"
CLUSTER = "U-statistic over images; derived in docs/concepts.md"
THULASIDASAN = "Thulasidasan et al., NeurIPS 2019 (arXiv:1905.11001)"
MURPHY = "Murphy, 1973 (doi:10.1175/1520-0450(1973)012<0595:ANVPOT>2.0.CO;2)"
STEPHENSON = "Stephenson, Coelho & Jolliffe, 2008 (doi:10.1175/2007WAF2006116.1)"
CORP = "Dimitriadis, Gneiting & Jordan, PNAS 2021 (doi:10.1073/pnas.2016191118)"
ACHANTA = "Achanta et al., CVPR 2009 (doi:10.1109/CVPR.2009.5206596)"
PERAZZI = "Perazzi et al., CVPR 2012 (doi:10.1109/CVPR.2012.6247743)"
FAN_E = "Fan et al., IJCAI 2018 (arXiv:1805.10421)"
FAN_S = "Fan et al., ICCV 2017 (arXiv:1708.00786)"
MARGOLIN = "Margolin et al., CVPR 2014 (doi:10.1109/CVPR.2014.39)"
JACCARD = "Jaccard, 1912 (doi:10.1111/j.1469-8137.1912.tb05611.x)"
DICE = "Dice, 1945 (doi:10.2307/1932409)"
HANLEY = "Hanley & McNeil, 1982 (doi:10.1148/radiology.143.1.7063747)"
DAVIS = "Davis & Goadrich, ICML 2006 (doi:10.1145/1143844.1143874)"
HENDRYCKS = "Hendrycks & Gimpel, ICLR 2017 (arXiv:1610.02136)"
GEIFMAN = "Geifman & El-Yaniv, NeurIPS 2017 (arXiv:1705.08500)"
SHANNON = "Shannon, 1948 (doi:10.1002/j.1538-7305.1948.tb01338.x)"
LONG = "Long, Shelhamer & Darrell, CVPR 2015 (arXiv:1411.4038)"
LIU = "Liu et al., CVPR 2022 (arXiv:2111.15430)"
MBLS = "official MbLS code; Liu et al., CVPR 2022 (arXiv:2111.15430)"
SELECTIVECAL = "official selectivecal code; Wang et al., CVPR 2023 (arXiv:2212.12053)"
TORCHMETRICS = "torchmetrics 1.9; Detlefsen et al., JOSS 2022 (doi:10.21105/joss.04101)"
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
    reads: Reader = top_label,
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
    reads: Reader = levels,
    **more: Any,
) -> Metric:
    """A metric that is a mean over images."""
    return Metric(name, function, reads, "images", better, definition, source, **more)


_REGISTRY: tuple[Metric, ...] = (
    _calibration("ece", error.expected_calibration_error, "lower",
                 "Σ_b (n_b/N) |conf_b − acc_b|, equal-width bins (l, r] of the largest probability", GUO,
                 BINS, norm=error.ece_norm, details=error.ece_details),
    _calibration("ece_fg", error.expected_calibration_error, "lower",
                 "Σ_b (n_b/N) |mean p − share of foreground|, equal-width bins (l, r] of p", GUO,
                 BINS, foreground, norm=error.ece_norm, details=error.ece_details),
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
    _calibration("average_ce", error.average_calibration_error, "lower",
                 "mean |conf_b − acc_b| over occupied equal-width bins, each weighing the same", NEUMANN,
                 BINS, norm=error.average_ce_norm, details=error.average_ce_details),
    _calibration("ece_classwise", error.class_wise_calibration_error, "lower",
                 "mean over all classes k of Σ_b (n_bk/N) |mean p_k − share of class k|, equal-width bins (l, r] of p_k", KULL,
                 BINS, classes, norm=error.class_wise_norm, details=error.class_wise_details,
                 by_class=error.class_wise_errors, class_norm=error.class_norm),
    _calibration("tace", error.thresholded_adaptive_error, "lower",
                 "mean over classes k of the equal-mass ECE of p_k over its pixels with p_k > ε",
                 "Nixon et al., 2019 (arXiv:1904.01685)",
                 BINS, classes, norm=error.tace_norm, details=error.tace_details, conventions=error.tace_conventions,
                 by_class=error.thresholded_errors, class_norm=error.tace_class_norm),
    _calibration("ce2_debiased", error.squared_error_debiased, "lower",
                 "Σ_b (n_b/N) [(conf_b − acc_b)² − acc_b (1 − acc_b)/(n_b − 1)], n_b ≥ 2; pixels taken as independent, "
                 "signed", KUMAR, BINS, norm=error.ce2_norm, bounds=(-1.0, 1.0), details=error.cut_details),
    _calibration("ce2_debiased_cluster", error.squared_error_debiased_cluster, "lower",
                 "Σ_b (n_b/N) (D_b² − Σ_i d_ib²)/(n_b² − Σ_i n_ib²): products of different images only, signed",
                 CLUSTER, BINS, norm=error.ce2_norm, per_image=False, rows="units", details=error.cluster_details),
    _calibration("rmsce_debiased", error.rmsce_debiased, "lower",
                 "√max(ce2_debiased, 0)", KUMAR, BINS, norm=error.rmsce_norm, details=error.cut_details),
    _calibration("rmsce_debiased_cluster", error.rmsce_debiased_cluster, "lower",
                 "√max(ce2_debiased_cluster, 0)", CLUSTER, BINS, norm=error.rmsce_norm, per_image=False, rows="units",
                 details=error.cluster_details),
    _calibration("mce", error.maximum_calibration_error, "lower",
                 "max_b |conf_b − acc_b| over bins that hold at least 1e-4 of the pixels",
                 "Naeini et al., AAAI 2015 (doi:10.1609/aaai.v29i1.9602)",
                 BINS, interval=False, details=error.mce_details),
    _calibration("rmsce", error.root_mean_squared_calibration_error, "lower",
                 "√(Σ_b (n_b/N) (conf_b − acc_b)²)",
                 "Hendrycks et al., ICLR 2019 (arXiv:1812.04606); Kumar et al., NeurIPS 2019 (arXiv:1909.10155)",
                 BINS, norm=error.rmsce_norm, details=error.cut_details),
    _calibration("oe", error.overconfidence_error, "lower",
                 "Σ_b (n_b/N) conf_b max(conf_b − acc_b, 0)", THULASIDASAN,
                 BINS, norm=error.oe_norm, details=error.cut_details),
    _calibration("over", error.over_part, "lower",
                 "overconfident part of ECE, Σ_b (n_b/N) max(conf_b − acc_b, 0); over + under = ece", GUO,
                 BINS, norm=error.over_norm, details=error.part_details),
    _calibration("under", error.under_part, "lower",
                 "underconfident part of ECE, Σ_b (n_b/N) max(acc_b − conf_b, 0); over + under = ece", GUO,
                 BINS, norm=error.under_norm, details=error.part_details),
    _calibration("gap", error.signed_gap, "zero", "mean confidence − accuracy; positive is overconfident", GUO,
                 bounds=(-1.0, 1.0)),
    _calibration("ks", error.kolmogorov_smirnov, "lower",
                 "max_s |Σ_{conf ≤ s} (correct − conf)| / N", "Gupta et al., ICLR 2021 (arXiv:2006.12800)",
                 norm=error.ks_norm, details=error.ks_details),
    _calibration("smece", error.smooth_calibration_error, "lower",
                 "∫ |E[K_σ(t, conf) (correct − conf)]| dt, reflected Gaussian K_σ, σ = the error itself, to 0.001",
                 "Błasiok & Nakkiran, ICLR 2024 (arXiv:2309.12236)",
                 norm=error.smece_norm, details=error.smece_details),
    _calibration("quantisation_bound", quantisation.quantisation_bound, "none",
                 "most by which rounding the map to 8 bits can have changed ece", "derived in docs/concepts.md",
                 BINS, exact_levels, interval=False),
    _calibration("brier", rules.brier_score, "lower",
                 "Σ (p − y)² / N on binary maps, in [0, 1]; Σ Σ_k (p_k − y_k)² / N on several classes, in [0, 2]",
                 "Brier, 1950 (doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2)", reads=scoring, bounds=(0.0, 2.0),
                 conventions=rules.brier_conventions),
    _calibration("brier_reliability", rules.brier_reliability, "lower",
                 "Σ_k (n_k/N) (p_k − ȳ_k)² over levels or cells; brier = reliability − resolution + uncertainty + within "
                 "terms", MURPHY,
                 reads=rules.forecast_cells, norm=error.cell_reliability_norm, bounds=(0.0, 2.0)),
    _calibration("brier_resolution", rules.brier_resolution, "higher", "Σ_k (n_k/N) (ȳ_k − ȳ)² over levels or cells", MURPHY,
                 reads=rules.forecast_cells, inflated=True),
    _calibration("brier_uncertainty", rules.brier_uncertainty, "none", "ȳ (1 − ȳ), added up over classes", MURPHY,
                 reads=rules.forecast_cells),
    _calibration("brier_within_variance", rules.brier_within_variance, "none",
                 "variance of p within cells, added to the decomposition of brier; 0 on 8-bit maps", STEPHENSON,
                 reads=rules.forecasts, interval=False),
    _calibration("brier_within_covariance", rules.brier_within_covariance, "none",
                 "twice the covariance of p and y within cells, taken off in the decomposition of brier; 0 on 8-bit maps",
                 STEPHENSON, reads=rules.forecasts, interval=False),
    _calibration("corp_miscalibration", rules.corp_miscalibration, "lower",
                 "MCB: brier of levels or cells less brier after their isotonic recalibration; brier = MCB − DSC + "
                 "brier_uncertainty + within terms", CORP, reads=rules.forecast_cells, interval=False),
    _calibration("corp_discrimination", rules.corp_discrimination, "higher",
                 "DSC: brier_uncertainty less brier after isotonic recalibration of levels or cells", CORP,
                 reads=rules.forecast_cells, inflated=True),
    _calibration("nll", rules.negative_log_likelihood, "lower",
                 "mean −ln P(outcome), nats, P clipped to [clip, 1 − clip]",
                 "Good, 1952 (doi:10.1111/j.2517-6161.1952.tb00104.x)", reads=scoring, bounds=(0.0, math.inf),
                 conventions=rules.nll_conventions),
    _calibration("entropy", rules.mean_entropy, "none", "mean −Σ_k p_k ln p_k, nats", SHANNON, reads=scoring,
                 bounds=(0.0, math.inf)),
    _calibration("entropy_normalised", rules.normalised_entropy, "none", "entropy / ln(classes)", SHANNON, reads=scoring),
    _calibration("mean_confidence", error.mean_confidence, "none", "mean of the largest probability", GUO),
    _calibration("accuracy", error.accuracy, "higher",
                 "share of pixels whose decision (most probable class; p ≥ 0.5 on binary maps) is right", GUO),
    _calibration("auroc", ranking.auroc, "higher", "P(p of foreground > p of background) + ½ P(equal)", HANLEY,
                 reads=foreground, details=ranking.auroc_details),
    _calibration("ap", ranking.average_precision, "higher",
                 "Σ_t (R_t − R_{t−1}) P_t over falling levels, ties together", DAVIS,
                 reads=foreground, details=ranking.average_precision_details),
    _calibration("auroc_error", ranking.auroc_error, "higher",
                 "P(confidence of a right pixel > of a wrong one) + ½ P(equal)", HENDRYCKS,
                 details=ranking.auroc_error_details),
    _calibration("aupr_error", ranking.aupr_error, "higher",
                 "average precision of finding errors by low confidence, ties together", HENDRYCKS,
                 details=ranking.aupr_error_details),
    _calibration("aupr_success", ranking.aupr_success, "higher",
                 "average precision of finding right pixels by high confidence, ties together", HENDRYCKS,
                 details=ranking.aupr_success_details),
    _calibration("fpr95_error", ranking.fpr95_error, "lower",
                 "share of right pixels flagged once at least 95 % of the errors are; errors positive, ties together",
                 "Corbière et al., NeurIPS 2019 (arXiv:1910.04851)", details=ranking.fpr95_error_details),
    _calibration("aurc", ranking.aurc, "lower",
                 "mean over pixels of the error rate among pixels at least as confident", GEIFMAN,
                 details=ranking.aurc_details),
    _calibration("eaurc", ranking.excess_aurc, "lower",
                 "aurc − (e + (1 − e) ln(1 − e)), e = error rate: aurc less that of the best ranking",
                 "Geifman, Uziel & El-Yaniv, ICLR 2019 (arXiv:1805.08206)", details=ranking.aurc_details),
    _calibration("augrc", ranking.augrc, "lower",
                 "area under accepted errors / N over coverage = (1 − auroc_error) acc (1 − acc) + ½ (1 − acc)²",
                 "Traub et al., NeurIPS 2024 (arXiv:2407.01032)", bounds=(0.0, 0.5), details=ranking.augrc_details),
    _calibration("pixel_accuracy", segmentation.pixel_accuracy, "higher", "Σ_k hit_k / Σ_k target_k", LONG,
                 reads=class_counts),
    _calibration("class_accuracy", segmentation.class_accuracy, "higher",
                 "mean of hit_k / target_k over the classes of the ground truth", LONG, reads=class_counts,
                 by_class=segmentation.recall_of_classes, details=segmentation.class_details),
    _calibration("miou", segmentation.mean_iou, "higher",
                 "mean of hit_k / (target_k + predicted_k − hit_k) over the classes in ground truth or prediction", LONG,
                 reads=overlaps, by_class=segmentation.iou_of_classes, details=segmentation.class_details),
    _calibration("fw_iou", segmentation.frequency_weighted_iou, "higher", "Σ_k (target_k/N) IoU_k", LONG,
                 reads=overlaps, details=segmentation.class_details),
    _calibration("mdice", segmentation.mean_dice, "higher",
                 "mean of 2 hit_k / (target_k + predicted_k) over the classes in ground truth or prediction", DICE,
                 reads=overlaps, by_class=segmentation.dice_of_classes, details=segmentation.class_details),
    _calibration("class_changed", segmentation.class_changed, "none",
                 "share of pixels whose most probable class is another one than before calibration",
                 "Guo et al., ICML 2017 (arXiv:1706.04599), section 4: temperature changes none, others may", reads=changes),
    _calibration("logit_mean_distance", logits.mean_distance, "none",
                 "mean of Σ_k (max_j l_j − l_k) / (K − 1) over the logits l", LIU, reads=logit_sums,
                 bounds=(0.0, math.inf)),
    _calibration("logit_max_distance", logits.max_distance, "none", "mean of max_j l_j − min_j l_j over the logits l", LIU,
                 reads=logit_sums, bounds=(0.0, math.inf)),
    _calibration("logit_margin", logits.margin, "none", "mean of the largest less the second largest logit", LIU,
                 reads=logit_sums, bounds=(0.0, math.inf)),
    _calibration("ood_auroc", ranking.area_under_roc, "higher",
                 "P(uncertainty of an OOD pixel > of an ID one) + ½ P(equal)", HENDRYCKS, reads=uncertainty,
                 scope="id-ood", per_image=False, details=ranking.ood_auroc_details),
    _calibration("ood_aupr_in", ranking.aupr_in, "higher",
                 "average precision of finding ID pixels by low uncertainty, ties together", HENDRYCKS, reads=uncertainty,
                 scope="id-ood", per_image=False, details=ranking.ood_aupr_in_details),
    _calibration("ood_aupr_out", ranking.average_precision_of, "higher",
                 "average precision of finding OOD pixels by high uncertainty, ties together", HENDRYCKS, reads=uncertainty,
                 scope="id-ood", per_image=False, details=ranking.ood_aupr_out_details),
    _calibration("ood_fpr95", ranking.fpr_at_tpr, "lower",
                 "share of ID pixels flagged once at least 95 % of the OOD pixels are; OOD positive, ties together",
                 "Liang et al., ICLR 2018 (arXiv:1706.02690)", reads=uncertainty, scope="id-ood", per_image=False,
                 details=ranking.ood_fpr95_details),
    _calibration("ood_entropy", rules.ood_entropy, "none", "mean −Σ_k p_k ln p_k over OOD pixels, nats", SHANNON,
                 reads=uncertainty, scope="ood", bounds=(0.0, math.inf)),
    _calibration("ood_ece", error.expected_calibration_error, "lower",
                 "ece over OOD pixels, whose truth is background everywhere", GUO,
                 BINS, binary_top_label, scope="ood", norm=error.ece_norm, details=error.ece_details),
    _calibration("ood_oe", error.overconfidence_error, "lower",
                 "oe over OOD pixels, whose truth is background everywhere", THULASIDASAN,
                 BINS, binary_top_label, scope="ood", norm=error.oe_norm, details=error.cut_details),
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
    _calibration("mbls_aece", mbls.interpolated_adaptive_error, "lower",
                 "equal-mass ECE, edges interpolated between sorted confidences; the smallest lies in no bin (lo, hi]", MBLS,
                 BINS, mbls.kept, interval=False, per_image=False),
    _calibration("mbls_cece", mbls.class_wise_error_up_to_largest_label, "lower",
                 "ece_classwise over the classes up to the largest label in the ground truth", MBLS,
                 BINS, classes, norm=mbls.class_wise_norm_up_to_largest_label,
                 details=mbls.class_wise_details_up_to_largest_label),
    _calibration("mbls_segmentation_ece", mbls.batch_error, "lower",
                 "mean of the ECEs of consecutive batches of images, weighted by pixels; pixels of class 0 left out", MBLS,
                 ("bins", "batch"), mbls.batches, rows="images", interval=False, per_image=False),
    _calibration("mbls_objects_ece", error.expected_calibration_error, "lower", "ece over the pixels whose class is not 0",
                 MBLS, BINS, mbls.objects, norm=error.ece_norm, details=error.ece_details),
    _calibration("mbls_kl", mbls.divergence_from_uniform, "none", "mean_k (ln(1/K) − ln(p_k + 1e-10)), nats", MBLS,
                 reads=mbls.uniform, bounds=(0.0, math.inf)),
    _calibration("mbls_l1", mbls.distance_from_uniform, "none", "mean_k |1/K − p_k|", MBLS, reads=mbls.uniform),
    _calibration("selectivecal_ece_rechosen", error.expected_calibration_error, "lower",
                 "ece with the class chosen again from float32 probabilities, where scaled logits can tie", SELECTIVECAL,
                 BINS, rechosen, norm=error.ece_norm, details=error.ece_details),
    _calibration("selectivecal_accuracy_rechosen", error.accuracy, "higher",
                 "accuracy with the class chosen again from float32 probabilities, where scaled logits can tie", SELECTIVECAL,
                 reads=rechosen),
    _calibration("torchmetrics_ece", left_closed.expected_error, "lower",
                 "Σ_b (n_b/N) |conf_b − acc_b|, bins [l, r), one more for exactly 1; p of foreground on binary maps",
                 TORCHMETRICS, BINS, left_closed.left_closed, norm=left_closed.expected_norm),
    _calibration("torchmetrics_rmsce", left_closed.root_mean_squared_error, "lower",
                 "√(Σ_b (n_b/N) (conf_b − acc_b)²), bins as torchmetrics_ece", TORCHMETRICS,
                 BINS, left_closed.left_closed, norm=left_closed.root_mean_squared_norm),
    _calibration("torchmetrics_mce", left_closed.maximum_error, "lower",
                 "max_b |conf_b − acc_b|, bins as torchmetrics_ece, however few pixels they hold", TORCHMETRICS,
                 BINS, left_closed.left_closed, interval=False, details=left_closed.maximum_details),
    _calibration("torchmetrics_class_accuracy", left_closed.class_accuracy, "higher",
                 "mean recall over the classes in ground truth or prediction, 0 where the ground truth lacks one",
                 TORCHMETRICS, reads=class_counts, by_class=left_closed.recall_of_met_classes,
                 details=segmentation.class_details),
)  # fmt: skip

METRICS: dict[str, Metric] = {metric.name: metric for metric in _REGISTRY}

__all__ = ["METRICS", "Metric"]
