"""Sufficient statistics: arrays whose first axis is images, from which every metric follows without a pixel."""

from calbench.statistics.aslp import AslpRows
from calbench.statistics.bundle import Run, Statistics
from calbench.statistics.histogram import JointHistogram
from calbench.statistics.image_scores import ImageFacts, ImageScores
from calbench.statistics.reliability import ReliabilityCells
from calbench.statistics.rows import Rows
from calbench.statistics.scoring import ScoreSums

__all__ = [
    "AslpRows",
    "ImageFacts",
    "ImageScores",
    "JointHistogram",
    "ReliabilityCells",
    "Rows",
    "Run",
    "ScoreSums",
    "Statistics",
]
