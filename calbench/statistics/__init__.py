"""Sufficient statistics: arrays whose first axis is images, from which every metric follows without a pixel."""

from calbench.statistics.aslp import AslpRows
from calbench.statistics.bundle import Run, Statistics
from calbench.statistics.changes import ClassChanges
from calbench.statistics.class_counts import ClassCounts
from calbench.statistics.histogram import JointHistogram
from calbench.statistics.image_scores import ImageFacts, ImageScores
from calbench.statistics.kept import KeptScores
from calbench.statistics.logits import LogitSums, UniformSums
from calbench.statistics.reliability import ReliabilityCells
from calbench.statistics.rows import Rows
from calbench.statistics.scoring import ScoreSums
from calbench.statistics.uncertainty import Uncertainty

__all__ = [
    "AslpRows",
    "ClassChanges",
    "ClassCounts",
    "ImageFacts",
    "ImageScores",
    "JointHistogram",
    "KeptScores",
    "LogitSums",
    "ReliabilityCells",
    "Rows",
    "Run",
    "ScoreSums",
    "Statistics",
    "Uncertainty",
    "UniformSums",
]
