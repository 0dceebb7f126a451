"""Figures: functions of numbers and axes that return the axes; nothing here computes a statistic.

Functions that take `ax` draw on it and return it. Those whose name ends in `figure` make a whole figure, one or two columns
wide, with heading and legend, as reports show it.
"""

from calbench.report.figures.bars import region_bars, region_figure
from calbench.report.figures.curves import curves_figure, precision_recall, risk_coverage, roc, saliency_curves
from calbench.report.figures.density import joint_density, joint_figure
from calbench.report.figures.distributions import (
    distribution_figure,
    entropy_figure,
    entropy_histograms,
    per_image_distribution,
)
from calbench.report.figures.reliability import (
    class_grid_figure,
    overlay_figure,
    reliability_diagram,
    reliability_figure,
    reliability_overlay,
    save_reliability_diagram,
    score_histogram,
)
from calbench.report.figures.scatter import error_scatter, scatter_figure
from calbench.report.figures.training import (
    alpha_by_difficulty,
    alpha_figure,
    alpha_histogram,
    learning_curve,
    learning_curves_figure,
)

__all__ = [
    "alpha_by_difficulty",
    "alpha_figure",
    "alpha_histogram",
    "class_grid_figure",
    "curves_figure",
    "distribution_figure",
    "entropy_figure",
    "entropy_histograms",
    "error_scatter",
    "joint_density",
    "joint_figure",
    "learning_curve",
    "learning_curves_figure",
    "overlay_figure",
    "per_image_distribution",
    "precision_recall",
    "region_bars",
    "region_figure",
    "reliability_diagram",
    "reliability_figure",
    "reliability_overlay",
    "risk_coverage",
    "roc",
    "saliency_curves",
    "save_reliability_diagram",
    "scatter_figure",
    "score_histogram",
]
